"""The inner solve of a window in one compiled call: Levenberg-Marquardt, voxels eliminated first; and what is left of a
window's rows, for the poses, once its voxels are gone.

The windows of a run are small and many: ten poses and two hundred voxels, at every keyframe.  As one program of fixed
shape in JAX a solve took 5.8 ms beside 4.5 ms to pad and hand over its arrays; this takes the arrays as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import blas, compiled
from dsg_ros.core.native.rows import (
    cost_of,
    finish,
    moved,
    relative_error,
    relative_row,
    scratch,
    tangent_between,
    voxel_error,
    voxel_row,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CONVERGED, MAX_ITERATIONS, SINGULAR, DIVERGED = 0, 1, 2, 3
"""As `dsg_ros.core.solution.Result`."""
SMALLEST = 1e-13
"""Pivots of a system with unit diagonal below this are rounding."""
CLEAR = 1e4
"""Pivots so many times the damping cannot owe it to the damping that they are positive."""


class Rows(NamedTuple):
    """Rows of one form: ``keys`` (r, 2), ``measured`` (r, 7) or (r, 3), ``roots`` (r, k, k), the rest (r,)."""

    keys: Ints
    measured: Floats
    roots: Floats
    weights: Floats
    kernels: NDArray[np.int32]
    widths: Floats


class Summary(NamedTuple):
    """What rows that are used up say about the poses: ``0.5 d^T information d + gradient^T d + constant``.

    ``d`` (p d,) are the tangents ``log(at^-1 pose)`` along the axes; poses not ``known`` have no say in it, and their
    ``at`` is not looked at.  Rows of known poses take their Jacobians at ``at``: the first estimates (Huang et al.,
    "A first-estimates Jacobian EKF for improving SLAM consistency", 2009).
    """

    at: Floats
    known: Bools
    information: Floats
    gradient: Floats
    constant: float


class Answer(NamedTuple):
    """Solved ``poses`` and ``voxels``; ``code`` as above."""

    poses: Floats
    voxels: Floats
    code: int
    cost: float
    iterations: int


@compiled
def _invert(block: Floats) -> float:
    """Invert a symmetric positive definite (3, 3) in place, unless it is singular to rounding.

    Returns its determinant, 0 where it is singular.
    """
    a, b, c = block[0, 0], block[0, 1], block[0, 2]
    d, e, f = block[1, 1], block[1, 2], block[2, 2]
    x, y, z = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * x + b * y + c * z
    if not determinant > SMALLEST * a * d * f:
        return 0.0
    block[0, 0], block[0, 1], block[0, 2] = x / determinant, y / determinant, z / determinant
    block[1, 1], block[1, 2] = (a * f - c * c) / determinant, (b * c - a * e) / determinant
    block[2, 2] = (a * d - b * b) / determinant
    block[1, 0], block[2, 0], block[2, 1] = block[0, 1], block[0, 2], block[1, 2]
    return determinant


@compiled
def _chains(keys: Ints, column: int, count: int) -> tuple[Ints, Ints]:
    """Rows by the variable in ``column``: first row, and the next one after each."""
    first, following = np.full(count, -1, np.int64), np.full(len(keys), -1, np.int64)
    for r in range(len(keys) - 1, -1, -1):
        following[r] = first[keys[r, column]]
        first[keys[r, column]] = r
    return first, following


@compiled
def _linearise_links(
    poses: Floats, at: Floats, known: Bools, rows: Rows, axes: Ints, hessian: Floats, gradient: Floats, costs: Floats
) -> None:  # fmt: skip
    """Rows between poses, with the Jacobians of those that touch ``known`` poses taken at ``at``."""
    room, columns = scratch(), 2 * len(axes)
    whitened, jacobian = np.empty(6), np.empty((6, columns))
    for r in range(len(rows.keys)):
        a, b = rows.keys[r, 0], rows.keys[r, 1]
        relative_row(at[a], at[b], rows.measured[r], rows.roots[r], axes, room, whitened, jacobian)
        if known[a] or known[b]:
            relative_error(poses[a], poses[b], rows.measured[r], rows.roots[r], room, whitened)
        costs[r] = finish(
            whitened, jacobian, 6, columns, rows.weights[r], rows.kernels[r], rows.widths[r], hessian[r], gradient[r]
        )  # fmt: skip


@compiled
def _linearise_seen(
    poses: Floats, at: Floats, known: Bools, voxels: Floats, rows: Rows, axes: Ints, hessian: Floats, gradient: Floats,
    costs: Floats,
) -> None:  # fmt: skip
    """Rows of voxels seen from poses, likewise."""
    room, columns = scratch(), len(axes) + 3
    whitened, jacobian = np.empty(3), np.empty((3, columns))
    for r in range(len(rows.keys)):
        a, v = rows.keys[r, 0], rows.keys[r, 1]
        voxel_row(at[a], voxels[v], rows.measured[r], rows.roots[r], axes, room, whitened, jacobian)
        if known[a]:
            voxel_error(poses[a], voxels[v], rows.measured[r], rows.roots[r], room, whitened)
        costs[r] = finish(
            whitened, jacobian, 3, columns, rows.weights[r], rows.kernels[r], rows.widths[r], hessian[r], gradient[r]
        )  # fmt: skip


@compiled
def _costs(poses: Floats, voxels: Floats, links: Rows, seen: Rows) -> float:
    """Of all rows."""
    room, whitened, cost = scratch(), np.empty(6), 0.0
    for r in range(len(links.keys)):
        a, b = links.keys[r, 0], links.keys[r, 1]
        relative_error(poses[a], poses[b], links.measured[r], links.roots[r], room, whitened)
        cost += cost_of(whitened, 6, links.weights[r], links.kernels[r], links.widths[r])
    for r in range(len(seen.keys)):
        a, v = seen.keys[r, 0], seen.keys[r, 1]
        voxel_error(poses[a], voxels[v], seen.measured[r], seen.roots[r], room, whitened)
        cost += cost_of(whitened, 3, seen.weights[r], seen.kernels[r], seen.widths[r])
    return cost


@compiled
def _away(poses: Floats, summary: Summary, axes: Ints, out: Floats) -> None:
    """``d`` (p d,) of `Summary`, zero for poses that are not known."""
    tangent, d = np.empty(6), len(axes)
    for i in range(len(poses)):
        if summary.known[i]:
            tangent_between(summary.at[i], poses[i], tangent)
            for k in range(d):
                out[i * d + k] = tangent[axes[k]]


@compiled
def _add_to_poses(
    poses: Floats, place: Ints, links: Rows, seen: Rows, d: int, link_h: Floats, link_g: Floats, seen_h: Floats,
    seen_g: Floats, summary: Summary, away: Floats, own: Floats, gradient: Floats,
) -> float:  # fmt: skip
    """Add rows and summary to the Hessian and gradient of the free poses; returns the summary's cost."""
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
        pa = place[seen.keys[r, 0]]
        if pa >= 0:
            for i in range(d):
                gradient[pa + i] += seen_g[r, i]
                for j in range(d):
                    own[pa + i, pa + j] += seen_h[r, i, j]
    cost = summary.constant
    for a in range(len(poses)):
        if not summary.known[a]:
            continue
        for i in range(d):
            pull = summary.gradient[a * d + i]
            cost += pull * away[a * d + i]
            for b in range(len(poses)):
                if not summary.known[b]:
                    continue
                for j in range(d):
                    part = summary.information[a * d + i, b * d + j] * away[b * d + j]
                    pull += part
                    cost += 0.5 * part * away[a * d + i]
                    if place[a] >= 0 and place[b] >= 0:
                        own[place[a] + i, place[b] + j] += summary.information[a * d + i, b * d + j]
            if place[a] >= 0:
                gradient[place[a] + i] += pull
    return cost


