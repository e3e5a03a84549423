"""Localisation in a finished map: find the robot, follow it scan by scan, notice when it is lost, find it again."""

from __future__ import annotations

import enum
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain, se3
from dsg_ros.interface import Hint
from dsg_ros.mapping import scan
from dsg_ros.mapping.local_map import LocalMapper, merged
from dsg_ros.mapping.reference import Reference
from dsg_ros.mapping.registration import Match
from dsg_ros.mapping.relocalisation import Found, Relocaliser, Verdict
from dsg_ros.mapping.scan_odometry import NO_STEP, PLACED, Step
from dsg_ros.mapping.tracking import Prediction, Tracked, Tracker

MAP_TRAVEL, MAP_TURN = 1.0, 0.5
"""Travel [m] and turn [rad] after which the local map is built of other keyframes."""

ALONE_RETRY = 1.0
"""Seconds after which a robot is searched for again, at most, that may have moved without anything that tells of it."""

HINT_RETRIES = 3
"""Searches in vain, after the first, near a place that was told, by a robot that does not move, or not that anything
tells of: then that place is not believed any more.
"""

AROUND = 15.0
"""Metres around where it was last within which a robot is looked for first that nothing told of for a while."""

HELD_SIGMA = 1e-3
"""Deviation [m, rad] told for directions that are not estimated, as the back end does."""

_log = logging.getLogger(__name__)


class State(enum.StrEnum):
    """What is known of the robot's place."""

    LOCALISING = "localising"
    LOCALISED = "localised"
    LOST = "lost"


@dataclass(frozen=True)
class Located:
    """``pose`` (7,) of the base, in map if ``state`` is localised, else from where the search began.

    ``covariance`` (6, 6) is in its tangent, ``inliers`` the share of the scan that fits the map.
    """

    state: State
    pose: NDArray[np.float64]
    covariance: NDArray[np.float64]
    inliers: float


