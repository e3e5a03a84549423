"""Derivatives: a vector-Jacobian product of a graph's optimum against the solve that found it.

The function differentiated is the newest pose's position.  The solve is ours from the loaded graph on; the product is
`dsg_ros.core.implicit.implicit_vjp` at its end: one back-substitution and one product a factor type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import jax
import numpy as np

from benchmarks import graphs, ours
from benchmarks.measuring import in_turn, stopwatch, times
from benchmarks.pcg import problem_of, solve
from benchmarks.table import Row
from dsg_ros.core.implicit import implicit_vjp
from dsg_ros.core.variables import State
from dsg_ros.io.posegraph import PoseGraph

GRAPHS = graphs.LITERATURE
GOAL = 0.15


def run(names: Sequence[str], repeats: int) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """A row for each graph."""
    for name in names:
        row, detail = compare(name, graphs.load(name), repeats)
        yield [row], detail


def compare(name: str, graph: PoseGraph, repeats: int) -> tuple[Row, dict[str, Any]]:
    """Solve and product on one graph, in turn."""
    problem, theta = problem_of(graph)
    solution = solve(problem, theta)
    poses: Any = np.zeros(solution.state.poses.shape)
    poses[len(graph.keys) - 1, :3] = 1.0
    voxels: Any = np.zeros(solution.state.voxels.shape)
    cotangent = State(poses, voxels)

    def product() -> float:
        return stopwatch(lambda: jax.block_until_ready(implicit_vjp(problem, theta, solution, cotangent)))[0]

    product()
    whole = ours.solve_batch(graph).seconds
    pairs = in_turn(product, lambda: ours.solve_batch(graph).seconds, times(whole, repeats))
    seconds = [median(part) for part in pairs]
    row = Row("derivative", name, "vjp / solve", seconds[0], seconds[1], "s", GOAL)
    return row, {"graph": name, "vjp": pairs[0], "solve": pairs[1]}
