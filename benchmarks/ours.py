"""This project's side of the comparisons: the one place where they touch the solvers under test.

Each function takes a graph as loaded and says how long it took from there to its answer, initial values and symbolic
analysis included.  Whatever is compiled is compiled before: `benchmarks.batch` and its like call once without timing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from benchmarks import graphs
from benchmarks.graphs import Edges
from benchmarks.measuring import stopwatch
from dsg_ros.commands._solve_graph import solve_graph
from dsg_ros.core.factors import Registration
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky, incremental
from dsg_ros.core.theta import Theta
from dsg_ros.core.world import WorldModel
from dsg_ros.io.posegraph import PLANAR_AXES, Floats, PoseGraph


class Solved(NamedTuple):
    """Poses (P, 7), their cost, and the wall-clock seconds from the loaded graph to them."""

    poses: Floats
    cost: float
    seconds: float


class Robust(NamedTuple):
    """Poses (P, 7), which edges were kept (E,), and the wall-clock seconds from the loaded graph to them."""

    poses: Floats
    kept: NDArray[np.bool_]
    seconds: float


def solve_batch(graph: PoseGraph) -> Solved:
    """The optimum of a graph from its own values, or from the chordal relaxation where that costs less."""
    answer = solve_graph(graph)
    return Solved(answer.poses, graphs.cost(graph, answer.poses), answer.seconds)


class Incremental:
    """A graph that grows by one pose at a time; pose 0 is held."""

    def __init__(self, planar: bool) -> None:
        self._solver = incremental.Incremental(PLANAR_AXES if planar else range(6))

    def add(self, pose_key: int, initial: Floats, edges: Edges) -> Floats:
        """Add pose ``pose_key`` (counting up from 0) at ``initial`` (7,), with its edges to earlier poses.

        Returns the estimate (7,) of that pose once they are taken into account.
        """
        self._solver.add_pose(initial, held=pose_key == 0)
        for row in zip(edges.first.tolist(), edges.second.tolist(), edges.measured, edges.sqrt_info, strict=True):
            self._solver.add_relative(*row)
        self._solver.update()
        return self._solver.estimate(pose_key)

    def poses(self) -> Floats:
        """The estimates (P, 7) of all poses."""
        return self._solver.estimates()


_BOUND = 0.9999
"""An edge that is right has a squared error below its threshold with this probability."""
_SLOWER = 1.4
"""Ratio of the kernels' squared widths from one round of graduated non-convexity to the next (Yang et al. 2020)."""


def solve_robust(graph: PoseGraph, trusted: NDArray[np.bool_]) -> Robust:
    """The optimum of a graph some of whose edges are false; ``trusted`` (E,) says which ones are known to be right.

    Graduated non-convexity over Geman-McClure kernels on the others (Yang et al., "Graduated Non-Convexity for Robust
    Spatial Perception", 2020): as wide as the largest error at first, narrower round after round.
    """
    world, rows = _world(graph)
    doubtful = rows[~trusted]
    threshold = float(chi2.ppf(_BOUND, 3 if graph.planar else 6))

    def graduated() -> tuple[Floats, NDArray[np.bool_]]:
        world.set_rows(doubtful, kernel=np.int32(Kernel.GEMAN_MCCLURE))
        values = graph.poses
        squared = 2 * float(graphs.errors(graph, values)[~trusted].max(initial=threshold))
        while True:
            squared = max(squared, threshold)
            world.set_rows(doubtful, kernel_width=np.float64(np.sqrt(squared)))
            values = _solve(world, graph, 10)
            world.set_poses(np.arange(len(values)), values)
            if squared == threshold:
                break
            squared /= _SLOWER
        kept = trusted | (graphs.errors(graph, values) <= threshold)
        world.remove(rows[~kept])
        world.set_rows(rows[kept & ~trusted], kernel=np.int32(Kernel.NONE))
        return _solve(world, graph, 50), kept

    seconds, (values, kept) = stopwatch(graduated)
    return Robust(values, kept, seconds)


def _world(graph: PoseGraph) -> tuple[WorldModel, NDArray[np.int64]]:
    """The graph as a world model, and the ids of its rows in the order of its edges."""
    world = WorldModel()
    world.add_poses(graph.poses)
    rows = world.add_rows(
        Registration, first=graph.first, second=graph.second, measured=graph.measured, sqrt_info=graph.sqrt_info
    )
    return world, rows


def _solve(world: WorldModel, graph: PoseGraph, iterations: int) -> Floats:
    problem = world.snapshot(fixed=graph.held.tolist(), axes=PLANAR_AXES if graph.planar else range(6))
    solver = LevenbergMarquardt(SparseCholesky(), max_iterations=iterations)
    return np.asarray(solve(problem, Theta.neutral(), solver).state.poses)[: len(graph.keys)]
