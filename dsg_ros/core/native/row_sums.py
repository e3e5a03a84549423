"""What linearised rows sum up to, without their matrix: its products and diagonal, and the gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.tree import RowHessians

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
