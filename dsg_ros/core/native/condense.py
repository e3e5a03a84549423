"""What is left of a window's rows, for its poses, once its voxels are gone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.schur import chains, eliminate, normal_equations, scales_of, solved
from dsg_ros.core.native.window_rows import Rows, Summary, away_from, first_estimates, linearise

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

REGULAR = 1e-6
"""Damping, against a unit diagonal, of voxels that their rows do not determine.  What they do see loses this share of
its information; what they do not see passes on rounding squared over it, 1e-26.  Its square, which is what is left of
the determinant where a single direction is seen, must be above `schur.SMALLEST`, or the voxel would be taken for one
that is known.
"""


class Condensed(NamedTuple):
    """A `Summary` about all poses of a window: those ``known`` that a row has touched, the others as zeros."""

    at: Floats
    known: Bools
    information: Floats
    gradient: Floats
    constant: float


@compiled
def condense(
    poses: Floats, voxels: Floats, free_voxels: Bools, links: Rows, seen: Rows, axes: Ints, summary: Summary
) -> Condensed:  # fmt: skip
    """Rows and an older ``summary`` in one about all of ``poses``, the free voxels eliminated.

    Poses that a row touches are linearised here, unless they are known already, and known from now on.
    """
    d, count, voxel_count = len(axes), len(poses), len(voxels)
    size, place = count * d, d * np.arange(count)
    normal = normal_equations(count, d, voxel_count, len(seen.keys))
    cost = linearise(poses, voxels, place, free_voxels, links, seen, axes, summary, normal)
    voxel_scales, halves = np.zeros((voxel_count, 3)), np.zeros((voxel_count, 3, 3))
    scales_of(normal.blocks, voxel_scales)
    first_seen, next_seen = chains(seen.keys, 1, voxel_count)
    system, right = normal.own.copy().reshape(size * size), -normal.gradient
    eliminate(
        seen.keys, first_seen, next_seen, place, free_voxels, normal, voxel_scales, 0.0, halves, system, right, REGULAR
    )  # fmt: skip
    for v in range(voxel_count):
        if free_voxels[v] and first_seen[v] >= 0:
            pull = normal.pulls[v]
            x, y, z = solved(halves, v, pull[0], pull[1], pull[2])
            cost -= 0.5 * (pull[0] * x + pull[1] * y + pull[2] * z)
    information = system.reshape(size, size)
    for i in range(size):
        for j in range(i):
            information[i, j] = information[j, i]
    # From steps at `poses` to tangents at the first estimates.
    at, known = first_estimates(poses, summary)
    away, own_away = np.zeros(size), away_from(poses, summary, axes)
    for k in range(len(summary.about)):
        for i in range(d):
            away[summary.about[k] * d + i] = own_away[k * d + i]
    gradient = -right - information @ away
    shift = np.sum(away * (right + 0.5 * (information @ away)))
    for r in range(len(links.keys)):
        known[links.keys[r, 0]] = known[links.keys[r, 1]] = True
    for r in range(len(seen.keys)):
        known[seen.keys[r, 0]] = True
    return Condensed(at, known, information, gradient, cost + shift)
