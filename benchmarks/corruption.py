"""Graphs to which random false loop closures were added, and what a robust answer to one is worth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks import graphs
from dsg_ros import poses as se3
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, Indices, PoseGraph

FRACTION = 0.2
"""False loops, of the number of true ones."""
FALSE = 7.0
"""A false loop is at least so many of its own standard deviations from the truth.  One that is right is farther than
6.2 of them (in the plane 5.5) once in a million: what is nearer might be right."""
SEEDS = (2026, 2027, 2028)
EXCESS = 0.01
"""The inlier graph's cost may be this far above its optimum, relative to it."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Corrupted:
    """A ``graph`` with false loops, which of its edges are ``false`` (E,), and which are known to be right (E,)."""

    graph: PoseGraph
    false: Mask
    trusted: Mask


@dataclass(frozen=True)
class Verdict:
    """Excess of the true graph's cost over its optimum, false loops kept, true loops lost, and the seconds it took.

    ``kept_errors`` are the false loops that were kept, each with the vertices it joins and its squared whitened error
    at the true graph's optimum and at the answer: how well it fits.
    """

    excess: float
    false_kept: int
    true_lost: int
    seconds: float
    kept_errors: list[dict[str, float]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """The optimum, and nothing false in it."""
        return self.excess <= EXCESS and not self.false_kept


def corrupt(graph: PoseGraph, optimum: Floats, seed: int = SEEDS[0]) -> Corrupted:
    """Add false loops to a graph whose optimum is (P, 7).

    Each joins two poses drawn at random, near or far, and claims what some true loop of the same graph, drawn at
    random too, has measured, with its information matrix.  Those that are not false by `FALSE` standard deviations of
    that are drawn again.  Edges between consecutive poses are odometry, known to be right.  `UserError` where no loop
    is there to copy, or almost all that can be drawn would be right.
    """
    random = np.random.default_rng(seed)
    neighbours = graphs.neighbours(graph)
    loops = np.flatnonzero(~neighbours)
    if not len(loops):
        raise UserError(f"{graph.source}: it closes no loop: what would a false one look like?")
    count = round(FRACTION * len(loops))
    pairs, copied = _false(graph, optimum, loops, count, random)
    more = dataclasses.replace(
        graph,
        first=np.concatenate([graph.first, pairs[:, 0]]),
        second=np.concatenate([graph.second, pairs[:, 1]]),
        measured=np.concatenate([graph.measured, graph.measured[copied]]),
        information=np.concatenate([graph.information, graph.information[copied]]),
        sqrt_info=np.concatenate([graph.sqrt_info, graph.sqrt_info[copied]]),
    )
    false = np.arange(len(more.first)) >= len(graph.first)
    return Corrupted(more, false, np.concatenate([neighbours, np.zeros(count, bool)]))


def _false(
    graph: PoseGraph, optimum: Floats, loops: Indices, count: int, random: np.random.Generator
) -> tuple[Indices, Indices]:
    """Pairs of poses (count, 2) that are no neighbours, and the loops (count,) that they copy."""
    pairs, copied = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    for _ in range(100):
        drawn = np.sort(random.integers(len(optimum), size=(2 * count, 2)), axis=1)
        drawn = drawn[drawn[:, 1] - drawn[:, 0] > 1]
        claim = random.choice(loops, len(drawn))
        relative = se3.between(optimum[drawn[:, 0]], optimum[drawn[:, 1]])
        error = se3.log(se3.between(graph.measured[claim], relative))
        deviations = np.linalg.norm(np.einsum("eij,ej->ei", graph.sqrt_info[claim], error), axis=1)
        pairs = np.concatenate([pairs, drawn[deviations >= FALSE]])
        copied = np.concatenate([copied, claim[deviations >= FALSE]])
        if len(pairs) >= count:
            return pairs[:count], copied[:count]
    raise UserError(f"{graph.source}: its loops are so vague that hardly one could be false by {FALSE:g} deviations")


def judge(
    graph: PoseGraph, corrupted: Corrupted, poses: Floats, kept: Mask, optimum: Floats, seconds: float
) -> Verdict:
    """Judge poses (P, 7) and kept edges (E,) by the graph without false loops, whose optimum (P, 7) is given."""
    wrong = np.flatnonzero(kept & corrupted.false)
    there, here = graphs.errors(corrupted.graph, optimum), graphs.errors(corrupted.graph, poses)
    ends = corrupted.graph.keys[np.stack([corrupted.graph.first, corrupted.graph.second], axis=1)]
    return Verdict(
        graphs.cost(graph, poses) / graphs.cost(graph, optimum) - 1,
        len(wrong),
        int((~kept & ~corrupted.false).sum()),
        seconds,
        [
            {"first": int(ends[k, 0]), "second": int(ends[k, 1]), "chi2_true": float(there[k]), "chi2": float(here[k])}
            for k in wrong
        ],
    )
