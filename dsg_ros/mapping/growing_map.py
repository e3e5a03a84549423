"""The map while it is made: keyframes, the graph over them, voxels and grid, and the robot tracked where it grows.

What happens when is the pipeline's (`dsg_ros.pipeline`), and so is theta: it is handed in where a graph is solved.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.core.native import plain, se3
from dsg_ros.core.theta import Theta
from dsg_ros.interface import GridUpdate, OccupancyGrid, Path, VoxelMap, VoxelUpdate
from dsg_ros.mapping import refinement
from dsg_ros.mapping.association import Statistics, WorldVoxels
from dsg_ros.mapping.back_end import BackEnd
from dsg_ros.mapping.carried import Carried
from dsg_ros.mapping.closures import Closure
from dsg_ros.mapping.distributions import distributions, voxel_map
from dsg_ros.mapping.keyframes import Keyframes, ScanLog
from dsg_ros.mapping.local_map import LocalMapper, merged
from dsg_ros.mapping.loop_candidates import BRIDGE, lengthened
from dsg_ros.mapping.loop_closure import LoopCloser
from dsg_ros.mapping.mounting import MountingCheck
from dsg_ros.mapping.occupancy import OccupancyMapper
from dsg_ros.mapping.path_kernel import within
from dsg_ros.mapping.resumption import Last, Resumed, Resumption
from dsg_ros.mapping.retirement import Retirement
from dsg_ros.mapping.stuck_beams import StuckBeams
from dsg_ros.mapping.tracking import Prediction, Tracked, Tracker
from dsg_ros.memory import give_back
from dsg_ros.state import State, nested, part
from dsg_ros.stopwatch import Stopwatch

BLIND = 3.0
"""A scan in which nothing is seen becomes a keyframe so many times farther from the one before: what the next one sees
is then tied to a keyframe that saw something, unless the robot goes on blindly for long.
"""

KEPT = 0.9
"""Share of the voxels there may be that is kept where there are more."""

PARTS = (
    "keyframes",
    "tracker",
    "back_end",
    "closer",
    "voxels",
    "retirement",
    "grid",
    "mounting",
    "stuck_beams",
    "scans",
    "range_noise",
)
"""Of a map, those with a state of their own."""


class GrowingMap:
    """A map of scans of one kind: ``planar`` or not.

    ``predict`` calibrates an odometry increment, as for `Tracker`; ``stopwatch`` takes the times of what is done here.
    """

    def __init__(
        self,
        settings: config.Slam,
        planar: bool,
        predict: Callable[[NDArray[np.float64], float], Prediction],
        stopwatch: Stopwatch,
    ) -> None:
        self._settings, self._predict, self._stopwatch = settings, predict, stopwatch
        self.planar = planar
        self.keyframes = Keyframes()
        self.scans = ScanLog(settings.refinement.most_points if settings.refinement.enabled else 0)
        self.mapper = LocalMapper(settings.registration, settings.input, planar=planar)
        self.range_noise = self.mapper.range_noise
        self.tracker = Tracker(settings, self.mapper, predict)
        self.back_end = BackEnd(settings, axes=self.mapper.axes)
        self.closer = LoopCloser(settings.loops, self.mapper)
        self.voxels = WorldVoxels(settings.voxels, size=settings.registration.coarse_voxel, planar=planar)
        self.retirement = Retirement(settings.retirement, self.voxels)
        self.grid = OccupancyMapper(settings.grid, planar=planar)
        self.mounting = MountingCheck(self.mapper)
        self.stuck_beams = StuckBeams()
        self.carried = Carried(settings.registration, self.mapper)
        self._waiting: list[tuple[Any, ...]] = []
        self._around = np.zeros((0, 3))

    def is_keyframe(self, tracked: Tracked, points: int) -> bool:
        """Whether a scan of so many ``points`` is to be one: the first of all, the first one that can be matched to
        where there is nothing to match it to, and one as far from the newest keyframe as the settings say.
        """
        if not len(self.keyframes):
            return True
        sees = points >= self._settings.registration.least_points
        if sees and not len(self._around):
            return True
        since = se3.log(se3.between(self.back_end.pose(-1), tracked.pose)).tolist()
        s, times = self._settings.keyframes, 1.0 if sees else BLIND
        return math.hypot(*since[:3]) > times * s.distance or math.hypot(*since[3:]) > times * s.angle

    @property
    def empty(self) -> bool:
        """Whether no keyframe has seen anything: there is nowhere that the robot could be looked for."""
        return not len(self._around) and not any(len(cloud) for cloud in self.keyframes.clouds)

    def memory(self) -> dict[str, int]:
        """Bytes that grow with the way, by part: ``keyframes`` with their clouds, ``scans`` between them, the
        ``graph`` between poses, ``sightings`` of voxels, ``voxels``, the rays and tiles of the ``grid``, and what
        ``places`` look like.
        """
        return {
            "keyframes": self.keyframes.nbytes,
            "scans": self.scans.nbytes,
            "graph": self.back_end.nbytes,
            "sightings": self.back_end.sightings.nbytes,
            "voxels": self.voxels.nbytes + self.retirement.nbytes,
            "grid": self.grid.nbytes,
            "places": self.closer.nbytes,
        }

    def hang(
        self,
        stamp: int,
        relative: NDArray[np.float64],
        odometry: NDArray[np.float64],
        cloud: NDArray[np.float64],
    ) -> None:
        """A scan of ``cloud`` (n, 3) at ``relative`` (7,) to the newest keyframe; it waits while the robot may have
        been carried off.
        """
        self._waiting.append(
            (stamp, len(self.keyframes) - 1, relative, self.tracker.pose.copy(), odometry, cloud),
        )
        if not self.carried.suspected:
            self._release()

    def _release(self) -> None:
        for scan in self._waiting:
            self.scans.add(*scan)
        self._waiting.clear()

    def settle(self, tracked: Tracked) -> Tracked:
        """Adopt the window solved at the last keyframe; what hangs on the newest keyframe moves with it."""
        if not len(self.keyframes):
            return tracked
        before = self.back_end.pose(-1)
        self.voxels.moved(self.back_end.settle_window())
        after = self.back_end.pose(-1)
        # What was seen from where the keyframe was is seen from where it is now.
        pose, own = (se3.compose(after, se3.between(before, seen)) for seen in (tracked.pose, tracked.own))
        self.tracker.move(pose)
        return dataclasses.replace(tracked, pose=pose, own=own)

    def observe(
        self,
        key: int,
        stamp: int,
        cloud: NDArray[np.float64],
        odometry: NDArray[np.float64],
        pose: NDArray[np.float64],
        travel: float,
        inliers: float,
        base_from_sensor: NDArray[np.float64],
    ) -> None:
        """What the keyframe ``key`` saw from ``base_from_sensor`` (7,), once the graph has it: voxels, and half of the
        local map; `complete_local_map` is to follow.  ``inliers`` is the share of its points that the map before
        explained, zero where there was none.
        """
        blindly = len(cloud) > 0 and not len(self._around) and not self.empty
        self.keyframes.add(stamp, cloud, odometry, travel, self.tracker.torn or blindly)
        self.tracker.torn = False
        self._begin_local_map()
        with self._stopwatch("voxels"):
            # What nothing was there to match with is not in doubt.
            doubt = self.mapper.doubt(inliers) if inliers > 0.0 else 0.0
            seen = self.voxels.observe(key, stamp, pose, cloud, self._coarse, base_from_sensor[:3], doubt)
            self.back_end.sightings.add(key, seen)
            if self.voxels.living > self._settings.voxels.most:
                self._evict(key)

    def _evict(self, newest: int) -> None:
        """Forget voxels beyond those that are kept, but none that the window has: so many that it takes a while until
        there are too many again.
        """
        over = self.voxels.living - int(KEPT * self._settings.voxels.most)
        self._forget(self.voxels.seen_longest_ago(over, newest + 1 - self._settings.window.keyframes), "evicted")

    def _forget(self, voxels: NDArray[np.int64], why: Literal["evicted", "retired"]) -> None:
        if len(voxels):
            self.voxels.forget(voxels)
            self.back_end.sightings.forget(voxels, self.voxels.anchor.values[voxels], why)

    def retire(self, base_from_sensor: NDArray[np.float64]) -> None:
        """Retire voxels that were looked through too often, by the newest keyframe too; its sensor is at
        ``base_from_sensor`` (7,).
        """
        if not self._settings.retirement.enabled:
            return
        with self._stopwatch("retire"):
            k, back_end = self.keyframes, self.back_end
            travel = lengthened(k.travel.values, k.torn.values)  # nothing is near across a tear
            near = within(travel, back_end.loops.solved, BRIDGE, self._settings.retirement.way)
            window = len(k) - self._settings.window.keyframes
            means, trajectory = back_end.world.voxel_view, back_end.trajectory
            gone = self.retirement.look(k.clouds[-1], base_from_sensor[:3], means, trajectory, near, window)
            self._forget(gone, "retired")

    def start_window(self, theta: Theta) -> None:
        """Solve for the newest keyframes and their voxels, for `settle` to adopt."""
        with self._stopwatch("window"):
            self.back_end.start_window(theta)

    def draw(self, points: NDArray[np.float64], base_from_sensor: NDArray[np.float64]) -> None:
        """Have the newest keyframe's ``points`` (n, 3) in the base frame in the occupancy grid."""
        with self._stopwatch("grid"):
            self.grid.add(points, base_from_sensor)

    def close_loops(self, theta: Theta) -> bool:
        """Look for places seen before, and solve the whole graph where that is called for; whether any are tied now."""
        with self._stopwatch("loops"):
            k = self.keyframes
            trajectory, loops = self.back_end.trajectory, self.back_end.loops.ends
            closures = self.closer.search(trajectory, k.clouds, k.travel.values, loops, k.torn.values)
        self.back_end.loops.add(closures)
        if self.back_end.loops.wanted:
            self.solve_graph(theta)
            self.tracker.move(self.back_end.pose(-1))
            self.refresh_local_map()
        return bool(closures)

    def solve_graph(self, theta: Theta) -> None:
        """All keyframes together; the voxels follow their observations."""
        self.voxels.moved(self.back_end.settle_window())
        with self._stopwatch("graph"):
            self._follow(self.back_end.solve_graph(theta))
            give_back()

    def _solve_jointly(self, theta: Theta) -> None:
        if self._settings.refinement.voxel_share > 0.0:
            with self._stopwatch("joint"):
                self._follow(self.back_end.solve_jointly(theta))

    def refresh_local_map(self) -> None:
        """Have the scans to come matched to the newest keyframes, where these are now."""
        self._begin_local_map()
        self.complete_local_map()

    def _begin_local_map(self) -> None:
        with self._stopwatch("coarse_map"):
            window = slice(-self._settings.registration.window, None)
            self._around = merged(self.back_end.trajectory[window], self.keyframes.clouds[window])
            self._coarse = self.mapper.coarse(self._around)

    def complete_local_map(self) -> None:
        """Have the scans to come matched to the map that `observe` has begun."""
        with self._stopwatch("fine_map"):
            around = self.mapper.complete(self._around, self._coarse) if len(self._around) else None
            self.tracker.set_map(around)

    def optimize(self, theta: Theta) -> NDArray[np.float64]:
        """Solve the whole graph and refine keyframes and voxels, now; the last scan's pose (7,) in its keyframe."""
        relative = se3.between(self.back_end.pose(-1), self.tracker.pose)
        self.solve_graph(theta)
        if self._settings.refinement.enabled:
            self._solve_jointly(theta)
            with self._stopwatch("refinement"):
                s, trajectory = self._settings.refinement, self.back_end.trajectory
                self._adopt(refinement.refine_keyframes(s, self.mapper, self.keyframes, trajectory))
                give_back()
        self.tracker.move(se3.compose(self.back_end.pose(-1), relative))
        self.refresh_local_map()
        return relative

    def finish(self, theta: Theta) -> NDArray[np.float64]:
        """Solve the whole graph once more, refine keyframes and voxels, and register every scan to those around it; the
        poses (n, 7) of all scans.
        """
        self._release()
        self.solve_graph(theta)
        if not self._settings.refinement.enabled:
            return self.scans.on(self.back_end.trajectory)
        self._solve_jointly(theta)
        with self._stopwatch("refinement"):
            s, trajectory = self._settings.refinement, self.back_end.trajectory
            refined = refinement.refine(s, self.mapper, self.keyframes, self.scans, trajectory)
            self._adopt(refined.keyframes)
            give_back()
        return refined.scans

    def _adopt(self, trajectory: NDArray[np.float64]) -> None:
        """Keyframe poses (k, 7) that were found by refinement; the voxels follow."""
        self._follow(self.back_end.adopt_keyframes(trajectory))

    def _follow(self, known: Statistics) -> None:
        self.voxels.follow(known, self.keyframes.stamps.values)
        self.retirement.follow(known)

    def path(self) -> Path:
        """Keyframes and closures."""
        loops = self.back_end.loops.ends.astype(np.int32)
        return Path(self.keyframes.stamps.values.copy(), self.back_end.trajectory, loops)

    def voxel_update(self) -> VoxelUpdate:
        """Voxels that have changed since the last call of this or of `snapshot`."""
        return self.voxels.update(self.back_end.world.voxels, self.back_end.trajectory)

    def snapshot(self) -> tuple[Path, VoxelUpdate]:
        """The whole path and every voxel."""
        return self.path(), self.voxels.update(self.back_end.world.voxels, self.back_end.trajectory, whole=True)

    def voxel_map(self) -> VoxelMap:
        """Every voxel, with what is worked out only for a map that is kept."""
        shown, trajectory = self.snapshot()[1], self.back_end.trajectory
        there = distributions(self.keyframes.clouds, trajectory, self.voxels.size, planar=self.planar)
        first = self.keyframes.stamps.values[self.back_end.sightings.first_seen.values[shown.ids]]
        return voxel_map(shown, self.voxels.cell.values[shown.ids], first, there)

    def grid_changes(self, since: int) -> GridUpdate:
        """The occupancy grid at the keyframes' present poses: its tiles that changed after version ``since``."""
        with self._stopwatch("grid_update"):
            self.grid.follow(self.back_end.trajectory)
            return self.grid.changes(since)

    def whole_grid(self) -> OccupancyGrid | None:
        """The occupancy grid at the keyframes' present poses; None where nothing was seen."""
        with self._stopwatch("grid_whole"):
            return self.grid.whole(self.back_end.trajectory)

    def settled_grid(self) -> GridUpdate:
        """The same in tiles, to be kept."""
        self.grid.follow(self.back_end.trajectory)
        self.grid.settle()
        return self.grid.changes()

    def state(self) -> State:
        """As `dsg_ros.state` says, without the local map: that is made of keyframes."""
        return nested(**{name: getattr(self, name).state() for name in PARTS})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over; ValueError or KeyError for what is none."""
        for name in PARTS:
            getattr(self, name).restore(part(state, name))
        hangs_on, count = self.scans.keyframe.values, len(self.keyframes)
        if count != len(self.back_end.trajectory) or not ((hangs_on >= 0) & (hangs_on < count)).all():
            raise ValueError("keyframes or scans of another graph")
        if len(self.keyframes):
            self.refresh_local_map()

    @property
    def waiting(self) -> int:
        """How many scans wait to hear whether the robot was carried off before them."""
        return len(self._waiting)

    def without_waiting(self) -> int:
        """Forget the scans that wait: the robot was carried off before them.  Returns how many."""
        count = len(self._waiting)
        self._waiting.clear()
        self.carried.clear()
        return count

    def resumption(self, carried: bool = False) -> Resumption:
        """What looks for the robot in a map with one scan at least, restored or, if ``carried``, that it was carried
        off in; compiled.
        """
        self.voxels.moved(self.back_end.settle_window())
        stamp, odometry = int(self.scans.stamps.values[-1]), plain(self.scans.odometry.values[-1])
        relative, keyframe = self.scans.relative.values[-1], int(self.scans.keyframe.values[-1])
        pose = se3.compose(self.back_end.pose(keyframe), plain(relative))
        self.tracker.move(pose)
        last = Last(pose, odometry, stamp, self.scans.highest_speed())
        trajectory, clouds = self.back_end.trajectory, self.keyframes.clouds
        resumption = Resumption(self._settings, self.mapper, trajectory, clouds, last, self._predict, carried)
        resumption.warm_up()
        return resumption

    def tie(self, found: Resumed) -> int:
        """The number of a new keyframe where the robot was found again, tied to the map there."""
        key = self.back_end.add_keyframe(found.pose)
        s, relative = self._settings.loops, se3.between(self.back_end.pose(found.keyframe), found.pose)
        floors = s.floor_translation, s.floor_rotation
        information = self.mapper.factor_information(found.information, found.inliers, *floors)
        self.back_end.add_gap(Closure(found.keyframe, key, relative, information, 0.0))
        return key