@compiled
def _summary_cost(summary: Summary, away: Floats) -> float:
    if not np.any(summary.known):
        return summary.constant
    return summary.constant + np.sum(away * (summary.gradient + 0.5 * (summary.information @ away)))


@compiled
def _eliminate(
    seen: Rows, first_seen: Ints, next_seen: Ints, place: Ints, free_voxels: Bools, d: int, hessians: Floats,
    blocks: Floats, pulls: Floats, voxel_scales: Floats, damping: float, inverse: Floats, system: Floats, size: int,
    right: Floats, regular: float,
) -> float:  # fmt: skip
    """Take the voxels out of the lower half of ``system`` (column-major) and of ``right``; ``inverse`` gets that of
    their damped blocks.  Returns the smallest determinant of a block, its diagonal scaled to one.

    A voxel that is not determined ends it with 0, or, if ``regular`` is positive, is damped that much: in the
    directions that its rows do not see they have nothing to pass on.
    """
    crossing, least = np.empty((d, 3)), np.inf
    for v in range(len(blocks)):
        if not free_voxels[v] or first_seen[v] < 0:
            continue
        inverse[v] = blocks[v]
        for i in range(3):
            inverse[v, i, i] += damping * voxel_scales[v, i]
        pivot = _invert(inverse[v])
        if pivot == 0.0:
            if regular == 0.0:
                return 0.0
            inverse[v] = blocks[v]
            for i in range(3):
                inverse[v, i, i] += regular * voxel_scales[v, i]
            pivot = _invert(inverse[v])
        least = min(least, pivot / (voxel_scales[v, 0] * voxel_scales[v, 1] * voxel_scales[v, 2]))
        a = first_seen[v]
        while a >= 0:
            pa = place[seen.keys[a, 0]]
            if pa >= 0:
                for i in range(d):
                    x, y, z = hessians[a, i, d], hessians[a, i, d + 1], hessians[a, i, d + 2]
                    for j in range(3):
                        crossing[i, j] = x * inverse[v, 0, j] + y * inverse[v, 1, j] + z * inverse[v, 2, j]
                    right[pa + i] += (
                        crossing[i, 0] * pulls[v, 0] + crossing[i, 1] * pulls[v, 1] + crossing[i, 2] * pulls[v, 2]
                    )
                b = first_seen[v]
                while b >= 0:
                    pb = place[seen.keys[b, 0]]
                    if 0 <= pb <= pa:
                        for j in range(d):
                            x, y, z = hessians[b, j, d], hessians[b, j, d + 1], hessians[b, j, d + 2]
                            column = (pb + j) * size + pa
                            for i in range(d):
                                system[column + i] -= crossing[i, 0] * x + crossing[i, 1] * y + crossing[i, 2] * z
                    b = next_seen[b]
            a = next_seen[a]
    return least


