"""What a scan alone says of its pose, compiled: the prior of the odometry taken out of a match."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled, se3
from dsg_ros.core.native.small import solve_positive

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def _eigen(matrix: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues (n,) and eigenvectors, as columns (n, n), of a symmetric matrix (Jacobi; Golub and Van Loan, 8.5)."""
    n = len(matrix)
    a, v = matrix.copy(), np.eye(n)
    for _ in range(30):
        off, diagonal = 0.0, 0.0
        for i in range(n):
            diagonal += abs(a[i, i])
            for j in range(i):
                off += abs(a[i, j])
        if off <= 1e-15 * diagonal:
            break
        for p in range(n):
            for q in range(p + 1, n):
                if a[p, q] == 0.0:
                    continue
                ratio = (a[q, q] - a[p, p]) / (2.0 * a[p, q])
                tangent = math.copysign(1.0, ratio) / (abs(ratio) + math.hypot(1.0, ratio))
                cos = 1.0 / math.hypot(1.0, tangent)
                sin = tangent * cos
                for k in range(n):
                    x, y = a[k, p], a[k, q]
                    a[k, p], a[k, q] = cos * x - sin * y, sin * x + cos * y
                for k in range(n):
                    x, y = a[p, k], a[q, k]
                    a[p, k], a[q, k] = cos * x - sin * y, sin * x + cos * y
                    x, y = v[k, p], v[k, q]
                    v[k, p], v[k, q] = cos * x - sin * y, sin * x + cos * y
    values = np.empty(n)
    for i in range(n):
        values[i] = a[i, i]
    return values, v


@compiled
def scan_only(
    information: Floats, prediction_error: Floats, prior: Floats, axes: Ints
) -> tuple[Floats, Floats, int, Floats]:
    """See `dsg_ros.mapping.registration.scan_only`."""
    count = len(axes)
    scale, e, h = np.empty(count), np.zeros(count), np.empty((count, count))
    for i in range(count):
        scale[i] = math.sqrt(prior[axes[i], axes[i]])
        for j in range(6):
            e[i] += prior[axes[i], j] * prediction_error[j]
        e[i] /= scale[i]
    for i in range(count):
        for j in range(count):
            h[i, j] = information[axes[i], axes[j]] / (scale[i] * scale[j])
    values, vectors = _eigen(h)
    shift, kept = np.zeros(6), np.zeros((6, 6))
    open_directions, weakest, widest = 0, math.inf, np.zeros(6)
    for k in range(count):
        if not values[k] > 1.0:
            open_directions += 1
            if not values[k] >= weakest:
                weakest, length = values[k], 0.0
                for i in range(count):
                    widest[axes[i]] = vectors[i, k] / scale[i]
                    length += widest[axes[i]] ** 2
                widest /= math.sqrt(length)
            continue
        along = 0.0
        for i in range(count):
            along += vectors[i, k] * e[i]
        for i in range(count):
            shift[axes[i]] += vectors[i, k] * along / values[k] / scale[i]
            for j in range(count):
                kept[axes[i], axes[j]] += vectors[i, k] * values[k] * vectors[j, k] * (scale[i] * scale[j])
    return shift, kept, open_directions, widest


@compiled
def opinion(
    pose: Floats, information: Floats, prediction: Floats, prior: Floats, axes: Ints
) -> tuple[Floats, Floats, int, Floats]:
    """Of a match at ``pose`` (7,) with the scan's ``information`` (6, 6), found with ``prior`` (6, 6) on ``prediction``
    (7,): the scan's own pose (7,), its information (6, 6), how many directions it leaves open and the widest of them
    (6,).
    """
    shift, kept, open_directions, widest = scan_only(information, se3.log(se3.between(prediction, pose)), prior, axes)
    return se3.compose(pose, se3.exp(shift)), kept, open_directions, widest


@compiled
def _inverse(matrix: Floats) -> Floats:
    """Of a symmetric positive definite (n, n)."""
    out = np.eye(len(matrix))
    for k in range(len(matrix)):
        solve_positive(matrix.copy(), np.eye(len(matrix))[k], out[k])
    return out


@compiled
def weighed(
    own: Floats, information: Floats, prediction: Floats, covariance: Floats, axes: Ints
) -> tuple[Floats, Floats]:
    """The likeliest pose (7,), to first order in what is between ``own`` (7,) with ``information`` (6, 6) and
    ``prediction`` (7,) with ``covariance`` (6, 6), and its covariance; it differs from ``own`` along ``axes`` (n,)
    alone.  Covariances are positive definite along ``axes``, and have zeros elsewhere.
    """
    count = len(axes)
    apart, pull, block = se3.log(se3.between(own, prediction)), np.zeros(count), np.empty((count, count))
    for i in range(count):
        for j in range(count):
            block[i, j] = covariance[axes[i], axes[j]]
    total = _inverse(block)
    for i in range(count):
        for j in range(count):
            pull[i] += total[i, j] * apart[axes[j]]
    for i in range(count):
        for j in range(count):
            total[i, j] += information[axes[i], axes[j]]
    left, tangent, out = _inverse(total), np.zeros(6), np.zeros((6, 6))
    for i in range(count):
        for j in range(count):
            tangent[axes[i]] += left[i, j] * pull[j]
            out[axes[i], axes[j]] = left[i, j]
    return se3.compose(own, se3.exp(tangent)), out


@compiled
def bounded(information: Floats, discount: float, floors: Floats, axes: Ints) -> Floats:
    """``(H^-1 + F)^-1`` (6, 6) of ``discount`` times an information, for variances ``floors`` (n,) of ``axes`` (n,).

    By the matrix inversion lemma, for an H that may be singular: ``root (I + root^T F root)^-1 root^T`` with
    ``H = root root^T``.
    """
    count = len(axes)
    h = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            h[i, j] = 0.5 * discount * (information[axes[i], axes[j]] + information[axes[j], axes[i]])
    values, root = _eigen(h)
    for k in range(count):
        for i in range(count):
            root[i, k] *= math.sqrt(max(values[k], 0.0))
    inner = np.eye(count)
    for a in range(count):
        for b in range(count):
            for i in range(count):
                inner[a, b] += root[i, a] * floors[i] * root[i, b]
    values, vectors = _eigen(inner)  # all of them 1 or more
    out = np.zeros((6, 6))
    for k in range(count):
        for i in range(count):
            h[i, k] = 0.0
            for a in range(count):
                h[i, k] += root[i, a] * vectors[a, k] / math.sqrt(values[k])
    for i in range(count):
        for j in range(count):
            for k in range(count):
                out[axes[i], axes[j]] += h[i, k] * h[j, k]
    return out
