"""Robust: graphs to which 20 % of random false loop closures were added (`benchmarks.corruption`), on both sides.

Ours solves each graph with every one of `corruption.SEEDS`: the worst excess counts, and false loops kept and true ones
lost in all of them together.  GTSAM, which takes minutes, solves the first by graduated non-convexity with two
thresholds: the better of the answers counts, the faster of good ones.  Both sides are told which edges are odometry,
and start from the same values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks import corruption, graphs, ours, peers_gnc
from benchmarks.corruption import EXCESS, FALSE, FRACTION, SEEDS, Corrupted, Verdict
from benchmarks.peer_cache import PeerCache
from benchmarks.table import Row
from dsg_ros.io.posegraph import PoseGraph

GRAPHS = ("sphere2500", "parking-garage", "torus3D", "city10000", "city-1k", "city-3k")


def run(names: Sequence[str], cache: PeerCache | None) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows for each graph, with what stands behind them; without GTSAM's side where there is no cache to keep it in."""
    ours.warm_up_robust()
    for name in names:
        yield compare(name, graphs.load(name), cache)


def compare(name: str, graph: PoseGraph, cache: PeerCache | None) -> tuple[list[Row], dict[str, Any]]:
    """Both sides on one graph."""
    poses, optimum = peers_gnc.optimum(graph)
    drawn = {seed: corruption.corrupt(graph, poses, seed) for seed in SEEDS}
    mine = {}
    for seed, corrupted in drawn.items():
        answer = ours.solve_robust(corrupted.graph, corrupted.trusted)
        mine[seed] = corruption.judge(graph, corrupted, answer.poses, answer.kept, poses, answer.seconds)
    first = drawn[SEEDS[0]]
    theirs, told = (None, {"gtsam": None}) if cache is None else _peer(name, first, cache)
    note = "GTSAM left out" if cache is None else _note(theirs)
    return rows_of(name, first, mine, theirs, note), {
        "graph": name,
        "optimum": optimum,
        "false_by_deviations": FALSE,
        "ours": {str(seed): dataclasses.asdict(verdict) for seed, verdict in mine.items()},
        **told,
    }


def _peer(name: str, corrupted: Corrupted, cache: PeerCache) -> tuple[Verdict | None, dict[str, Any]]:
    """The better of GTSAM's answers, None where all were given up; and all of them, for the JSON file."""
    digest = graphs.digest(corrupted.graph)
    kept = {
        probability: cache.get(
            f"GNC at {probability} | {name} {digest} | {FRACTION} false, seed {SEEDS[0]}, {peers_gnc.PATIENCE:g} s",
            partial(peers_gnc.measure, name, probability),
        )
        for probability in peers_gnc.PROBABILITIES
    }
    verdicts = [Verdict(**each.result) for each in kept.values() if each.result]
    best = min(verdicts, key=lambda v: (not v.good, v.seconds if v.good else v.excess), default=None)
    told = {
        "gtsam": {str(probability): each.result or None for probability, each in kept.items()},
        "gtsam_measured": {str(probability): each.measured() for probability, each in kept.items()},
    }
    return best, told


def _note(theirs: Verdict | None) -> str:
    if theirs is None:
        return f"GTSAM was not done after {peers_gnc.PATIENCE:g} s"
    return "" if theirs.good else f"GTSAM's answer after {theirs.seconds:.1f} s is not the inliers' optimum"


def rows_of(
    name: str, corrupted: Corrupted, mine: dict[int, Verdict], theirs: Verdict | None, note: str = ""
) -> list[Row]:
    """The figures of a graph, ours by seed; times count as a ratio only between good answers, to the first of seeds."""
    false, true = int(corrupted.false.sum()), int((~corrupted.false & ~corrupted.trusted).sum())
    verdicts = list(mine.values())
    excess = max(verdict.excess for verdict in verdicts)
    kept, lost = sum(v.false_kept for v in verdicts), sum(v.true_lost for v in verdicts)
    nearest = min((each["chi2_true"] for v in verdicts for each in v.kept_errors), default=None)
    told = f"of {len(mine)} x {false}" + ("" if nearest is None else f", the nearest at a chi2 of {nearest:.0f}")
    their: dict[str, Any] = (
        dataclasses.asdict(theirs) if theirs else dict.fromkeys(("excess", "false_kept", "true_lost"))
    )
    first = verdicts[0]
    return [
        Row("robust", name, "cost above optimum", excess, their["excess"], "", EXCESS, alone=True),
        Row("robust", name, "false loops kept", kept, their["false_kept"], "", 0, told, alone=True),
        Row(
            "robust",
            name,
            "true loops lost",
            lost,
            their["true_lost"],
            "",
            None,
            f"of {len(mine)} x {true}",
            alone=True,
        ),
        Row(
            "robust",
            name,
            "time",
            first.seconds if first.good else None,
            theirs.seconds if theirs is not None and theirs.good else None,
            "s",
            None,
            note,
        ),
    ]
