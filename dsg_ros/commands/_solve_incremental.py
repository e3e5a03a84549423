"""A pose graph file's content pose by pose, as a robot would have met it, to the optimum of the whole."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.commands._solve_graph import Optimised, optimum, outcome, tiny
from dsg_ros.commands._spanning_tree import with_all_values
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers import incremental
from dsg_ros.core.solvers.incremental import Incremental
from dsg_ros.io.posegraph import PLANAR_AXES, Floats, PoseGraph, cost

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Updates:
    """What the updates were: ``median``, ``p99`` and ``max`` of the ``milliseconds`` that a pose took, its estimate
    included, how many did ``not_converged``, and the ``cost`` of what they came to, before any descent from there.
    """

    milliseconds: dict[str, float]
    not_converged: int
    cost: float


def solve_incrementally(graph: PoseGraph) -> tuple[Optimised, Updates]:
    """The optimum, and what it took to have an estimate after each pose.

    Poses come in the order of their keys, each with its edges to those before.  A descent over the whole graph follows
    from what they have come to, and, as in batch, from the graph's values or its chordal relaxation; the better end is
    the answer.  Updates are Gauss-Newton's: where loops come late and errors are large they can end beside the optimum,
    and of two starts the one that costs less need not lead to it.  Both descents take a few hundredths of the time.

    A pose starts from the estimate of the newest one that an edge joins it to, or where none does from its value in the
    graph, which must have no landmarks.  Compiles nothing after `warm_up`.  `UserError` where values are missing and
    cannot be made.
    """
    began = time.perf_counter()
    graph = with_all_values(graph)
    estimates, milliseconds, not_converged = _one_by_one(graph)
    come_to = graph.with_values(estimates, graph.landmarks.positions)
    ends = [optimum(graph)]
    if np.isfinite(estimates).all():
        ends.append(optimum(come_to, relaxed=False))
    best = min(ends, key=lambda end: (end.code is not Result.CONVERGED, float(end.cost)))
    optimised = outcome(graph, best, time.perf_counter() - began)
    with np.errstate(over="ignore", invalid="ignore"):  # as in `optimum`
        updates = Updates(milliseconds, not_converged, cost(come_to))
    return dataclasses.replace(optimised, iterations=sum(int(end.iterations) for end in ends)), updates


def _one_by_one(graph: PoseGraph) -> tuple[Floats, dict[str, float], int]:
    """The estimates (P, 7) after all poses have come, those of held ones being their values; and two of `Updates`.

    The first pose to come is held: without one, nothing is determined.  If it is not among those that the graph holds,
    those are free to move until all have come; then the whole map moves to where the first of them is held.
    """
    arrivals = list(graph.arrivals())
    first = arrivals[0][0]
    held = set(graph.held.tolist()) if first in graph.held else {first}
    solver = Incremental(PLANAR_AXES if graph.planar else range(6))
    number = np.full(len(graph.keys), -1)
    seconds = np.empty(len(graph.keys))
    not_converged = 0
    for count, (pose, edges) in enumerate(arrivals):
        started = time.perf_counter()
        start = graph.poses[pose] if pose in held else _start(graph, pose, edges, number, solver)
        number[pose] = solver.add_pose(start, held=pose in held)
        ends = number[graph.first[edges]], number[graph.second[edges]]
        solver.add_relatives(*ends, graph.measured[edges], graph.sqrt_info[edges])
        not_converged += solver.update().result is not Result.CONVERGED
        solver.estimate(count)
        seconds[count] = time.perf_counter() - started
    estimates = solver.estimates()[number]
    root = int(graph.held[0])
    if root not in held:
        estimates = poses.compose(poses.compose(graph.poses[root], poses.inverse(estimates[root])), estimates)
        estimates[graph.held] = graph.poses[graph.held]
    median, late, longest = 1e3 * np.percentile(seconds, [50, 99, 100])
    return estimates, {"median": float(median), "p99": float(late), "max": float(longest)}, not_converged


def warm_up() -> None:
    """Compile what `solve_incrementally` needs."""
    incremental.warm_up()
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
