"""A map that is gone on with: where in it is the robot now?

It may have stood or moved meanwhile, and its odometry may have begun anew.  So the first scan is registered at two
places: where the robot was last, and where odometry that went on leads from there, if the robot can have come so far.
What fits one of them, not nearly as well the other, and nowhere around better, is believed.  Else, where the odometry
tells of more way than the robot can have made since then, it did not begin anew, and is followed: the robot may be
where no map is yet.  Else the robot is looked for in the whole map, with the scans to come, as one that localises in a
finished map.  Until it is found the map does not grow.

Where no odometry tells of the way, made-up motions say nothing of where the robot is: it is looked for where it was
last, where scans leave no direction open, and in the whole map.

One that seemed to be carried off may not have been: scans also change when the robot begins to turn, if the times of
their beams are wrong.  So it is looked for where its odometry leads as well, with each scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain
from dsg_ros.interface import Hint
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.localiser import AROUND, Localiser, Located, State
from dsg_ros.mapping.loop_closure import HELD
from dsg_ros.mapping.reference import Reference
from dsg_ros.mapping.registration import Match
from dsg_ros.mapping.relocalisation import Relocaliser
from dsg_ros.mapping.tracking import Prediction
from dsg_ros.mapping.warm_up import compile_localiser

NEAR, BETTER = 0.8, 0.95
"""Inlier share of a planar match where the robot should be, at least; and of any, as a share of the best within
`AROUND`.
"""

FASTER, MARGIN = 1.5, 1.0
"""A robot may become so many times faster than it has been, and slip or be pushed so far [m]."""

SAME_DISTANCE, SAME_TURN = 0.2, 0.05
"""Matches closer than this [m, rad] are one place."""


@dataclass(frozen=True)
class Last:
    """The robot when the state was kept: ``pose`` (7,) in map at raw ``odometry`` (7,) and ``stamp`` [ns]; the highest
    ``speed`` [m/s] it had shown.
    """

    pose: NDArray[np.float64]
    odometry: NDArray[np.float64]
    stamp: int
    speed: float


@dataclass(frozen=True)
class Resumed:
    """Where the robot was found: ``pose`` (7,) in map, what the scan says of it, ``information`` (6, 6), with its share
    of ``inliers``, the number of the ``keyframe`` nearest, and ``how`` in words.
    """

    pose: NDArray[np.float64]
    information: NDArray[np.float64]
    inliers: float
    keyframe: int
    how: str


class Resumption:
    """Finds the robot in the map of keyframes at ``trajectory`` (k, 7) with ``clouds`` (n, 3), k >= 1.

    ``predict`` calibrates an odometry increment, as for `Tracker`.  If the robot seems to be ``carried`` off, its
    odometry went on, but says nothing until scans say that it was not.
    """

    def __init__(
        self,
        settings: config.Slam,
        mapper: LocalMapper,
        trajectory: NDArray[np.float64],
        clouds: Sequence[NDArray[np.float64]],
        last: Last,
        predict: Callable[[NDArray[np.float64], float], Prediction],
        carried: bool = False,
    ) -> None:
        self._settings, self._mapper, self._predict = settings, mapper, predict
        self.last, self.carried, self._clouds = last, carried, clouds
        reach = settings.input.max_range + settings.relocalisation.keyframes * settings.keyframes.distance
        self._reference = Reference(settings.relocalisation, mapper, trajectory, clouds, reach)
        self._localiser = self._new_localiser()
        self._relocaliser = Relocaliser(settings.relocalisation, mapper, self._reference)
        self._tried_near = False
        self._way_told = True
        self.followed = False
        """Whether the odometry went on, and is to be followed."""
        self.located: Located | None = None
        """What is known after the newest scan."""

    def warm_up(self) -> None:
        """Compile what a search takes."""
        longest = int(np.argmax([len(cloud) for cloud in self._clouds]))
        compile_localiser(self._new_localiser(), self._clouds[longest], plain(self._reference.trajectory[longest]))

    def _new_localiser(self) -> Localiser:
        return Localiser(self._settings, self._mapper, self._reference, self._predict)

    def _odometry_went_on(self, odometry: NDArray[np.float64], stamp: int) -> bool:
        """Whether raw ``odometry`` (7,) at ``stamp`` [ns] cannot have begun at zero since the state was kept."""
        may = self._odometry_may_have_gone_on(odometry, stamp)
        return may and float(np.linalg.norm(odometry[:3])) > self._within_reach(stamp)

    def _odometry_may_have_gone_on(self, odometry: NDArray[np.float64], stamp: int) -> bool:
        """Whether the robot can have come so far since."""
        since = float(np.linalg.norm(odometry[:3] - self.last.odometry[:3]))
        return stamp > self.last.stamp and since < self._within_reach(stamp)

    def _within_reach(self, stamp: int) -> float:
        """How far the robot can have come until ``stamp`` [m]."""
        return FASTER * self.last.speed * max(0.0, (stamp - self.last.stamp) * 1e-9) + MARGIN

    def find(
        self, points: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int, *, alone: bool = False
    ) -> Resumed | None:
        """Take a scan of ``points`` (n, 3) in the base frame at raw ``odometry`` (7,); where the robot is, if known.

        ``alone`` where that odometry was made up: from then on nothing is made of where it leads.
        """
        self._way_told = self._way_told and not alone
        if not self._tried_near and len(points) >= self._settings.relocalisation.least_points:
            self._tried_near = True
            if (near := self._near(points, odometry, stamp)) is not None:
                return near
        if self._way_told and self._leads(points, odometry, stamp):
            self.followed = True
            return None
        self.located = self._localiser.track(points, odometry, stamp, alone=alone)
        found = self._localiser.last
        if self.located.state is not State.LOCALISED or found is None or found.match is None:
            return None
        return self._resumed(found.match, "by a search of the whole map")

    def _leads(self, points: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int) -> bool:
        """Whether the robot is where its odometry leads."""
        if self.carried:
            return self._was_not_carried(points, odometry, stamp)
        return self._odometry_went_on(odometry, stamp)

    def _near(self, points: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int) -> Resumed | None:
        """Where the robot is, if it is near a place where it should be, and nowhere in the map is better."""
        s, last = self._settings.relocalisation, self.last
        starts = {"where it was last": last.pose}
        if self._way_told and not self.carried and self._odometry_may_have_gone_on(odometry, stamp):
            starts["where its odometry leads"] = self._led(odometry, stamp)
        found = [(self._match(points, start), how) for how, start in starts.items()]
        best, how = max(found, key=lambda each: each[0].inliers)
        if best.inliers < self._needed(best):
            return None
        around = self._relocaliser.search(points, Hint(last.pose, AROUND, np.pi)).match
        if around is not None and best.inliers < BETTER * around.inliers:
            return None
        others = [match for match, _ in found if not _same(match.pose, best.pose)]
        if any(match.inliers > s.most_rival * best.inliers for match in others):
            return None
        # A corridor leaves its length open: then two must agree on it.
        if (others or not self._way_told) and self._relocaliser.deviation(best) > s.most_sigma:
            return None
        return self._resumed(best, how)

    def _was_not_carried(self, points: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int) -> bool:
        """Whether the robot is where its odometry leads, and nowhere in the map is better."""
        s = self._settings.relocalisation
        if len(points) < s.least_points:
            return False
        led = self._led(odometry, stamp)
        match = self._match(points, led)
        if match.inliers < self._needed(match) or not _same(match.pose, led):
            return False
        best = self._relocaliser.search(points).match
        return best is None or match.inliers >= BETTER * best.inliers

    def _needed(self, match: Match) -> float:
        """Inlier share of a ``match`` where the robot should be, at least."""
        least = self._relocaliser.needed(match.pose)
        return max(NEAR, least) if self._mapper.planar else least

    def _led(self, odometry: NDArray[np.float64], stamp: int) -> NDArray[np.float64]:
        """The pose (7,) to which raw ``odometry`` (7,) leads from where the robot was last."""
        seconds = max(0.0, (stamp - self.last.stamp) * 1e-9)
        increment, _ = self._predict(plain(poses.between(self.last.odometry, odometry)), seconds)
        return poses.compose(self.last.pose, increment)

    def _match(self, points: NDArray[np.float64], start: NDArray[np.float64]) -> Match:
        around = self._reference.local_map(start)
        return self._mapper.register(around, points, self._mapper.fan(start), start, HELD)

    def _resumed(self, match: Match, how: str) -> Resumed:
        pose = plain(match.pose)
        return Resumed(pose, match.information, match.inliers, int(self._reference.near(pose)[0]), how)


def _same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    apart = poses.log(poses.between(a, b))
    return bool(np.linalg.norm(apart[:3]) < SAME_DISTANCE and np.linalg.norm(apart[3:]) < SAME_TURN)