@compiled
def _reduce(
    seen: Rows, first_seen: Ints, next_seen: Ints, place: Ints, free_voxels: Bools, d: int, hessians: Floats,
    blocks: Floats, pulls: Floats, voxel_scales: Floats, scales: Floats, own: Floats, gradient: Floats, damping: float,
    inverse: Floats, system: Floats, right: Floats,
) -> float:  # fmt: skip
    """Eliminate the voxels and factorise what is left for the poses in ``system``; ``right`` is its right-hand side.
    Returns the smallest pivot, the diagonal scaled to one, or 0 where a variable is not determined.
    """
    size = len(right)
    for i in range(size):
        right[i] = -gradient[i]
        for j in range(size):
            system[j * size + i] = own[i, j]
        system[i * size + i] += damping * scales[i]
    least = _eliminate(
        seen, first_seen, next_seen, place, free_voxels, d, hessians, blocks, pulls, voxel_scales, damping, inverse,
        system, size, right, 0.0,
    )  # fmt: skip
    if least == 0.0 or size == 0:
        return least
    if blas.cholesky(size, system, size) != 0:
        return 0.0
    for i in range(size):
        least = min(least, system[i * size + i] ** 2 / scales[i])
    return least if least > SMALLEST else 0.0


@compiled
def _gather(
    seen: Rows, free_voxels: Bools, d: int, hessians: Floats, gradients: Floats, blocks: Floats, pulls: Floats
) -> None:
    """Hessian blocks and gradients of the free voxels."""
    blocks[:], pulls[:] = 0.0, 0.0
    for r in range(len(seen.keys)):
        v = seen.keys[r, 1]
        if free_voxels[v]:
            for i in range(3):
                pulls[v, i] += gradients[r, d + i]
                for j in range(3):
                    blocks[v, i, j] += hessians[r, d + i, d + j]


