"""Batch: from the loaded graph to GTSAM's optimum.

GTSAM runs each of its methods once; the fastest of those that end at its best cost is the one to beat.  Then both sides
run in turn.  Both stop by their own criteria, without knowing the cost to reach; both answers are judged by
`benchmarks.graphs.cost`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks import graphs, ours, peers_gtsam
from benchmarks.measuring import in_turn, times
from benchmarks.peers_gtsam import SAME, Answer, Batch, Method
from benchmarks.table import Row
from dsg_ros.io.posegraph import PoseGraph

GRAPHS = (*graphs.LITERATURE, *graphs.SIMULATED)
GOAL = 0.67
CLOSE = 1.5
"""Methods within this factor of the fastest run again before one is chosen."""


def run(names: Sequence[str], repeats: int) -> Iterator[tuple[Row, dict[str, Any]]]:
    """A row for each graph, with what stands behind it."""
    for name in names:
        yield compare(name, graphs.load(name), repeats)


def compare(name: str, graph: PoseGraph, repeats: int) -> tuple[Row, dict[str, Any]]:
    """Both sides on one graph."""
    peer = Batch(graph)
    answers = peer.attempts()
    method = _fastest(peer, peers_gtsam.reaching(answers))
    target = graphs.cost(graph, peer.poses(answers[method]))
    ours.solve_batch(graph)  # compiles
    count = times(max(ours.solve_batch(graph).seconds, answers[method].seconds), repeats)
    mine, theirs = in_turn(lambda: ours.solve_batch(graph), lambda: peer.solve(method), count)
    cost = max(solved.cost for solved in mine)
    there = cost <= target * (1 + SAME)
    seconds = median(solved.seconds for solved in mine)
    note = f"GTSAM {method.name}" if there else f"ours ends at cost {cost:.6f} after {seconds:.2f} s, not {target:.6f}"
    row = Row(
        "batch",
        name,
        "to the optimum",
        seconds if there else None,
        median(answer.seconds for answer in theirs),
        "s",
        GOAL,
        note,
    )
    return row, {
        "cost": {"ours": cost, "gtsam": target},
        "seconds": {"ours": [s.seconds for s in mine], "gtsam": [a.seconds for a in theirs]},
        "gtsam_methods": {m.name: {"seconds": a.seconds, "cost": a.cost} for m, a in answers.items()},
    }


def _fastest(peer: Batch, there: dict[Method, Answer]) -> Method:
    """The fastest of methods, those close to it judged by the better of two runs."""
    seconds = {method: answer.seconds for method, answer in there.items()}
    bound = CLOSE * min(seconds.values())
    for method in [method for method, once in seconds.items() if once <= bound]:
        seconds[method] = min(seconds[method], peer.solve(method).seconds)
    return min(seconds, key=lambda method: seconds[method])
