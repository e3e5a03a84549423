"""Planar motions one after the other, with derivatives: rows of (x, y, yaw), many at a time, on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SMALL = 1e-2
"""Turns [rad] below which the series are exact to rounding, and the closed forms are not."""


class Moved(NamedTuple):
    """Poses ``pose`` (n, 3) and their derivatives ``gained`` (n, 3, K), x, y and yaw in the axes of where it began."""

    pose: Array
    gained: Array


def exp(tangent: Array, gained: Array) -> Moved:
    """Of tangents (n, 3) that gain ``gained`` (n, 3, K): ``V(w) (x, y)`` and w (Sola et al., "A micro Lie theory for
    state estimation in robotics", 2018, eqs. 156 to 158).
    """
    x, y, w = tangent.T
    one, other, by_one, by_other = _coefficients(w)
    moved = np.stack([one * x - other * y, other * x + one * y, w], axis=1)
    turned = np.stack([by_one * x - by_other * y, by_other * x + by_one * y], axis=1)
    along = np.empty_like(gained)
    along[:, 0] = one[:, None] * gained[:, 0] - other[:, None] * gained[:, 1]
    along[:, 1] = other[:, None] * gained[:, 0] + one[:, None] * gained[:, 1]
    along[:, :2] += turned[:, :, None] * gained[:, None, 2]
    along[:, 2] = gained[:, 2]
    return Moved(moved, along)


def chain(steps: Moved) -> Moved:
    """Poses (n + 1, ...) after each of n steps, from the origin on."""
    before = np.concatenate([[0.0], np.cumsum(steps.pose[:, 2])])
    before_gained = np.concatenate([np.zeros((1, steps.gained.shape[2])), np.cumsum(steps.gained[:, 2], axis=0)])
    turned = _turned(before[:-1], before_gained[:-1], steps)
    pose = np.zeros((len(before), 3))
    gained = np.zeros((len(before), *steps.gained.shape[1:]))
    np.cumsum(turned.pose[:, :2], axis=0, out=pose[1:, :2])
    np.cumsum(turned.gained[:, :2], axis=0, out=gained[1:, :2])
    pose[:, 2], gained[:, 2] = before, before_gained
    return Moved(pose, gained)


def after(first: Moved, then: Moved) -> Moved:
    """One pose after another, row by row."""
    turned = _turned(first.pose[:, 2], first.gained[:, 2], then)
    return Moved(first.pose + turned.pose, first.gained + turned.gained)


def _turned(yaw: Array, yaw_gained: Array, steps: Moved) -> Moved:
    """The steps in axes turned by ``yaw`` (n,), which gains ``yaw_gained`` (n, K)."""
    pose, gained = steps.pose.copy(), steps.gained.copy()
    axes = rotations(yaw)
    pose[:, :2] = np.einsum("nij,nj->ni", axes, steps.pose[:, :2])
    gained[:, :2] = np.einsum("nij,njk->nik", axes, steps.gained[:, :2])
    gained[:, :2] += perpendicular(pose[:, :2])[:, :, None] * yaw_gained[:, None, :]
    return Moved(pose, gained)


def rotations(yaw: Array) -> Array:
    """Matrices (n, 2, 2) that turn by ``yaw`` (n,)."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)


def perpendicular(vectors: Array) -> Array:
    """``vectors`` (..., 2) turned left by a right angle: what each gains by a turn."""
    return np.stack([-vectors[..., 1], vectors[..., 0]], axis=-1)


def _coefficients(w: Array) -> tuple[Array, Array, Array, Array]:
    """``sin w / w``, ``(1 - cos w) / w`` and their derivatives.  Both branches are finite wherever they are taken."""
    near = np.abs(w) < _SMALL
    far = np.where(near, 1.0, w)
    sin, cos, square = np.sin(far), np.cos(far), w * w
    one = np.where(near, 1 - square / 6 + square**2 / 120, sin / far)
    other = np.where(near, w / 2 - w * square / 24 + w * square**2 / 720, (1 - cos) / far)
    by_one = np.where(near, -w / 3 + w * square / 30 - w * square**2 / 840, (far * cos - sin) / far**2)
    by_other = np.where(near, 0.5 - square / 8 + square**2 / 144, (far * sin - (1 - cos)) / far**2)
    return one, other, by_one, by_other
