"""A fixed-lag smoother's update: 20 keyframes and 2000 voxels, every keyframe solved and the oldest marginalised.

A simulated robot drives along a hall of voxels, of which it sees those around it, with noise on odometry, registration
and sightings.  An update is all that a keyframe costs the solver: rows into the world model, the window out of it, the
solve, the values back, the oldest keyframe into the prior.  There is no peer: the figure counts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import stopwatch
from benchmarks.table import Row
from dsg_ros import poses as se3
from dsg_ros.core.factors import OdomSE3, Registration, VoxelSensorObs
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers import window as windows
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.world import WorldModel

KEYFRAMES, VOXELS = 20, 2000
STEP, REACH = 2.0, 3.0
"""Between keyframes, and how far the robot sees along its way [m]: a voxel is seen three times, as often as the limits
of a run's windows have it (`dsg_ros.config.Window`: 512 observations of 192 voxels).
"""
UPDATES = 300
ITERATIONS, TOLERANCE = 2, 1e-6
"""Of a solve, as a run has them (`windows.solve`)."""
GOAL = 10.0
"""p99 of an update [ms]."""
DRIVES = {"hall": (0, 1, 5), "shaft": tuple(range(6))}
"""Axes along which the robot moves: a planar scanner's, and all."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Hall:
    """Where voxels are (V, 3), and which of them each of the poses (P, 7) sees."""

    truth: Floats
    voxels: Floats
    seen: list[Ints]

    @staticmethod
    def simulate(axes: tuple[int, ...], rng: np.random.Generator) -> Hall:
        """A robot that wanders along x; voxels lie so that `VOXELS` are in view of `KEYFRAMES` keyframes."""
        count = UPDATES + KEYFRAMES
        wander = 0.05 * rng.normal(size=(count, 6)) * np.isin(np.arange(6), axes)
        wander[:, 0] = STEP
        truth = [se3.IDENTITY]
        for tangent in wander[1:]:
            tangent[3:] -= 0.2 * se3.log(truth[-1])[3:]
            truth.append(se3.compose(truth[-1], se3.exp(tangent)))
        length = count * STEP
        density = VOXELS / ((KEYFRAMES - 1) * STEP + 2 * REACH)
        x = np.sort(rng.uniform(-REACH, length + REACH, int(density * (length + 2 * REACH))))
        voxels = np.column_stack([x, rng.uniform(-2, 2, (len(x), 2))])
        if 3 not in axes:
            voxels[:, 2] = 0.0
        borders = [np.searchsorted(x, (pose[0] - REACH, pose[0] + REACH)) for pose in truth]
        return Hall(np.stack(truth), voxels, [np.arange(*border) for border in borders])


