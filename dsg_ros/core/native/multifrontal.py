"""Numeric multifrontal Cholesky over a tree of fronts, front by front, so that parts of it can be done again.

Each front is a dense lower triangle over its members, the variables it eliminates first: ``panel`` holds the columns of
those (the factor, when done), ``update`` the rest: what the front leaves to the one above (the Schur complement), and
behind it the same for the right-hand side.  Updates are kept, so that the tree can be changed at the top while what is
below stays as it is (Kaess et al., "iSAM2", IJRR 31, 2012).  Matrices are column-major.  What is done with the factor
stands in `substitution` and `marginals`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import blas, compiled
from dsg_ros.core.native.substitution import enough, forward
from dsg_ros.core.native.tree import RowHessians, Tree, place_members

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST = 600
"""Multiplications up to which they factorise quicker: three columns of six numbers take 0.17 us by loops and 0.56 us by
LAPACK and BLAS, six of eighteen 0.9 us either way.
"""


@compiled
def _add_rows(tree: Tree, rows: RowHessians, s: int, place: Ints, rhs: Floats) -> None:
    """Add the linearised rows of front ``s``, whose first variables are eliminated there."""
    wide, tall = tree.widths[s, 0], tree.widths[s, 1]
    lead = wide + tall
    panel, update, pool = tree.panel[s], tree.update[s], tree.pool
    r = tree.first_row[s]
    while r >= 0:
        at_row = rows.slot[r] if len(rows.slot) else r
        for a in range(rows.keys.shape[1]):
            va = rows.keys[r, a]
            if va < 0:
                continue
            pa, la, da = place[va], rows.local[r, a], tree.dims[va]
            if pa < wide:
                for i in range(da):
                    rhs[tree.offset[va] + i] -= rows.gradient[at_row, la + i]
            else:
                at = update + tall * tall + pa - wide
                for i in range(da):
                    pool[at + i] -= rows.gradient[at_row, la + i]
            for b in range(rows.keys.shape[1]):
                vb = rows.keys[r, b]
                if vb < 0:
                    continue
                pb, lb, db = place[vb], rows.local[r, b], tree.dims[vb]
                if pb > pa:
                    continue
                at, step = panel + pb * lead + pa, lead
                if pb >= wide:
                    at, step = update + (pb - wide) * tall + pa - wide, tall
                for j in range(db):
                    for i in range(da):
                        pool[at + i] += rows.hessian[at_row, la + i, lb + j]
                    at += step
        r = tree.next_row[r]


@compiled
def _add_child(tree: Tree, c: int, s: int, place: Ints, segments: Ints, rhs: Floats) -> None:
    """Add what front ``c`` left over to its parent ``s``."""
    wide, tall = tree.widths[s, 0], tree.widths[s, 1]
    lead = wide + tall
    panel, update = tree.panel[s], tree.update[s]
    low = tree.widths[c, 1]
    source = tree.update[c]
    pool = tree.pool
    # Runs of the child's rows that are neighbours in the parent too: start, length, place.
    count, at = 0, 0
    first = tree.starts[c] + tree.counts[c, 0]
    for i in range(first, first + tree.counts[c, 1]):
        v = tree.members[i]
        if count and segments[count - 1, 2] + segments[count - 1, 1] == place[v]:
            segments[count - 1, 1] += tree.dims[v]
        else:
            segments[count, 0], segments[count, 1], segments[count, 2] = at, tree.dims[v], place[v]
            count += 1
        at += tree.dims[v]
    right = source + low * low
    for x in range(count):
        begin, length, to = segments[x, 0], segments[x, 1], segments[x, 2]
        for j in range(length):
            column = to + j
            base = panel + column * lead
            if column >= wide:
                base = update + (column - wide) * tall - wide
            entry = source + (begin + j) * low + begin
            for i in range(j, length):
                pool[base + to + i] += pool[entry + i]
        for y in range(x + 1, count):
            start, rows, below = segments[y, 0], segments[y, 1], segments[y, 2]
            if below > to:
                for j in range(length):
                    column = to + j
                    base = panel + column * lead + below
                    if column >= wide:
                        base = update + (column - wide) * tall - wide + below
                    entry = source + (begin + j) * low + start
                    for i in range(rows):
                        pool[base + i] += pool[entry + i]
            else:  # the order has changed since the child was eliminated
                for i in range(rows):
                    column = below + i
                    base = panel + column * lead + to
                    if column >= wide:
                        base = update + (column - wide) * tall - wide + to
                    entry = source + begin * low + start + i
                    for j in range(length):
                        pool[base + j] += pool[entry + j * low]
        for j in range(length):
            if to + j >= wide:
                pool[update + tall * tall + to - wide + j] += pool[right + begin + j]
    # The right-hand side of variables eliminated here.
    first = tree.starts[c] + tree.counts[c, 0]
    at = right
    for i in range(first, first + tree.counts[c, 1]):
        v = tree.members[i]
        if place[v] < wide:
            for j in range(tree.dims[v]):
                rhs[tree.offset[v] + j] += pool[at + j]
        at += tree.dims[v]


@compiled
def factorise(
    tree: Tree, rows: RowHessians, order: Ints, damping: Floats, rhs: Floats, place: Ints, least_pivot: float
) -> tuple[int, int]:
    """Factorise the fronts of ``order``, children before parents; returns (-1, -1), or the front and variable that
    fail.

    ``damping`` (D,) is added to the diagonal.  ``rhs`` (D,) becomes ``L^-1`` of minus the gradient, for the variables
    of these fronts.  ``place`` is scratch (by variable).  A pivot below ``least_pivot`` of its variable's own diagonal
    entry counts as none: the variable is not determined by the others.
    """
    largest = 1
    for i in range(len(order)):
        c = tree.child[order[i]]
        while c >= 0:
            largest = max(largest, tree.counts[c, 1])
            c = tree.sibling[c]
    segments = np.empty((largest, 3), np.int64)
    pool = tree.pool
    room, own = np.empty(256), np.empty(1)
    for k in range(len(order)):
        s = order[k]
        wide, tall = tree.widths[s, 0], tree.widths[s, 1]
        lead = wide + tall
        panel, update = tree.panel[s], tree.update[s]
        pool[panel : panel + lead * wide] = 0.0
        pool[update : update + tall * tall + tall] = 0.0
        place_members(tree, s, place)
        first = tree.starts[s]
        at = 0
        for i in range(first, first + tree.counts[s, 0]):
            v = tree.members[i]
            for j in range(tree.dims[v]):
                rhs[tree.offset[v] + j] = 0.0
                pool[panel + at * lead + at] = damping[tree.offset[v] + j]
                at += 1
        _add_rows(tree, rows, s, place, rhs)
        c = tree.child[s]
        while c >= 0:
            _add_child(tree, c, s, place, segments, rhs)
            c = tree.sibling[c]
        if len(own) < wide:
            own = np.empty(2 * wide)
        for i in range(wide):
            own[i] = pool[panel + i * lead + i]
        small = wide * wide * lead <= LEAST
        failed = _cholesky(pool, panel, wide, lead) if small else blas.cholesky(wide, pool[panel:], lead)
        bad = failed - 1
        if failed == 0:
            bad = -1
            for i in range(wide):
                if not pool[panel + i * lead + i] ** 2 > least_pivot * own[i]:
                    bad = i
                    break
        if bad >= 0:
            for i in range(first, first + tree.counts[s, 0]):
                v = tree.members[i]
                if bad < tree.dims[v]:
                    return s, v
                bad -= tree.dims[v]
        if tall:
            if not small:
                blas.solve_right_transposed(tall, wide, pool[panel:], lead, pool[panel + wide :], lead)
            if tall * tall * wide <= LEAST:
                _subtract_square(pool, panel + wide, wide, lead, update, tall)
            else:
                blas.subtract_square(tall, wide, pool[panel + wide :], lead, pool[update:], tall)
        room = enough(room, tree, s)
        forward(tree, s, rhs, pool[update + tall * tall :], room)
    return -1, -1


@compiled
def _cholesky(pool: Floats, panel: int, wide: int, lead: int) -> int:
    """The columns (lead, wide) of a front become those of its factor; 0, or the number of the pivot that fails."""
    for j in range(wide):
        to = panel + j * lead
        for k in range(j):
            at = panel + k * lead
            value = pool[at + j]
            for i in range(j, lead):
                pool[to + i] -= value * pool[at + i]
        pivot = pool[to + j]
        if not pivot > 0.0:
            return j + 1
        pivot = math.sqrt(pivot)
        pool[to + j] = pivot
        for i in range(j + 1, lead):
            pool[to + i] /= pivot
    return 0


@compiled
def _subtract_square(pool: Floats, low: int, wide: int, lead: int, update: int, tall: int) -> None:
    """Lower triangle of ``C := C - A A^T`` for A (tall, wide) at ``low`` and C (tall, tall) at ``update``."""
    for j in range(tall):
        to = update + j * tall
        for k in range(wide):
            at = low + k * lead
            value = pool[at + j]
            for i in range(j, tall):
                pool[to + i] -= value * pool[at + i]
