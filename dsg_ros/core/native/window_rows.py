"""What the rows of a window add to its normal equations: rows between poses, voxels seen from poses, and the summary of
rows that are used up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.rows import (
    cost_of,
    finish,
    relative_error,
    relative_row,
    robust,
    rotation,
    scratch,
    tangent_between,
    voxel_error,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Rows(NamedTuple):
    """Rows of one form: ``keys`` (r, 2), ``measured`` (r, 7) or (r, 3), ``roots`` (r, k, k), the rest (r,)."""

    keys: Ints
    measured: Floats
    roots: Floats
    weights: Floats
    kernels: NDArray[np.int32]
    widths: Floats


class Summary(NamedTuple):
    """What rows that are used up say about poses: ``0.5 d^T information d + gradient^T d + constant``.

    ``about`` (k,) are numbers of the poses, ``d`` (k d,) their tangents ``log(at^-1 pose)`` along the axes.  Rows of
    these poses take their Jacobians at ``at`` (k, 7): the first estimates (Huang et al., "A first-estimates Jacobian
    EKF for improving SLAM consistency", 2009).
    """

    about: Ints
    at: Floats
    information: Floats
    gradient: Floats
    constant: float


class Normal(NamedTuple):
    """Normal equations: Hessian ``own`` (n, n) and ``gradient`` (n,) of the poses, of each voxel its ``blocks`` (3, 3)
    and ``pulls`` (3,), and by sighting what couples its pose to its voxel, ``cross`` (d, 3).
    """

    own: Floats
    gradient: Floats
    blocks: Floats
    pulls: Floats
    cross: Floats


@compiled
def linearise(
    poses: Floats, voxels: Floats, place: Ints, free_voxels: Bools, links: Rows, seen: Rows, axes: Ints,
    summary: Summary, out: Normal,
) -> float:  # fmt: skip
    """Fill ``out`` with all rows; returns their cost.  Poses without a ``place`` (-1) and voxels not free are held."""
    out.own[:], out.gradient[:], out.blocks[:], out.pulls[:] = 0.0, 0.0, 0.0, 0.0
    at, known = first_estimates(poses, summary)
    cost = _add_links(poses, at, place, links, axes, known, out)
    cost += _add_seen(poses, at, place, voxels, free_voxels, seen, axes, out)
    return cost + _add_summary(poses, place, axes, summary, out)


@compiled
def costs_of(poses: Floats, voxels: Floats, links: Rows, seen: Rows, axes: Ints, summary: Summary) -> float:
    """The cost of all rows alone."""
    room, whitened, cost = scratch(), np.empty(6), summary.constant
    for r in range(len(links.keys)):
        a, b = links.keys[r, 0], links.keys[r, 1]
        relative_error(poses[a], poses[b], links.measured[r], links.roots[r], room, whitened)
        cost += cost_of(whitened, 6, links.weights[r], links.kernels[r], links.widths[r])
    for r in range(len(seen.keys)):
        a, v = seen.keys[r, 0], seen.keys[r, 1]
        voxel_error(poses[a], voxels[v], seen.measured[r], seen.roots[r], room, whitened)
        cost += cost_of(whitened, 3, seen.weights[r], seen.kernels[r], seen.widths[r])
    if len(summary.about):
        away = away_from(poses, summary, axes)
        cost += np.sum(away * (summary.gradient + 0.5 * (summary.information @ away)))
    return cost


@compiled
def first_estimates(poses: Floats, summary: Summary) -> tuple[Floats, Bools]:
    """Where rows take their Jacobians: ``poses`` but for those, told by a flag each, that the summary is about."""
    at, known = poses.copy(), np.zeros(len(poses), np.bool_)
    for k in range(len(summary.about)):
        at[summary.about[k]] = summary.at[k]
        known[summary.about[k]] = True
    return at, known


@compiled
def away_from(poses: Floats, summary: Summary, axes: Ints) -> Floats:
    """``d`` of `Summary`."""
    tangent, d = np.empty(6), len(axes)
    out = np.empty(len(summary.about) * d)
    for k in range(len(summary.about)):
        tangent_between(summary.at[k], poses[summary.about[k]], tangent)
        for i in range(d):
            out[k * d + i] = tangent[axes[i]]
    return out


@compiled
def _add_links(
    poses: Floats, at: Floats, place: Ints, rows: Rows, axes: Ints, known: Bools, out: Normal
) -> float:  # fmt: skip
    """Rows between poses, with Jacobians taken ``at``."""
    room, d, cost = scratch(), len(axes), 0.0
    whitened, jacobian = np.empty(6), np.empty((6, 2 * d))
    hessian, gradient = np.empty((2 * d, 2 * d)), np.empty(2 * d)
    for r in range(len(rows.keys)):
        ends = rows.keys[r]
        relative_row(at[ends[0]], at[ends[1]], rows.measured[r], rows.roots[r], axes, room, whitened, jacobian)
        if known[ends[0]] or known[ends[1]]:
            relative_error(poses[ends[0]], poses[ends[1]], rows.measured[r], rows.roots[r], room, whitened)
        cost += finish(
            whitened, jacobian, 6, 2 * d, rows.weights[r], rows.kernels[r], rows.widths[r], hessian, gradient
        )  # fmt: skip
        for a in range(2):
            pa = place[ends[a]]
            if pa < 0:
                continue
            for i in range(d):
                out.gradient[pa + i] += gradient[a * d + i]
            for b in range(2):
                pb = place[ends[b]]
                if pb >= 0:
                    for i in range(d):
                        for j in range(d):
                            out.own[pa + i, pb + j] += hessian[a * d + i, b * d + j]
    return cost


@compiled
def _add_seen(
    poses: Floats, at: Floats, place: Ints, voxels: Floats, free_voxels: Bools, rows: Rows, axes: Ints, out: Normal
) -> float:  # fmt: skip
    """Rows ``pose^-1 voxel - point``, with Jacobians taken ``at``.

    These are nearly all rows there are, so nothing is kept of them but what the elimination needs, and what is common
    to a pose is made once.  With W the information of a row's error, R the pose's rotation and P (3, d) the
    derivatives of the error along the pose's axes, they add P^T W P to the pose, R W R^T to the voxel, P^T W R^T
    between them.
    """
    count, d, cost = len(poses), len(axes), 0.0
    turns, turns_at = np.empty((count, 3, 3)), np.empty((count, 3, 3))
    for i in range(count):
        rotation(poses[i], turns[i])
        rotation(at[i], turns_at[i])
    by_pose, product, by_voxel = np.zeros((d, 3)), np.empty((d, 3)), np.empty((3, 3))
    # Rows come by pose, mostly: what they add to it is summed up before it is put in its place.
    block, pull, current = np.zeros((d, d)), np.zeros(d), -1
    for r in range(len(rows.keys)):
        a, v = rows.keys[r, 0], rows.keys[r, 1]
        root, point, turn, pa = rows.roots[r], rows.measured[r], turns[a], place[a]
        x, y, z = voxels[v, 0] - poses[a, 0], voxels[v, 1] - poses[a, 1], voxels[v, 2] - poses[a, 2]
        e0 = turn[0, 0] * x + turn[1, 0] * y + turn[2, 0] * z - point[0]
        e1 = turn[0, 1] * x + turn[1, 1] * y + turn[2, 1] * z - point[1]
        e2 = turn[0, 2] * x + turn[1, 2] * y + turn[2, 2] * z - point[2]
        w0 = root[0, 0] * e0 + root[0, 1] * e1 + root[0, 2] * e2
        w1 = root[1, 0] * e0 + root[1, 1] * e1 + root[1, 2] * e2
        w2 = root[2, 0] * e0 + root[2, 1] * e1 + root[2, 2] * e2
        value, slope = robust(rows.kernels[r], rows.widths[r], w0 * w0 + w1 * w1 + w2 * w2)
        cost += 0.5 * rows.weights[r] * value
        scale = rows.weights[r] * slope
        f0 = scale * (root[0, 0] * w0 + root[1, 0] * w1 + root[2, 0] * w2)
        f1 = scale * (root[0, 1] * w0 + root[1, 1] * w1 + root[2, 1] * w2)
        f2 = scale * (root[0, 2] * w0 + root[1, 2] * w1 + root[2, 2] * w2)
        i00 = scale * (root[0, 0] * root[0, 0] + root[1, 0] * root[1, 0] + root[2, 0] * root[2, 0])
        i01 = scale * (root[0, 0] * root[0, 1] + root[1, 0] * root[1, 1] + root[2, 0] * root[2, 1])
        i02 = scale * (root[0, 0] * root[0, 2] + root[1, 0] * root[1, 2] + root[2, 0] * root[2, 2])
        i11 = scale * (root[0, 1] * root[0, 1] + root[1, 1] * root[1, 1] + root[2, 1] * root[2, 1])
        i12 = scale * (root[0, 1] * root[0, 2] + root[1, 1] * root[1, 2] + root[2, 1] * root[2, 2])
        i22 = scale * (root[0, 2] * root[0, 2] + root[1, 2] * root[1, 2] + root[2, 2] * root[2, 2])
        turn = turns_at[a]
        for j in range(3):
            c0, c1, c2 = turn[j, 0], turn[j, 1], turn[j, 2]
            by_voxel[0, j] = i00 * c0 + i01 * c1 + i02 * c2
            by_voxel[1, j] = i01 * c0 + i11 * c1 + i12 * c2
            by_voxel[2, j] = i02 * c0 + i12 * c1 + i22 * c2
        if free_voxels[v]:
            for i in range(3):
                c0, c1, c2 = turn[i, 0], turn[i, 1], turn[i, 2]
                out.pulls[v, i] += c0 * f0 + c1 * f1 + c2 * f2
                for j in range(3):
                    out.blocks[v, i, j] += c0 * by_voxel[0, j] + c1 * by_voxel[1, j] + c2 * by_voxel[2, j]
        if pa < 0:
            continue
        if pa != current:
            _put(block, pull, current, out)
            current = pa
        x, y, z = voxels[v, 0] - at[a, 0], voxels[v, 1] - at[a, 1], voxels[v, 2] - at[a, 2]
        px = turn[0, 0] * x + turn[1, 0] * y + turn[2, 0] * z
        py = turn[0, 1] * x + turn[1, 1] * y + turn[2, 1] * z
        pz = turn[0, 2] * x + turn[1, 2] * y + turn[2, 2] * z
        for i in range(d):
            axis, q0, q1, q2 = axes[i], 0.0, 0.0, 0.0
            if axis == 0:
                q0 = -1.0
            elif axis == 1:
                q1 = -1.0
            elif axis == 2:
                q2 = -1.0
            elif axis == 3:
                q1, q2 = pz, -py
            elif axis == 4:
                q0, q2 = -pz, px
            else:
                q0, q1 = py, -px
            by_pose[i, 0], by_pose[i, 1], by_pose[i, 2] = q0, q1, q2
            product[i, 0] = q0 * i00 + q1 * i01 + q2 * i02
            product[i, 1] = q0 * i01 + q1 * i11 + q2 * i12
            product[i, 2] = q0 * i02 + q1 * i12 + q2 * i22
            pull[i] += q0 * f0 + q1 * f1 + q2 * f2
            for j in range(3):
                out.cross[r, i, j] = q0 * by_voxel[0, j] + q1 * by_voxel[1, j] + q2 * by_voxel[2, j]
            for j in range(i + 1):
                block[i, j] += (
                    product[i, 0] * by_pose[j, 0] + product[i, 1] * by_pose[j, 1] + product[i, 2] * by_pose[j, 2]
                )
    _put(block, pull, current, out)
    return cost


@compiled
def _put(block: Floats, pull: Floats, place: int, out: Normal) -> None:
    """Add a symmetric ``block`` (d, d), its lower half given, and ``pull`` (d,) to the pose at ``place`` (-1: none),
    and set them to zero.
    """
    if place >= 0:
        for i in range(len(pull)):
            out.gradient[place + i] += pull[i]
            for j in range(i + 1):
                out.own[place + i, place + j] += block[i, j]
                if j < i:
                    out.own[place + j, place + i] += block[i, j]
    block[:], pull[:] = 0.0, 0.0


@compiled
def _add_summary(poses: Floats, place: Ints, axes: Ints, summary: Summary, out: Normal) -> float:
    """What is known from rows that are used up."""
    cost, d, about = summary.constant, len(axes), summary.about
    if not len(about):
        return cost
    away = away_from(poses, summary, axes)
    pulls = summary.information @ away
    cost += np.sum(away * (summary.gradient + 0.5 * pulls))
    for a in range(len(about)):
        pa = place[about[a]]
        if pa < 0:
            continue
        for i in range(d):
            out.gradient[pa + i] += summary.gradient[a * d + i] + pulls[a * d + i]
            for b in range(len(about)):
                pb = place[about[b]]
                if pb >= 0:
                    for j in range(d):
                        out.own[pa + i, pb + j] += summary.information[a * d + i, b * d + j]
    return cost
