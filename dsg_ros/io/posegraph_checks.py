"""What must hold of a pose graph: no information matrix has a negative eigenvalue, and the graph is connected."""

from __future__ import annotations

import numpy as np

from dsg_ros.io.posegraph import Floats, Indices

_ROUNDING = 1e-6
"""Negative eigenvalues, of matrices scaled to a unit diagonal, up to this size: six printed digits, rounded."""


def matrices(triangles: Floats) -> Floats:
    """Symmetric matrices (n, d, d) from upper triangles by rows (n, d (d + 1) / 2)."""
    size = int((2 * triangles.shape[1]) ** 0.5)
    row, column = np.triu_indices(size)
    out = np.empty((len(triangles), size, size))
    out[:, row, column] = out[:, column, row] = triangles
    return out


def asymmetric(full: Floats) -> Indices:
    """Indices of those of the matrices (n, d, d) that are not symmetric beyond the rounding of their printing."""
    size = np.abs(full).max(axis=(1, 2))[:, None, None]
    return np.flatnonzero((np.abs(full - full.transpose(0, 2, 1)) > 1e-9 * size).any(axis=(1, 2)))


def square_roots(information: Floats) -> tuple[Floats, Indices, Indices]:
    """S (n, d, d) with S^T S = information (n, d, d), and the indices of indefinite and of singular matrices in it.

    S is upper triangular where the matrix is positive definite.  A singular matrix is right: an edge may know some
    directions only.  S is zero where the matrix is indefinite.
    """
    none = np.zeros(0, np.int64)
    try:
        return _upper(information), none, none
    except np.linalg.LinAlgError:
        pass  # raised for the whole stack: find out which
    diagonal = np.diagonal(information, axis1=1, axis2=2)
    # Scaled to a unit diagonal, metres and radians count alike; the signs of the eigenvalues stay (Sylvester's law).
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(information / scale[:, :, None] / scale[:, None, :])
    smallest, largest = values[:, 0], np.maximum(values[:, -1], 1.0)
    indefinite = (smallest < -_ROUNDING * largest) | (diagonal < 0).any(axis=1)
    singular = ~indefinite & (smallest <= 1e-12 * largest)
    roots = np.sqrt(np.clip(values, 0.0, None))[:, :, None] * vectors.transpose(0, 2, 1) * scale[:, None, :]
    regular = ~indefinite & ~singular
    roots[regular] = _upper(information[regular])
    roots[indefinite] = 0.0
    return roots, np.flatnonzero(indefinite), np.flatnonzero(singular)


def _upper(information: Floats) -> Floats:
    lower = np.asarray(np.linalg.cholesky(information), np.float64)
    return lower.transpose(0, 2, 1)


def components(count: int, first: Indices, second: Indices) -> Indices:
    """(count,) for each vertex the smallest index in its connected component; edge k joins first[k] and second[k]."""
    label = np.arange(count)
    while True:
        a, b = label[first], label[second]
        if (a == b).all():
            return label
        # Hook the larger of two roots to the smaller one, then let every vertex point to its root.
        np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while True:
            jumped = label[label]
            if (jumped == label).all():
                break
            label = jumped
