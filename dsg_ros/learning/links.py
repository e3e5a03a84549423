"""What is known between keyframes, gathered until it makes a block to learn from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.theta import SPECS
from dsg_ros.interface import ReferencePose
from dsg_ros.learning.block import Link
from dsg_ros.learning.reference import Expected, Reference
from dsg_ros.state import State

Vector = NDArray[np.float64]
Predict = Callable[[Vector, float], tuple[Vector, Vector]]
"""Calibrated increment (7,) and its deviations (6,) of a measured increment (7,) over some seconds."""

COLUMNS = ("measured", "seconds", "relative", "information", "rate", "reference", "reference_information")
"""Fields of a `Link`, in their order."""

_log = logging.getLogger(__name__)


class Links:
    """Links of neighbouring keyframes, the newest block's so far; ``size`` of them make a block.

    ``counts`` are counted up: links_refused, and with a reference those of `Reference`.
    """

    def __init__(self, settings: config.Learning, counts: dict[str, int]) -> None:
        self._size = settings.every_keyframes
        self._counts = counts
        self._links: list[Link] = []
        self._last_key: int | None = None
        self._reference = Reference(settings, counts) if settings.teacher != "scans" else None

    def choose(self, planar: bool) -> None:
        """The scans to come are from a LaserScan, or not: a reference is asked for what these can tell."""
        if self._reference:
            self._reference.axes = np.array([0, 1, 5]) if planar else np.arange(6)

    def hear(self, told: Sequence[ReferencePose], now: int) -> None:
        """Poses from elsewhere, for odometry to be held to; ``now`` is the newest scan's stamp [ns]."""
        if self._reference and told:
            self._reference.hear(told, now)

    def add(self, key: int, link: Link, start: int, end: int, predict: Predict) -> None:
        """What is known between keyframes ``key - 1`` and ``key``, which are stamped ``start`` and ``end`` [ns].

        A link that is not finite, or that does not follow the one before, ends the block begun: it is counted, and the
        next block starts behind it.  Where a reference teaches it is used once that has come so far.
        """
        if self._reference is None:
            self._take(key, link)
            return
        self._reference.expect(key, link, start, end, _expected(link, predict))
        for number, taught in self._reference.taught(end):
            self._take(number, taught)

    def block(self) -> list[Link] | None:
        """The links of the oldest block that is complete, which they leave."""
        if len(self._links) < self._size:
            return None
        taken = self._links[: self._size]
        del self._links[: self._size]
        return taken

    def interrupt(self) -> None:
        """What comes next does not follow what came before: the block begun is dropped, and nothing is wrong."""
        self._links.clear()
        self._last_key = None
        if self._reference:
            self._reference.forget()

    def facts(self) -> dict[str, int | None]:
        """The part of the state that is numbers: the last key, and how many links wait for a reference."""
        return {"last_key": self._last_key, "waiting": self._reference.waiting if self._reference else 0}

    def state(self) -> State:
        """As `dsg_ros.state` says: the block begun, a column a field."""
        return {name: np.array([getattr(link, name) for link in self._links]) for name in COLUMNS}

    def restore(self, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Take over what `state` and `facts` gave."""
        self._last_key = facts["last_key"]
        if facts["waiting"]:  # for poses that another process heard
            self._counts["reference_missing"] += facts["waiting"]
            self._last_key = None
        columns = zip(*(state[name] for name in COLUMNS), strict=True)
        self._links = [Link(measured, float(seconds), *rest) for measured, seconds, *rest in columns]

    def _take(self, key: int, link: Link) -> None:
        follows = self._last_key is None or key == self._last_key + 1
        self._last_key = key
        if not (follows and link.valid):
            self._counts["links_refused"] += 1 + len(self._links)
            why = "has invalid numbers" if follows else "does not follow the one before"
            _log.warning("learning: keyframe %d %s; %d links not used", key, why, 1 + len(self._links))
            self._links.clear()
            return
        self._links.append(link)


def _expected(link: Link, predict: Predict) -> Expected:
    """What the odometry makes of a link that is finite, and how far the priors of theta let it be off."""
    if not link.valid:
        return Expected(poses.IDENTITY, np.full(6, np.inf), (np.inf, np.inf))
    pose, sigmas = predict(link.measured, link.seconds)
    told = poses.log(pose)
    way, turn = float(np.linalg.norm(told[:3])), float(np.linalg.norm(told[3:]))
    by_way, by_turn = SPECS["scale"][0].prior_sigma, SPECS["lever"][0].prior_sigma
    return Expected(pose, sigmas, (3 * (by_way * way + by_turn * turn), 3 * by_way * (way + turn)))
