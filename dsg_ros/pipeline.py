"""The whole system on one page: `Slam.process` makes an estimate of a frame; node and command line both call it."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.compilation import compilations
from dsg_ros.core.native import plain, se3
from dsg_ros.core.theta import Theta
from dsg_ros.effect import Effect
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame, GridUpdate, Parameter, Path, RunResult, SavedMap, VoxelUpdate
from dsg_ros.io.learned import read_learned
from dsg_ros.keeping import run_result, saved_map
from dsg_ros.learning.block import Link
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.increments import Moment, increment
from dsg_ros.learning.sensitivity import Sensitivity
from dsg_ros.mapping import scan
from dsg_ros.mapping.growing_map import GrowingMap
from dsg_ros.mapping.lost import Lost
from dsg_ros.mapping.odometry_source import OdometrySource
from dsg_ros.mapping.resumption import Resumed, Resumption
from dsg_ros.mapping.scan_odometry import NO_STEP
from dsg_ros.mapping.tracking import Tracked
from dsg_ros.memory import give_back
from dsg_ros.starting import compile_all
from dsg_ros.state import State, nested, packed, part, unpacked
from dsg_ros.stopwatch import Stopwatch

_log = logging.getLogger(__name__)


class Slam:
    """Odometry and points in; poses, voxels and learned parameters out.

    ``parameters`` are starting values of theta, those of the file ``learning.start`` where none are given; what is not
    named starts neutral.  `UserError` for a file that is none of learned parameters.  Estimates of keyframes have path
    and voxels where these are ``shown``; the result has them anyhow.
    """

    def __init__(self, settings: config.Slam, parameters: Sequence[Parameter] = (), *, shown: bool = True) -> None:
        self._settings = settings
        if settings.learning.start and not parameters:
            parameters = read_learned(FilePath(settings.learning.start)).parameters
        self._calibration = Calibration(settings, parameters)
        self._odometry = OdometrySource(settings, self._calibration.predict)
        self._stopwatch = Stopwatch()
        self._compiled, self._compilations = 0, 0
        self._memory: dict[str, int] = {}
        self._travel = 0.0
        self._moment = Moment(poses.IDENTITY, np.zeros(6), 0.0)
        self._refused = 0
        self._learning = settings.learning.enabled
        self._learn_at: int | None = None
        self._warm = False
        self._shows, self._shown = shown, True
        self._left: list[Callable[[], None]] = []
        self._lost = Lost(settings.relocalisation)
        self._taken = 0
        self._map = self._new_map(planar=True)

    def warm_up(self, planar: bool) -> None:
        """Choose the kind of scan and compile every kernel, so that nothing compiles while scans come in."""
        self._map = self._new_map(planar)
        self._warm = True
        compile_all(self._settings, self._map.mapper, self._calibration, planar)
        give_back()
        self._compiled = compilations()

    def _new_map(self, planar: bool) -> GrowingMap:
        return GrowingMap(self._settings, planar, self._odometry.predict, self._stopwatch)

    def process(self, frame: Frame) -> Estimate:
        """One scan: deskew, predict, register; at a keyframe also extend the graph, solve, close loops and learn."""
        estimate = self.estimate(frame)
        self.catch_up()
        return estimate

    def estimate(self, frame: Frame) -> Estimate:
        """`process`, but that what its own estimate does not need is left to `catch_up`, which is to be called before
        anything else is.

        A keyframe would take three times as long as another cloud, with a loop closed six times; a planar scan's, ten
        and fifty times.
        """
        if not self._warm:
            self.warm_up(frame.planar)
        self.catch_up()
        with self._stopwatch("estimate"):
            return self._processed(frame)

    def catch_up(self) -> None:
        """Do what the last scan has left.  Whatever asks for something else comes here first."""
        if self._left:
            jobs, self._left = self._left, []
            with self._stopwatch("catch_up"):
                for job in jobs:
                    job()

    def _later(self, job: Callable[[], None]) -> None:
        """Do it in `catch_up`."""
        self._left.append(job)

    def _processed(self, frame: Frame) -> Estimate:
        self._taken = frame.stamp
        frame = self._odometry.of(frame, self._map.tracker.step if self._lost.search is None else NO_STEP)
        frame = self._map.stuck_beams.without(frame)
        alone = self._odometry.alone  # then nothing of the odometry is calibrated
        odometry = plain(frame.odometry.at(frame.stamp))
        self._calibration.hear(frame.reference, frame.stamp, frame.odometry)
        with self._stopwatch("register"):
            there = odometry if alone else self._calibration.there(frame, odometry)
            points = scan.deskew(frame, None if alone else self._calibration.corrected)
            cloud = scan.thin(points, self._settings.input.cell, self._settings.input.max_points)
            usable = frame.planar == self._map.planar  # the kernels are for one kind of scan
            if not usable:
                cloud, self._refused = cloud[:0], self._refused + 1
            elif frame.planar:
                self._map.range_noise.hear(frame.points)
            matched = scan.spread(cloud, self._settings.input.cell, self._settings.registration.max_points)
            if self._lost.search is None and self._odometry.away and not self._map.empty:
                self._lost.lose_sight(self._map, frame.stamp, self._odometry.unseen)
                self._compiled = compilations()
            if self._lost.search is None:
                tracked = self._map.tracker.track(matched, there, frame.stamp, alone=alone)
                if usable and self._lost.look(self._map, matched, there, tracked.inliers, frame.stamp, alone=alone):
                    self._compiled = compilations()
            if self._lost.search is not None:
                found = self._lost.find(self._map, matched, there, frame.stamp, alone=alone)
                if self._lost.search is not None:
                    return self._not_found(self._lost.search, frame.stamp)
                if found is not None:
                    self._moment = self._calibration.moment(frame, there)
                    return self._take_up(found, frame, points, cloud, matched, odometry)
                tracked = self._map.tracker.track(matched, there, frame.stamp, alone=alone)
        self._odometry.matched(tracked.inliers)
        blind = alone and not self._map.tracker.step.seen  # nothing says where it is: no place for a keyframe
        grows = usable and not blind and not self._map.carried.suspected
        keyframe = not len(self._map.keyframes) or (grows and self._map.is_keyframe(tracked, len(matched)))
        if keyframe:
            self._compilations = compilations() - self._compiled  # goes through every kernel: not with every scan
            moment = self._calibration.moment(frame, there)
            self._add_keyframe(frame, cloud, odometry, moment, self._map.settle(tracked))
            self._later(partial(self._map.draw, points if usable else points[:0], frame.base_from_sensor))
            self._later(partial(self._map.retire, frame.base_from_sensor))
        elif self._learn_at is not None:
            self._later(self._learn)
        return self._estimate(frame, matched, odometry, keyframe)

    def _add_keyframe(
        self,
        frame: Frame,
        cloud: NDArray[np.float64],
        odometry: NDArray[np.float64],
        moment: Moment,
        tracked: Tracked,
    ) -> None:
        """The scan becomes a variable; everything that happens once a keyframe happens here, in order."""
        self._learn()
        grown, stamp = self._map, frame.stamp
        last = len(grown.keyframes) - 1
        key = grown.back_end.add_keyframe(tracked.pose)
        if last >= 0:
            measured, gained = increment(self._moment, moment)
            before = int(grown.keyframes.stamps.values[last])
            seconds = max(0.0, (stamp - before) * 1e-9)
            self._travel += math.hypot(*measured[:3].tolist())
            relative = se3.between(grown.back_end.pose(last), tracked.own)
            information = grown.mapper.registration_information(tracked.information, tracked.inliers)
            sigmas = self._odometry.made_up(seconds)
            if sigmas is None:
                grown.back_end.add_link(key, measured, seconds, relative, information, tracked.doubtful, gained)
                self._calibration.add(key, Link(measured, seconds, relative, information, gained), before, stamp)
                grown.mounting.add(measured, relative)
                self._later(partial(grown.mounting.turned, grown.keyframes.clouds[last], cloud, plain(measured)))
            else:
                grown.back_end.add_seen_link(key, measured, sigmas, relative, information)
                self._calibration.interrupt()
        self._moment = moment
        theta = self._calibration.theta
        if self._learning and key % self._settings.learning.every_keyframes == 0:
            self._learn_at = stamp
            if grown.planar:  # it is worked out beside the rest of this, and is for the next scan
                self._later(self._begin_to_learn)
        self._observe(key, frame, cloud, odometry, tracked, theta)
        if key % self._settings.loops.every_keyframes == 0:
            self._later(partial(self._close_loops, theta))
        if grown.planar:
            self._later(self._learn)

    def _observe(
        self,
        key: int,
        frame: Frame,
        cloud: NDArray[np.float64],
        odometry: NDArray[np.float64],
        placed: Tracked | Resumed,
        theta: Theta,
    ) -> None:
        """What the keyframe ``key`` saw where it was ``placed``, and the solve of its window at ``theta``."""
        told = odometry, placed.pose, self._travel, placed.inliers, frame.base_from_sensor
        self._map.observe(key, frame.stamp, cloud, *told)
        self._later(self._map.complete_local_map)
        self._later(partial(self._map.start_window, theta))

    def _close_loops(self, theta: Theta) -> None:
        """Where any are closed, the next estimate shows what has become of the map."""
        if self._map.close_loops(theta):
            self._shown = False

    def _learn(self) -> None:
        """The outer update that is due, if one is.

        A keyframe made of a cloud leaves much to do until the next cloud: then it is put off to that one.
        """
        self._begin_to_learn()
        if self._calibration.unsettled:
            with self._stopwatch("learn_wait"):
                self._calibration.end()

    def _begin_to_learn(self) -> None:
        if self._learn_at is not None:
            self._calibration.begin(self._learn_at, self._travel, partial(self._stopwatch, "learn"))
            self._learn_at = None

    def _estimate(
        self, frame: Frame, cloud: NDArray[np.float64], odometry: NDArray[np.float64], keyframe: bool
    ) -> Estimate:
        newest = len(self._map.keyframes) - 1
        pose = self._map.tracker.pose
        relative = se3.between(self._map.back_end.pose(newest), pose)
        self._map.hang(frame.stamp, relative, odometry, cloud)
        return self._told(frame.stamp, pose, relative, keyframe)

    def _told(self, stamp: int, pose: NDArray[np.float64], relative: NDArray[np.float64], keyframe: bool) -> Estimate:
        """The estimate of a scan at ``pose`` (7,), ``relative`` (7,) to the newest keyframe; path and voxels with a
        ``keyframe``, and the first time after `restore`.
        """
        changed, self._shown = self._shows and (keyframe or not self._shown), True
        if changed:
            self._memory = self._map.memory()
        covariance = self._map.back_end.covariance(relative)
        if self._odometry.alone:
            covariance = covariance + self._map.tracker.unmatched
        return Estimate(
            stamp=stamp,
            pose=pose,
            odometry=self._odometry.raw.copy(),
            covariance=covariance,
            keyframe=keyframe,
            path=self._map.path() if changed else None,
            voxels=self._map.voxel_update() if changed else None,
            parameters=self._calibration.parameters(),
            metrics=self._metrics(),
            counts=self._counts(),
        )

    def optimize(self) -> Estimate:
        """Solve the whole graph and refine keyframes and voxels together, now; the estimate of the last scan after it.

        Mapping goes on from there.  `UserError` where there is no map yet.
        """
        self.catch_up()
        scans = self._map.scans
        if not len(scans):
            raise UserError("there is no map yet: no scan has come")
        if self._lost.search is not None:
            raise UserError("the robot is not yet found again in the map that is gone on with")
        self._learn()
        relative = self._map.optimize(self._calibration.theta)
        return self._told(int(scans.stamps.values[-1]), self._map.tracker.pose, relative, keyframe=True)

    def switch_learning(self, on: bool) -> None:
        """Learn from the next keyframe on, or keep the parameters as they are used now."""
        self.catch_up()
        self._learning = on
        self._learn_at = None
        self._calibration.switch(on)

    def state(self) -> State:
        """Everything that mapping goes on from, as `dsg_ros.state` says."""
        self.catch_up()
        facts = {
            "planar": self._map.planar, "travel": self._travel, "refused": self._refused, "learn_at": self._learn_at,
            "learning": self._learning, "taken": self._taken,
        }  # fmt: skip
        moment = np.concatenate([self._moment.odometry, self._moment.velocity, [self._moment.offset]])
        calibration = nested(calibration=self._calibration.state())
        return {
            "facts": packed(facts),
            "moment": moment,
            **calibration,
            **nested(odometry=self._odometry.state()),
            **self._lost.state(self._map),
            **self._map.state(),
        }

    def about(self) -> dict[str, int]:
        """What `state` is about: how many keyframes, the stamp of the latest scan [ns], whether scans are planar."""
        return {"keyframes": len(self._map.keyframes), "stamp": self._taken, "planar": int(self._map.planar)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a pipeline with the same settings, whose scans' successors are to come.

        ValueError, KeyError or TypeError for what is none; then nothing can be done with this one any more.
        """
        facts = unpacked(state["facts"])
        self._left.clear()
        if not self._warm or facts["planar"] is not self._map.planar:
            self.warm_up(facts["planar"])
        self._travel, self._refused, self._learn_at = facts["travel"], facts["refused"], facts["learn_at"]
        self._learning, self._taken = facts["learning"], facts["taken"]
        self._moment = Moment(plain(state["moment"][:7]), np.array(state["moment"][7:13]), float(state["moment"][13]))
        self._calibration.restore(part(state, "calibration"))
        self._odometry.restore(part(state, "odometry"))
        self._map.restore(state)
        self._lost.restore(state, self._map)
        self._compiled = compilations()
        self._shown = False

    def take_up(self) -> None:
        """After `restore`, where time has passed and the odometry may have begun anew: the map grows again once the
        robot is found in it (`dsg_ros.mapping.resumption`).  A map in which nothing was seen is begun anew.
        """
        self._odometry.begin_anew()
        if self._map.empty:
            if scans := len(self._map.scans):
                _log.warning("none of the %d scans before has seen anything: a new map begins", scans)
                self._calibration.interrupt()
            self._map = self._new_map(self._map.planar)
        else:
            self._lost.resume(self._map)
            self._compiled = compilations()

    def _not_found(self, resumption: Resumption, stamp: int) -> Estimate:
        located = resumption.located
        assert located is not None, "a scan was looked at"
        told = self._told(stamp, located.pose, plain(poses.IDENTITY), keyframe=False)
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
        self._travel += float(np.linalg.norm(found.pose[:3] - self._map.back_end.pose(-1)[:3]))
        key = self._map.tie(found)
        self._observe(key, frame, cloud, odometry, found, self._calibration.theta)
        self._later(partial(self._map.draw, points, frame.base_from_sensor))
        self._later(partial(self._map.retire, frame.base_from_sensor))
        return self._estimate(frame, matched, odometry, keyframe=True)

    def snapshot_map(self) -> tuple[Path, VoxelUpdate]:
        """The whole path and every voxel."""
        return self._map.snapshot()

    def grid_changes(self, since: int) -> GridUpdate:
        """The occupancy grid at the keyframes' present poses: its tiles that changed after version ``since``."""
        return self._map.grid_changes(since)

    def what_if(self, parameter: str, change: str) -> Effect:
        """What would become of the keyframes as the graph has them now: see `Sensitivity.effect`."""
        with self._stopwatch("what_if"):
            told = self._calibration.parameters()
            return Sensitivity(self._map.back_end.problem(), self._calibration.theta, told).effect(parameter, change)

    def result(self) -> RunResult:
        """What the run has come to so far, without the final refinement."""
        self.catch_up()
        return self._result(self._map.scans.on(self._map.back_end.trajectory))

    def finish(self) -> RunResult:
        """Solve the whole graph once more, refine keyframes and voxels, and register every scan to those around it."""
        if not len(self._map.keyframes):
            return self.result()
        self.catch_up()
        self._learn()
        self._calibration.conclude(self._taken, self._travel)
        return self._result(self._map.finish(self._calibration.theta))

    def _result(self, trajectory: NDArray[np.float64]) -> RunResult:
        self._compilations = compilations() - self._compiled
        grid = self._map.whole_grid()
        self._memory = self._map.memory()
        metrics = {**self._stopwatch.summary(), **self._metrics()}
        return run_result(self._map, self._calibration, trajectory, grid, metrics, self._counts())

    def saved_map(self, source: str = "") -> SavedMap:
        """The map as it is now, to be kept; ``source`` names the recording."""
        return saved_map(self._settings, self._map, self._calibration, source)

    def _metrics(self) -> dict[str, float]:
        count, widest = self._map.tracker.open
        return {
            **self._stopwatch.last(),
            **self._map.back_end.metrics,
            **self._calibration.losses(),
            "metres": self._travel,
            "range_noise": self._map.range_noise.deviation,
            "scans_alone": float(self._odometry.alone),
            "open_directions": float(count),
            "open_heading": math.atan2(float(widest[1]), float(widest[0])),
            "compilations_after_warm_up": float(self._compilations),
            **{f"memory_bytes.{part}": float(size) for part, size in self._memory.items()},
        }

    def _counts(self) -> dict[str, int]:
        m = self._map
        totals = {"scans": len(m.scans), "keyframes": len(m.keyframes), "loops": len(m.back_end.loops)}
        totals |= m.back_end.loops.counts | {"scans_evicted": m.scans.evicted}
        totals |= self._calibration.counts | {"voxels": m.voxels.living, "scans_of_other_kind": self._refused}
        totals["keyframes_left_out_of_grid"] = m.grid.left_out
        totals |= self._odometry.counts | self._lost.counts | m.back_end.sightings.counts | m.stuck_beams.counts
        return totals | m.tracker.counts | m.closer.counts | m.back_end.counts | m.mounting.counts
