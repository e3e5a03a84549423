"""What is known between keyframes, gathered until it makes a block to learn from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.theta import SPECS
from dsg_ros.interface import OdometryTrack, ReferencePose, ReferencePosition, Told
from dsg_ros.learning.block import Link, link_columns, links_of_columns
from dsg_ros.learning.leg import PLANAR, Leg
from dsg_ros.learning.positions import Positions
from dsg_ros.learning.reference import Expected, Reference
from dsg_ros.state import State, nested, part

Vector = NDArray[np.float64]
Predict = Callable[[Vector, float], tuple[Vector, Vector]]
"""Calibrated increment (7,) and its deviations (6,) of a measured increment (7,) over some seconds."""

_log = logging.getLogger(__name__)


class Links:
    """Links of neighbouring keyframes, the newest block's so far; ``size`` of them make a block.

    ``counts`` are counted up: links_refused, and with a reference those of `Reference`, or of `Positions` once it turns
    out to tell these.
    """

    def __init__(self, whole: config.Slam, counts: dict[str, int]) -> None:
        settings = whole.learning
        self._whole = whole
        self._size = settings.every_keyframes
        self._counts = counts
        self._links: list[Link] = []
        self._last_key: int | None = None
        self._reference = Reference(settings, counts) if settings.teacher != "scans" else None
        self._positions = Positions(whole, counts) if settings.teacher != "scans" else None
        self._of_positions = False

    def choose(self, planar: bool) -> None:
        """The scans to come are from a LaserScan, or not: a reference is asked for what these can tell."""
        if self._reference:
            self._reference.axes = PLANAR if planar else np.arange(6)
        if self._positions:
            self._positions.planar = planar

    def hear(self, told: Sequence[Told], now: int, track: OdometryTrack | None = None) -> None:
        """Poses or positions from elsewhere, for odometry to be held to; ``now`` is the newest scan's stamp [ns], and
        ``track`` the raw odometry around it.
        """
        if self._reference is None or self._positions is None:
            return
        if track is not None:
            self._positions.follow(track)
        positions = [each for each in told if isinstance(each, ReferencePosition)]
        if positions:
            self._positions.hear(positions, now)
            if not self._of_positions:
                self._of_positions = True
                for key, link in self._reference.give_up():  # they wait for poses, and there are none
                    self._beside_positions(key, link)
        if len(positions) < len(told):
            self._reference.hear([each for each in told if isinstance(each, ReferencePose)], now)

    def add(self, key: int, link: Link, start: int, end: int, predict: Predict) -> None:
        """What is known between keyframes ``key - 1`` and ``key``, which are stamped ``start`` and ``end`` [ns].

        A link that is not finite, or that does not follow the one before, ends the block begun: it is counted, and the
        next block starts behind it.  Where a reference teaches it is used once that has come so far.
        """
        if self._reference is None:
            self._take(key, link)
            return
        if self._positions and self._of_positions:
            self._positions.expect(key, link, start, end)
            self._positions.gather(end, predict)
            self._beside_positions(key, link)
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

    def leg(self) -> Leg | None:
        """The oldest leg of positions that is complete, which is handed out once."""
        return self._positions.leg() if self._positions else None

    def interrupt(self) -> None:
        """What comes next does not follow what came before: the block begun is dropped, and nothing is wrong."""
        self._links.clear()
        self._last_key = None
        if self._reference:
            self._reference.forget()
        if self._positions:
            self._positions.forget()

    def facts(self) -> dict[str, int | bool | None]:
        """The part of the state that is numbers: the last key, and whether positions teach."""
        return {"last_key": self._last_key, "of_positions": self._of_positions}

    def state(self) -> State:
        """As `dsg_ros.state` says: the block begun, and with a reference what it told and what waits for it."""
        found: State = {**link_columns(self._links)}
        if self._reference and self._positions:
            found |= nested(reference=self._reference.state(), positions=self._positions.state())
        return found

    def restore(self, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Take over what `state` and `facts` gave."""
        self._last_key, self._of_positions = facts["last_key"], facts["of_positions"]
        self._links = links_of_columns(state)
        if self._reference and self._positions:
            self._reference.restore(part(state, "reference"))
            self._positions.restore(part(state, "positions"))

    def _beside_positions(self, key: int, link: Link) -> None:
        """A link as the scans tell it makes blocks of its own, where they teach too."""
        if self._whole.learning.teacher == "both":
            self._take(key, link)

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
