"""A pose graph file's content pose by pose, as a robot would have met it, to the optimum of the whole."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.commands._solve_graph import Optimised, in_words, tiny
from dsg_ros.commands._spanning_tree import spanning_tree
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers.incremental import Incremental
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import PLANAR_AXES, Floats, PoseGraph, cost

Indices = NDArray[np.int64]

SETTLING = 100
"""Steps over the whole graph, at most, after its last pose has come."""


def solve_incrementally(graph: PoseGraph) -> tuple[Optimised, dict[str, float]]:
    """The optimum, and the ``median``, ``p99`` and ``max`` of the milliseconds that a pose took, its estimate included.

    Poses come in the order of their keys, each with its edges to those before; then all settle together.

    A pose starts from the estimate of the newest one that an edge joins it to, or where none does from its value in the
    graph.  Compiles nothing after `warm_up`.  `UserError` where the graph has landmarks, or values are missing
    and cannot be made.
    """
    if len(graph.landmarks.keys):
        raise UserError(f"{graph.source}: --incremental is for poses alone; this graph has landmarks, leave it out")
    began = time.perf_counter()
    if not graph.known.all():
        graph = graph.with_values(*spanning_tree(graph))
    held = set(graph.held.tolist())
    solver = Incremental(PLANAR_AXES if graph.planar else range(6))
    number = np.full(len(graph.keys), -1)
    seconds = np.empty(len(graph.keys))
    for count, (pose, edges) in enumerate(graph.arrivals()):
        started = time.perf_counter()
        start = graph.poses[pose] if pose in held else _start(graph, pose, edges, number, solver)
        number[pose] = solver.add_pose(start, held=pose in held)
        for e in edges.tolist():
            first, second = int(number[graph.first[e]]), int(number[graph.second[e]])
            solver.add_relative(first, second, graph.measured[e], graph.sqrt_info[e])
        solver.update()
        solver.estimate(count)
        seconds[count] = time.perf_counter() - started
    update, steps = solver.settle(most=SETTLING)
    found = graph.with_values(solver.estimates()[number], graph.landmarks.positions)
    keys = np.sort(graph.keys)
    optimised = Optimised(
        poses=found.poses,
        landmarks=found.landmarks.positions,
        cost=cost(found),
        iterations=steps,
        converged=update.result is Result.CONVERGED,
        seconds=time.perf_counter() - began,
        result=in_words(update.result),
        underconstrained=tuple(f"pose {keys[number]}" for number in update.underconstrained),
    )
    median, late, longest = 1e3 * np.percentile(seconds, [50, 99, 100])
    return optimised, {"median": float(median), "p99": float(late), "max": float(longest)}


def warm_up() -> None:
    """Compile what `solve_incrementally` needs."""
    solve_incrementally(tiny(landmarks=False))


def _start(graph: PoseGraph, pose: int, edges: Indices, number: Indices, solver: Incremental) -> Floats:
    """The initial value (7,) of a pose from the newest one that an edge joins it to."""
    if not len(edges):
        return np.asarray(graph.poses[pose])
    others = np.where(graph.second[edges] == pose, graph.first[edges], graph.second[edges])
    k = int(np.argmax(number[others]))
    step = graph.measured[edges[k]]
    if graph.first[edges[k]] == pose:
        step = poses.inverse(step)
    return poses.compose(solver.estimate(int(number[others[k]])), step)
