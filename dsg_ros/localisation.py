"""Localisation in a saved map, in place of `dsg_ros.pipeline.Slam`: the same frames in, the same estimates out.

The map is not grown.  Until the robot is found in it, estimates say so and their poses are not in map.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros import interface as contract
from dsg_ros.core.compilation import compilations
from dsg_ros.core.native import plain
from dsg_ros.errors import UserError
from dsg_ros.grid_store import GridStore
from dsg_ros.interface import Estimate, Frame, GridUpdate, Hint, OdometryTrack, RunResult, SavedMap
from dsg_ros.io.map_folder import read_map
from dsg_ros.learning.calibration import Calibration
from dsg_ros.mapping import scan
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.localiser import Localiser, Located, State
from dsg_ros.mapping.odometry_source import OdometrySource
from dsg_ros.mapping.reference import Reference
from dsg_ros.mapping.stuck_beams import StuckBeams
from dsg_ros.mapping.warm_up import compile_localiser
from dsg_ros.stopwatch import Stopwatch


def from_folder(settings: config.Node) -> Localisation:
    """The pipeline of a node that localises in its ``map_folder``; `UserError` where that holds no whole map."""
    return Localisation(settings, read_map(Path(settings.map_folder)))


_log = logging.getLogger(__name__)


def _tell(stamp: int, located: Located) -> None:
    """Log that the robot was found, or is lost."""
    pose, at = located.pose, stamp / 1e9
    if located.state is State.LOCALISED:
        heading = float(np.degrees(poses.yaw(pose)))
        _log.info("at %.3f: localised at x %.2f m, y %.2f m, heading %.0f deg", at, pose[0], pose[1], heading)
    else:
        _log.warning("at %.3f: lost, scans do not fit the map any more; looking for the place", at)


class Localisation:
    """Odometry and points in; poses in ``saved`` out.

    The odometry is calibrated with what the map's run has learned of it.
    """

    def __init__(self, settings: config.Slam, saved: SavedMap) -> None:
        if not any(len(cloud) for cloud in saved.clouds):
            raise UserError("the map holds no keyframe that has seen anything: nothing to localise in")
        self._settings = config.replace(settings, {"learning.enabled": False})
        self._saved = saved
        self._calibration = Calibration(self._settings, saved.parameters)
        self.mapper = LocalMapper(settings.registration, settings.input, planar=saved.planar)
        clouds = [cloud.astype(np.float64) for cloud in saved.clouds]
        # The points of a query lie within a sensor's reach of scans that were taken on the way here.
        reach = settings.input.max_range + settings.relocalisation.keyframes * settings.keyframes.distance
        self.reference = Reference(settings.relocalisation, self.mapper, saved.poses, clouds, reach)
        self._source = OdometrySource(self._settings, self._calibration.predict)
        self._localiser = self.new_localiser()
        self._stuck_beams = StuckBeams()
        self._stopwatch = Stopwatch()
        self._stamps, self._poses, self._odometry = Rows(dtype=np.int64), Rows(7), Rows(7)
        self._counts: Counter[str] = Counter(scans=0, scans_of_other_kind=0)
        self._compiled = 0
        self._shown = False

    def warm_up(self, planar: bool) -> None:
        """Compile every kernel.  What kind of scan comes is not asked: the map is for one kind."""
        longest = int(np.argmax([len(cloud) for cloud in self._saved.clouds]))
        here = plain(self._saved.poses[longest])
        track = OdometryTrack(np.zeros(1, np.int64), here[None])
        scan_here = self.cloud(Frame(0, self._saved.clouds[longest], track, planar=self._saved.planar))
        compile_localiser(self.new_localiser(), scan_here, here)
        self._compiled = compilations()

    def new_localiser(self) -> Localiser:
        """One that knows nothing yet of where the robot is."""
        return Localiser(self._settings, self.mapper, self.reference, self._source.predict)

    def cloud(self, frame: Frame) -> NDArray[np.float64]:
        """Points (n, 3) of a scan as they are matched: deskewed, in the base frame, thinned."""
        correct = None if self._source.alone else self._calibration.corrected
        return scan.thin(scan.deskew(frame, correct), self._settings.input.cell, self._settings.input.max_points)

    def hint(self, pose: NDArray[np.float64], radius: float, turn: float) -> None:
        """From the next scan on look for the robot within ``radius`` [m], ``turn`` [rad] of ``pose`` (7,) in map."""
        self._localiser.hint(Hint(pose, radius, turn))

    def estimate(self, frame: Frame) -> Estimate:
        """One scan: deskew; then register it to the map around, or look for it in the whole map."""
        frame = self._source.of(frame, self._localiser.step)
        frame = self._stuck_beams.without(frame)
        odometry = plain(frame.odometry.at(frame.stamp))
        with self._stopwatch("localise"):
            cloud = self.cloud(frame)
            if frame.planar != self._saved.planar:
                cloud = cloud[:0]
                self._counts["scans_of_other_kind"] += 1
            elif frame.planar:
                self.mapper.range_noise.hear(frame.points)
            before = self._localiser.state
            if before is State.LOCALISED and self._source.away:
                _log.warning(
                    "at %.3f: nothing has told for %.1f s how the robot moves", frame.stamp / 1e9, self._source.unseen
                )
                self._localiser.lose_sight()
            alone = self._source.alone
            there = odometry if alone else self._calibration.there(frame, odometry)
            located = self._localiser.track(cloud, there, frame.stamp, alone=alone)
        if located.state is State.LOCALISED:  # a robot that waits to be found stands, and nothing fits
            self._source.matched(located.inliers)
        if located.state is not before:
            _tell(frame.stamp, located)
        self._counts["scans"] += 1
        if located.state is State.LOCALISED:
            self._stamps.append(frame.stamp)
            self._poses.append(located.pose)
            self._odometry.append(odometry)
        return self._estimate(frame.stamp, located)

    def catch_up(self) -> None:
        """Nothing: a finished map has no use for a scan beyond its estimate."""

    def _estimate(self, stamp: int, located: Located) -> Estimate:
        first, self._shown = not self._shown, True
        return Estimate(
            stamp=stamp,
            pose=located.pose,
            odometry=self._source.raw.copy(),
            covariance=located.covariance,
            keyframe=False,
            path=self._path() if first else None,
            voxels=self._saved.voxels if first else None,
            parameters=self._calibration.parameters(),
            metrics=self._metrics() | {"inliers": located.inliers},
            counts=self._told_counts(),
            localisation=located.state.value,
        )

    def grid_changes(self, since: int) -> GridUpdate:
        """The occupancy grid of the map: everything, or where ``since`` is its version, nothing."""
        grid = self._saved.grid
        if since != grid.version:
            return grid
        return GridUpdate(grid.version, grid.resolution, grid.tiles[:0], grid.cells[:0])

    def result(self) -> RunResult:
        """The poses of all scans that were localised, as they were told at the time."""
        trajectory = self._poses.values.copy()
        store = GridStore()
        store.update(self._saved.grid)
        return RunResult(
            stamps=self._stamps.values.copy(),
            trajectory=trajectory,
            causal=trajectory,
            live=trajectory,
            odometry=self._odometry.values.copy(),
            path=self._path(),
            voxels=self._saved.voxels,
            parameters=self._calibration.parameters(),
            learning=(),
            metrics={**self._stopwatch.summary(), **self._metrics()},
            counts=self._told_counts(),
            grid=store.grid if len(store) else None,
        )

    def saved_map(self) -> SavedMap:
        """The map as it was loaded."""
        return self._saved

    def finish(self) -> RunResult:
        """As `result`: the map stays as it is, so there is nothing to refine."""
        return self.result()

    def _path(self) -> contract.Path:
        return contract.Path(self._saved.stamps, self._saved.poses, self._saved.loops)

    def _metrics(self) -> dict[str, float]:
        return {
            **self._stopwatch.last(),
            "scans_alone": float(self._source.alone),
            "compilations_after_warm_up": float(compilations() - self._compiled),
        }

    def _told_counts(self) -> dict[str, int]:
        kept = {"keyframes": len(self._saved.stamps), "loops": len(self._saved.loops)}
        return {
            **self._counts,
            **kept,
            **self._source.counts,
            "voxels": len(self._saved.voxels.ids),
            **self._localiser.counts,
            **self._stuck_beams.counts,
        }
