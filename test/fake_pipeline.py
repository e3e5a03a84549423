"""A pipeline small enough to reason about, for tests of what surrounds one: it counts, and follows the odometry."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import numpy as np

from dsg_ros import config as cfg
from dsg_ros import poses
from dsg_ros.effect import Effect
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame, GridUpdate, Parameter, Path, RunResult, VoxelMap

NO_LOOPS = np.zeros((0, 2), np.int32)


def voxels(points: np.ndarray, size: float = 0.5) -> VoxelMap:
    """One voxel a point, numbered from zero."""
    n = len(points)
    flat = np.zeros((n, 3), np.float32)
    counts = np.ones(n, np.int32)
    zeros = np.zeros(n, np.int64)
    known, none = np.ones(n, np.float32), np.zeros(0, np.int64)
    spread = np.full((n, 6), 1e-4, np.float32)
    return VoxelMap(size, np.arange(n), points.astype(np.float32), flat, counts, known, zeros, none, zeros, spread)


class Counting:
    """Answers each frame with its odometry; dies, fails or dawdles where the stamp says so."""

    DIE, FAIL = 666, 667
    DAWDLE = 668_000_000_000

    def __init__(self, config: cfg.Slam) -> None:
        self.learning = config.learning.enabled
        self.frames: list[Frame] = []
        self.warm: list[bool] = []

    def warm_up(self, planar: bool) -> None:
        self.warm.append(planar)

    def estimate(self, frame: Frame) -> Estimate:
        if frame.stamp == self.DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if frame.stamp == self.FAIL:
            raise ValueError("a frame that cannot be processed")
        if frame.stamp == self.DAWDLE:
            time.sleep(4.0)
        frame.points[:0] = 0.0  # frames arrive writable
        self.frames.append(frame)
        return self._estimate()

    def catch_up(self) -> None:
        pass

    def _estimate(self) -> Estimate:
        frame = self.frames[-1]
        pose = frame.odometry.at(frame.stamp)
        path, update = self._map()
        counts = {"scans": len(self.frames), "points": len(frame.points), "learning": int(self.learning)}
        counts["reference_poses"] = sum(len(f.reference) for f in self.frames)
        told = (Parameter("odometry.scale", 1.0 + 0.01 * len(self.frames), 0.002, "ratio", "frozen", "for a test"),)
        return Estimate(frame.stamp, pose, pose, np.eye(6), True, path, update, told, {}, counts)

    def optimize(self) -> Estimate:
        if not self.frames:
            raise UserError("there is no map yet")
        return self._estimate()

    def state(self) -> dict[str, np.ndarray]:
        stamps = np.array([f.stamp for f in self.frames], np.int64)
        return {"stamps": stamps, "poses": np.array([f.odometry.at(f.stamp) for f in self.frames]).reshape(-1, 7)}

    def about(self) -> dict[str, int]:
        stamp = self.frames[-1].stamp if self.frames else 0
        return {"keyframes": len(self.frames), "stamp": stamp, "planar": int(self.warm[-1])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.frames = [
            frame(int(stamp), x=pose[0]) for stamp, pose in zip(state["stamps"], state["poses"], strict=True)
        ]

    def take_up(self) -> None:
        self.taken_up = True

    def switch_learning(self, on: bool) -> None:
        self.learning = on

    def _map(self) -> tuple[Path, VoxelMap]:
        stamps = np.array([f.stamp for f in self.frames], np.int64)
        track = np.array([f.odometry.at(f.stamp) for f in self.frames]).reshape(-1, 7)
        return Path(stamps, track, NO_LOOPS), voxels(track[:, :3])

    def grid_changes(self, since: int) -> GridUpdate:
        """A tile of 4 x 4 cells of 0.5 m a frame, side by side, occupied where its number says."""
        tiles = np.arange(since, len(self.frames))
        cells = np.zeros((len(tiles), 4, 4), np.int8)
        cells[np.arange(len(tiles)), tiles // 4 % 4, tiles % 4] = 100
        places = np.stack([tiles, np.zeros_like(tiles)], axis=1)
        return GridUpdate(len(self.frames), 0.5, places, cells, whole=since == 0)

    def what_if(self, parameter: str, change: str) -> Effect:
        """All frames so far move by the change along x."""
        if parameter != "scale":
            raise UserError(f"parameter {parameter!r} is not one")
        if change == "fail":
            raise ValueError("a change that nobody foresaw")
        try:
            amount = float(change)
        except ValueError:
            raise UserError(f"{change!r} is no change") from None
        if not self.frames:
            raise UserError("there is no map yet")
        zeros = np.zeros((len(self.frames), 6))
        moved = np.tile([amount, 0, 0, 0, 0, 0], (len(self.frames), 1))
        return Effect("scale", "ratio", 1.0, 0.01, "learned", amount, moved, moved, zeros)

    def result(self) -> RunResult:
        path, update = self._map()
        track = path.poses
        counts = {"scans": len(track)}
        return RunResult(path.stamps, track, track, track, track, path, update, (), (), {}, counts, "test")

    def finish(self) -> RunResult:
        return dataclasses.replace(self.result(), source="refined")


class CatchingUp(Counting):
    """Leaves something to be done after each estimate, and notices where it is not done."""

    left, caught_up = False, 0

    def estimate(self, frame: Frame) -> Estimate:
        assert not self.left, "not caught up with the frame before"
        self.left = True
        estimate = super().estimate(frame)
        return dataclasses.replace(estimate, counts={**estimate.counts, "caught_up": self.caught_up})

    def catch_up(self) -> None:
        self.left = False
        self.caught_up += 1

    def result(self) -> RunResult:
        assert not self.left, "not caught up with the last frame"
        return super().result()


class NeverReady(Counting):
    def warm_up(self, planar: bool) -> None:
        raise RuntimeError("no kernels today")


def frame(stamp: int, n: int = 4, x: float = 0.0) -> Frame:
    from dsg_ros.interface import OdometryTrack

    pose = poses.from_planar(x, 0.0, 0.0)
    track = OdometryTrack(np.array([stamp], np.int64), pose[None])
    return Frame(stamp, np.ones((n, 3), np.float32), track, times=np.zeros(n, np.float32))


class Gridless(Counting):
    def grid_changes(self, since: int) -> GridUpdate:
        raise RuntimeError("no grid today")


class Unrestorable(Counting):
    def restore(self, state: dict[str, np.ndarray]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Levered(Counting):
    """Has found where the sensor sits."""

    def _estimate(self) -> Estimate:
        lever = Parameter("odometry.lever.x", 0.05, 0.002, "m", "learned")
        estimate = super()._estimate()
        return dataclasses.replace(estimate, parameters=(*estimate.parameters, lever))
