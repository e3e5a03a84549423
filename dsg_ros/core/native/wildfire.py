"""Back substitution from the top of an elimination tree down, as far as anything changes.

A variable's change is carried further down once it differs by more than a threshold from what was last told to those
below: changes that are each below it cannot pile up unseen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.growing import FAR, Graph, tree_of
from dsg_ros.core.native.substitution import back, enough

Ints = NDArray[np.int64]


@compiled
def is_finite(graph: Graph, ids: Ints) -> bool:
    """Whether the right-hand side of fronts is, after forward substitution: where it is not, the rows' gradients are
    beyond all numbers, and a step by them would be none.
    """
    fronts, variables = graph.fronts, graph.variables
    for k in range(len(ids)):
        s = ids[k]
        for i in range(fronts.starts[s], fronts.starts[s] + fronts.counts[s, 0]):
            v = graph.members[i]
            for j in range(variables.dims[v]):
                if not np.isfinite(variables.forward[v, j]):
                    return False
    return True


@compiled
def substitute_from(graph: Graph, ids: Ints, stamp: int, threshold: float, beyond: float) -> int:
    """Back substitution from the top ``ids`` (children before parents) down; returns how many fronts were visited.

    A front is left alone where no variable of its separator has news beyond ``threshold`` for it.  Variables whose
    ``delta`` is ``beyond`` are listed in `Variables.far`.
    """
    tree, variables, seen, ends = tree_of(graph), graph.variables, graph.fronts.seen, graph.store.ends
    forward, delta, told = variables.forward.reshape(-1), variables.delta.reshape(-1), variables.told.reshape(-1)
    stack, depth, room = np.empty(len(ids) + 64, np.int64), len(ids), np.empty(256)
    stack[:depth] = ids
    for k in range(depth):
        seen[ids[k]] = stamp
    visited = 0
    while depth:
        depth -= 1
        s = stack[depth]
        first, border = tree.starts[s], tree.starts[s] + tree.counts[s, 0]
        visit = seen[s] == stamp
        for i in range(border, border + tree.counts[s, 1]):
            visit |= variables.changed[tree.members[i]] == stamp
        if not visit:
            continue
        visited += 1
        room = enough(room, tree, s)
        back(tree, s, forward, delta, room)
        for i in range(first, border):
            v = tree.members[i]
            goes_on, is_far = False, False
            for j in range(tree.offset[v], tree.offset[v] + tree.dims[v]):
                goes_on |= abs(delta[j] - told[j]) > threshold
                is_far |= abs(delta[j]) > beyond
            if not goes_on:
                continue
            variables.changed[v] = stamp
            for j in range(tree.offset[v], tree.offset[v] + tree.dims[v]):
                told[j] = delta[j]
            if is_far and not variables.listed[v]:
                variables.listed[v] = True
                variables.far[ends[FAR]] = v
                ends[FAR] += 1
        c = tree.child[s]
        while c >= 0:
            if seen[c] != stamp:
                if depth == len(stack):
                    stack = np.concatenate((stack, np.empty_like(stack)))
                stack[depth] = c
                depth += 1
            c = tree.sibling[c]
    return visited
