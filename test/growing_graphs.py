"""Graphs that grow, at random: what the incremental solver is tested on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.factors import Registration
from dsg_ros.core.solution import Result, Solution
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.solvers.incremental import Incremental
from dsg_ros.core.theta import Theta
from dsg_ros.core.world import WorldModel

Array = NDArray[np.float64]
PLANAR, SPATIAL = (0, 1, 5), tuple(range(6))
ROOT = np.diag([20.0, 20, 20, 60, 60, 60])


class Walk:
    """A random walk that sees earlier poses again, with noise; poses and rows one at a time."""

    def __init__(self, seed: int, axes: tuple[int, ...], noise: float = 0.02) -> None:
        self._rng, self._noise = np.random.default_rng(seed), noise
        self._moving = np.isin(np.arange(6), axes)
        self.truth = [poses.IDENTITY]

    def step(self) -> list[tuple[int, int, Array]]:
        """The next pose's rows: to the one before, and to some earlier ones."""
        tangent = np.array([0.5, 0, 0, 0, 0, 0]) + np.array([0, 0, 0, 0.1, 0.1, 0.4]) * self._rng.normal(size=6)
        self.truth.append(poses.compose(self.truth[-1], poses.exp(tangent * self._moving)))
        new = len(self.truth) - 1
        again = self._rng.integers(0, new, self._rng.integers(0, 3)) if new > 5 else []
        return [self._row(older, new) for older in {new - 1, *(int(i) for i in again)}]

    def _row(self, first: int, second: int) -> tuple[int, int, Array]:
        error = self._noise * self._rng.normal(size=6) * self._moving
        relative = poses.between(self.truth[first], self.truth[second])
        # Either direction may come.
        measured = poses.compose(relative, poses.exp(error))
        return (first, second, measured) if self._rng.random() < 0.7 else (second, first, poses.inverse(measured))


def grow(walk: Walk, solver: Incremental, world: WorldModel, steps: int) -> None:
    for _ in range(steps):
        rows = walk.step()
        new = len(solver)
        link = next(row for row in rows if {row[0], row[1]} == {new - 1, new})
        increment = link[2] if link[0] == new - 1 else poses.inverse(link[2])
        guess = poses.compose(solver.estimate(new - 1), increment)
        solver.add_pose(guess)
        world.add_pose(guess)
        for first, second, measured in rows:
            solver.add_relative(first, second, measured, ROOT)
            world.add(Registration, first=first, second=second, measured=measured, sqrt_info=ROOT)
        assert solver.update().result is Result.CONVERGED


def begin(axes: tuple[int, ...], **options: float) -> tuple[Incremental, WorldModel]:
    solver, world = Incremental(axes, **options), WorldModel()  # type: ignore[arg-type]
    solver.add_pose(poses.IDENTITY, held=True)
    world.add_pose(poses.IDENTITY)
    return solver, world


def batch(world: WorldModel, axes: tuple[int, ...]) -> Solution:
    options = LevenbergMarquardt(SparseCholesky(), tolerance=1e-14)
    return solve(world.snapshot(fixed=[0], axes=axes), Theta.neutral(), options)
