"""The inner solve of a window in one compiled call: Levenberg-Marquardt, voxels eliminated first.

The windows of a run are small and many: ten poses and two hundred voxels, at every keyframe.  As one program of fixed
shape in JAX a solve took 5.8 ms beside 4.5 ms to pad and hand over its arrays; this takes the arrays as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import blas, compiled
from dsg_ros.core.native.rows import moved, relative_poses, voxels_from_poses

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CONVERGED, MAX_ITERATIONS, SINGULAR, DIVERGED = 0, 1, 2, 3
"""As `dsg_ros.core.solution.Result`."""


class Rows(NamedTuple):
    """Rows of one form: ``keys`` (r, 2), ``measured`` (r, 7) or (r, 3), ``roots`` (r, k, k), the rest (r,)."""

    keys: Ints
    measured: Floats
    roots: Floats
    weights: Floats
    kernels: NDArray[np.int32]
    widths: Floats


class Answer(NamedTuple):
    """Solved ``poses`` and ``voxels``; ``code`` as above."""

    poses: Floats
    voxels: Floats
    code: int
    cost: float
    iterations: int


@compiled
def _invert(block: Floats) -> bool:
    """Invert a symmetric positive definite (3, 3) in place; False where it is singular to rounding."""
    a, b, c = block[0, 0], block[0, 1], block[0, 2]
    d, e, f = block[1, 1], block[1, 2], block[2, 2]
    x, y, z = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * x + b * y + c * z
    if not determinant > 1e-13 * a * d * f:
        return False
    block[0, 0], block[0, 1], block[0, 2] = x / determinant, y / determinant, z / determinant
    block[1, 1], block[1, 2] = (a * f - c * c) / determinant, (b * c - a * e) / determinant
    block[2, 2] = (a * d - b * b) / determinant
    block[1, 0], block[2, 0], block[2, 1] = block[0, 1], block[0, 2], block[1, 2]
    return True


@compiled
def _chains(keys: Ints, column: int, count: int) -> tuple[Ints, Ints]:
    """Rows by the variable in ``column``: first row, and the next one after each."""
    first, following = np.full(count, -1, np.int64), np.full(len(keys), -1, np.int64)
    for r in range(len(keys) - 1, -1, -1):
        following[r] = first[keys[r, column]]
        first[keys[r, column]] = r
    return first, following


@compiled
def _reduce(
    seen: Rows, first_seen: Ints, next_seen: Ints, place: Ints, free_voxels: Bools, d: int, hessians: Floats,
    blocks: Floats, pulls: Floats, voxel_scales: Floats, scales: Floats, own: Floats, gradient: Floats, damping: float,
    inverse: Floats, system: Floats, right: Floats,
) -> bool:  # fmt: skip
    """Eliminate the voxels: ``inverse`` of their damped blocks, the poses' Schur complement factorised in ``system``
    (column-major) and its right-hand side.  False where a variable is not determined.
    """
    size = len(right)
    crossing = np.empty((d, 3))
    for i in range(size):
        right[i] = -gradient[i]
        for j in range(size):
            system[j * size + i] = own[i, j]
        system[i * size + i] += damping * scales[i]
    for v in range(len(blocks)):
        if not free_voxels[v] or first_seen[v] < 0:
            continue
        inverse[v] = blocks[v]
        for i in range(3):
            inverse[v, i, i] += damping * voxel_scales[v, i]
        if not _invert(inverse[v]):
            return False
        a = first_seen[v]
        while a >= 0:
            pa = place[seen.keys[a, 0]]
            if pa >= 0:
                for i in range(d):
                    for j in range(3):
                        crossing[i, j] = (
                            hessians[a, i, d] * inverse[v, 0, j]
                            + hessians[a, i, d + 1] * inverse[v, 1, j]
                            + hessians[a, i, d + 2] * inverse[v, 2, j]
                        )
                    right[pa + i] += (
                        crossing[i, 0] * pulls[v, 0] + crossing[i, 1] * pulls[v, 1] + crossing[i, 2] * pulls[v, 2]
                    )
                b = first_seen[v]
                while b >= 0:
                    pb = place[seen.keys[b, 0]]
                    if pb >= 0:
                        for i in range(d):
                            for j in range(d):
                                system[(pb + j) * size + pa + i] -= (
                                    crossing[i, 0] * hessians[b, j, d]
                                    + crossing[i, 1] * hessians[b, j, d + 1]
                                    + crossing[i, 2] * hessians[b, j, d + 2]
                                )
                    b = next_seen[b]
            a = next_seen[a]
    if size == 0:
        return True
    if blas.cholesky(size, system, size) != 0:
        return False
    least = np.inf
    for i in range(size):
        least = min(least, system[i * size + i] ** 2 / scales[i])
    return least > 1e-13


@compiled
def solve_window(
    poses: Floats, voxels: Floats, links: Rows, seen: Rows, axes: Ints, free_poses: Bools, free_voxels: Bools,
    most: int, tolerance: float, damping: float,
) -> Answer:  # fmt: skip
    """Minimise the cost of ``links`` (relative poses) and ``seen`` (voxels from poses) over free poses and voxels.

    Poses (p, 7) move along ``axes``.  At most ``most`` steps; step logic as in `dsg_ros.core.solvers.damping`.
    """
    d, count, voxel_count = len(axes), len(poses), len(voxels)
    place, size = np.full(count, -1, np.int64), 0
    for i in range(count):
        if free_poses[i]:
            place[i] = size
            size += d
    link_h, link_g = np.zeros((len(links.keys), 2 * d, 2 * d)), np.zeros((len(links.keys), 2 * d))
    seen_h, seen_g = np.zeros((len(seen.keys), d + 3, d + 3)), np.zeros((len(seen.keys), d + 3))
    link_cost, seen_cost = np.zeros(len(links.keys)), np.zeros(len(seen.keys))
    every_link, every_seen = np.arange(len(links.keys)), np.arange(len(seen.keys))
    first_seen, next_seen = _chains(seen.keys, 1, voxel_count)

    # Best state, and the trial from it; the start is a trial step from an infinite cost.
    best, best_voxels = poses.copy(), voxels.copy()
    trial, trial_voxels = poses.copy(), voxels.copy()
    cost, predicted, growth, iterations, code = np.inf, np.inf, 10.0, -1, MAX_ITERATIONS
    system, right = np.zeros(size * size), np.zeros(size)
    own, gradient = np.zeros((size, size)), np.zeros(size)
    blocks, pulls = np.zeros((voxel_count, 3, 3)), np.zeros((voxel_count, 3))
    scales, voxel_scales = np.zeros(size), np.zeros((voxel_count, 3))
    inverse, tangent = np.zeros((voxel_count, 3, 3)), np.zeros(6)
    while True:
        relative_poses(
            trial, links.keys, links.measured, links.roots, links.weights, links.kernels, links.widths, axes,
            every_link, link_h, link_g, link_cost,
        )  # fmt: skip
        voxels_from_poses(
            trial, trial_voxels, seen.keys, seen.measured, seen.roots, seen.weights, seen.kernels, seen.widths, axes,
            every_seen, seen_h, seen_g, seen_cost,
        )  # fmt: skip
        trial_cost = np.sum(link_cost) + np.sum(seen_cost)
        if iterations < 0:
            accept, converged = np.isfinite(trial_cost), size == 0 and not np.any(free_voxels)
            if not accept:
                return Answer(best, best_voxels, DIVERGED, trial_cost, 0)
        else:
            promised = np.isfinite(predicted)
            converged = promised and predicted <= tolerance * (cost + 1e-6) and damping <= 1e-3
            lost = predicted <= 1e-11 * cost and trial_cost <= cost * (1 + 1e-13) and damping <= 1e-3
            accept = promised and np.isfinite(trial_cost) and (trial_cost < cost or lost)
            if accept:
                ratio = 0.5 if lost else (cost - trial_cost) / predicted
                damping = min(max(damping * (0.01 if ratio > 0.75 else 0.5 if ratio > 0.25 else 4.0), 1e-10), 1e8)
                growth = 10.0
            else:
                damping, growth = damping * growth, 2.0 * growth
        if accept:
            best[:], best_voxels[:], cost = trial, trial_voxels, trial_cost
            own[:], gradient[:], blocks[:], pulls[:] = 0.0, 0.0, 0.0, 0.0
            for r in range(len(links.keys)):
                for a in range(2):
                    pa = place[links.keys[r, a]]
                    if pa < 0:
                        continue
                    for i in range(d):
                        gradient[pa + i] += link_g[r, a * d + i]
                    for b in range(2):
                        pb = place[links.keys[r, b]]
                        if pb >= 0:
                            for i in range(d):
                                for j in range(d):
                                    own[pa + i, pb + j] += link_h[r, a * d + i, b * d + j]
            for r in range(len(seen.keys)):
                pa, v = place[seen.keys[r, 0]], seen.keys[r, 1]
                if pa >= 0:
                    for i in range(d):
                        gradient[pa + i] += seen_g[r, i]
                        for j in range(d):
                            own[pa + i, pa + j] += seen_h[r, i, j]
                if free_voxels[v]:
                    for i in range(3):
                        pulls[v, i] += seen_g[r, d + i]
                        for j in range(3):
                            blocks[v, i, j] += seen_h[r, d + i, d + j]
            kept_h = seen_h.copy()
            for i in range(size):
                scales[i] = own[i, i] if own[i, i] > 0 else 1.0
            for v in range(voxel_count):
                for i in range(3):
                    voxel_scales[v, i] = blocks[v, i, i] if blocks[v, i, i] > 0 else 1.0
        iterations += 1
        if converged:
            code = CONVERGED
            break
        if damping > 1e8:
            code = DIVERGED
            break
        if iterations >= most:
            break

        if not _reduce(
            seen, first_seen, next_seen, place, free_voxels, d, kept_h, blocks, pulls, voxel_scales, scales, own,
            gradient, damping, inverse, system, right,
        ):  # fmt: skip
            if damping < 1e-4:
                damping = 1e-4
            else:
                damping, growth = damping * growth, 2.0 * growth
            predicted = np.nan
            trial[:], trial_voxels[:] = best, best_voxels
            if damping > 1e8:
                code = SINGULAR
                break
            continue
        if size:
            blas.solve_left(False, size, 1, system, size, right, size)
            blas.solve_left(True, size, 1, system, size, right, size)
        predicted = 0.0
        for i in range(count):
            pa = place[i]
            if pa < 0:
                continue
            tangent[:] = 0.0
            for k in range(d):
                step = right[pa + k]
                tangent[axes[k]] = step
                predicted += 0.5 * (damping * scales[pa + k] * step * step - gradient[pa + k] * step)
            moved(best[i], tangent, trial[i])
        for v in range(voxel_count):
            if not free_voxels[v] or first_seen[v] < 0:
                continue
            x, y, z = -pulls[v, 0], -pulls[v, 1], -pulls[v, 2]
            a = first_seen[v]
            while a >= 0:
                pa = place[seen.keys[a, 0]]
                if pa >= 0:
                    for i in range(d):
                        x -= kept_h[a, i, d] * right[pa + i]
                        y -= kept_h[a, i, d + 1] * right[pa + i]
                        z -= kept_h[a, i, d + 2] * right[pa + i]
                a = next_seen[a]
            for i in range(3):
                step = inverse[v, i, 0] * x + inverse[v, i, 1] * y + inverse[v, i, 2] * z
                trial_voxels[v, i] = best_voxels[v, i] + step
                predicted += 0.5 * (damping * voxel_scales[v, i] * step * step - pulls[v, i] * step)
    # Damped steps do not show whether the normal equations themselves determine every variable.
    if code != DIVERGED and not _reduce(
        seen, first_seen, next_seen, place, free_voxels, d, kept_h, blocks, pulls, voxel_scales, scales, own, gradient,
        0.0, inverse, system, right,
    ):  # fmt: skip
        code = SINGULAR
    return Answer(best, best_voxels, code, cost, iterations)
