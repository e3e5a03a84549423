"""Put the fronts of a plan in the place of those taken out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.front_store import give_pool, room, size_class, take_pool
from dsg_ros.core.native.growing import FRONTS, MEMBERS, SPARE, UNDECIDED, Graph, tree_of
from dsg_ros.core.native.top_plan import Top

Ints = NDArray[np.int64]


@compiled
def install(graph: Graph, removed: Ints, top: Top, now: int) -> Ints:
    """Replace the fronts ``removed`` by those of ``top``; returns the new ones' numbers, children before parents.

    There must be room for ``top.need``; `Variables.number` is as `plan_top` left it.
    """
    tree, store, keys, number = tree_of(graph), graph.store, graph.rows.keys, graph.variables.number
    fronts, variables = top.fronts, top.variables
    for k in range(len(removed)):
        s = removed[k]
        wide, tall = tree.widths[s, 0], tree.widths[s, 1]
        give_pool(tree, store, tree.panel[s], (wide + tall) * wide)
        if tree.update[s] >= 0:
            give_pool(tree, store, tree.update[s], tall * tall + tall)
        kind = size_class(tree.counts[s, 0] + tree.counts[s, 1])
        tree.counts[s, 0] = 0
        tree.members[tree.starts[s]] = store.free_members[kind]
        store.free_members[kind] = tree.starts[s]
        graph.fronts.spare[store.ends[SPARE]] = s
        store.ends[SPARE] += 1
    count = len(fronts.fronts)
    ids = np.empty(count, np.int64)
    for k in range(count):
        if store.ends[SPARE]:
            store.ends[SPARE] -= 1
            ids[k] = graph.fronts.spare[store.ends[SPARE]]
        else:
            ids[k] = store.ends[FRONTS]
            store.ends[FRONTS] += 1
    for k in range(count):
        s, length = ids[k], fronts.starts[k + 1] - fronts.starts[k]
        kind = size_class(length)
        at = store.free_members[kind]
        if at >= 0:
            store.free_members[kind] = tree.members[at]
        else:
            at = store.ends[MEMBERS]
            store.ends[MEMBERS] += room(length)
        tree.starts[s] = at
        tree.counts[s, 0], tree.counts[s, 1] = fronts.fronts[k], fronts.separators[k]
        wide, tall = 0, 0
        for i in range(length):
            v = variables[fronts.members[fronts.starts[k] + i]]
            tree.members[at + i] = v
            if i < fronts.fronts[k]:
                wide += tree.dims[v]
                tree.home[v] = s
            else:
                tall += tree.dims[v]
        tree.widths[s, 0], tree.widths[s, 1] = wide, tall
        tree.panel[s] = take_pool(tree, store, (wide + tall) * wide)
        tree.update[s] = take_pool(tree, store, tall * tall + tall)
        tree.first_row[s], tree.child[s] = -1, -1
        graph.fronts.worth[s], graph.fronts.born[s] = UNDECIDED, now
    for k in range(count - 1, -1, -1):
        s, parent = ids[k], -1
        if fronts.parents[k] >= 0:
            parent = ids[fronts.parents[k]]
            tree.sibling[s] = tree.child[parent]
            tree.child[parent] = s
        else:
            tree.sibling[s] = -1
        tree.parents[s] = parent
    place = np.empty(len(variables), np.int64)
    for k in range(len(variables)):
        place[top.order[k]] = k
    for i in range(len(top.orphans)):
        c = top.orphans[i]
        first, least, at = tree.starts[c] + tree.counts[c, 0], len(variables), -1
        for p in range(first, first + tree.counts[c, 1]):
            k = place[number[tree.members[p]]]
            if k < least:
                least, at = k, tree.members[p]
        s = tree.home[at]
        tree.parents[c], tree.sibling[c] = s, tree.child[s]
        tree.child[s] = c
    for i in range(len(top.rows) - 1, -1, -1):
        r = top.rows[i]
        least, at = len(variables), -1
        for a in range(keys.shape[1]):
            if keys[r, a] >= 0:
                k = place[number[keys[r, a]]]
                if k < least:
                    least, at = k, keys[r, a]
        s = tree.home[at]
        tree.next_row[r] = tree.first_row[s]
        tree.first_row[s] = r
    return ids
