"""Linear algebra of a few numbers for compiled kernels, where a call of LAPACK costs more than the work."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Array = NDArray[np.float64]


@compiled
def solve_positive(matrix: Array, right: Array, out: Array) -> bool:
    """``matrix @ out = right`` for a symmetric positive definite (n, n) by Cholesky; overwrites ``matrix``.

    False, and ``out`` as it was, where the matrix is not positive definite to rounding.
    """
    n = len(right)
    for i in range(n):
        scale = matrix[i, i]
        for j in range(i + 1):
            value = matrix[i, j]
            for k in range(j):
                value -= matrix[i, k] * matrix[j, k]
            if i != j:
                matrix[i, j] = value / matrix[j, j]
            elif not value > 1e-13 * scale:
                return False
            else:
                matrix[i, i] = math.sqrt(value)
    for i in range(n):
        value = right[i]
        for k in range(i):
            value -= matrix[i, k] * out[k]
        out[i] = value / matrix[i, i]
    for i in range(n - 1, -1, -1):
        value = out[i]
        for k in range(i + 1, n):
            value -= matrix[k, i] * out[k]
        out[i] = value / matrix[i, i]
    return True


@compiled
def eigen_planar(covariance: Array, values: Array, axes: Array) -> None:
    """Eigenvalues (3,) ascending and axes (3, 3) as rows of the x-y block of (3, 3), in closed form; the third is z.

    z has an infinite variance: a planar scan does not measure it.
    """
    a, b, c = covariance[0, 0], covariance[0, 1], covariance[1, 1]
    angle = 0.5 * math.atan2(2.0 * b, a - c)  # of the larger axis
    root = math.hypot(0.5 * (a - c), b)
    values[0], values[1], values[2] = 0.5 * (a + c) - root, 0.5 * (a + c) + root, np.inf
    cos, sin = math.cos(angle), math.sin(angle)
    axes[:] = 0.0
    axes[0, 0], axes[0, 1] = -sin, cos
    axes[1, 0], axes[1, 1] = cos, sin
    axes[2, 2] = 1.0


@compiled
def eigen_spatial(covariance: Array, values: Array, axes: Array) -> None:
    """Eigenvalues (3,) ascending and axes (3, 3) as rows of a symmetric (3, 3) (Jacobi; Golub and Van Loan, 8.5)."""
    a = covariance.copy()
    v = np.eye(3)
    for _ in range(12):
        off = abs(a[0, 1]) + abs(a[0, 2]) + abs(a[1, 2])
        if off <= 1e-15 * (abs(a[0, 0]) + abs(a[1, 1]) + abs(a[2, 2])):
            break
        for p, q in ((0, 1), (0, 2), (1, 2)):
            if a[p, q] == 0.0:
                continue
            ratio = (a[q, q] - a[p, p]) / (2.0 * a[p, q])
            tangent = math.copysign(1.0, ratio) / (abs(ratio) + math.sqrt(1.0 + ratio * ratio))
            cos = 1.0 / math.sqrt(1.0 + tangent * tangent)
            sin = tangent * cos
            for k in range(3):
                x, y = a[k, p], a[k, q]
                a[k, p], a[k, q] = cos * x - sin * y, sin * x + cos * y
            for k in range(3):
                x, y = a[p, k], a[q, k]
                a[p, k], a[q, k] = cos * x - sin * y, sin * x + cos * y
                x, y = v[p, k], v[q, k]
                v[p, k], v[q, k] = cos * x - sin * y, sin * x + cos * y
    for i in range(3):
        values[i] = a[i, i]
        axes[i] = v[i]
    for i, j in ((0, 1), (1, 2), (0, 1)):
        if values[i] > values[j]:
            values[i], values[j] = values[j], values[i]
            for k in range(3):
                axes[i, k], axes[j, k] = axes[j, k], axes[i, k]
