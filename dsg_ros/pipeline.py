"""The whole system on one page: `Slam.process` makes an estimate of a frame; node and command line both call it."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.compilation import compilations
from dsg_ros.core.native import plain, se3
from dsg_ros.effect import Effect
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame, GridUpdate, Parameter, Path, RunResult, SavedMap, VoxelUpdate
from dsg_ros.io.learned import read_learned
from dsg_ros.keeping import saved_map
from dsg_ros.learning.block import Link
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.increments import Moment, increment
from dsg_ros.learning.sensitivity import Sensitivity
from dsg_ros.mapping import refinement, scan, warm_up
from dsg_ros.mapping.association import WorldVoxels
from dsg_ros.mapping.back_end import BackEnd
from dsg_ros.mapping.keyframes import Keyframes, ScanLog
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.loop_closure import Closure, LoopCloser
from dsg_ros.mapping.mounting import MountingCheck
from dsg_ros.mapping.occupancy import OccupancyMapper
from dsg_ros.mapping.resumption import Last, Resumed, Resumption
from dsg_ros.mapping.tracking import Tracked, Tracker
from dsg_ros.state import State, nested, packed, part, unpacked
from dsg_ros.stopwatch import Stopwatch

_log = logging.getLogger(__name__)

PARTS = ("calibration", "keyframes", "tracker", "back_end", "closer", "voxels", "grid", "mounting", "scans")
"""Of a pipeline's state, those with a state of their own."""


