"""Symbolic factorisation: from an elimination order to a tree of fronts (supernodes).

A front eliminates several variables at once that have (nearly) the same later neighbours: dense algebra then does the
work (Duff and Reid, "The multifrontal solution of indefinite sparse symmetric linear systems", ACM TOMS 9, 1983; Liu,
"The role of elimination trees in sparse factorization", SIAM J. Matrix Analysis 11, 1990).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Ints = NDArray[np.int64]


class Fronts(NamedTuple):
    """Fronts in postorder: every front comes after all below it.

    Front s eliminates ``fronts[s]`` variables and ends at ``separators[s]`` later ones: its members, in the order of
    elimination, are ``members[starts[s]:starts[s + 1]]``.  ``parents[s]`` is the front that eliminates the first of its
    separator, -1 for a root.
    """

    starts: Ints
    members: Ints
    fronts: Ints
    separators: Ints
    parents: Ints


@compiled
def _worth_merging(columns: int, rows: int, zeros: int, width: int) -> bool:
    """Whether a front of ``columns`` variables over ``rows`` later ones is worth ``zeros`` blocks that are empty.

    ``width`` is a variable's size.  Dense algebra on a slightly larger front beats calls on two (Ashcraft and Grimes,
    "The influence of relaxed supernode partitions on the multifrontal method", ACM TOMS 15, 1989).
    """
    total = columns * (columns + 1) // 2 + columns * rows
    scalars = columns * width
    share = 0.6 if scalars <= 12 else 0.3 if scalars <= 24 else 0.12 if scalars <= 48 else 0.05
    return zeros <= share * total


@compiled
def fronts_of(order: Ints, pointers: Ints, neighbours: Ints, cliques: Ints, clique_members: Ints, width: int) -> Fronts:
    """Fronts for eliminating variables in ``order`` (n,); the graph is given as to `ordering.minimum_degree`.

    ``width`` is the usual size of a variable, to judge what is worth merging.
    """
    n = len(order)
    place = np.empty(n, np.int64)
    for k in range(n):
        place[order[k]] = k
    # Cliques by the first of their variables that goes.
    clique_of, clique_next = np.full(n, -1, np.int64), np.full(max(len(cliques) - 1, 1), -1, np.int64)
    for c in range(len(cliques) - 1):
        least = n
        for p in range(cliques[c], cliques[c + 1]):
            least = min(least, place[clique_members[p]])
        if least < n:
            clique_next[c] = clique_of[least]
            clique_of[least] = c

    # Supernodes as they grow: a chain of places, and a separator that begins at ``sep_start`` in ``sep``.
    home = np.empty(n, np.int64)
    columns, zeros = np.zeros(n, np.int64), np.zeros(n, np.int64)
    sep_start, sep_count = np.zeros(n, np.int64), np.zeros(n, np.int64)
    below, beside = (
        np.full(n, -1, np.int64),
        np.full(n, -1, np.int64),
    )  # by place: supernodes whose separator begins there
    alive = np.zeros(n, np.bool_)
    sep, end = np.empty(4 * n + len(neighbours) + len(clique_members) + 16, np.int64), 0
    mark = np.full(n, -1, np.int64)
    count = 0
    for k in range(n):
        v = order[k]
        mark[k] = k
        first = end
        room = pointers[v + 1] - pointers[v]
        c = clique_of[k]
        while c >= 0:
            room += cliques[c + 1] - cliques[c]
            c = clique_next[c]
        s = below[k]
        while s >= 0:
            room += sep_count[s]
            s = beside[s]
        if end + room > len(sep):
            grown = np.empty(2 * len(sep) + room, np.int64)
            grown[:end] = sep[:end]
            sep = grown
        for p in range(pointers[v], pointers[v + 1]):
            j = place[neighbours[p]]
            if j > k and mark[j] != k:
                mark[j] = k
                sep[end] = j
                end += 1
        c = clique_of[k]
        while c >= 0:
            for p in range(cliques[c], cliques[c + 1]):
                j = place[clique_members[p]]
                if mark[j] != k:
                    mark[j] = k
                    sep[end] = j
                    end += 1
            c = clique_next[c]
        s, best = below[k], -1
        while s >= 0:
            for p in range(sep_start[s], sep_start[s] + sep_count[s]):
                j = sep[p]
                if mark[j] != k:
                    mark[j] = k
                    sep[end] = j
                    end += 1
            if (
                best < 0
                or sep_count[s] > sep_count[best]
                or (sep_count[s] == sep_count[best] and columns[s] > columns[best])
            ):
                best = s
            s = beside[s]
        found = end - first
        target = count
        if best >= 0:
            extra = zeros[best] + columns[best] * (found - (sep_count[best] - 1))
            if extra == 0 or _worth_merging(columns[best] + 1, found, extra, width):
                target = best
                zeros[best] = extra
        if target == count:
            count += 1
            alive[target] = True
        home[k] = target
        columns[target] += 1
        sep_start[target], sep_count[target] = first, found
        # Supernodes below k that were not merged keep pointing at k through their separators' least place.
        least = n
        for p in range(first, end):
            least = min(least, sep[p])
        if target == best:
            # taken out of k's list: it moves up
            s, previous = below[k], -1
            while s != best:
                previous, s = s, beside[s]
            if previous < 0:
                below[k] = beside[best]
            else:
                beside[previous] = beside[best]
        if least < n:
            beside[target] = below[least]
            below[least] = target

    # Postorder over supernodes, and their numbers in it.
    parent_of = np.full(count, -1, np.int64)
    kids, sibling = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    total = 0
    for s in range(count - 1, -1, -1):
        total += columns[s] + sep_count[s]
        if sep_count[s]:
            least = n
            for p in range(sep_start[s], sep_start[s] + sep_count[s]):
                least = min(least, sep[p])
            parent_of[s] = home[least]
    for s in range(count - 1, -1, -1):
        if parent_of[s] >= 0:
            sibling[s] = kids[parent_of[s]]
            kids[parent_of[s]] = s
    number, at = np.empty(count, np.int64), 0
    stack = np.empty(count, np.int64)
    for root in range(count):
        if parent_of[root] >= 0:
            continue
        depth = 1
        stack[0] = root
        while depth:
            s = stack[depth - 1]
            if kids[s] >= 0:
                stack[depth] = kids[s]
                kids[s] = sibling[kids[s]]
                depth += 1
            else:
                number[s] = at
                at += 1
                depth -= 1

    starts, parents = np.zeros(count + 1, np.int64), np.full(count, -1, np.int64)
    fronts, separators = np.empty(count, np.int64), np.empty(count, np.int64)
    for s in range(count):
        at = number[s]
        fronts[at], separators[at] = columns[s], sep_count[s]
        if parent_of[s] >= 0:
            parents[at] = number[parent_of[s]]
    for s in range(count):
        starts[s + 1] = starts[s] + fronts[s] + separators[s]
    members, filled = np.empty(total, np.int64), np.zeros(count, np.int64)
    for k in range(n):
        at = number[home[k]]
        members[starts[at] + filled[at]] = order[k]
        filled[at] += 1
    for s in range(count):
        at = number[s]
        places = np.sort(sep[sep_start[s] : sep_start[s] + sep_count[s]])
        for i in range(len(places)):
            members[starts[at] + fronts[at] + i] = order[places[i]]
    return Fronts(starts, members, fronts, separators, parents)