@compiled
def _scales_of(blocks: Floats, out: Floats) -> None:
    for v in range(len(blocks)):
        for i in range(3):
            out[v, i] = blocks[v, i, i] if blocks[v, i, i] > 0 else 1.0


@compiled
def condense(
    poses: Floats, voxels: Floats, free_voxels: Bools, links: Rows, seen: Rows, axes: Ints, summary: Summary
) -> Summary:  # fmt: skip
    """Rows and an older ``summary`` in one about all of ``poses``, the free voxels eliminated.

    Poses that a row touches are linearised here, unless they are known already, and known from now on.
    """
    d, count, voxel_count = len(axes), len(poses), len(voxels)
    size = count * d
    at = poses.copy()
    for i in range(count):
        if summary.known[i]:
            at[i] = summary.at[i]
    link_h, link_g = np.zeros((len(links.keys), 2 * d, 2 * d)), np.zeros((len(links.keys), 2 * d))
    seen_h, seen_g = np.zeros((len(seen.keys), d + 3, d + 3)), np.zeros((len(seen.keys), d + 3))
    link_cost, seen_cost = np.zeros(len(links.keys)), np.zeros(len(seen.keys))
    _linearise_links(poses, at, summary.known, links, axes, link_h, link_g, link_cost)
    _linearise_seen(poses, at, summary.known, voxels, seen, axes, seen_h, seen_g, seen_cost)
    place, away = d * np.arange(count), np.zeros(size)
    own, gradient = np.zeros((size, size)), np.zeros(size)
    blocks, pulls = np.zeros((voxel_count, 3, 3)), np.zeros((voxel_count, 3))
    voxel_scales, inverse = np.zeros((voxel_count, 3)), np.zeros((voxel_count, 3, 3))
    _away(poses, summary, axes, away)
    cost = _add_to_poses(
        poses, place, links, seen, d, link_h, link_g, seen_h, seen_g, summary, away, own, gradient
    )  # fmt: skip
    cost += np.sum(link_cost) + np.sum(seen_cost)
    _gather(seen, free_voxels, d, seen_h, seen_g, blocks, pulls)
    _scales_of(blocks, voxel_scales)
    first_seen, next_seen = _chains(seen.keys, 1, voxel_count)
    system, right = own.copy().reshape(size * size), -gradient
    _eliminate(
        seen, first_seen, next_seen, place, free_voxels, d, seen_h, blocks, pulls, voxel_scales, 0.0, inverse, system,
        size, right, 1e-9,
    )  # fmt: skip
    for v in range(voxel_count):
        if free_voxels[v] and first_seen[v] >= 0:
            for i in range(3):
                for j in range(3):
                    cost -= 0.5 * pulls[v, i] * inverse[v, i, j] * pulls[v, j]
    information = system.reshape(size, size)
    for i in range(size):
        for j in range(i):
            information[i, j] = information[j, i]
    # From steps at `poses` to tangents at `at`.
    gradient = -right - information @ away
    shift = np.sum(away * (right + 0.5 * (information @ away)))
    known = summary.known.copy()
    for r in range(len(links.keys)):
        known[links.keys[r, 0]] = known[links.keys[r, 1]] = True
    for r in range(len(seen.keys)):
        known[seen.keys[r, 0]] = True
    return Summary(at, known, information, gradient, cost + shift)


