"""Graphs to which false loop closures were added, and what a robust answer to one is worth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import graphs
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, PoseGraph

FRACTION = 0.2
"""False loops, of the number of true ones."""
FAR = 0.25
"""Poses are far apart if their distance is at least this fraction of the map's diagonal."""
SEED = 2026
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
    """Excess of the true graph's cost over its optimum, false loops kept, true loops lost, and the seconds it took."""

    excess: float
    false_kept: int
    true_lost: int
    seconds: float

    @property
    def good(self) -> bool:
        """The optimum, and nothing false in it."""
        return self.excess <= EXCESS and not self.false_kept


def corrupt(graph: PoseGraph, optimum: Floats, seed: int = SEED) -> Corrupted:
    """Add false loops to a graph whose optimum is (P, 7).

    Each joins two poses that are far apart there, and claims what some true loop of the same graph has measured, with
    its information matrix.  Edges between consecutive poses are odometry, known to be right.  `UserError` where no loop
    is there to copy.
    """
    random = np.random.default_rng(seed)
    neighbours = graphs.neighbours(graph)
    loops = np.flatnonzero(~neighbours)
    if not len(loops):
        raise UserError(f"{graph.source}: it closes no loop: what would a false one look like?")
    count = round(FRACTION * len(loops))
    far = FAR * float(np.linalg.norm(np.ptp(optimum[:, :3], axis=0)))
    pairs = _far_apart(optimum[:, :3], far, count, random)
    copied = random.choice(loops, count)
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


def _far_apart(positions: Floats, far: float, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    pairs = np.zeros((0, 2), np.int64)
    while len(pairs) < count:
        drawn = np.sort(random.integers(len(positions), size=(2 * count, 2)), axis=1)
        distance = np.linalg.norm(positions[drawn[:, 0]] - positions[drawn[:, 1]], axis=1)
        pairs = np.concatenate([pairs, drawn[distance >= far]])
    return pairs[:count]


def judge(graph: PoseGraph, corrupted: Corrupted, poses: Floats, kept: Mask, optimum: float, seconds: float) -> Verdict:
    """Judge poses (P, 7) and kept edges (E,) by the graph without false loops, whose optimal cost is given."""
    return Verdict(
        graphs.cost(graph, poses) / optimum - 1,
        int((kept & corrupted.false).sum()),
        int((~kept & ~corrupted.false).sum()),
        seconds,
    )
