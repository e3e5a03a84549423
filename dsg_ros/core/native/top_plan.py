"""How to eliminate anew the top of an elimination tree, over the parts below that stay.

Each part below, an orphan, enters the new ordering as a clique over its separator (Kaess et al., "iSAM2", IJRR 31,
2012; here with Cholesky fronts in place of QR cliques).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.elimination import Fronts, fronts_of
from dsg_ros.core.native.front_store import room
from dsg_ros.core.native.growing import FRONTS, MEMBERS, POOL, Graph, tree_of
from dsg_ros.core.native.ordering import minimum_degree
from dsg_ros.core.native.plan import neighbours_of
from dsg_ros.core.native.tree import Tree

Ints = NDArray[np.int64]

RECENT = 256
"""Variables that no new row has touched for so many updates are eliminated before others.  Without that they stay with
the root for good, and every update pays for them: on a simulated city of 6000 poses it took 5.3 ms instead of 0.8.
"""
FEW = 4
"""Where every update closes loops, so many recent variables make a dense root: then only those of the last few updates
are kept for last."""
PATIENCE = 1.5
"""So many times the work of the order with `FEW` is spent now on that with `RECENT`, whose next updates are cheaper.
City10000, as a whole: 69 s with `RECENT` alone, 30 s with `FEW` alone, 33 s with the choice; sphere2500 13.6, 18.1 and
13.4 s.
"""
LITTLE = 1e4
"""Multiplications of blocks below which there is no choice to be made: ordering costs more than elimination."""


class Top(NamedTuple):
    """The part to be eliminated anew: ``variables`` and their new ``fronts`` in local numbers, the ``order``, rows and
    orphans, and how much room the fronts need: fronts, members, pool.
    """

    variables: Ints
    order: Ints
    fronts: Fronts
    rows: Ints
    orphans: Ints
    need: Ints


@compiled
def fronts_above(tree: Tree, seeds: Ints, mark: Ints, stamp: int) -> Ints:
    """Fronts that eliminate ``seeds``, and all above them; marked with ``stamp``."""
    out, count = np.empty(64, np.int64), 0
    for i in range(len(seeds)):
        s = tree.home[seeds[i]]
        while s >= 0 and mark[s] != stamp:
            mark[s] = stamp
            if count == len(out):
                out = np.concatenate((out, np.empty_like(out)))
            out[count] = s
            count += 1
            s = tree.parents[s]
    return out[:count].copy()


@compiled
def plan_top(graph: Graph, removed: Ints, fresh: Ints, new_rows: Ints, now: int, stamp: int) -> Top:
    """How to eliminate the variables of the fronts ``removed`` and the ``fresh`` ones, with ``new_rows`` on top.

    `FrontColumns.mark` of those removed is ``stamp``.  Variables that the update ``now`` touches come last.
    """
    tree, mark, keys, width = tree_of(graph), graph.fronts.mark, graph.rows.keys, len(graph.axes)
    touched, number = graph.variables.touched, graph.variables.number
    count, row_count, orphan_count, clique_total = len(fresh), len(new_rows), 0, 0
    for k in range(len(removed)):
        s = removed[k]
        count += tree.counts[s, 0]
        r = tree.first_row[s]
        while r >= 0:
            row_count += 1
            r = tree.next_row[r]
        c = tree.child[s]
        while c >= 0:
            if mark[c] != stamp:
                orphan_count += 1
                clique_total += tree.counts[c, 1]
            c = tree.sibling[c]
    variables, rows, orphans = (
        np.empty(count, np.int64),
        np.empty(row_count, np.int64),
        np.empty(orphan_count, np.int64),
    )
    count, row_count, orphan_count = 0, 0, 0
    for k in range(len(removed)):
        s = removed[k]
        for i in range(tree.starts[s], tree.starts[s] + tree.counts[s, 0]):
            variables[count] = tree.members[i]
            number[tree.members[i]] = count
            count += 1
        r = tree.first_row[s]
        while r >= 0:
            rows[row_count] = r
            row_count += 1
            r = tree.next_row[r]
        c = tree.child[s]
        while c >= 0:
            if mark[c] != stamp:
                orphans[orphan_count] = c
                orphan_count += 1
            c = tree.sibling[c]
    for i in range(len(fresh)):
        variables[count] = fresh[i]
        number[fresh[i]] = count
        count += 1
    for i in range(len(new_rows)):
        rows[row_count] = new_rows[i]
        row_count += 1

    local = np.full((row_count, keys.shape[1]), -1, np.int64)
    for i in range(row_count):
        for a in range(keys.shape[1]):
            if keys[rows[i], a] >= 0:
                local[i, a] = number[keys[rows[i], a]]
    cliques, members, at = np.zeros(orphan_count + 1, np.int64), np.empty(clique_total, np.int64), 0
    for i in range(orphan_count):
        c = orphans[i]
        first = tree.starts[c] + tree.counts[c, 0]
        for p in range(first, first + tree.counts[c, 1]):
            members[at] = number[tree.members[p]]
            at += 1
        cliques[i + 1] = at
    ages = now - touched[variables]
    pointers, neighbours = neighbours_of(local, count)
    order = minimum_degree(pointers, neighbours, cliques, members, _stages(ages, RECENT))
    fronts = fronts_of(order, pointers, neighbours, cliques, members, width)
    work = _work(fronts)
    if work > LITTLE:
        other = minimum_degree(pointers, neighbours, cliques, members, _stages(ages, FEW))
        others = fronts_of(other, pointers, neighbours, cliques, members, width)
        if work > PATIENCE * _work(others):
            order, fronts = other, others
    need = np.zeros(3, np.int64)
    need[FRONTS] = len(fronts.fronts)
    for s in range(len(fronts.fronts)):
        wide, tall = 0, 0
        border = fronts.starts[s] + fronts.fronts[s]
        for i in range(fronts.starts[s], fronts.starts[s + 1]):
            if i < border:
                wide += tree.dims[variables[fronts.members[i]]]
            else:
                tall += tree.dims[variables[fronts.members[i]]]
        need[MEMBERS] += room(fronts.starts[s + 1] - fronts.starts[s])
        need[POOL] += room((wide + tall) * wide) + room(tall * tall + tall)
    return Top(variables, order, fronts, rows, orphans, need)


@compiled
def _stages(ages: Ints, recent: int) -> Ints:
    """Order of elimination: old variables, those touched in the last ``recent`` updates, those of this one."""
    stages = np.empty(len(ages), np.int64)
    for i in range(len(ages)):
        stages[i] = 2 if ages[i] == 0 else 1 if ages[i] <= recent else 0
    return stages


@compiled
def _work(fronts: Fronts) -> float:
    """Multiplications of blocks in the Cholesky factorisation of all fronts."""
    total = 0.0
    for s in range(len(fronts.fronts)):
        wide, tall = float(fronts.fronts[s]), float(fronts.separators[s])
        total += wide * (wide * wide / 3.0 + tall * (wide + tall))
    return total
