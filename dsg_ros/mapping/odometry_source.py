"""The odometry that scans are mapped with: the robot's own, or what scans tell where it has none, or that is dead or
silent.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain, se3
from dsg_ros.interface import Frame, OdometryTrack
from dsg_ros.mapping.scan_odometry import LONGEST, NO_STEP, ScanOdometry, Step
from dsg_ros.mapping.tracking import Prediction
from dsg_ros.state import State, nested, packed, part, unpacked

_log = logging.getLogger(__name__)

SAME = 1e-9
"""Odometry that stands still tells the same numbers, but for rounding [m, rad]."""
STILL, KEYFRAMES = 10, 2.0
"""Scans in a row with no motion at all, while these see the robot go as far as from one keyframe to the next so many
times, until odometry is dead.
"""
IN_VAIN = 40
"""Scans in a row with no motion, of which none fits the map, until that is told."""
AWAY = 5.0
"""Seconds in which nothing told of the way, neither odometry nor scans, after which the robot may be anywhere.  Of real
logs scans are up to 3.5 s apart while it moves by centimetres.
"""


class OdometrySource:
    """Hands on the robot's odometry, or goes on from it with `ScanOdometry` while that is dead: what it tells never
    jumps.

    ``calibrated(increment, seconds)`` is what is made of the robot's own, as for `Tracker`.
    """

    def __init__(self, settings: config.Slam, calibrated: Callable[[NDArray[np.float64], float], Prediction]) -> None:
        self._settings, self._calibrated = settings, calibrated
        self._absent = settings.input.odometry == "none"
        self.alone = self._absent
        """Whether scans alone tell how the robot moves, now."""
        self.raw = plain(poses.IDENTITY)
        """What the robot's own odometry was (7,) at the newest scan."""
        self.unseen = 0.0
        """Seconds up to the newest scan in which nothing told how the robot moved, if ``alone``."""
        self.counts = {"odometry_stands_still": 0, "odometry_fell_silent": 0, "motion_not_seen": 0}
        self._scans = ScanOdometry(settings.odometry)
        self._pose, self._from_raw = plain(poses.IDENTITY), plain(poses.IDENTITY)
        self._stamp: int | None = None
        self._still, self._in_vain = 0, 0
        self._seen = plain(poses.IDENTITY)
        """How the robot has moved since the odometry stands, as scans see it."""
        self._made_up, self._moves_again = self._absent, False

    def of(self, frame: Frame, step: Step) -> Frame:
        """``frame`` with the odometry to map it with; ``step`` is the motion between the two scans before."""
        step = step._replace(seen=step.seen or not self.alone)  # what odometry foretold is how the robot moved
        if self._moves_again:
            self._believe_again()
        raw, before = plain(frame.odometry.at(frame.stamp)), self._stamp
        stands = before is not None and _same(raw, self.raw)
        unseen = self._scans.unseen
        self._scans.saw(step)
        self._seen = se3.compose(self._seen, plain(step.motion)) if stands else plain(poses.IDENTITY)
        self._still = self._still + 1 if stands else 0
        if not self.alone and not frame.heard:
            self._give_up("odometry_fell_silent", "does not come any more")
        elif not self.alone and self._still >= STILL and self._went_on():
            still = f"stands still for {self._still} scans, while these see the robot move"
            self._give_up("odometry_stands_still", still)
        self._moves_again = self.alone and not self._absent and not stands and frame.heard
        track = frame.odometry
        seconds = 0.0 if before is None else max(0.0, (frame.stamp - before) * 1e-9)
        self.unseen = self._scans.unseen + seconds if self.alone else 0.0
        if self.alone:
            if unseen <= LONGEST < self._scans.unseen < math.inf:
                self._stop(frame.stamp)
            track = self._scans.track(self._pose, seconds, frame)
        elif not np.array_equal(self._from_raw, poses.IDENTITY):
            track = OdometryTrack(track.stamps, poses.compose(self._from_raw, track.poses))
        self.raw, self._pose, self._stamp = raw, plain(track.at(frame.stamp)), frame.stamp
        self._made_up = self._made_up or self.alone
        return frame if track is frame.odometry else dataclasses.replace(frame, odometry=track)

    @property
    def away(self) -> bool:
        """Whether the robot may be anywhere: for so long nothing told how it moves."""
        return self.unseen > AWAY

    def predict(self, increment: NDArray[np.float64], seconds: float) -> Prediction:
        """Increment (7,) of a measured one (7,) over ``seconds``, and its deviations (6,) [m, rad]; of one that was
        made up those of all the way since scans saw the robot last.
        """
        if not self.alone:
            return self._calibrated(increment, seconds)
        unseen = self._scans.unseen
        return increment, self._scans.sigmas(seconds + (unseen if unseen < math.inf else 0.0))

    def matched(self, inliers: float) -> None:
        """A share of ``inliers`` of the newest scan fits the map."""
        fits = inliers >= self._settings.registration.restart_below
        self._in_vain = self._in_vain + 1 if self._still and not fits else 0
        if self._in_vain == IN_VAIN and not self.alone:
            self.counts["odometry_stands_still"] += 1
            _log.warning(
                "the odometry has not moved for %d scans, of which none fits the map: it stands still while the robot "
                "moves, or all that is around has changed", IN_VAIN,
            )  # fmt: skip

    def begin_anew(self) -> None:
        """Time has passed unseen: what was made up of the way does not go on, nor what was seen of it."""
        self._pose, self._from_raw, self._seen = (plain(poses.IDENTITY) for _ in range(3))
        self._stamp, self._still, self._in_vain = None, 0, 0
        self._scans.saw(NO_STEP)

    def made_up(self, seconds: float) -> NDArray[np.float64] | None:
        """Deviations (6,) [m, rad] of what is told of the way from the keyframe before to a new one, in ``seconds``,
        where scans told of it; None where the robot's own odometry did.
        """
        made_up, self._made_up = self._made_up, self.alone
        return self._scans.sigmas(seconds) if made_up else None

    def _went_on(self) -> bool:
        moved, s = se3.log(self._seen).tolist(), self._settings.keyframes
        return math.hypot(*moved[:3]) > KEYFRAMES * s.distance or math.hypot(*moved[3:]) > KEYFRAMES * s.angle

    def _give_up(self, cause: str, what: str) -> None:
        self.alone = True
        self.counts[cause] += 1
        _log.warning(
            "the odometry %s: until it moves, the robot is taken to go on as scans see it move, and nothing is learned",
            what,
        )

    def _stop(self, stamp: int) -> None:
        self.counts["motion_not_seen"] += 1
        _log.warning(
            "at %.3f s: for %.0f s scans have had too few points to see how the robot moves, and no odometry tells: it "
            "is taken to stand; after %.0f s it is looked for", stamp * 1e-9, self._scans.unseen, AWAY,
        )  # fmt: skip

    def _believe_again(self) -> None:
        """From the newest scan on: how far the odometry has moved up to it may be all that it did not tell before."""
        self.alone = self._moves_again = False
        self._in_vain = 0
        self._from_raw = se3.compose(self._pose, se3.between(self.raw, plain(poses.IDENTITY)))
        _log.warning("the odometry moves again, and is believed again")

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        facts = {
            "alone": self.alone, "stamp": self._stamp, "still": self._still,
            "in_vain": self._in_vain, "made_up": self._made_up, "moves_again": self._moves_again,
            "counts": self.counts,
        }  # fmt: skip
        told = np.stack([self.raw, self._pose, self._from_raw, self._seen])
        return {"facts": packed(facts), "poses": told, **nested(scans=self._scans.state())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        facts = unpacked(state["facts"])
        self.alone, self._stamp, self._made_up = facts["alone"], facts["stamp"], facts["made_up"]
        self._still, self._in_vain = facts["still"], facts["in_vain"]
        self._moves_again, self.counts = facts["moves_again"], facts["counts"]
        self.raw, self._pose, self._from_raw, self._seen = (plain(pose) for pose in state["poses"])
        self._scans.restore(part(state, "scans"))


def _same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether two poses (7,) are, but for rounding; asked with every scan, of numbers too few for arrays."""
    return all(abs(one - other) < SAME for one, other in zip(a.tolist(), b.tolist(), strict=True))
