"""Give back what fronts left to the one above, where nothing has touched them for long.

It is most of the memory, and of use only if the front above is taken out.  All but one in `MOST` give it back; where it
is wanted after all, those few are done again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.front_store import give_pool, room, take_pool
from dsg_ros.core.native.growing import KEPT, UNDECIDED, Graph, tree_of
from dsg_ros.core.native.top_plan import RECENT
from dsg_ros.core.native.tree import Tree

Ints = NDArray[np.int64]

RETIRED = 4 * RECENT
"""Fronts whose variables, and those of the front above, nothing has touched for so many updates give back what they
left to it."""
MOST = 24
"""Fronts, at most, that are done again to have what one of them left."""


@compiled
def wanting(tree: Tree, removed: Ints, mark: Ints, stamp: int) -> tuple[Ints, int]:
    """Fronts to be done again, children before parents, so that all orphans of ``removed`` (marked with ``stamp``) have
    what they leave; and how much room that needs.
    """
    out, count, need = np.empty(16, np.int64), 0, 0
    for k in range(len(removed)):
        c = tree.child[removed[k]]
        while c >= 0:
            if mark[c] != stamp and tree.update[c] < 0:
                at = count
                out, count = _pushed(out, count, c)
                while at < count:
                    s = out[at]
                    at += 1
                    need += room(tree.widths[s, 1] ** 2 + tree.widths[s, 1])
                    below = tree.child[s]
                    while below >= 0:
                        if tree.update[below] < 0:
                            out, count = _pushed(out, count, below)
                        below = tree.sibling[below]
            c = tree.sibling[c]
    return out[:count][::-1].copy(), need


@compiled
def _pushed(stack: Ints, count: int, value: int) -> tuple[Ints, int]:
    if count == len(stack):
        stack = np.concatenate((stack, np.empty_like(stack)))
    stack[count] = value
    return stack, count + 1


@compiled
def revive(graph: Graph, ids: Ints) -> None:
    """Give the fronts ``ids`` room again for what they leave.  There must be as much as `wanting` said."""
    tree = tree_of(graph)
    for k in range(len(ids)):
        tall = tree.widths[ids[k], 1]
        tree.update[ids[k]] = take_pool(tree, graph.store, tall * tall + tall)
        graph.fronts.worth[ids[k]] = UNDECIDED


@compiled
def retire(graph: Graph, ids: Ints, since: int, now: int) -> Ints:
    """Take back what those of the fronts ``ids`` left that are old enough; returns those to be looked at again.

    A front ``born`` after the update ``since`` has taken over the number of one that is gone, and is on another list.
    """
    tree, touched, worth, born = tree_of(graph), graph.variables.touched, graph.fronts.worth, graph.fronts.born
    later, count = np.empty(len(ids), np.int64), 0
    for k in range(len(ids)):
        s = ids[k]
        if worth[s] != UNDECIDED or tree.counts[s, 0] == 0 or born[s] > since:
            continue
        again, c = 1, tree.child[s]
        while c >= 0 and worth[c] != UNDECIDED:
            again += max(worth[c], 0)
            c = tree.sibling[c]
        old = now - RETIRED
        if c >= 0 or tree.parents[s] < 0 or _newest(tree, s, touched) > old or (
            _newest(tree, tree.parents[s], touched) > old
        ):  # fmt: skip
            later[count] = s
            count += 1
            continue
        worth[s] = KEPT
        if again <= MOST:
            tall = tree.widths[s, 1]
            give_pool(tree, graph.store, tree.update[s], tall * tall + tall)
            tree.update[s], worth[s] = -1, again
    return later[:count].copy()


@compiled
def _newest(tree: Tree, s: int, touched: Ints) -> int:
    """The last update that touched a variable that front ``s`` eliminates."""
    newest = -1
    for i in range(tree.starts[s], tree.starts[s] + tree.counts[s, 0]):
        newest = max(newest, touched[tree.members[i]])
    return newest
