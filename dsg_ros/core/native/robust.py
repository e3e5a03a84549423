"""Robust kernels in compiled loops, and what they make of a row's whitened error and Jacobian.

A row's cost is ``0.5 weight rho(|W e|^2)``; its Hessian is Gauss-Newton's, both scaled by the kernel's weight: as in
`dsg_ros.core.factors.base`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Floats = NDArray[np.float64]


@compiled
def robust(kernel: int, width: float, s: float) -> tuple[float, float]:
    """``rho(s)`` and ``rho'(s)``: as `dsg_ros.core.factors.base.robust` and `robust_weight`."""
    c2 = width * width
    if kernel == 1:
        if s <= c2:
            return s, 1.0
        root = math.sqrt(s)
        return 2.0 * width * root - c2, width / root
    if kernel == 2:
        return c2 * math.log1p(s / c2), c2 / (c2 + s)
    if kernel == 3:
        share = c2 / (c2 + s)
        return s * share, share * share
    if kernel == 4:
        if s <= c2:
            return s, 1.0
        share = 2.0 * c2 / (c2 + s)
        return c2 * (3.0 * s - c2) / (c2 + s), share * share
    return s, 1.0


LEAST_PRODUCT = 1e-100
"""Where `robust_sum` takes the logarithm: the next row can be 1e100 kernel widths away before anything underflows."""


@compiled
def robust_sum(kernel: int, width: float, weight: float, s: float, pending: Floats) -> tuple[float, float]:
    """What can be added to a sum of ``weight rho(s)`` over rows, and ``rho'(s)``.

    A logarithm takes as long as all else that a sighting costs.  So those of Cauchy's kernel are taken of the product
    of many rows, kept with their common factor in ``pending`` (2,), which begins as (0, 1) and ends with `pending_sum`.
    """
    if kernel != 2:
        value, slope = robust(kernel, width, s)
        return weight * value, slope
    c2, due = width * width, 0.0
    slope = c2 / (c2 + s)
    if pending[0] != weight * c2 or not pending[1] > LEAST_PRODUCT:
        due = pending_sum(pending)
        pending[0], pending[1] = weight * c2, 1.0
    pending[1] *= slope
    return due, slope


@compiled
def pending_sum(pending: Floats) -> float:
    """What rows have left to their sum."""
    return -pending[0] * math.log(pending[1])


@compiled
def cost_of(whitened: Floats, rows: int, weight: float, kernel: int, width: float) -> float:
    """Cost of a row from its whitened error."""
    squared = 0.0
    for i in range(rows):
        squared += whitened[i] * whitened[i]
    return 0.5 * weight * robust(kernel, width, squared)[0]


@compiled
def finish(
    whitened: Floats, jacobian: Floats, rows: int, columns: int, weight: float, kernel: int, width: float,
    hessian: Floats, gradient: Floats,
) -> float:  # fmt: skip
    """Cost of a row, and its scaled Hessian and gradient from whitened error (rows,) and Jacobian (rows, columns)."""
    squared = 0.0
    for i in range(rows):
        squared += whitened[i] * whitened[i]
    value, slope = robust(kernel, width, squared)
    scale = weight * slope
    for a in range(columns):
        total = 0.0
        for i in range(rows):
            total += jacobian[i, a] * whitened[i]
        gradient[a] = scale * total
    for a in range(columns):
        for b in range(a + 1):
            total = 0.0
            for i in range(rows):
                total += jacobian[i, a] * jacobian[i, b]
            hessian[a, b] = hessian[b, a] = scale * total
    return 0.5 * weight * value
