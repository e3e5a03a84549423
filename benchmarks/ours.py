"""This project's side of the comparisons: the one place where they touch the solvers under test.

Each function takes a graph as loaded and says how long it took from there to its answer, initial values and symbolic
analysis included.  Whatever is compiled is compiled before: `benchmarks.batch` and its like call once without timing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import graphs
from benchmarks.graphs import Edges
from dsg_ros.commands._solve_graph import snapshot_of, solve_graph, world_of
from dsg_ros.commands._solve_robust import solve_robustly, warm_up
from dsg_ros.core.linearisation import HostRows
from dsg_ros.core.native.tree import fill
from dsg_ros.core.solvers import SparseCholesky, incremental
from dsg_ros.core.theta import Theta
from dsg_ros.io.posegraph import PLANAR_AXES, Floats, PoseGraph

TOLERANCE = 1e-7
"""Of `solve_batch`: relative decrease of the cost that a last step promises."""


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
    answer = solve_graph(graph, tolerance=TOLERANCE)
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
        self._solver.add_relatives(edges.first, edges.second, edges.measured, edges.sqrt_info)
        self._solver.update()
        return self._solver.estimate(pose_key)

    def poses(self) -> Floats:
        """The estimates (P, 7) of all poses."""
        return self._solver.estimates()

    def fill(self) -> int:
        """Numbers in the factor."""
        return self._solver.fill()


def batch_fill(graph: PoseGraph) -> int:
    """Numbers in the factor that `solve_batch` makes of a graph."""
    rows = HostRows(snapshot_of(world_of(graph), graph), Theta.neutral())
    return fill(SparseCholesky().tree(rows).widths)


def warm_up_incremental() -> None:
    """Compile what `Incremental` needs."""
    incremental.warm_up()


def warm_up_robust() -> None:
    """Compile what `solve_robust` needs."""
    warm_up()


def solve_robust(graph: PoseGraph, trusted: NDArray[np.bool_]) -> Robust:
    """The optimum of a graph some of whose edges are false; ``trusted`` (E,) says which ones are known to be right."""
    answer, judged = solve_robustly(graph, trusted)
    return Robust(answer.poses, ~judged.rejected, answer.seconds)
