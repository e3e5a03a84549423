"""Scan after scan: predict by calibrated odometry, register to the local map, look further when the match is poor."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain, se3
from dsg_ros.mapping.local_map import LocalMap, LocalMapper
from dsg_ros.mapping.registration import Match
from dsg_ros.mapping.scan_odometry import PLACED, Step
from dsg_ros.state import State, packed, unpacked

_log = logging.getLogger(__name__)

PAST = 12
"""Scans back to which odometry may have come late."""
APART_TRANSLATION, APART_ROTATION = 0.1, 0.09
"""How far [m, rad] apart two starts are, to be two."""
ALL_IN_DOUBT = 30
"""First matches that are all in doubt before that is told: then it is the settings or the sensor, not the place."""

ALONG = (0.0, 0.5, 1.5, 2.0)
"""Shares of a way that was made up while nothing was seen, at whose ends a scan is matched besides."""

Prediction = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Calibrated increment (7,) and its standard deviations (6,)."""


@dataclass(frozen=True)
class Tracked:
    """``pose`` (7,) base in map; ``own`` (7,) the scan's opinion of it, without the odometry's.

    ``information`` (6, 6) is that of ``own``, ``innovation`` (6,) the tangent from the predicted pose to it and
    ``sigmas`` (6,) the prediction's deviations [m, rad].  ``doubtful``: odometry failed at this scan or a few before,
    and may be making up for it.
    """

    pose: NDArray[np.float64]
    own: NDArray[np.float64]
    information: NDArray[np.float64]
    innovation: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    inliers: float
    restarted: bool
    doubtful: bool