@compiled
def solve_window(
    poses: Floats, voxels: Floats, links: Rows, seen: Rows, axes: Ints, free_poses: Bools, free_voxels: Bools,
    summary: Summary, most: int, tolerance: float, damping: float,
) -> Answer:  # fmt: skip
    """Minimise the cost of ``links`` (relative poses), ``seen`` (voxels from poses) and ``summary`` over free poses and
    voxels.

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
    at, away = poses.copy(), np.zeros(count * d)
    first_seen, next_seen = _chains(seen.keys, 1, voxel_count)

    # Best state, and the trial from it; the start is a trial step from an infinite cost.
    best, best_voxels = poses.copy(), voxels.copy()
    trial, trial_voxels = poses.copy(), voxels.copy()
    cost, predicted, growth, iterations, code, clear = np.inf, np.inf, 10.0, -1, MAX_ITERATIONS, False
    system, right = np.zeros(size * size), np.zeros(size)
    own, gradient = np.zeros((size, size)), np.zeros(size)
    blocks, pulls = np.zeros((voxel_count, 3, 3)), np.zeros((voxel_count, 3))
    scales, voxel_scales = np.zeros(size), np.zeros((voxel_count, 3))
    inverse, tangent = np.zeros((voxel_count, 3, 3)), np.zeros(6)
    while True:
        _away(trial, summary, axes, away)
        trial_cost = _costs(trial, trial_voxels, links, seen) + _summary_cost(summary, away)
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
        iterations += 1
        last = converged or damping > 1e8 or iterations >= most
        if accept:
            best[:], best_voxels[:], cost = trial, trial_voxels, trial_cost
        # Where the last step leads to need not be linearised.
        if accept and (iterations == 0 or not last):
            for i in range(count):
                at[i] = summary.at[i] if summary.known[i] else best[i]
            _linearise_links(best, at, summary.known, links, axes, link_h, link_g, link_cost)
            _linearise_seen(best, at, summary.known, best_voxels, seen, axes, seen_h, seen_g, seen_cost)
            own[:], gradient[:] = 0.0, 0.0
            _add_to_poses(
                best, place, links, seen, d, link_h, link_g, seen_h, seen_g, summary, away, own, gradient
            )  # fmt: skip
            _gather(seen, free_voxels, d, seen_h, seen_g, blocks, pulls)
            for i in range(size):
                scales[i] = own[i, i] if own[i, i] > 0 else 1.0
            _scales_of(blocks, voxel_scales)
        if last:
            code = CONVERGED if converged else DIVERGED if damping > 1e8 else MAX_ITERATIONS
            break

        least = _reduce(
            seen, first_seen, next_seen, place, free_voxels, d, seen_h, blocks, pulls, voxel_scales, scales, own,
            gradient, damping, inverse, system, right,
        )  # fmt: skip
        clear = least > CLEAR * damping
        if least == 0.0:
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
                        x -= seen_h[a, i, d] * right[pa + i]
                        y -= seen_h[a, i, d + 1] * right[pa + i]
                        z -= seen_h[a, i, d + 2] * right[pa + i]
                a = next_seen[a]
            for i in range(3):
                step = inverse[v, i, 0] * x + inverse[v, i, 1] * y + inverse[v, i, 2] * z
                trial_voxels[v, i] = best_voxels[v, i] + step
                predicted += 0.5 * (damping * voxel_scales[v, i] * step * step - pulls[v, i] * step)
    # Damped steps do not show whether the normal equations themselves determine every variable.
    if code != DIVERGED and not clear:
        least = _reduce(
            seen, first_seen, next_seen, place, free_voxels, d, seen_h, blocks, pulls, voxel_scales, scales, own,
            gradient, 0.0, inverse, system, right,
        )  # fmt: skip
        if least == 0.0:
            code = SINGULAR
    return Answer(best, best_voxels, code, cost, iterations)
