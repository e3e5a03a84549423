"""Elimination orderings that keep factors sparse: approximate minimum degree on a quotient graph.

After Amestoy, Davis and Duff, "An approximate minimum degree ordering algorithm", SIAM J. Matrix Analysis 17, 1996:
eliminated variables live on as elements (cliques), variables with the same neighbours are merged, and degrees are
bounded from above instead of counted.  Two additions serve incremental factorisation: cliques that are there from the
start (what parts eliminated earlier left behind), and stages, so that the variables that change next are near the root
(Kaess et al., "iSAM2", IJRR 31, 2012).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Ints = NDArray[np.int64]

_VARIABLE, _ELEMENT, _GONE = 0, 1, 2


@compiled
def _compressed(lists: Ints, start: Ints, length: Ints, state: Ints, room: int) -> tuple[Ints, int]:
    """The living lists one after the other in an array with space for ``room`` more numbers, and where they end."""
    total = 0
    for i in range(len(start)):
        if state[i] != _GONE:
            total += length[i]
    out = np.empty(total + max(room, total // 4), np.int64)
    end = 0
    for i in range(len(start)):
        if state[i] == _GONE:
            continue
        first = start[i]
        start[i] = end
        for p in range(first, first + length[i]):
            out[end] = lists[p]
            end += 1
    return out, end


@compiled
def _unlist(i: int, head: Ints, following: Ints, before: Ints, degree: Ints) -> None:
    """Take ``i`` out of its list of equal degree."""
    if before[i] >= 0:
        following[before[i]] = following[i]
    else:
        head[degree[i]] = following[i]
    if following[i] >= 0:
        before[following[i]] = before[i]


@compiled
def _enlist(i: int, head: Ints, following: Ints, before: Ints, degree: Ints) -> None:
    first = head[degree[i]]
    following[i], before[i] = first, -1
    if first >= 0:
        before[first] = i
    head[degree[i]] = i


@compiled
def minimum_degree(pointers: Ints, neighbours: Ints, cliques: Ints, clique_members: Ints, stages: Ints) -> Ints:
    """Order (n,) in which to eliminate n variables.

    Variable v has the neighbours ``neighbours[pointers[v]:pointers[v + 1]]`` (each pair listed both ways, no variable
    its own neighbour, none twice) and clique c joins ``clique_members[cliques[c]:cliques[c + 1]]`` on top.  Variables
    of a later stage (``stages`` (n,), from 0) come after all of an earlier one.
    """
    n, given = len(pointers) - 1, len(cliques) - 1
    nodes = n + given
    state = np.zeros(nodes, np.int64)
    start, length = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    elements = np.zeros(nodes, np.int64)  # how many elements stand at the front of a variable's list
    size = np.ones(nodes, np.int64)  # variables that a supervariable stands for; negative while in the pivot's list
    degree = np.zeros(nodes, np.int64)

    for c in range(given):
        for p in range(cliques[c], cliques[c + 1]):
            elements[clique_members[p]] += 1
    lists = np.empty(2 * (len(neighbours) + 2 * len(clique_members)) + n + 16, np.int64)
    end = 0
    for v in range(n):
        start[v] = end
        length[v] = elements[v] + pointers[v + 1] - pointers[v]
        degree[v] = pointers[v + 1] - pointers[v]
        end += length[v]
        elements[v] = 0
    for c in range(given):
        e = n + c
        state[e] = _ELEMENT
        start[e], length[e] = end, cliques[c + 1] - cliques[c]
        degree[e] = length[e]
        for p in range(cliques[c], cliques[c + 1]):
            v = clique_members[p]
            lists[end] = v
            end += 1
            lists[start[v] + elements[v]] = e
            elements[v] += 1
            degree[v] += length[e] - 1
    for v in range(n):
        to = start[v] + elements[v]
        for p in range(pointers[v], pointers[v + 1]):
            lists[to] = neighbours[p]
            to += 1

    head = np.full(n + 1, -1, np.int64)
    following, before = np.full(nodes, -1, np.int64), np.full(nodes, -1, np.int64)
    now, least = -1, n
    for v in range(n):
        degree[v] = min(degree[v], n - 1)

    mark, stamp = np.zeros(nodes, np.int64), 1
    bucket, chained, key = np.full(n + 1, -1, np.int64), np.full(n, -1, np.int64), np.zeros(n, np.int64)
    # Variables merged into another, or eliminated together with a pivot, hang on it in a chain.
    chain_next, chain_end = np.full(nodes, -1, np.int64), np.arange(nodes)
    pivots, pivot_count = np.empty(n, np.int64), 0
    eliminated = 0

    while eliminated < n:
        while least < n and head[least] < 0:
            least += 1
        if least >= n:
            now += 1
            least = 0
            for v in range(n):
                if stages[v] == now and state[v] == _VARIABLE:
                    degree[v] = min(degree[v], n - 1)
                    _enlist(v, head, following, before, degree)
            continue
        me = head[least]
        _unlist(me, head, following, before, degree)

        # The new element: all that the pivot and its elements touch.
        bound = length[me] - elements[me]
        for p in range(start[me], start[me] + elements[me]):
            bound += length[lists[p]]
        if end + bound > len(lists):
            lists, end = _compressed(lists, start, length, state, 2 * bound)
        pivot_size = size[me]
        size[me] = -pivot_size
        first, weight = end, 0
        for p in range(start[me], start[me] + length[me]):
            node = lists[p]
            if p < start[me] + elements[me]:
                for q in range(start[node], start[node] + length[node]):
                    i = lists[q]
                    if size[i] > 0:
                        weight += size[i]
                        size[i] = -size[i]
                        lists[end] = i
                        end += 1
                        if stages[i] <= now:
                            _unlist(i, head, following, before, degree)
                state[node] = _GONE
            elif size[node] > 0:
                weight += size[node]
                size[node] = -size[node]
                lists[end] = node
                end += 1
                if stages[node] <= now:
                    _unlist(node, head, following, before, degree)
        state[me] = _ELEMENT
        start[me], length[me], elements[me] = first, end - first, 0

        # How much of every element around lies outside the new one: its mark, less the stamp.
        for p in range(first, end):
            i = lists[p]
            for q in range(start[i], start[i] + elements[i]):
                e = lists[q]
                if mark[e] >= stamp:
                    mark[e] += size[i]  # negative
                else:
                    mark[e] = stamp + degree[e] + size[i]

        for p in range(first, end):
            i = lists[p]
            to, outside, hashed = start[i], 0, 0
            for q in range(start[i], start[i] + elements[i]):
                e = lists[q]
                if state[e] != _ELEMENT:
                    continue
                if mark[e] > stamp:
                    outside += mark[e] - stamp
                    lists[to] = e
                    to += 1
                    hashed += e
                else:  # nothing but what the new element has
                    state[e] = _GONE
            kept = to - start[i]
            for q in range(start[i] + elements[i], start[i] + length[i]):
                j = lists[q]
                if size[j] > 0:
                    outside += size[j]
                    lists[to] = j
                    to += 1
                    hashed += j
            if outside == 0 and stages[i] <= now:
                # Touches nothing but the new element: eliminated with it, at no cost.
                weight += size[i]
                pivot_size -= size[i]
                size[i] = 0
                state[i] = _GONE
                chain_next[chain_end[me]] = i
                chain_end[me] = chain_end[i]
                continue
            # The new element comes to the front of the list: a place is free, for an element or the pivot has gone.
            if to > start[i] + kept:
                lists[to] = lists[start[i] + kept]
            if kept > 0:
                lists[start[i] + kept] = lists[start[i]]
            lists[start[i]] = me
            elements[i], length[i] = kept + 1, to + 1 - start[i]
            degree[i] = min(degree[i], outside)
            slot = hashed % n
            key[i] = slot
            chained[i] = bucket[slot]
            bucket[slot] = i
        degree[me] = weight
        stamp += n + 1

        # Variables with the same lists become one.
        for p in range(first, end):
            i = lists[p]
            if state[i] != _VARIABLE or bucket[key[i]] < 0:
                continue
            slot = key[i]
            one = bucket[slot]
            bucket[slot] = -1
            while one >= 0 and chained[one] >= 0:
                for q in range(start[one] + 1, start[one] + length[one]):
                    mark[lists[q]] = stamp
                previous, other = one, chained[one]
                while other >= 0:
                    same = (
                        length[other] == length[one]
                        and elements[other] == elements[one]
                        and stages[other] == stages[one]
                    )
                    q = start[other] + 1
                    while same and q < start[other] + length[other]:
                        same = mark[lists[q]] == stamp
                        q += 1
                    if same:
                        size[one] += size[other]
                        size[other] = 0
                        state[other] = _GONE
                        chain_next[chain_end[one]] = other
                        chain_end[one] = chain_end[other]
                        chained[previous] = chained[other]
                    else:
                        previous = other
                    other = chained[other]
                stamp += 1
                one = chained[one]

        # What is left of the pivot's list goes back to the lists of equal degree.
        to = first
        eliminated += pivot_size
        for p in range(first, end):
            i = lists[p]
            if state[i] != _VARIABLE:
                continue
            size[i] = -size[i]
            lists[to] = i
            to += 1
            degree[i] = max(0, min(degree[i] + weight - size[i], n - eliminated - size[i]))
            if stages[i] <= now:
                _enlist(i, head, following, before, degree)
                least = min(least, degree[i])
        length[me] = to - first
        end = to
        if to == first:
            state[me] = _GONE
        size[me] = pivot_size
        pivots[pivot_count] = me
        pivot_count += 1

    order, at = np.empty(n, np.int64), 0
    for k in range(pivot_count):
        v = pivots[k]
        while v >= 0:
            order[at] = v
            at += 1
            v = chain_next[v]
    return order
