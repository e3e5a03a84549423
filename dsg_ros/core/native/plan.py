"""From a graph to a `Tree` with all its storage: ordering, fronts, and where every matrix lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.elimination import Fronts, fronts_of
from dsg_ros.core.native.ordering import minimum_degree
from dsg_ros.core.native.tree import Tree

Ints = NDArray[np.int64]

_NONE, _EMPTY = np.zeros(1, np.int64), np.zeros(0, np.int64)


@compiled
def neighbours_of(keys: Ints, count: int) -> tuple[Ints, Ints]:
    """Pointers (count + 1,) and neighbours of a graph whose rows (r, k) join the variables ``keys`` (-1: none)."""
    rows, width = keys.shape
    degree = np.zeros(count + 1, np.int64)
    for r in range(rows):
        for a in range(width):
            for b in range(width):
                if keys[r, a] >= 0 and keys[r, b] >= 0 and keys[r, a] != keys[r, b]:
                    degree[keys[r, a] + 1] += 1
    start = np.cumsum(degree)
    fill, every = start[:-1].copy(), np.empty(start[-1], np.int64)
    for r in range(rows):
        for a in range(width):
            for b in range(width):
                if keys[r, a] >= 0 and keys[r, b] >= 0 and keys[r, a] != keys[r, b]:
                    every[fill[keys[r, a]]] = keys[r, b]
                    fill[keys[r, a]] += 1
    pointers, mark, end = np.zeros(count + 1, np.int64), np.full(count, -1, np.int64), 0
    for v in range(count):
        for p in range(start[v], start[v + 1]):
            if mark[every[p]] != v:
                mark[every[p]] = v
                every[end] = every[p]
                end += 1
        pointers[v + 1] = end
    return pointers, every[:end].copy()


@compiled
def _chains(keys: Ints, home: Ints, count: int) -> tuple[Ints, Ints]:
    """Each front's rows as a chain: a row belongs to the front that eliminates its first variable."""
    first, following = np.full(count, -1, np.int64), np.full(len(keys), -1, np.int64)
    for r in range(len(keys) - 1, -1, -1):
        front = count
        for a in range(keys.shape[1]):
            if keys[r, a] >= 0:
                front = min(front, home[keys[r, a]])
        if front < count:
            following[r] = first[front]
            first[front] = r
    return first, following


@compiled
def _storage(parents: Ints, widths: Ints) -> tuple[Ints, Ints, int]:
    """Where panels and updates begin, and how much all take.

    Panels stay.  Updates are needed until the parent is done: they lie on two stacks, by the parity of a front's depth,
    so that a front's own never overlaps its children's.
    """
    count = len(parents)
    depth = np.zeros(count, np.int64)
    for s in range(count - 1, -1, -1):
        if parents[s] >= 0:
            depth[s] = depth[parents[s]] + 1
    panel, end = np.empty(count, np.int64), 0
    for s in range(count):
        panel[s] = end
        end += (widths[s, 0] + widths[s, 1]) * widths[s, 0]
    update, top, most = np.empty(count, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    below = np.full(count, -1, np.int64)  # where the other stack stood before the first child
    for s in range(count):
        side = depth[s] % 2
        if below[s] >= 0:
            top[1 - side] = below[s]
        update[s] = top[side]
        parent = parents[s]
        if parent >= 0 and below[parent] < 0:
            below[parent] = top[side]
        top[side] += widths[s, 1] * widths[s, 1] + widths[s, 1]
        most[side] = max(most[side], top[side])
    for s in range(count):
        update[s] += end + (most[0] if depth[s] % 2 else 0)
    return panel, update, end + most[0] + most[1]


@compiled
def _family(parents: Ints) -> tuple[Ints, Ints]:
    """First child and next sibling of every front (-1: none)."""
    child, sibling = np.full(len(parents), -1, np.int64), np.full(len(parents), -1, np.int64)
    for s in range(len(parents) - 1, -1, -1):
        if parents[s] >= 0:
            sibling[s] = child[parents[s]]
            child[parents[s]] = s
    return child, sibling


@compiled
def _homes(fronts: Fronts, count: int) -> Ints:
    home = np.full(count, -1, np.int64)
    for s in range(len(fronts.fronts)):
        for i in range(fronts.starts[s], fronts.starts[s] + fronts.fronts[s]):
            home[fronts.members[i]] = s
    return home


@compiled
def _widths(fronts: Fronts, dims: Ints) -> Ints:
    widths = np.zeros((len(fronts.fronts), 2), np.int64)
    for s in range(len(fronts.fronts)):
        border = fronts.starts[s] + fronts.fronts[s]
        for i in range(fronts.starts[s], fronts.starts[s + 1]):
            widths[s, 0 if i < border else 1] += dims[fronts.members[i]]
    return widths


def analyse(keys: Ints, count: int, width: int) -> Fronts:
    """Fronts for ``count`` variables joined by rows of ``keys`` (r, k), -1 for none; ``width`` is a variable's usual
    size.
    """
    pointers, neighbours = neighbours_of(keys, count)
    order = minimum_degree(pointers, neighbours, _NONE, _EMPTY, np.zeros(count, np.int64))
    return fronts_of(order, pointers, neighbours, _NONE, _EMPTY, width)


def tree_of(fronts: Fronts, keys: Ints, dims: Ints) -> Tree:
    """A tree with its storage for variables of size ``dims`` (n,); updates share their memory, so that only the whole
    tree can be factorised again.
    """
    count = len(fronts.fronts)
    widths, home = _widths(fronts, dims), _homes(fronts, len(dims))
    panel, update, total = _storage(fronts.parents, widths)
    child, sibling = _family(fronts.parents)
    first_row, next_row = _chains(keys, home, count)
    return Tree(
        starts=fronts.starts,
        counts=np.stack([fronts.fronts, fronts.separators], axis=1),
        widths=widths,
        panel=panel,
        update=update,
        parents=fronts.parents,
        child=child,
        sibling=sibling,
        first_row=first_row,
        members=fronts.members,
        pool=np.empty(max(total, 1)),
        home=home,
        offset=np.cumsum(dims) - dims,
        dims=dims,
        next_row=next_row,
    )
