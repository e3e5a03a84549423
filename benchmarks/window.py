"""A fixed-lag smoother's update: 20 keyframes and 2000 voxels, every keyframe solved and the oldest marginalised.

A simulated robot drives along a hall of voxels, of which it sees those around it, with noise on odometry, registration
and sightings.  An update is all that a keyframe costs the solver: rows into the world model, the window out of it, the
solve, the values back, the oldest keyframe into the prior.  There is no peer: the figure counts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
from dsg_ros.core.solvers.fixed_lag import FixedLag
from dsg_ros.core.solvers.window import Prior
from dsg_ros.core.theta import Mask, Theta, mask, to_float64
from dsg_ros.core.world import WorldModel

KEYFRAMES, VOXELS = 20, 2000
STEP, REACH = 2.0, 3.0
"""Between keyframes, and how far the robot sees along its way [m]: a voxel is seen three times, as often as the limits
of a run's windows have it (`dsg_ros.config.Window`: 512 observations of 192 voxels).
"""
MARGIN = 1.03
"""Voxels lie at random: so many times as many, for half of the windows to have `VOXELS` at least."""
UPDATES = 300
ITERATIONS, TOLERANCE = 2, 1e-6
"""Of a solve, as a run has them."""
GOAL = 10.0
"""p99 of an update [ms]."""
CARRIED = 40
"""Updates that carry derivatives on."""
LEARNED = ("odometry.scale", "odometry.rotation_gain", "extrinsic.x", "extrinsic.y", "extrinsic.rz", "voxel_noise")
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
        """A robot that wanders along x; voxels lie so that a window of `KEYFRAMES` keyframes has `VOXELS`."""
        count = UPDATES + KEYFRAMES
        wander = 0.05 * rng.normal(size=(count, 6)) * np.isin(np.arange(6), axes)
        wander[:, 0] = STEP
        truth = [se3.IDENTITY]
        for tangent in wander[1:]:
            tangent[3:] -= 0.2 * se3.log(truth[-1])[3:]
            truth.append(se3.compose(truth[-1], se3.exp(tangent)))
        length = count * STEP
        # With a keyframe go the voxels it sees, up to REACH ahead of it: a window's voxels span KEYFRAMES steps.
        density = MARGIN * VOXELS / (KEYFRAMES * STEP)
        x = np.sort(rng.uniform(-REACH, length + REACH, int(density * (length + 2 * REACH))))
        voxels = np.column_stack([x, rng.uniform(-2, 2, (len(x), 2))])
        if 3 not in axes:
            voxels[:, 2] = 0.0
        borders = [np.searchsorted(x, (pose[0] - REACH, pose[0] + REACH)) for pose in truth]
        return Hall(np.stack(truth), voxels, [np.arange(*border) for border in borders])


class Smoother:
    """A fixed-lag smoother beside a world model, fed by the simulation."""

    def __init__(
        self, hall: Hall, axes: tuple[int, ...], rng: np.random.Generator, learned: Mask | None = None
    ) -> None:
        self._hall, self._rng = hall, rng
        self._moving = np.isin(np.arange(6), axes)
        self._theta = to_float64(Theta.neutral())
        self._world, self._count = WorldModel(), 0
        self._window = FixedLag(axes, Prior.of_pose(0, hall.truth[0], 1e-3, axes), learned)
        # Of each voxel its variable, and the other way round.
        self._variable, self._voxel_of = np.full(len(hall.voxels), -1), np.zeros(0, np.int64)
        self.sizes: list[tuple[int, int]] = []

    def simulate(self) -> tuple[Floats, Floats, Floats]:
        """The next keyframe's odometry, registration and sightings: what comes from outside, not timed."""
        k, truth = self._count, self._hall.truth
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
        world, window, key = self._world, self._window, self._count
        self._count += 1
        newest = world.get_poses(key - 1)[0] if key else self._hall.truth[0]
        pose = se3.compose(newest, registration) if key else newest
        window.add_poses(world.add_pose(pose), pose)
        if key:
            sigma: Any = {"sigma_translation": [0.02, 0, 0], "sigma_rotation": [0.02, 0, 0]}
            root = np.diag(np.where(self._moving, 100.0, 0.0))
            measured = se3.log(odometry)
            odom = world.add(OdomSE3, previous=key - 1, current=key, measured=measured, duration=0.5, **sigma)
            matched = world.add(Registration, first=key - 1, second=key, measured=registration, sqrt_info=root)
            window.add(world.stack(OdomSE3, odom))
            window.add(world.stack(Registration, matched))
        seen = self._hall.seen[key]
        fresh = self._variable[seen] < 0
        centres = se3.transform(pose[None], points[fresh])
        self._variable[seen[fresh]] = variables = world.add_voxels(centres)
        self._voxel_of = np.concatenate([self._voxel_of, seen[fresh]])
        window.add_voxels(variables, centres)
        rows = world.add_rows(
            VoxelSensorObs, pose=np.full(len(seen), key), voxel=self._variable[seen], point=points,
            sqrt_info=50 * np.eye(3), kernel=int(Kernel.CAUCHY), kernel_width=3.0,
        )  # fmt: skip
        window.add(world.stack(VoxelSensorObs, rows))
        found = window.solve(self._theta, ITERATIONS, TOLERANCE)
        world.set_poses(window.pose_keys, window.poses)
        world.set_voxels(window.voxel_keys, window.voxels)
        self.sizes.append((len(window.pose_keys), len(window.voxel_keys)))
        if key + 1 >= KEYFRAMES:
            gone = window.drop_oldest(self._theta)
            # A voxel whose rows are used up becomes a new variable when it is seen again.
            self._variable[self._voxel_of[gone]] = -1
        return found.result

    def derivative(self) -> tuple[float, float]:
        """Seconds of a derivative of the newest pose in what is learned: the first product, and one after it."""
        cotangent = np.zeros(6 * len(self._window.pose_keys) + 3 * len(self._window.voxel_keys))
        cotangent[6 * len(self._window.pose_keys) - 6] = 1.0
        made, found = stopwatch(lambda: self._window.derivative(self._theta))
        first, _ = stopwatch(lambda: found.vjp(cotangent))
        return made + first, stopwatch(lambda: found.vjp(cotangent))[0]

    def error(self) -> float:
        """How far the newest pose [m] is from the truth."""
        key = self._count - 1
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
        poses, voxels = (int(n) for n in np.median(smoother.sizes[KEYFRAMES:], axis=0))
        refused = sum(code in (Result.DIVERGED, Result.SINGULAR) for code in codes)
        note = f"{refused} updates refused" if refused else f"{poses} keyframes, {voxels} voxels"
        figures = {"median": np.median(late), "p99": np.percentile(late, 99), "max": late.max()}
        rows = [
            Row(
                "window", name, f"{what} update", None if refused else float(value), None, "ms",
                GOAL if what == "p99" else None, note, alone=True,
            )
            for what, value in figures.items()
        ]  # fmt: skip
        carrying, first, after = _carrying(axes)
        told = {"median update, carrying": carrying, "derivative, the first product": first, "product after it": after}
        rows += [
            Row("window", name, what, value, None, "ms", None, f"in {len(LEARNED)} numbers of theta", alone=True)
            for what, value in told.items()
        ]
        yield rows, {"updates": len(late), "refused": refused, "newest_off": smoother.error(), "sizes": [poses, voxels]}


def _carrying(axes: tuple[int, ...]) -> tuple[float, float, float]:
    """Median times [ms] with derivatives in `LEARNED`: of an update, which carries them on, of a first product and of
    one after it.
    """
    rng = np.random.default_rng(0)
    learned = mask(to_float64(Theta.neutral()), *LEARNED)
    smoother = Smoother(Hall.simulate(axes, rng), axes, rng, learned)
    updates, products = [], []
    for count in range(KEYFRAMES + CARRIED):
        took, _ = stopwatch(partial(smoother.update, *smoother.simulate()))
        if count >= KEYFRAMES:
            updates.append(took)
            products.append(smoother.derivative())
    first, after = 1e3 * np.median(products, axis=0)
    return 1e3 * float(np.median(updates)), float(first), float(after)
