"""Robust: graphs to which 20 % of false loop closures were added (`benchmarks.corruption`), on both sides.

GTSAM solves each by graduated non-convexity with two thresholds: the better of the answers counts, the faster of good
ones.  Both sides are told which edges are odometry, and start from the same values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks import corruption, graphs, ours, peers_gnc
from benchmarks.corruption import EXCESS, FRACTION, SEED, Verdict
from benchmarks.peer_cache import PeerCache
from benchmarks.table import Row
from dsg_ros.io.posegraph import PoseGraph

GRAPHS = ("sphere2500", "parking-garage", "torus3D", "city10000", "city-1k", "city-3k")


def run(names: Sequence[str], cache: PeerCache) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows for each graph, with what stands behind them."""
    ours.warm_up_robust()
    for name in names:
        yield compare(name, graphs.load(name), cache)


def compare(name: str, graph: PoseGraph, cache: PeerCache) -> tuple[list[Row], dict[str, Any]]:
    """Both sides on one graph."""
    poses, optimum = peers_gnc.optimum(graph)
    corrupted = corruption.corrupt(graph, poses)
    answer = ours.solve_robust(corrupted.graph, corrupted.trusted)
    mine = corruption.judge(graph, corrupted, answer.poses, answer.kept, optimum, answer.seconds)
    verdicts = {probability: peer(name, probability, cache) for probability in peers_gnc.PROBABILITIES}
    finished = [verdict for verdict in verdicts.values() if verdict is not None]
    theirs = min(finished, key=lambda v: (not v.good, v.seconds if v.good else v.excess), default=None)
    rows = rows_of(name, corrupted, mine, theirs)
    return rows, {
        "optimum": optimum,
        "ours": dataclasses.asdict(mine),
        "gtsam": {str(p): dataclasses.asdict(v) if v else None for p, v in verdicts.items()},
    }


def peer(name: str, probability: float, cache: PeerCache) -> Verdict | None:
    """GTSAM's answer, measured once; None where it was given up."""
    key = f"GNC at {probability} | {name} | {FRACTION} false, seed {SEED}, {peers_gnc.PATIENCE:g} s"
    found = cache.get(key, partial(peers_gnc.measure, name, probability))
    return Verdict(**found) if found else None


def rows_of(name: str, corrupted: corruption.Corrupted, mine: Verdict, theirs: Verdict | None) -> list[Row]:
    """The figures of a graph; times count as a ratio only between good answers."""
    false, true = int(corrupted.false.sum()), int((~corrupted.false & ~corrupted.trusted).sum())
    if theirs is None:
        note = f"GTSAM was not done after {peers_gnc.PATIENCE:g} s"
    elif not theirs.good:
        note = f"GTSAM's answer after {theirs.seconds:.1f} s is not the inliers' optimum"
    else:
        note = ""
    their = dataclasses.asdict(theirs) if theirs else dict.fromkeys(dataclasses.asdict(mine))
    good = theirs is not None and theirs.good
    return [
        Row("robust", name, "cost above optimum", mine.excess, their["excess"], "", EXCESS, alone=True),
        Row("robust", name, "false loops kept", mine.false_kept, their["false_kept"], "", 0, f"of {false}", alone=True),
        Row("robust", name, "true loops lost", mine.true_lost, their["true_lost"], "", None, f"of {true}", alone=True),
        Row(
            "robust",
            name,
            "time",
            mine.seconds if mine.good else None,
            their["seconds"] if good else None,
            "s",
            None,
            note,
        ),
    ]
