"""Covariances from a factorisation: of the variables of every row, and as samples, of any.

The selected inverse has the entries of the inverse between variables of one front, formed from the root down, for a few
times the cost of the factorisation (Takahashi, Fagan and Chen, 1973; Erisman and Tinney, "On computing certain elements
of the inverse of a sparse matrix", CACM 18, 1975).  The variables of a row meet in the front that eliminates the first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import blas, compiled
from dsg_ros.core.native.tree import Tree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def sample(tree: Tree, noise: Floats, out: Floats) -> None:
    """``out`` (D, k) := ``L^-T noise``, of the inverse's covariance where the columns of ``noise`` are white."""
    k = noise.shape[1]
    for s in range(len(tree.parents) - 1, -1, -1):
        wide, tall = tree.widths[s, 0], tree.widths[s, 1]
        lead, panel = wide + tall, tree.pool[tree.panel[s] :]
        own, above = np.empty(wide * k), np.empty(tall * k)  # column-major
        border = tree.starts[s] + tree.counts[s, 0]
        at = 0
        for i in range(tree.starts[s], border):
            for j in range(tree.offset[tree.members[i]], tree.offset[tree.members[i]] + tree.dims[tree.members[i]]):
                for c in range(k):
                    own[c * wide + at] = noise[j, c]
                at += 1
        if tall:
            at = 0
            for i in range(border, border + tree.counts[s, 1]):
                for j in range(tree.offset[tree.members[i]], tree.offset[tree.members[i]] + tree.dims[tree.members[i]]):
                    for c in range(k):
                        above[c * tall + at] = out[j, c]
                    at += 1
            blas.multiply(True, wide, k, tall, -1.0, panel[wide:], lead, above, tall, 1.0, own, wide)
        blas.solve_left(True, wide, k, panel, lead, own, wide)
        at = 0
        for i in range(tree.starts[s], border):
            for j in range(tree.offset[tree.members[i]], tree.offset[tree.members[i]] + tree.dims[tree.members[i]]):
                for c in range(k):
                    out[j, c] = own[c * wide + at]
                at += 1


@compiled
def row_covariances(tree: Tree, keys: Ints, local: Ints, out: Floats) -> None:
    """Fill ``out`` (r, d, d) with the covariances between the variables ``keys`` (r, k) of each row, -1 for none; a
    variable's numbers begin at ``local`` (r, k).
    """
    count = len(tree.parents)
    # Blocks of the inverse are kept along the path to the root only: in the reversed order of the fronts, a depth-first
    # walk from the roots down, those form a stack.
    path, begin = np.empty(count, np.int64), np.empty(count, np.int64)
    room, widest = _room(tree, path, begin)
    pool, index = np.empty(room), np.empty(widest, np.int64)
    place = np.full(len(tree.home), -1, np.int64)
    depth, top = 0, 0
    for s in range(count - 1, -1, -1):
        depth, top = _up(tree, s, path, begin, depth, top)
        lead = tree.widths[s, 0] + tree.widths[s, 1]
        block = pool[top : top + lead * lead]
        if tree.widths[s, 1]:
            parent = path[depth - 1]
            size = tree.widths[parent, 0] + tree.widths[parent, 1]
            above = pool[begin[depth - 1] : begin[depth - 1] + size * size]
            _separator(tree, s, parent, above, place, index, block)
        _own(tree, s, block)
        _places(tree, s, place)
        r = tree.first_row[s]
        while r >= 0:
            for a in range(keys.shape[1]):
                for b in range(keys.shape[1]):
                    u, v = keys[r, a], keys[r, b]
                    if u >= 0 and v >= 0:
                        for i in range(tree.dims[u]):
                            for j in range(tree.dims[v]):
                                out[r, local[r, a] + i, local[r, b] + j] = block[(place[u] + i) * lead + place[v] + j]
            r = tree.next_row[r]
        path[depth], begin[depth] = s, top
        depth += 1
        top += lead * lead


@compiled
def _up(tree: Tree, s: int, path: Ints, begin: Ints, depth: int, top: int) -> tuple[int, int]:
    """Leave the path down to the parent of front ``s``: its new length, and where the stack ends."""
    while depth and path[depth - 1] != tree.parents[s]:
        depth -= 1
        top = begin[depth]
    return depth, top


@compiled
def _room(tree: Tree, path: Ints, begin: Ints) -> tuple[int, int]:
    """What the stack takes at most, and the largest front's width."""
    depth, top, most, widest = 0, 0, 0, 0
    for s in range(len(tree.parents) - 1, -1, -1):
        depth, top = _up(tree, s, path, begin, depth, top)
        path[depth], begin[depth] = s, top
        depth += 1
        lead = tree.widths[s, 0] + tree.widths[s, 1]
        top += lead * lead
        most, widest = max(most, top), max(widest, lead)
    return most, widest


@compiled
def _places(tree: Tree, s: int, place: Ints) -> None:
    """Where the numbers of each member of front ``s`` begin in it."""
    at = 0
    for i in range(tree.starts[s], tree.starts[s] + tree.counts[s, 0] + tree.counts[s, 1]):
        place[tree.members[i]] = at
        at += tree.dims[tree.members[i]]


@compiled
def _separator(tree: Tree, s: int, parent: int, above: Floats, place: Ints, index: Ints, block: Floats) -> None:
    """The block over the separator of front ``s``, from its parent's."""
    wide, tall = tree.widths[s, 0], tree.widths[s, 1]
    lead, size = wide + tall, tree.widths[parent, 0] + tree.widths[parent, 1]
    _places(tree, parent, place)
    at, first = 0, tree.starts[s] + tree.counts[s, 0]
    for i in range(first, first + tree.counts[s, 1]):
        for j in range(tree.dims[tree.members[i]]):
            index[at] = place[tree.members[i]] + j
            at += 1
    for j in range(tall):
        for i in range(tall):
            block[(wide + j) * lead + wide + i] = above[index[j] * size + index[i]]


@compiled
def _own(tree: Tree, s: int, block: Floats) -> None:
    """The rest of a front's block, that over its separator being filled.

    Of a front with the factor ``[L1; L2]`` and ``G = L2 L1^-1`` it is ``[L1^-T L1^-1 + G^T S G, -G^T S; -S G, S]``.
    """
    wide, tall = tree.widths[s, 0], tree.widths[s, 1]
    lead = wide + tall
    lower = tree.pool[tree.panel[s] : tree.panel[s] + lead * wide]
    inverse = np.eye(wide).reshape(wide * wide)
    blas.solve_left(False, wide, wide, lower, lead, inverse, wide)
    blas.multiply(True, wide, wide, wide, 1.0, inverse, wide, inverse, wide, 0.0, block, lead)
    if tall:
        gain, cross = np.empty(tall * wide), np.empty(tall * wide)
        blas.multiply(False, tall, wide, wide, 1.0, lower[wide:], lead, inverse, wide, 0.0, gain, tall)
        blas.multiply(False, tall, wide, tall, 1.0, block[wide * lead + wide :], lead, gain, tall, 0.0, cross, tall)
        blas.multiply(True, wide, wide, tall, 1.0, gain, tall, cross, tall, 1.0, block, lead)
        for j in range(wide):
            for i in range(tall):
                block[j * lead + wide + i] = block[(wide + i) * lead + j] = -cross[j * tall + i]
