"""What the rows of a window add to its normal equations: rows between poses, voxels seen from poses, and the summary of
rows that are used up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.manifold import rotation, tangent_between
from dsg_ros.core.native.robust import cost_of, finish, pending_sum, robust_sum
from dsg_ros.core.native.rows import relative_error, relative_row, scratch, voxel_error

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
    """Normal equations: Hessian ``own`` (n, n) and ``gradient`` (n,) of the poses, of each voxel the lower half of its
    ``blocks`` (3, 3) and ``pulls`` (3,), and by sighting what couples its pose to its voxel, ``cross`` (d, 3).
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
    twice, pending = 0.0, np.array([0.0, 1.0])
    for r in range(len(seen.keys)):
        a, v = seen.keys[r, 0], seen.keys[r, 1]
        voxel_error(poses[a], voxels[v], seen.measured[r], seen.roots[r], room, whitened)
        squared = whitened[0] * whitened[0] + whitened[1] * whitened[1] + whitened[2] * whitened[2]
        twice += robust_sum(seen.kernels[r], seen.widths[r], seen.weights[r], squared, pending)[0]
    cost += 0.5 * (twice + pending_sum(pending))
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

    These are nearly all rows there are, so nothing is kept of them but what the elimination needs, what is common to a
    pose is made once, and every sum is written out.  With W the information of a row's error, R the pose's rotation
    and P (6, 3) the derivatives of the error in the pose's tangent, they add P^T W P to the pose, R W R^T to the voxel
    and P^T W R^T between them.  P is ``[-I, [p]x]^T`` for the voxel at p in the pose's frame.
    """
    count, d, cost = len(poses), len(axes), 0.0
    turns, turns_at = np.empty((count, 3, 3)), np.empty((count, 3, 3))
    for i in range(count):
        rotation(poses[i], turns[i])
        rotation(at[i], turns_at[i])
    # Rows come by pose, mostly: what they add to it is summed up before it is put in its place.
    block, pull, current, pending = np.zeros((6, 6)), np.zeros(6), -1, np.array([0.0, 1.0])
    roots, points, blocks, pulls, cross = rows.roots, rows.measured, out.blocks, out.pulls, out.cross
    for r in range(len(rows.keys)):
        a, v = rows.keys[r, 0], rows.keys[r, 1]
        x, y, z = voxels[v, 0] - poses[a, 0], voxels[v, 1] - poses[a, 1], voxels[v, 2] - poses[a, 2]
        e0 = turns[a, 0, 0] * x + turns[a, 1, 0] * y + turns[a, 2, 0] * z - points[r, 0]
        e1 = turns[a, 0, 1] * x + turns[a, 1, 1] * y + turns[a, 2, 1] * z - points[r, 1]
        e2 = turns[a, 0, 2] * x + turns[a, 1, 2] * y + turns[a, 2, 2] * z - points[r, 2]
        r00, r01, r02 = roots[r, 0, 0], roots[r, 0, 1], roots[r, 0, 2]
        r10, r11, r12 = roots[r, 1, 0], roots[r, 1, 1], roots[r, 1, 2]
        r20, r21, r22 = roots[r, 2, 0], roots[r, 2, 1], roots[r, 2, 2]
        w0, w1, w2 = r00 * e0 + r01 * e1 + r02 * e2, r10 * e0 + r11 * e1 + r12 * e2, r20 * e0 + r21 * e1 + r22 * e2
        squared = w0 * w0 + w1 * w1 + w2 * w2
        value, slope = robust_sum(rows.kernels[r], rows.widths[r], rows.weights[r], squared, pending)
        cost += value
        scale = rows.weights[r] * slope
        f0 = scale * (r00 * w0 + r10 * w1 + r20 * w2)
        f1 = scale * (r01 * w0 + r11 * w1 + r21 * w2)
        f2 = scale * (r02 * w0 + r12 * w1 + r22 * w2)
        i00, i01 = scale * (r00 * r00 + r10 * r10 + r20 * r20), scale * (r00 * r01 + r10 * r11 + r20 * r21)
        i02, i11 = scale * (r00 * r02 + r10 * r12 + r20 * r22), scale * (r01 * r01 + r11 * r11 + r21 * r21)
        i12, i22 = scale * (r01 * r02 + r11 * r12 + r21 * r22), scale * (r02 * r02 + r12 * r12 + r22 * r22)
        t00, t01, t02 = turns_at[a, 0, 0], turns_at[a, 0, 1], turns_at[a, 0, 2]
        t10, t11, t12 = turns_at[a, 1, 0], turns_at[a, 1, 1], turns_at[a, 1, 2]
        t20, t21, t22 = turns_at[a, 2, 0], turns_at[a, 2, 1], turns_at[a, 2, 2]
        # W R^T
        c00, c10, c20 = (
            i00 * t00 + i01 * t01 + i02 * t02,
            i01 * t00 + i11 * t01 + i12 * t02,
            i02 * t00 + i12 * t01 + i22 * t02,
        )
        c01, c11, c21 = (
            i00 * t10 + i01 * t11 + i02 * t12,
            i01 * t10 + i11 * t11 + i12 * t12,
            i02 * t10 + i12 * t11 + i22 * t12,
        )
        c02, c12, c22 = (
            i00 * t20 + i01 * t21 + i02 * t22,
            i01 * t20 + i11 * t21 + i12 * t22,
            i02 * t20 + i12 * t21 + i22 * t22,
        )
        if free_voxels[v]:
            pulls[v, 0] += t00 * f0 + t01 * f1 + t02 * f2
            pulls[v, 1] += t10 * f0 + t11 * f1 + t12 * f2
            pulls[v, 2] += t20 * f0 + t21 * f1 + t22 * f2
            blocks[v, 0, 0] += t00 * c00 + t01 * c10 + t02 * c20
            blocks[v, 1, 0] += t10 * c00 + t11 * c10 + t12 * c20
            blocks[v, 2, 0] += t20 * c00 + t21 * c10 + t22 * c20
            blocks[v, 1, 1] += t10 * c01 + t11 * c11 + t12 * c21
            blocks[v, 2, 1] += t20 * c01 + t21 * c11 + t22 * c21
            blocks[v, 2, 2] += t20 * c02 + t21 * c12 + t22 * c22
        if place[a] < 0:
            continue
        if place[a] != current:
            _put(block, pull, current, axes, out)
            current = place[a]
        x, y, z = voxels[v, 0] - at[a, 0], voxels[v, 1] - at[a, 1], voxels[v, 2] - at[a, 2]
        px = t00 * x + t10 * y + t20 * z
        py = t01 * x + t11 * y + t21 * z
        pz = t02 * x + t12 * y + t22 * z
        for i in range(d):
            axis = axes[i]
            if axis == 0:
                cross[r, i, 0], cross[r, i, 1], cross[r, i, 2] = -c00, -c01, -c02
            elif axis == 1:
                cross[r, i, 0], cross[r, i, 1], cross[r, i, 2] = -c10, -c11, -c12
            elif axis == 2:
                cross[r, i, 0], cross[r, i, 1], cross[r, i, 2] = -c20, -c21, -c22
            elif axis == 3:
                cross[r, i, 0] = pz * c10 - py * c20
                cross[r, i, 1] = pz * c11 - py * c21
                cross[r, i, 2] = pz * c12 - py * c22
            elif axis == 4:
                cross[r, i, 0] = px * c20 - pz * c00
                cross[r, i, 1] = px * c21 - pz * c01
                cross[r, i, 2] = px * c22 - pz * c02
            else:
                cross[r, i, 0] = py * c00 - px * c10
                cross[r, i, 1] = py * c01 - px * c11
                cross[r, i, 2] = py * c02 - px * c12
        pull[0] -= f0
        pull[1] -= f1
        pull[2] -= f2
        pull[3] += pz * f1 - py * f2
        pull[4] += px * f2 - pz * f0
        pull[5] += py * f0 - px * f1
        block[0, 0] += i00
        block[1, 0] += i01
        block[1, 1] += i11
        block[2, 0] += i02
        block[2, 1] += i12
        block[2, 2] += i22
        k0, k1, k2 = pz * i01 - py * i02, pz * i11 - py * i12, pz * i12 - py * i22
        block[3, 0] -= k0
        block[3, 1] -= k1
        block[3, 2] -= k2
        block[3, 3] += pz * k1 - py * k2
        k0, k1, k2 = px * i02 - pz * i00, px * i12 - pz * i01, px * i22 - pz * i02
        block[4, 0] -= k0
        block[4, 1] -= k1
        block[4, 2] -= k2
        block[4, 3] += pz * k1 - py * k2
        block[4, 4] += px * k2 - pz * k0
        k0, k1, k2 = py * i00 - px * i01, py * i01 - px * i11, py * i02 - px * i12
        block[5, 0] -= k0
        block[5, 1] -= k1
        block[5, 2] -= k2
        block[5, 3] += pz * k1 - py * k2
        block[5, 4] += px * k2 - pz * k0
        block[5, 5] += py * k0 - px * k1
    _put(block, pull, current, axes, out)
    return 0.5 * (cost + pending_sum(pending))


@compiled
def _put(block: Floats, pull: Floats, place: int, axes: Ints, out: Normal) -> None:
    """Add a symmetric ``block`` (6, 6), its lower half given, and ``pull`` (6,) along the axes, which grow, to the pose
    at ``place`` (-1: none), and set them to zero.
    """
    if place >= 0:
        for i in range(len(axes)):
            out.gradient[place + i] += pull[axes[i]]
            for j in range(i + 1):
                out.own[place + i, place + j] += block[axes[i], axes[j]]
                if j < i:
                    out.own[place + j, place + i] += block[axes[i], axes[j]]
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
