"""Rows of a growing pose graph: checked and written, linearised, and their cost."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.growing import Graph, Poses, Roots, Rows
from dsg_ros.core.native.robust import cost_of, finish
from dsg_ros.core.native.rows import relative_error, relative_row, scratch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROOTS = 1024
"""Square roots of information matrices that are told from each other; a further one is kept for every row anew."""
GOOD, NO_POSE, NO_NUMBER, NO_ROTATION, NO_ROOT, NO_PAIR = 0, 1, 2, 3, 4, 5
"""What `add_rows` found: an end that is no pose, a measured pose that is not finite or whose quaternion is off norm 1,
a square root that is not finite, two ends that are one pose."""


@compiled
def _fault(pose_count: int, first: Ints, second: Ints, measured: Floats, root: Floats) -> tuple[int, int]:
    """What is wrong with new rows, and for `NO_POSE` and `NO_PAIR` the number in question."""
    for k in range(len(first)):
        for key in (first[k], second[k]):
            if not 0 <= key < pose_count:
                return NO_POSE, key
        if first[k] == second[k]:
            return NO_PAIR, first[k]
    for k in range(len(measured)):
        for i in range(7):
            if not math.isfinite(measured[k, i]):
                return NO_NUMBER, 0
    for k in range(len(measured)):
        if not abs(_norm(measured[k]) - 1.0) <= 1e-3:
            return NO_ROTATION, 0
    for k in range(len(root)):
        for i in range(6):
            for j in range(6):
                if not math.isfinite(root[k, i, j]):
                    return NO_ROOT, 0
    return GOOD, 0


@compiled
def _norm(pose: Floats) -> float:
    return math.sqrt(pose[3] * pose[3] + pose[4] * pose[4] + pose[5] * pose[5] + pose[6] * pose[6])


@compiled
def _place_of(root: Floats, roots: Roots, count: int, heads: Ints) -> int:
    """Where ``roots``, of which there are ``count``, have ``root`` (6, 6), bit by bit; ``count``, having written it
    there, where they do not.
    """
    bits = root.reshape(36).view(np.int64)
    hashed = 0
    for i in range(36):
        # Numbers such as 20.0 differ in their upper half alone, which a product does not carry down.
        hashed = (hashed ^ bits[i] ^ (bits[i] >> 32)) * 1099511628211
    head = (hashed ^ (hashed >> 32)) & (ROOTS - 1)
    place = heads[head]
    while place >= 0:
        other, same = roots.matrix[place].reshape(36).view(np.int64), True
        for i in range(36):
            same &= bits[i] == other[i]
        if same:
            return place
        place = roots.following[place]
    roots.matrix[count] = root
    if count < ROOTS:
        roots.following[count] = heads[head]
        heads[head] = count
    return count


@compiled
def add_rows(
    poses: Poses, pose_count: int, rows: Rows, row_count: int, roots: Roots, root_count: int, heads: Ints,
    first: Ints, second: Ints, measured: Floats, root: Floats, kernel: int, width: float,
) -> tuple[int, int]:  # fmt: skip
    """Write the rows ``measured`` (n, 7) between poses ``first`` (n,) and ``second`` (n,) behind the ``row_count``
    there are, at the head of the chains of both poses; returns `GOOD` and how many roots there are now.

    ``root`` (n, 6, 6), or (1, 6, 6) for all, are their square roots, and ``heads`` (`ROOTS`,) the chains of equal
    hashes.  There must be room.  Where something is wrong nothing is written, and it is returned with the number in
    question.
    """
    fault, key = _fault(pose_count, first, second, measured, root)
    if fault != GOOD:
        return fault, key
    place = 0
    for k in range(len(first)):
        r = row_count + k
        if k < len(root):
            place = _place_of(root[k], roots, root_count, heads)
            root_count = max(root_count, place + 1)
        rows.root_of[r], rows.kernel[r], rows.width[r] = place, kernel, width
        norm = _norm(measured[k])
        for i in range(3):
            rows.measured[r, i] = measured[k, i]
        for i in range(3, 7):
            rows.measured[r, i] = measured[k, i] / norm
        rows.ends[r, 0], rows.ends[r, 1] = first[k], second[k]
        for side in range(2):
            rows.keys[r, side] = poses.variable[rows.ends[r, side]]
            rows.next_incident[r, side] = poses.incident[rows.ends[r, side]]
        for side in range(2):
            poses.incident[rows.ends[r, side]] = r
    return GOOD, root_count


@compiled
def linearised_below(graph: Graph, ids: Ints) -> tuple[Floats, Floats]:
    """Hessians and gradients of the rows that belong to fronts ``ids``; sets the rows' ``slot`` among them.

    Kept for all rows they would be most of the memory of a large graph; to make them again costs less than a tenth of
    the factorisation that they are for.
    """
    rows, first_row, origin, axes = graph.rows, graph.fronts.first_row, graph.poses.origin, graph.axes
    count = 0
    for k in range(len(ids)):
        r = first_row[ids[k]]
        while r >= 0:
            rows.slot[r] = count
            count += 1
            r = rows.next_row[r]
    columns = 2 * len(axes)
    hessian, gradient = np.empty((count, columns, columns)), np.empty((count, columns))
    room, whitened, jacobian = scratch(), np.empty(6), np.empty((6, columns))
    for k in range(len(ids)):
        r = first_row[ids[k]]
        while r >= 0:
            relative_row(
                origin[rows.ends[r, 0]], origin[rows.ends[r, 1]], rows.measured[r],
                graph.roots.matrix[rows.root_of[r]], axes, room, whitened, jacobian,
            )  # fmt: skip
            at = rows.slot[r]
            finish(whitened, jacobian, 6, columns, 1.0, rows.kernel[r], rows.width[r], hessian[at], gradient[at])
            r = rows.next_row[r]
    return hessian, gradient


@compiled
def cost_at(poses: Floats, rows: Rows, count: int, roots: Roots) -> float:
    """Cost of the first ``count`` rows at ``poses`` (p, 7)."""
    total, room, whitened = 0.0, scratch(), np.empty(6)
    for r in range(count):
        relative_error(
            poses[rows.ends[r, 0]], poses[rows.ends[r, 1]], rows.measured[r], roots.matrix[rows.root_of[r]], room,
            whitened,
        )  # fmt: skip
        total += cost_of(whitened, 6, 1.0, rows.kernel[r], rows.width[r])
    return total