class Tracker:
    """Keeps the pose of the last scan and the local map it is matched to.

    ``predict(increment, seconds)`` maps a measured odometry increment to the calibrated one and its deviations.
    """

    def __init__(
        self, settings: config.Slam, mapper: LocalMapper, predict: Callable[[NDArray[np.float64], float], Prediction]
    ) -> None:
        self._settings = settings
        self._mapper = mapper
        self._predict = predict
        self._map: LocalMap | None = None
        self._odometry: NDArray[np.float64] | None = None
        self._stamp, self._seconds, self._seen = 0, 0.0, True
        self.pose = poses.IDENTITY.copy()
        self._sight = poses.IDENTITY.copy()  # where the last scan was that was matched
        # Odometry and pose of the scans before the newest, in the map as it was then.
        self._past: deque[tuple[NDArray[np.float64], NDArray[np.float64]]] = deque(maxlen=PAST)
        self._doubtful = 0
        self._matches = 0
        self.torn = False
        """Whether a scan fitted nowhere around, and none since then well: odometry alone ties them to the map.  Who
        makes note of it sets it back.
        """
        self.open = (0, np.zeros(6))
        """How many directions the newest scan left to odometry, a corridor's for example, and the widest: a tangent
        (6,) of length 1 [m, rad] in the base frame; zeros.
        """
        # Of the pose in the local map, along the axes that scans observe.
        self._moving = np.diag(np.isin(np.arange(6), mapper.axes).astype(float))
        self._covariance, self._matched = np.zeros((6, 6)), np.zeros((6, 6))
        self.counts = {
            "restarts_tried": 0, "restarts_taken": 0, "scans_on_odometry_alone": 0, "matches_in_doubt": 0,
            "scans_with_open_directions": 0, "scans_fitting_nowhere": 0,
        }  # fmt: skip

    def set_map(self, local_map: LocalMap | None) -> None:
        """Match the scans to come against ``local_map``; None: there is nothing, odometry alone leads on."""
        self._map = local_map

    def move(self, pose: NDArray[np.float64]) -> None:
        """Correct the pose of the last scan (after a solve); what went before moves along."""
        motion = se3.compose(pose, se3.between(self.pose, plain(poses.IDENTITY)))
        self._past = deque(((odometry, se3.compose(motion, old)) for odometry, old in self._past), maxlen=PAST)
        self.pose, self._sight = pose, se3.compose(motion, self._sight)

    def place(self, pose: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int) -> None:
        """Go on from ``pose`` (7,) at raw ``odometry`` (7,) and ``stamp`` [ns], and forget what was before."""
        self.pose, self._odometry, self._stamp = plain(pose), plain(odometry), stamp
        self._past.clear()
        self._sight, self._seen = self.pose, True
        self._doubtful = 0
        self._covariance = np.zeros((6, 6))

    @property
    def step(self) -> Step:
        """The motion between the last two scans; none before there are two."""
        if not self._past:
            return PLACED
        return Step(se3.between(self._past[-1][1], self.pose), self._seconds, self._seen)

    @property
    def unmatched(self) -> NDArray[np.float64]:
        """What the newest scan's pose may be off by because it was not matched, a covariance (6, 6) in its tangent."""
        return np.zeros((6, 6)) if self._seen else self._covariance

    def state(self) -> State:
        """As `dsg_ros.state` says, without the local map: that is made of keyframes."""
        past = [[odometry, pose] for odometry, pose in self._past]
        facts = {
            "stamp": self._stamp, "seconds": self._seconds, "seen": self._seen,
            "doubtful": self._doubtful, "torn": self.torn, "counts": self.counts,
        }  # fmt: skip
        odometry = [] if self._odometry is None else [self._odometry]
        return {
            "pose": np.stack([self.pose, self._sight]),
            "odometry": np.array(odometry).reshape(-1, 7),
            "past": np.array(past).reshape(-1, 2, 7),
            "covariance": np.stack([self._covariance, self._matched]),
            "facts": packed(facts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        facts = unpacked(state["facts"])
        self.pose, self._sight = (plain(each) for each in np.array(state["pose"]))
        self._odometry = plain(state["odometry"][0]) if len(state["odometry"]) else None
        self._past = deque(((plain(odometry), plain(pose)) for odometry, pose in state["past"]), maxlen=PAST)
        self._covariance, self._matched = (plain(each) for each in np.array(state["covariance"]))
        self._stamp, self._seconds, self._seen = facts["stamp"], facts["seconds"], facts["seen"]
        self._doubtful, self.counts = facts["doubtful"], facts["counts"]
        self.torn = facts["torn"]

    def track(
        self, points: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int, *, alone: bool = False
    ) -> Tracked:
        """Pose of a scan of ``points`` (n, 3) in the base frame, taken at ``stamp`` [ns] and raw ``odometry`` (7,);
        ``alone`` where no odometry tells of the motion to it, and that one was made up.
        """
        odometry = plain(odometry)
        if self._odometry is None:
            measured, seconds = poses.IDENTITY.copy(), 0.0
        else:
            # Stamps of some logs run backwards; an increment over no time has no bias, all that time is used for.
            measured, seconds = se3.between(self._odometry, odometry), max(0.0, (stamp - self._stamp) * 1e-9)
            self._past.append((self._odometry, self.pose))
        self._odometry, self._stamp = odometry, stamp
        self._seconds = seconds
        increment, sigmas = self._predict(measured, seconds)
        prediction = se3.compose(self.pose, increment)
        # Deviations of a way that was made up are those since a scan was matched, not since the last.
        before = self._matched if alone and not self._seen else self._covariance
        self._matched = se3.carried(plain(increment), plain(before))
        self._covariance = self._moving @ (self._matched + np.diag(sigmas**2)) @ self._moving
        starts = self._starts(prediction) if alone else prediction[None]
        self._seen = len(points) >= self._settings.registration.least_points
        tracked = self._match(points, prediction, increment, sigmas, starts)
        self.pose = tracked.pose
        self._sight = self.pose if self._seen else self._sight
        return tracked

    def _match(
        self,
        points: NDArray[np.float64],
        prediction: NDArray[np.float64],
        increment: NDArray[np.float64],
        sigmas: NDArray[np.float64],
        starts: NDArray[np.float64],
    ) -> Tracked:
        s = self._settings.registration
        if self._map is None or len(points) < s.least_points:
            if self._past and not self._seen:
                self.counts["scans_on_odometry_alone"] += 1
            self.open = (0, np.zeros(6))
            nothing = np.zeros((6, 6))
            return Tracked(prediction, prediction, nothing, nothing[0], sigmas, 0.0, False, self._doubtful > 0)
        told = np.diag(1.0 / sigmas**2)
        match = self._mapper.register(self._map, points, starts, prediction, told)
        held_to, prior, restarted = prediction, told, False
        if match.inliers < s.restart_below or self._contradicts(prediction, told, match.pose):
            other = self._other_start(points, prediction, increment, told, match)
            if other is not None:
                (match, held_to, prior), restarted = other, True
            if match.inliers < s.restart_below:
                self.counts["scans_fitting_nowhere"] += 1
                self.torn = True
        if match.inliers > s.restart_least:
            self.torn = False
        own, information, count, widest = self._mapper.opinion(match, held_to, prior)
        self.open = count, widest
        self.counts["scans_with_open_directions"] += count > 0
        # A match in doubt is weighed by all that is known: one step of the odometry is exact beside it, many are not.
        predicted = np.diag(1.0 / np.diag(prior)) if restarted else self._covariance
        weighed, self._covariance = self._mapper.weighed(own, information, match.inliers, held_to, predicted)
        in_doubt = self._mapper.doubt(match.inliers) > 0.0
        self._matches += 1
        self.counts["matches_in_doubt"] += in_doubt
        if self.counts["matches_in_doubt"] == self._matches == ALL_IN_DOUBT:
            self._tell_of_doubt()
        pose = weighed if in_doubt else match.pose
        innovation = se3.log(se3.between(prediction, own))
        doubtful, self._doubtful = self._doubtful > 0, max(0, self._doubtful - 1)
        return Tracked(pose, own, information, innovation, sigmas, match.inliers, restarted, doubtful)

    def _other_start(
        self,
        points: NDArray[np.float64],
        prediction: NDArray[np.float64],
        increment: NDArray[np.float64],
        told: NDArray[np.float64],
        match: Match,
    ) -> tuple[Match, NDArray[np.float64], NDArray[np.float64]] | None:
        """A match better than ``match`` from elsewhere than where odometry leads, where it is held to (7,) and by what
        information (6, 6); None where none is to be believed.  ``told`` (6, 6) is the information of the prediction.
        """
        assert self._map is not None, "a scan is being matched"
        s = self._settings.registration
        loose = told * s.restart_prior
        self.counts["restarts_tried"] += 1
        bases = [prediction, *self._elsewhere(prediction, increment)]
        found = [
            (self._mapper.register(self._map, points, self._mapper.fan(base), base, loose), base) for base in bases
        ]
        other, base = max(found, key=lambda tried: tried[0].inliers)
        explained = any(not _apart(base, other.pose, 2.0) for base in bases[1:] if _apart(prediction, base))
        # A match that is good in itself need only be better.  Outdoors others turn up in any direction: they must
        # be far better, and where odometry would be if it had failed in one of the known ways, or where every start
        # leads.  They need not be good then: much of what is seen after a wide turn no map has yet.
        sure = other.inliers > s.restart_least and other.inliers > match.inliers + s.restart_gain
        several = any(_apart(prediction, base) for base in bases)
        alike = several and all(not _apart(other.pose, each.pose) for each, _ in found)
        agreed = other.inliers > s.restart_agreed and alike
        if not sure and not ((explained or agreed) and other.inliers > match.inliers + s.restart_leap):
            return None
        self.counts["restarts_taken"] += 1
        # Believed, the odometry would bend all that the scans say of this step (Seattle log: a turn of 81 deg while it
        # stands still).
        if explained or self._contradicts(prediction, told, other.pose):
            self._doubtful = PAST
        return other, base, loose

    def _contradicts(
        self, prediction: NDArray[np.float64], told: NDArray[np.float64], found: NDArray[np.float64]
    ) -> bool:
        """Whether the pose ``found`` (7,) is too far from the ``prediction`` for the information ``told`` (6, 6)."""
        away = se3.log(se3.between(prediction, found))
        return bool(away @ told @ away > self._settings.registration.restart_beyond**2)

    def _starts(self, prediction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where to match from (s, 7) without odometry: also from where the robot was, as it may have stopped, and from
        as far on as the step before, as stamps may be unsteady; after scans that saw nothing also along that way.
        """
        if not self._past:
            return prediction[None]
        if not self._seen:
            way = se3.log(se3.between(self._sight, prediction))
            return np.stack([prediction, *(se3.compose(self._sight, se3.exp(share * way)) for share in ALONG)])
        before = self._past[-1][1]
        starts = [prediction, before]
        if len(self._past) > 1:
            starts.append(se3.compose(before, se3.between(self._past[-2][1], before)))
        return np.stack(starts)

    def _tell_of_doubt(self) -> None:
        _log.warning(
            "each of the first %d matches is in doubt, and odometry is believed more: most points do not fit the map "
            "within registration.inlier_distance, or what the noise of the ranges makes of it (%.2g m)%s",
            ALL_IN_DOUBT,
            self._mapper.inlier_distance,
            "" if self._mapper.planar else "; for a 3D lidar there is config/lidar3d.yaml",
        )

    def _elsewhere(self, prediction: NDArray[np.float64], increment: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Where else the robot may be, as odometry is known to fail.

        It reports forward motion while the robot reverses.  It stands still while the robot moves: then the robot went
        on as it did before.  And it comes late, all in one increment of which the scans have seen a part: then what it
        says is right from some earlier scan on.
        """
        before = self.pose
        reversed_step = increment.copy()
        reversed_step[:3] *= -1.0
        found = [se3.compose(before, reversed_step)]
        if len(self._past) > 1:
            step = se3.between(self._past[-2][1], before)
            # Odometry that tells of more way and of more turn than before does not stand still.
            if any(told < made for told, made in zip(_size(increment), _size(step), strict=True)):
                found.append(se3.compose(before, step))
        assert self._odometry is not None, "a scan is being matched"
        newest = self._odometry
        for odometry, pose in list(self._past)[:-1]:
            late = se3.compose(pose, se3.between(odometry, newest))
            if _apart(prediction, late):
                found.append(late)
        return found


def _apart(one: NDArray[np.float64], other: NDArray[np.float64], times: float = 1.0) -> bool:
    """Whether two poses (7,) are further apart than what makes them different starts."""
    way, turn = _size(se3.between(one, other))
    return way > times * APART_TRANSLATION or turn > times * APART_ROTATION


def _size(motion: NDArray[np.float64]) -> tuple[float, float]:
    """Way and turn [m, rad] of a motion (7,)."""
    tangent = se3.log(plain(motion)).tolist()
    return math.hypot(*tangent[:3]), math.hypot(*tangent[3:])