class Localiser:
    """Follows a robot in ``reference``; ``predict`` calibrates an odometry increment, as for `Tracker`."""

    def __init__(
        self,
        settings: config.Slam,
        mapper: LocalMapper,
        reference: Reference,
        predict: Callable[[NDArray[np.float64], float], Prediction],
    ) -> None:
        self._settings = settings
        self._mapper = mapper
        self._reference = reference
        self._predict = predict
        self._relocaliser = Relocaliser(settings.relocalisation, mapper, reference)
        self.state = State.LOCALISING
        self._tracker = self._new_tracker()
        self._trackers: Counter[str] = Counter()
        self._covariance = np.eye(6)
        self._moving = np.diag(np.isin(np.arange(6), mapper.axes).astype(float))
        self._map_at = poses.IDENTITY
        self._unfit = 0
        self._hint: Hint | None = None
        self._retries = 0
        self._followed = False
        self._recent: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._searched = 0
        self.last: Found | None = None
        """The newest search."""
        self._counts = {
            "scans_localised": 0, "scans_not_localised": 0, "relocalised": 0, "lost": 0, "lost_from_sight": 0,
            "hints": 0, "hints_refused": 0, **{f"searches_{verdict.value}": 0 for verdict in Verdict},
        }  # fmt: skip

    @property
    def counts(self) -> dict[str, int]:
        """Totals since the start, by cause."""
        return {**self._counts, **{k: n + self._trackers[k] for k, n in self._tracker.counts.items()}}

    def hint(self, hint: Hint) -> None:
        """Look for the robot near ``hint`` from the next scan on, whatever was believed before."""
        self._counts["hints"] += 1
        self._hint, self._retries, self._followed = hint, 0, False
        if self.state is State.LOCALISED:
            self.state = State.LOCALISING
        self._begin_search()

    def lose_sight(self) -> None:
        """For a while nothing has told how the robot moved, neither odometry nor scans: it may be anywhere, or where it
        was.
        """
        self._counts["lost_from_sight"] += 1
        self.state, self._followed = State.LOST, False
        self._hint, self._retries = Hint(self._tracker.pose.copy(), AROUND, np.pi), 0
        self._begin_search()

    @property
    def step(self) -> Step:
        """As that of `Tracker`; not across a search."""
        if self._followed:
            return self._tracker.step
        return PLACED if self.state is State.LOCALISED else NO_STEP

    def track(
        self, points: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int, *, alone: bool = False
    ) -> Located:
        """Take a scan of ``points`` (n, 3) in the base frame, taken at ``stamp`` [ns] and raw ``odometry`` (7,);
        ``alone`` as for `Tracker`.
        """
        if self.state is not State.LOCALISED and not self._recent:
            self._start_tracker(points, odometry, stamp)
        before, localised = self._tracker.pose, self.state is State.LOCALISED
        tracked = self._tracker.track(points, odometry, stamp, alone=alone)
        if localised:
            self._follow(before, tracked, len(points))
        else:
            self._look(points, stamp, alone)
        known = self.state is State.LOCALISED
        self._followed = localised and known
        self._counts["scans_localised" if known else "scans_not_localised"] += 1
        return Located(self.state, self._tracker.pose, self._told_covariance(), tracked.inliers)

    def _follow(self, before: NDArray[np.float64], tracked: Tracked, count: int) -> None:
        """The scan was registered: carry the covariance on, and see whether it still fits."""
        s = self._settings.relocalisation
        if count >= self._settings.registration.least_points:
            self._unfit = self._unfit + 1 if tracked.inliers < s.lost_below else 0
        carried = se3.carried(se3.between(plain(before), plain(tracked.pose)), plain(self._covariance))
        predicted = carried + self._moving @ np.diag(tracked.sigmas**2) @ self._moving
        self._covariance = self._fused(predicted, tracked.information, tracked.inliers)
        if self._unfit >= s.lost_scans:
            self._counts["lost"] += 1
            self.state = State.LOST
            self._begin_search()
            return
        since = se3.log(se3.between(self._map_at, tracked.pose)).tolist()
        if math.hypot(*since[:3]) > MAP_TRAVEL or math.hypot(*since[3:]) > MAP_TURN:
            self._take_map(tracked.pose)

    def _look(self, points: NDArray[np.float64], stamp: int, alone: bool) -> None:
        """Search for the scan, and for those before it with it, whenever the robot has moved enough or for long not."""
        here, s = self._tracker.pose, self._settings
        if len(points) < s.registration.least_points:
            return  # it tells of no place
        fresh = not self._recent or self._apart(self._recent[-1][0], here)
        retry = min(ALONE_RETRY, s.relocalisation.retry) if alone else s.relocalisation.retry
        if not fresh and abs(stamp - self._searched) < retry * 1e9:
            return
        # Of scans from one place the newest says it all.
        former = self._recent if fresh else self._recent[:-1]
        self._recent = [*former, (here, points)][-s.relocalisation.keyframes :]
        self._searched = stamp
        trajectory = poses.between(here, np.array([pose for pose, _ in self._recent]))
        query = merged(trajectory, [cloud for _, cloud in self._recent])
        if len(self._recent) > 1:
            query = scan.thin(query, s.loops.query_cell, self._mapper.capacity)
        self.last = found = self._relocaliser.search(query, self._hint)
        self._counts[f"searches_{found.verdict.value}"] += 1
        if found.verdict is Verdict.ACCEPTED and found.match is not None:
            self._accept(found.match)
        elif self._hint is not None and self._in_vain(fresh, len(points)):
            self._counts["hints_refused"] += 1
            _log.warning("no scan fits the map near the place that was told, or where it was last: looking everywhere")
            self._hint = None
            self._begin_search()

    def _in_vain(self, fresh: bool, points: int) -> bool:
        """Whether it is enough of searches near the hint: the newest was of a ``fresh`` place or not, with so many
        ``points``.
        """
        self._retries += not fresh and points >= self._settings.relocalisation.least_points
        return self._retries >= HINT_RETRIES or len(self._recent) == self._settings.relocalisation.keyframes

    def _accept(self, match: Match) -> None:
        self.state = State.LOCALISED
        self._counts["relocalised"] += 1
        self._hint = None
        self._begin_search()
        self._unfit = 0
        self._tracker.move(plain(match.pose))
        self._take_map(match.pose)
        # What the scan does not say is known as well as the search can tell places apart.
        self._covariance = self._fused(self._moving, match.information, match.inliers)

    def _fused(
        self, covariance: NDArray[np.float64], information: NDArray[np.float64], inliers: float
    ) -> NDArray[np.float64]:
        """The covariance after a registration with this ``information`` (6, 6), discounted as a factor's is."""
        axes = np.ix_(self._mapper.axes, self._mapper.axes)
        factor = self._mapper.registration_information(information, inliers)
        out = np.zeros((6, 6))
        out[axes] = np.linalg.inv(np.linalg.inv(covariance[axes]) + factor[axes])
        return out

    def _told_covariance(self) -> NDArray[np.float64]:
        return self._covariance + (np.eye(6) - self._moving) * HELD_SIGMA**2

    def _take_map(self, pose: NDArray[np.float64]) -> None:
        self._map_at = plain(pose)
        self._tracker.set_map(self._reference.local_map(pose))

    def _begin_search(self) -> None:
        """Forget the scans gathered so far: those from before a jump would mislead."""
        self._recent = []

    def _start_tracker(self, points: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int) -> None:
        """A tracker without a map follows the odometry alone."""
        self._trackers += Counter(self._tracker.counts)
        self._tracker = self._new_tracker()
        self._tracker.track(points, odometry, stamp)

    def _new_tracker(self) -> Tracker:
        return Tracker(self._settings, self._mapper, self._predict)

    def _apart(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
        """Whether the robot moved by a keyframe's travel or turn."""
        s, since = self._settings.keyframes, se3.log(se3.between(plain(a), plain(b))).tolist()
        return math.hypot(*since[:3]) > s.distance or math.hypot(*since[3:]) > s.angle