class Smoother:
    """A fixed-lag smoother on a world model, fed by the simulation."""

    def __init__(self, hall: Hall, axes: tuple[int, ...], rng: np.random.Generator) -> None:
        self._hall, self._axes, self._rng = hall, axes, rng
        self._moving = np.isin(np.arange(6), axes)
        self._theta = to_float64(Theta.neutral())
        self._world = WorldModel()
        self._links: list[tuple[int, int]] = []
        self._sightings: list[tuple[Ints, Ints]] = []
        self._variable = np.full(len(hall.voxels), -1)
        self._spent = np.zeros(0, bool)
        self._prior = windows.Prior.of_pose(0, hall.truth[0], 1e-3, axes)
        self.sizes: list[tuple[int, int, int]] = []

    def simulate(self) -> tuple[Floats, Floats, Floats]:
        """The next keyframe's odometry, registration and sightings: what comes from outside, not timed."""
        k, truth = len(self._sightings), self._hall.truth
        noise = self._rng.normal(size=(2, 6)) * self._moving
        step = se3.between(truth[max(k - 1, 0)], truth[k])
        points = se3.transform(se3.inverse(truth[k]), self._hall.voxels[self._hall.seen[k]])
        sideways = [1.0, 1.0, float(self._moving[3])]
        return (
            se3.compose(step, se3.exp(0.02 * noise[0])),
            se3.compose(step, se3.exp(0.01 * noise[1])),
            points + 0.02 * self._rng.normal(size=points.shape) * sideways,
        )

    def update(self, odometry: Floats, registration: Floats, points: Floats) -> Result:
        """One keyframe: added, solved with its window, the oldest one marginalised."""
        world, key = self._world, len(self._sightings)
        newest = world.get_poses(key - 1)[0] if key else self._hall.truth[0]
        pose = se3.compose(newest, registration) if key else newest
        world.add_pose(pose)
        if key:
            sigma: Any = {"sigma_translation": [0.02, 0, 0], "sigma_rotation": [0.02, 0, 0]}
            measured = se3.log(odometry)
            root = np.diag(np.where(self._moving, 100.0, 0.0))
            self._links.append(
                (
                    world.add(OdomSE3, previous=key - 1, current=key, measured=measured, duration=0.5, **sigma),
                    world.add(Registration, first=key - 1, second=key, measured=registration, sqrt_info=root),
                )
            )
        seen = self._hall.seen[key]
        fresh = seen[self._variable[seen] < 0]
        self._variable[fresh] = world.add_voxels(
            se3.transform(np.asarray(pose)[None], points[self._variable[seen] < 0])
        )
        variables = self._variable[seen]
        rows = world.add_rows(
            VoxelSensorObs, pose=np.full(len(seen), key), voxel=variables, point=points, sqrt_info=50 * np.eye(3),
            kernel=int(Kernel.CAUCHY), kernel_width=3.0,
        )  # fmt: skip
        self._sightings.append((rows, variables))
        first = max(key + 1 - KEYFRAMES, 0)
        window = self._window(first, key)
        found = windows.solve(window, self._theta, self._axes, ITERATIONS, TOLERANCE)
        world.set_poses(window.pose_keys, found.poses)
        world.set_voxels(window.voxel_keys, found.voxels)
        self.sizes.append((len(window.pose_keys), len(window.voxel_keys), len(np.asarray(window.seen.weight))))
        if key + 1 >= KEYFRAMES:
            self._marginalise(replace(window, poses=found.poses, voxels=found.voxels))
        return found.result

    def _window(self, first: int, last: int) -> windows.Window:
        keys, world = np.arange(first, last + 1), self._world
        rows, variables = (np.concatenate(part) for part in zip(*self._sightings[first:], strict=True))
        voxels = np.unique(variables)
        odometry, registrations = np.array(self._links[first:last], np.int64).reshape(-1, 2).T
        return windows.Window(
            keys, world.get_poses(keys), np.ones(len(keys), bool), voxels, world.get_voxels(voxels),
            np.ones(len(voxels), bool),
            (world.stack(OdomSE3, odometry), world.stack(Registration, registrations)),
            world.stack(VoxelSensorObs, rows), self._prior,
        )  # fmt: skip

    def _marginalise(self, window: windows.Window) -> None:
        self._prior, gone = windows.marginalise(window, self._theta, self._axes)
        # A voxel whose rows are used up becomes a new variable when it is seen again.
        self._variable[np.isin(self._variable, gone)] = -1
        first = int(window.pose_keys[0])
        for k in range(first, len(self._sightings)):
            rows, variables = self._sightings[k]
            left = ~np.isin(variables, gone)
            self._sightings[k] = rows[left], variables[left]

    def error(self) -> float:
        """How far the newest pose [m] is from the truth."""
        key = len(self._sightings) - 1
        return float(np.linalg.norm(self._world.get_poses(key)[0, :3] - self._hall.truth[key, :3]))


def run() -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows for each drive, with what stands behind them."""
    for name, axes in DRIVES.items():
        rng = np.random.default_rng(0)
        smoother = Smoother(Hall.simulate(axes, rng), axes, rng)
        seconds, codes = [], []
        for _ in range(UPDATES + KEYFRAMES):
            took, code = stopwatch(partial(smoother.update, *smoother.simulate()))
            seconds.append(took)
            codes.append(code)
        # Until the window is full there is nothing to marginalise.
        late = 1e3 * np.array(seconds[KEYFRAMES:])
        poses, voxels, rows = (int(n) for n in np.median(smoother.sizes[KEYFRAMES:], axis=0))
        note = f"{poses} keyframes, {voxels} voxels, {rows} sightings"
        figures = {"median": np.median(late), "p99": np.percentile(late, 99), "max": late.max()}
        refused = sum(code in (Result.DIVERGED, Result.SINGULAR) for code in codes)
        yield (
            [
                Row("window", name, f"{what} update", float(value), None, "ms", GOAL if what == "p99" else None, note,
                    alone=True)
                for what, value in figures.items()
            ],
            {"updates": len(late), "refused": refused, "newest_off": smoother.error(), "sizes": [poses, voxels, rows]},
        )  # fmt: skip