class Slam:
    """Odometry and points in; poses, voxels and learned parameters out.

    ``parameters`` are starting values of theta, those of the file ``learning.start`` where none are given; what is not
    named starts neutral.  `UserError` for a file that is none of learned parameters.
    """

    def __init__(self, settings: config.Slam, parameters: Sequence[Parameter] = ()) -> None:
        self._settings = settings
        if settings.learning.start and not parameters:
            parameters = read_learned(FilePath(settings.learning.start)).parameters
        self._calibration = Calibration(settings, parameters)
        self._keyframes = Keyframes()
        self._scans = ScanLog(keep_clouds=settings.refinement.enabled)
        self._stopwatch = Stopwatch()
        self._compiled, self._compilations = 0, 0
        self._travel = 0.0
        self._moment = Moment(poses.IDENTITY, np.zeros(6), 0.0)
        self._refused = 0
        self._learning = settings.learning.enabled
        self._learn_at: int | None = None
        self._warm = False
        self._shown = True
        self._resumption: Resumption | None = None
        self._resumed = {"scans_not_resumed": 0, "resumed": 0}
        self._prepare(planar=True)

    def warm_up(self, planar: bool) -> None:
        """Choose the kind of scan and compile every kernel, so that nothing compiles while scans come in."""
        self._prepare(planar)
        self._warm = True
        stages = {
            "registration and voxels": lambda: warm_up.compile_mapping(self._settings, self._mapper),
            "the graph's solvers": self._compile_graph,
            "the occupancy grid": lambda: warm_up.compile_grid(self._settings.grid, planar=planar),
        }
        # Learning is XLA's, which lets other threads have the interpreter; the others are mostly Numba's.
        with ThreadPoolExecutor(1, thread_name_prefix="warm-up") as beside:
            learning = beside.submit(self._calibration.warm_up, planar)
            for number, (name, compile_) in enumerate(stages.items(), 1):
                _log.info("compiling, or fetching from the cache, %d of %d: %s", number, len(stages) + 1, name)
                compile_()
            _log.info("compiling, or fetching from the cache, %d of %d: learning", len(stages) + 1, len(stages) + 1)
            learning.result()
        self._compiled = compilations()

    def _compile_graph(self) -> None:
        graph = warm_up.compile_back_end(self._settings, self._mapper.axes, self._calibration.theta)
        Sensitivity(graph, self._calibration.theta, ()).effect("odometry.scale")

    def _prepare(self, planar: bool) -> None:
        s = self._settings
        self._planar = planar
        self._mapper = LocalMapper(s.registration, s.input, planar=planar)
        self._tracker = Tracker(s, self._mapper, self._calibration.predict)
        self._back_end = BackEnd(s, axes=self._mapper.axes)
        self._closer = LoopCloser(s.loops, self._mapper)
        self._voxels = WorldVoxels(s.voxels, size=s.registration.coarse_voxel, planar=planar)
        self._grid = OccupancyMapper(s.grid, planar=planar)
        self._mounting = MountingCheck()

    def process(self, frame: Frame) -> Estimate:
        """One scan: deskew, predict, register; at a keyframe also extend the graph, solve, close loops and learn."""
        if not self._warm:
            self.warm_up(frame.planar)
        with self._stopwatch("whole_scan"):
            return self._processed(frame)

    def _processed(self, frame: Frame) -> Estimate:
        odometry = plain(frame.odometry.at(frame.stamp))
        self._calibration.hear(frame.reference, frame.stamp)
        with self._stopwatch("register"):
            there = self._calibration.there(frame, odometry)
            points = scan.deskew(frame, self._calibration.corrected)
            cloud = scan.thin(points, self._settings.input.cell, self._settings.input.max_points)
            usable = frame.planar == self._planar  # the kernels are for one kind of scan
            if not usable:
                cloud, self._refused = cloud[:0], self._refused + 1
            matched = scan.spread(cloud, self._settings.input.cell, self._settings.registration.max_points)
            if self._resumption is not None:
                found = self._look_for_robot(self._resumption, matched, there, frame.stamp)
                if self._resumption is not None:
                    return self._not_found(self._resumption, frame.stamp, odometry)
                if found is not None:
                    self._moment = self._calibration.moment(frame, there)
                    return self._take_up(found, frame, points, cloud, matched, odometry)
            tracked = self._tracker.track(matched, there, frame.stamp)
        keyframe = not len(self._keyframes) or (usable and self._is_keyframe(tracked))
        if keyframe:
            self._compilations = compilations() - self._compiled  # goes through every kernel: not with every scan
            moment = self._calibration.moment(frame, there)
            self._add_keyframe(frame.stamp, cloud, odometry, moment, self._settle(tracked))
            with self._stopwatch("grid"):
                self._grid.add(points if usable else points[:0], frame.base_from_sensor)
        else:
            self._learn()
        return self._estimate(frame, matched, odometry, keyframe)

    def _is_keyframe(self, tracked: Tracked) -> bool:
        since = se3.log(se3.between(self._back_end.pose(-1), tracked.pose)).tolist()
        s = self._settings.keyframes
        return math.hypot(*since[:3]) > s.distance or math.hypot(*since[3:]) > s.angle

    def _add_keyframe(
        self,
        stamp: int,
        cloud: NDArray[np.float64],
        odometry: NDArray[np.float64],
        moment: Moment,
        tracked: Tracked,
    ) -> None:
        """The scan becomes a variable; everything that happens once a keyframe happens here, in order."""
        self._learn()
        last = len(self._keyframes) - 1
        key = self._back_end.add_keyframe(tracked.pose)
        if last >= 0:
            measured, gained = increment(self._moment, moment)
            seconds = max(0.0, (stamp - int(self._keyframes.stamps.values[last])) * 1e-9)
            self._travel += math.hypot(*measured[:3].tolist())
            relative = se3.between(self._back_end.pose(last), tracked.own)
            information = self._mapper.registration_information(tracked.information, tracked.inliers)
            self._back_end.add_link(key, measured, seconds, relative, information, tracked.doubtful, gained)
            link = Link(measured, seconds, relative, information, gained)
            self._calibration.add(key, link, int(self._keyframes.stamps.values[last]), stamp)
            self._mounting.add(measured, relative)
        self._moment = moment
        self._map_keyframe(key, stamp, cloud, odometry, tracked.pose)
        if key % self._settings.loops.every_keyframes == 0:
            self._close_loops()
        if self._learning and key % self._settings.learning.every_keyframes == 0:
            self._learn_at = stamp
            if self._planar:
                self._learn()

    def _map_keyframe(
        self,
        key: int,
        stamp: int,
        cloud: NDArray[np.float64],
        odometry: NDArray[np.float64],
        pose: NDArray[np.float64],
    ) -> None:
        """What the keyframe ``key`` saw, once the graph has it: local map, voxels, and the window's solve."""
        self._keyframes.add(stamp, cloud, odometry, self._travel)
        self._refresh_local_map()
        with self._stopwatch("window"):
            seen = self._voxels.observe(key, stamp, pose, cloud, self._local_map.coarse)
            self._back_end.add_voxels(key, seen)
            self._back_end.start_window(self._calibration.theta)

    def _learn(self) -> None:
        """The outer update that is due, if one is.

        A keyframe made of a cloud takes most of the time there is until the next cloud: then it is put off to that one.
        """
        if self._learn_at is not None:
            with self._stopwatch("learn"):
                self._calibration.step(self._learn_at, self._travel)
            self._learn_at = None

    def _settle(self, tracked: Tracked) -> Tracked:
        """Adopt the window solved at the last keyframe; what hangs on the newest keyframe moves with it."""
        if not len(self._keyframes):
            return tracked
        before = self._back_end.pose(-1)
        self._voxels.moved(self._back_end.settle_window())
        after = self._back_end.pose(-1)
        # What was seen from where the keyframe was is seen from where it is now.
        pose, own = (se3.compose(after, se3.between(before, seen)) for seen in (tracked.pose, tracked.own))
        self._tracker.move(pose)
        return dataclasses.replace(tracked, pose=pose, own=own)

    def _close_loops(self) -> None:
        with self._stopwatch("loops"):
            k = self._keyframes
            closures = self._closer.search(self._back_end.trajectory, k.clouds, k.travel.values, self._back_end.loops)
        self._back_end.add_closures(closures)
        if self._back_end.needs_global_solve():
            self._solve_graph()
            self._tracker.move(self._back_end.pose(-1))
            self._refresh_local_map()

    def _solve_graph(self) -> None:
        """All keyframes together; the voxels follow their observations."""
        self._voxels.moved(self._back_end.settle_window())
        with self._stopwatch("graph"):
            self._back_end.solve_graph(self._calibration.theta)
            self._voxels.reindex(self._back_end.world.voxels)

    def _refresh_local_map(self) -> None:
        with self._stopwatch("local_map"):
            window = slice(-self._settings.registration.window, None)
            self._local_map = self._mapper.build(self._back_end.trajectory[window], self._keyframes.clouds[window])
            self._tracker.set_map(self._local_map)

    def _estimate(
        self, frame: Frame, cloud: NDArray[np.float64], odometry: NDArray[np.float64], keyframe: bool
    ) -> Estimate:
        newest = len(self._keyframes) - 1
        pose = self._tracker.pose
        relative = se3.between(self._back_end.pose(newest), pose)
        self._scans.add(frame.stamp, newest, relative, pose, odometry, cloud)
        return self._told(frame.stamp, pose, odometry, relative, keyframe)

    def _told(
        self,
        stamp: int,
        pose: NDArray[np.float64],
        odometry: NDArray[np.float64],
        relative: NDArray[np.float64],
        keyframe: bool,
    ) -> Estimate:
        """The estimate of a scan at ``pose`` (7,), ``relative`` (7,) to the newest keyframe; path and voxels with a
        ``keyframe``, and the first time after `restore`.
        """
        changed, self._shown = keyframe or not self._shown, True
        return Estimate(
            stamp=stamp,
            pose=pose,
            odometry=odometry,
            covariance=self._back_end.covariance(relative),
            keyframe=keyframe,
            path=self._path() if changed else None,
            voxels=self._voxels.update(self._back_end.world.voxels, self._back_end.trajectory) if changed else None,
            parameters=self._calibration.parameters(),
            metrics=self._metrics(),
            counts=self._counts(),
        )

    def optimize(self) -> Estimate:
        """Solve the whole graph and refine keyframes and voxels together, now; the estimate of the last scan after it.

        Mapping goes on from there.  `UserError` where there is no map yet.
        """
        if not len(self._scans):
            raise UserError("there is no map yet: no scan has come")
        if self._resumption is not None:
            raise UserError("the robot is not yet found again in the map that is gone on with")
        self._learn()
        relative = se3.between(self._back_end.pose(-1), self._tracker.pose)
        self._solve_graph()
        if self._settings.refinement.enabled:
            with self._stopwatch("refinement"):
                s, trajectory = self._settings.refinement, self._back_end.trajectory
                self._adopt(refinement.refine_keyframes(s, self._mapper, self._keyframes, trajectory))
        self._tracker.move(se3.compose(self._back_end.pose(-1), relative))
        self._refresh_local_map()
        stamp, odometry = int(self._scans.stamps.values[-1]), self._scans.odometry.values[-1].copy()
        return self._told(stamp, self._tracker.pose, odometry, relative, keyframe=True)

    def switch_learning(self, on: bool) -> None:
        """Learn from the next keyframe on, or keep the parameters as they are used now."""
        self._learning = on
        self._learn_at = None
        self._calibration.switch(on)

    def state(self) -> State:
        """Everything that mapping goes on from, as `dsg_ros.state` says."""
        facts = {
            "planar": self._planar, "travel": self._travel, "refused": self._refused, "learn_at": self._learn_at,
            "learning": self._learning, "resumed": self._resumed,
        }  # fmt: skip
        moment = np.concatenate([self._moment.odometry, self._moment.velocity, [self._moment.offset]])
        parts = {name: getattr(self, f"_{name}").state() for name in PARTS}
        return {"facts": packed(facts), "moment": moment, **nested(**parts)}

    def about(self) -> dict[str, int]:
        """What `state` is about: how many keyframes, the stamp of the last scan [ns], whether scans are planar."""
        stamps = self._scans.stamps.values
        stamp = int(stamps[-1]) if len(stamps) else 0
        return {"keyframes": len(self._keyframes), "stamp": stamp, "planar": int(self._planar)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a pipeline with the same settings, whose scans' successors are to come.

        ValueError, KeyError or TypeError for what is none; then nothing can be done with this one any more.
        """
        facts = unpacked(state["facts"])
        if not self._warm or facts["planar"] is not self._planar:
            self.warm_up(facts["planar"])
        self._travel, self._refused, self._learn_at = facts["travel"], facts["refused"], facts["learn_at"]
        self._learning, self._resumed = facts["learning"], facts["resumed"]
        self._moment = Moment(plain(state["moment"][:7]), np.array(state["moment"][7:13]), float(state["moment"][13]))
        for name in PARTS:
            getattr(self, f"_{name}").restore(part(state, name))
        hangs_on, count = self._scans.keyframe.values, len(self._keyframes)
        if count != len(self._back_end.trajectory) or not ((hangs_on >= 0) & (hangs_on < count)).all():
            raise ValueError("keyframes or scans of another graph")
        self._shown = False
        if len(self._keyframes):
            self._refresh_local_map()

    def take_up(self) -> None:
        """After `restore`, where time has passed and the odometry may have begun anew: the map grows again once the
        robot is found in it (`dsg_ros.mapping.resumption`).
        """
        if not len(self._scans):
            return
        self._voxels.moved(self._back_end.settle_window())
        stamp, odometry = int(self._scans.stamps.values[-1]), plain(self._scans.odometry.values[-1])
        relative, keyframe = self._scans.relative.values[-1], int(self._scans.keyframe.values[-1])
        pose = se3.compose(self._back_end.pose(keyframe), plain(relative))
        self._tracker.move(pose)
        last = Last(pose, odometry, stamp, self._scans.highest_speed())
        trajectory, clouds = self._back_end.trajectory, self._keyframes.clouds
        self._resumption = Resumption(self._settings, self._mapper, trajectory, clouds, last, self._calibration.predict)
        self._resumption.warm_up()
        self._compiled = compilations()

    def _look_for_robot(
        self, resumption: Resumption, cloud: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int
    ) -> Resumed | None:
        """Where a scan finds the robot in the map that is gone on with; the resumption is over then, and also where the
        odometry is to be followed.
        """
        found = resumption.find(cloud, odometry, stamp)
        if found is None and not resumption.followed:
            self._resumed["scans_not_resumed"] += 1
            return None
        if found is not None:
            self._tracker.place(found.pose, odometry, stamp)
        self._resumption = None
        self._resumed["resumed"] += 1
        how = found.how if found else "by its odometry, which went on"
        _log.info("the robot is found again %s; mapping goes on", how)
        return found

    def _not_found(self, resumption: Resumption, stamp: int, odometry: NDArray[np.float64]) -> Estimate:
        located = resumption.located
        assert located is not None, "a scan was looked at"
        told = self._told(stamp, located.pose, odometry, plain(poses.IDENTITY), keyframe=False)
        return dataclasses.replace(told, covariance=located.covariance, localisation=located.state.value)

    def _take_up(
        self,
        found: Resumed,
        frame: Frame,
        points: NDArray[np.float64],
        cloud: NDArray[np.float64],
        matched: NDArray[np.float64],
        odometry: NDArray[np.float64],
    ) -> Estimate:
        """The keyframe of a robot that was found again, tied to the map there."""
        self._calibration.interrupt()
        self._travel += float(np.linalg.norm(found.pose[:3] - self._back_end.pose(-1)[:3]))
        key = self._back_end.add_keyframe(found.pose)
        s, relative = self._settings.loops, se3.between(self._back_end.pose(found.keyframe), found.pose)
        floors = s.floor_translation, s.floor_rotation
        information = self._mapper.factor_information(found.information, found.inliers, *floors)
        self._back_end.add_gap(Closure(found.keyframe, key, relative, information, 0.0))
        self._map_keyframe(key, frame.stamp, cloud, odometry, found.pose)
        self._grid.add(points, frame.base_from_sensor)
        return self._estimate(frame, matched, odometry, keyframe=True)

    def snapshot_map(self) -> tuple[Path, VoxelUpdate]:
        """The whole path and every voxel."""
        return self._path(), self._voxels.update(self._back_end.world.voxels, self._back_end.trajectory, whole=True)

    def grid_changes(self, since: int) -> GridUpdate:
        """The occupancy grid at the keyframes' present poses: its tiles that changed after version ``since``."""
        with self._stopwatch("grid_update"):
            self._grid.follow(self._back_end.trajectory)
            return self._grid.changes(since)

    def what_if(self, parameter: str, change: str) -> Effect:
        """What would become of the keyframes as the graph has them now: see `Sensitivity.effect`."""
        with self._stopwatch("what_if"):
            told = self._calibration.parameters()
            return Sensitivity(self._back_end.problem(), self._calibration.theta, told).effect(parameter, change)

    def result(self) -> RunResult:
        """What the run has come to so far, without the final refinement."""
        return self._result(self._scans.on(self._back_end.trajectory))

    def finish(self) -> RunResult:
        """Solve the whole graph once more, refine keyframes and voxels, and register every scan to those around it."""
        if not len(self._keyframes):
            return self.result()
        self._learn()
        self._solve_graph()
        trajectory = self._back_end.trajectory
        if not self._settings.refinement.enabled:
            return self.result()
        with self._stopwatch("refinement"):
            refined = refinement.refine(
                self._settings.refinement, self._mapper, self._keyframes, self._scans, trajectory
            )
            self._adopt(refined.keyframes)
        return self._result(refined.scans)

    def _adopt(self, trajectory: NDArray[np.float64]) -> None:
        """Keyframe poses (k, 7) that were found by refinement; the voxels follow."""
        self._back_end.adopt_keyframes(trajectory)
        self._voxels.reindex(self._back_end.world.voxels)

    def _result(self, trajectory: NDArray[np.float64]) -> RunResult:
        self._compilations = compilations() - self._compiled
        path, voxels = self.snapshot_map()
        with self._stopwatch("grid_whole"):
            grid = self._grid.whole(path.poses)
        return RunResult(
            stamps=self._scans.stamps.values.copy(),
            trajectory=trajectory,
            causal=self._scans.on(path.poses),
            live=self._scans.live.values.copy(),
            odometry=self._scans.odometry.values.copy(),
            path=path,
            voxels=voxels,
            parameters=self._calibration.parameters(),
            learning=self._calibration.history,
            metrics={**self._stopwatch.summary(), **self._metrics()},
            counts=self._counts(),
            grid=grid,
        )

    def saved_map(self, source: str = "") -> SavedMap:
        """The map as it is now, to be kept; ``source`` names the recording."""
        path, voxels = self.snapshot_map()
        self._grid.follow(path.poses)
        self._grid.settle()
        parts = self._keyframes, self._back_end.world, self._calibration, path, voxels, self._grid.changes()
        return saved_map(self._settings, *parts, planar=self._planar, source=source)

    def _path(self) -> Path:
        loops = np.array(self._back_end.loops, np.int32).reshape(-1, 2)
        return Path(self._keyframes.stamps.values.copy(), self._back_end.trajectory, loops)

    def _metrics(self) -> dict[str, float]:
        return {
            **self._stopwatch.last(),
            **self._back_end.metrics,
            **self._calibration.losses(),
            "metres": self._travel,
            "compilations_after_warm_up": float(self._compilations),
        }

    def _counts(self) -> dict[str, int]:
        totals = {"scans": len(self._scans), "keyframes": len(self._keyframes), "loops": len(self._back_end.loops)}
        totals |= self._calibration.counts | {"voxels": len(self._voxels), "scans_of_other_kind": self._refused}
        totals["keyframes_left_out_of_grid"] = self._grid.left_out
        totals |= self._resumed if any(self._resumed.values()) else {}
        return totals | self._tracker.counts | self._closer.counts | self._back_end.counts | self._mounting.counts
