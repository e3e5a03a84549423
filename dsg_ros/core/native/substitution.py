"""Forward and back substitution with the factor of a tree of fronts (`multifrontal`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import blas, compiled
from dsg_ros.core.native.tree import Tree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SMALL = 600
"""Numbers in the columns of a front up to which plain loops substitute quicker than BLAS: the call of a routine costs
0.3 us, the loops over 6 columns of 24 numbers take 0.14 us.
"""


@compiled
def forward(tree: Tree, s: int, rhs: Floats, left: Floats, room: Floats) -> None:
    """Forward substitution in one front; ``left`` (tall,) is what its right-hand side leaves to the front above.

    ``room`` is scratch, as long as what the front eliminates has numbers.
    """
    wide, tall = tree.widths[s, 0], tree.widths[s, 1]
    lead, panel, pool = wide + tall, tree.panel[s], tree.pool
    first, border = tree.starts[s], tree.starts[s] + tree.counts[s, 0]
    x = room[:wide]
    _gather(tree, first, border, rhs, x)
    if wide * lead <= SMALL:
        for j in range(wide):
            at = panel + j * lead
            value = x[j] / pool[at + j]
            x[j] = value
            for i in range(j + 1, wide):
                x[i] -= value * pool[at + i]
            at += wide
            for i in range(tall):
                left[i] -= value * pool[at + i]
    else:
        blas.solve_left(False, wide, 1, pool[panel:], lead, x, wide)
        if tall:
            blas.multiply(False, tall, 1, wide, -1.0, pool[panel + wide :], lead, x, wide, 1.0, left, tall)
    _scatter(tree, first, border, x, rhs)


@compiled
def _gather(tree: Tree, first: int, last: int, vector: Floats, out: Floats) -> None:
    """The numbers of the variables that stand in `Tree.members` from ``first`` on and before ``last``."""
    at = 0
    for i in range(first, last):
        v = tree.members[i]
        for j in range(tree.dims[v]):
            out[at] = vector[tree.offset[v] + j]
            at += 1


@compiled
def _scatter(tree: Tree, first: int, last: int, values: Floats, vector: Floats) -> None:
    """The inverse of `_gather`."""
    at = 0
    for i in range(first, last):
        v = tree.members[i]
        for j in range(tree.dims[v]):
            vector[tree.offset[v] + j] = values[at]
            at += 1


@compiled
def back(tree: Tree, s: int, rhs: Floats, solution: Floats, room: Floats) -> None:
    """Back substitution in one front, its separator's part of ``solution`` being known.

    ``room`` is scratch, as long as the front's members have numbers.
    """
    wide, tall = tree.widths[s, 0], tree.widths[s, 1]
    lead, panel, pool = wide + tall, tree.panel[s], tree.pool
    first, border = tree.starts[s], tree.starts[s] + tree.counts[s, 0]
    x, above = room[:wide], room[wide:lead]
    _gather(tree, first, border, rhs, x)
    _gather(tree, border, border + tree.counts[s, 1], solution, above)
    if wide * lead <= SMALL:
        for j in range(wide - 1, -1, -1):
            at = panel + j * lead
            value = x[j]
            for i in range(j + 1, lead):
                value -= pool[at + i] * room[i]
            x[j] = value / pool[at + j]
    else:
        if tall:
            blas.multiply(True, wide, 1, tall, -1.0, pool[panel + wide :], lead, above, tall, 1.0, x, wide)
        blas.solve_left(True, wide, 1, pool[panel:], lead, x, wide)
    _scatter(tree, first, border, x, solution)


@compiled
def enough(room: Floats, tree: Tree, s: int) -> Floats:
    """``room``, or where that is too short for `back` in front ``s`` another."""
    lead = tree.widths[s, 0] + tree.widths[s, 1]
    return room if lead <= len(room) else np.empty(2 * lead)


@compiled
def substitute_back(tree: Tree, order: Ints, rhs: Floats, solution: Floats) -> None:
    """``solution`` (D,) of ``L^T x = rhs`` over the fronts of ``order`` (children before parents)."""
    room = np.empty(256)
    for k in range(len(order) - 1, -1, -1):
        room = enough(room, tree, order[k])
        back(tree, order[k], rhs, solution, room)


@compiled
def solve(tree: Tree, order: Ints, columns: Floats) -> None:
    """``columns`` (k, D) := ``H^-1 columns`` in place, by the factor of all fronts of ``order``."""
    room = np.empty(256)
    for k in range(len(columns)):
        x = columns[k]
        for i in range(len(order)):
            s = order[i]
            room, at = enough(room, tree, s), 0
            wide, tall = tree.widths[s, 0], tree.widths[s, 1]
            left = room[wide : wide + tall]
            left[:] = 0.0
            forward(tree, s, x, left, room)
            first = tree.starts[s] + tree.counts[s, 0]
            for p in range(first, first + tree.counts[s, 1]):
                v = tree.members[p]
                for j in range(tree.dims[v]):
                    x[tree.offset[v] + j] += left[at]
                    at += 1
        substitute_back(tree, order, x, x)
