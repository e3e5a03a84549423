"""A recorded drive with its scans matched: odometry from keyframe to keyframe, and what the scans say of each step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.errors import UserError
from dsg_ros.interface import Parameter
from dsg_ros.io.ahead import reading
from dsg_ros.io.records import Topics
from dsg_ros.learning.block import Link
from dsg_ros.pipeline import Slam

log = logging.getLogger(__name__)

Advance = Callable[[int, int], None]
"""Told the number of scans done, and of those in the log."""

_TOLD_EVERY = 50
_NOT_NEEDED = {"grid.enabled": False, "refinement.enabled": False, "loops.every_keyframes": 1000}


@dataclass(frozen=True)
class MatchedDrive:
    """``links`` between neighbouring keyframes, n of them, each ending at one of ``stamps`` (n,) [ns]; ``metres`` by
    the raw odometry; ``counts`` of what was left out of the log, by cause.
    """

    links: tuple[Link, ...]
    stamps: NDArray[np.int64]
    metres: float
    planar: bool
    scans: int
    counts: Mapping[str, int]


def match_drive(
    path: Path,
    settings: config.Slam,
    topics: Topics,
    advance: Advance,
    parameters: Sequence[Parameter] = (),
) -> MatchedDrive:
    """Run the pipeline over the log at ``path``, from ``parameters``.

    It learns as it goes, so that odometry that is far off does not lead the matching astray.  Its map is not corrected
    by loop closures: links are between neighbours.  `UserError` for a path that is no log, or holds no usable scan or
    no odometry.
    """
    if settings.input.odometry == "none":
        raise UserError(f"{path}: it has no odometry: there is nothing to calibrate")
    settings = config.replace(settings, _NOT_NEEDED)
    with reading(path, topics, settings.input) as stream:
        first = next(stream, None)
        if first is None:
            raise UserError(f"{path}: no scan could be used: {dict(stream.counts) or 'the log holds none'}")
        slam = Slam(settings, parameters, shown=False)
        slam.warm_up(first.planar)
        slam.process(first)
        number = 1
        for number, frame in enumerate(stream, 2):
            slam.process(frame)
            if number % _TOLD_EVERY == 0:
                advance(number, len(stream))
        counts = dict(stream.counts)
    found = slam.saved_map()
    odometry, matches = found.rows["OdomSE3"], found.rows["Registration"]
    # Where the odometry was dead, scans alone told of the way: nothing can be learned of that.
    told = np.asarray(odometry["weight"], float) > 0.0
    increments = poses.exp(np.asarray(odometry["measured"], float).reshape(-1, 6) * told[:, None])
    roots = np.asarray(matches["sqrt_info"], float).reshape(-1, 6, 6) * told[:, None, None]
    links = tuple(
        Link(increment, float(seconds), relative, root.T @ root, rate)
        for increment, seconds, rate, relative, root in zip(
            increments,
            odometry["duration"],
            np.asarray(odometry["rate"], float).reshape(-1, 6),
            np.asarray(matches["measured"], float).reshape(-1, 7),
            roots,
            strict=True,
        )
    )
    metres = float(found.travel[-1]) if len(found.travel) else 0.0
    return MatchedDrive(links, found.stamps[1:], metres, first.planar, number, counts)
