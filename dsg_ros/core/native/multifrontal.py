"""Numeric multifrontal Cholesky over a tree of fronts, front by front, so that parts of it can be done again.

Each front is a dense lower triangle over its members, the variables it eliminates first: ``panel`` holds the columns of
those (the factor, when done), ``update`` the rest: what the front leaves to the one above (the Schur complement), and
behind it the same for the right-hand side.  Updates are kept, so that the tree can be changed at the top while what is
below stays as it is (Kaess et al., "iSAM2", IJRR 31, 2012).  Matrices are column-major.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import blas, compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


SMALL = 600
"""Numbers in the columns of a front up to which plain loops substitute quicker than BLAS: the call of a routine costs
0.3 us, the loops over 6 columns of 24 numbers take 0.14 us.
"""
LEAST = 600
"""Multiplications up to which they factorise quicker: three columns of six numbers take 0.17 us by loops and 0.56 us by
LAPACK and BLAS, six of eighteen 0.9 us either way.
"""


class Tree(NamedTuple):
    """Fronts, with their members' numbers in ``members`` and their matrices in ``pool``.

    By front: ``starts`` of its members, ``counts`` (s, 2) of variables eliminated and left, ``widths`` (s, 2) the same
    in scalars, ``panel`` and ``update`` where its matrices begin, ``parents``, ``child`` and ``sibling`` (-1: none),
    ``first_row`` the first of its rows in the chain ``next_row``.
    By variable: ``home`` the front that eliminates it, ``offset`` of its scalars in vectors over all variables and
    ``dims`` how many there are.
    """

    starts: Ints
    counts: Ints
    widths: Ints
    panel: Ints
    update: Ints
    parents: Ints
    child: Ints
    sibling: Ints
    first_row: Ints
    members: Ints
    pool: Floats
    home: Ints
    offset: Ints
    dims: Ints
    next_row: Ints


class RowHessians(NamedTuple):
    """Linearised rows: ``keys`` (r, k) variables (-1: held, or none), ``local`` (r, k) where a key's numbers begin in
    the row's own ``hessian`` (m, d, d) and ``gradient`` (m, d), which stand at its ``slot`` (r,): empty where these are
    the rows in their order.
    """

    keys: Ints
    local: Ints
    hessian: Floats
    gradient: Floats
    slot: Ints = np.zeros(0, np.int64)


@compiled
def _place_members(tree: Tree, s: int, place: Ints) -> None:
    at = 0
    first = tree.starts[s]
    for i in range(first, first + tree.counts[s, 0] + tree.counts[s, 1]):
        v = tree.members[i]
        place[v] = at
        at += tree.dims[v]


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
        _place_members(tree, s, place)
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
        _forward(tree, s, rhs, pool[update + tall * tall :], room)
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


@compiled
def _forward(tree: Tree, s: int, rhs: Floats, left: Floats, room: Floats) -> None:
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
            _forward(tree, s, x, left, room)
            first = tree.starts[s] + tree.counts[s, 0]
            for p in range(first, first + tree.counts[s, 1]):
                v = tree.members[p]
                for j in range(tree.dims[v]):
                    x[tree.offset[v] + j] += left[at]
                    at += 1
        substitute_back(tree, order, x, x)


@compiled
def marginal(tree: Tree, v: int, out: Floats) -> None:
    """Covariance (d, d) of one variable: the selected inverse along its path to the root.

    Of a front with the factor ``[L1; L2]`` and ``G = L2 L1^-1``, the block of the inverse over its members follows from
    that over its separator, S: ``[L1^-T L1^-1 + G^T S G, -G^T S; -S G, S]`` (Takahashi, Fagan and Chen, 1973).
    """
    path, depth = np.empty(len(tree.parents), np.int64), 0
    s = tree.home[v]
    while s >= 0:
        path[depth] = s
        depth += 1
        s = tree.parents[s]
    place = np.full(len(tree.home), -1, np.int64)
    block = np.empty(0)  # of the front above, over all its members
    size = 0
    for step in range(depth - 1, -1, -1):
        s = path[step]
        wide, tall = tree.widths[s, 0], tree.widths[s, 1]
        lead = wide + tall
        spread = np.zeros((tall, tall))
        if tall:
            first = tree.starts[s] + tree.counts[s, 0]
            index, at = np.empty(tall, np.int64), 0
            for i in range(first, first + tree.counts[s, 1]):
                u = tree.members[i]
                for j in range(tree.dims[u]):
                    index[at] = place[u] + j
                    at += 1
            for i in range(tall):
                for j in range(tall):
                    spread[j, i] = block[index[j] * size + index[i]]
        lower = tree.pool[tree.panel[s] : tree.panel[s] + lead * wide]
        inverse = np.eye(wide)  # L1^-1, column-major as its transpose
        flat = inverse.reshape(wide * wide)
        blas.solve_left(False, wide, wide, lower, lead, flat, wide)
        whole = np.empty((lead, lead))
        top = np.dot(inverse, inverse.T)  # inverse is stored transposed: (L1^-1)^T L1^-1
        if tall:
            second = np.empty((tall, wide))
            for j in range(wide):
                for i in range(tall):
                    second[i, j] = lower[j * lead + wide + i]
            gain = np.dot(second, np.ascontiguousarray(inverse.T))
            cross = np.dot(spread, gain)
            top = top + np.dot(np.ascontiguousarray(gain.T), cross)
            whole[wide:, :wide] = -cross
            whole[:wide, wide:] = -cross.T
            whole[wide:, wide:] = spread
        whole[:wide, :wide] = top
        _place_members(tree, s, place)
        block, size = whole.reshape(lead * lead), lead
    d, at = tree.dims[v], place[v]
    for i in range(d):
        for j in range(d):
            out[i, j] = block[(at + i) * size + at + j]


@compiled
def log_determinant(tree: Tree, order: Ints) -> float:
    """``log det H`` by the factor of the fronts of ``order``."""
    total = 0.0
    for k in range(len(order)):
        s = order[k]
        lead = tree.widths[s, 0] + tree.widths[s, 1]
        for i in range(tree.widths[s, 0]):
            total += 2.0 * math.log(tree.pool[tree.panel[s] + i * lead + i])
    return total


@compiled
def product(rows: RowHessians, offset: Ints, dims: Ints, vector: Floats, out: Floats) -> None:
    """``out`` (N,): the sum of the rows' Hessians times ``vector`` (N,)."""
    out[:] = 0.0
    for r in range(len(rows.keys)):
        for a in range(rows.keys.shape[1]):
            va = rows.keys[r, a]
            if va < 0:
                continue
            for b in range(rows.keys.shape[1]):
                vb = rows.keys[r, b]
                if vb < 0:
                    continue
                for i in range(dims[va]):
                    total = 0.0
                    for j in range(dims[vb]):
                        total += rows.hessian[r, rows.local[r, a] + i, rows.local[r, b] + j] * vector[offset[vb] + j]
                    out[offset[va] + i] += total


@compiled
def diagonal(rows: RowHessians, offset: Ints, dims: Ints, out: Floats) -> None:
    """Diagonal (N,) of the sum of the rows' Hessians."""
    out[:] = 0.0
    for r in range(len(rows.keys)):
        for a in range(rows.keys.shape[1]):
            v = rows.keys[r, a]
            if v >= 0:
                for i in range(dims[v]):
                    out[offset[v] + i] += rows.hessian[r, rows.local[r, a] + i, rows.local[r, a] + i]


@compiled
def gradient_of(rows: RowHessians, offset: Ints, dims: Ints, out: Floats) -> None:
    """Gradient (N,): the sum of the rows'."""
    out[:] = 0.0
    for r in range(len(rows.keys)):
        for a in range(rows.keys.shape[1]):
            v = rows.keys[r, a]
            if v >= 0:
                for i in range(dims[v]):
                    out[offset[v] + i] += rows.gradient[r, rows.local[r, a] + i]
