"""The inner solve of a window in one compiled call: Levenberg-Marquardt, voxels eliminated first.

The windows of a run are small and many: ten poses and two hundred voxels, at every keyframe.  As one program of fixed
shape in JAX a solve took 5.8 ms beside 4.5 ms to pad and hand over its arrays; this takes the arrays as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import blas, compiled
from dsg_ros.core.native.damping import FLOOR, GROWTH, LARGEST, converges, judge
from dsg_ros.core.native.manifold import moved
from dsg_ros.core.native.schur import SMALLEST, chains, eliminate, normal_equations, scales_of, solved
from dsg_ros.core.native.window_rows import Normal, Rows, Summary, costs_of, linearise

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CONVERGED, MAX_ITERATIONS, SINGULAR, DIVERGED = 0, 1, 2, 3
"""As `dsg_ros.core.solution.Result`."""
CLEAR = 1e4
"""Pivots so many times the damping cannot owe it to the damping that they are positive."""


FAINT = 1e-2
"""Of the cost: a smaller promise is not kept where Jacobians are taken at first estimates, and nothing is wrong."""


class Answer(NamedTuple):
    """Solved ``poses`` and ``voxels``; ``code`` as above."""

    poses: Floats
    voxels: Floats
    code: int
    cost: float
    iterations: int


@compiled
def _reduce(
    seen: Rows, first_seen: Ints, next_seen: Ints, place: Ints, free_voxels: Bools, normal: Normal, scales: Floats,
    voxel_scales: Floats, damping: float, halves: Floats, system: Floats, right: Floats,
) -> float:  # fmt: skip
    """Eliminate the voxels and factorise what is left for the poses in ``system``; ``right`` is its right-hand side.

    Returns the smallest pivot, the diagonal scaled to one; 0 where a variable is not determined.
    """
    size = len(right)
    for i in range(size):
        right[i] = -normal.gradient[i]
        for j in range(size):
            system[j * size + i] = normal.own[i, j]
        system[i * size + i] += damping * scales[i]
    least = eliminate(
        seen.keys, first_seen, next_seen, place, free_voxels, normal, voxel_scales, damping, halves, system, right, 0.0
    )  # fmt: skip
    if least == 0.0 or size == 0:
        return least
    if blas.cholesky(size, system, size) != 0:
        return 0.0
    for i in range(size):
        pivot = system[i * size + i] ** 2 / scales[i]
        if not pivot > SMALLEST:
            return 0.0
        least = min(least, pivot)
    return least


@compiled
def solve_window(
    poses: Floats, voxels: Floats, links: Rows, seen: Rows, axes: Ints, free_poses: Bools, free_voxels: Bools,
    summary: Summary, most: int, tolerance: float, damping: float,
) -> Answer:  # fmt: skip
    """Minimise the cost of ``links`` (relative poses), ``seen`` (voxels from poses) and ``summary`` over free poses and
    voxels.

    Poses (p, 7) move along ``axes``.  At most ``most`` steps.
    """
    d, count, voxel_count = len(axes), len(poses), len(voxels)
    place, moving = np.full(count, -1, np.int64), 0
    for i in range(count):
        if free_poses[i]:
            place[i] = moving * d
            moving += 1
    size = moving * d
    first_seen, next_seen = chains(seen.keys, 1, voxel_count)
    normal = normal_equations(moving, d, voxel_count, len(seen.keys))

    # Best state, and the trial from it; the start is a trial step from an infinite cost.
    best, best_voxels = poses.copy(), voxels.copy()
    trial, trial_voxels = poses.copy(), voxels.copy()
    cost, predicted, growth, iterations, code, clear = np.inf, np.inf, GROWTH, -1, MAX_ITERATIONS, False
    promised = np.inf  # by the first step that was refused after one that was not
    system, right, scales = np.zeros(size * size), np.zeros(size), np.zeros(size)
    voxel_scales, halves, tangent = np.zeros((voxel_count, 3)), np.zeros((voxel_count, 3, 3)), np.zeros(6)
    while True:
        if iterations < 0:
            converged = size == 0 and not np.any(free_voxels)
        else:
            converged = converges(cost, predicted, damping, tolerance)
        # Where the last step leads to need not be linearised; any other one most likely is where the next one begins.
        ending = iterations >= 0 and (converged or iterations + 1 >= most)
        if ending:
            trial_cost = costs_of(trial, trial_voxels, links, seen, axes, summary)
        else:
            trial_cost = linearise(trial, trial_voxels, place, free_voxels, links, seen, axes, summary, normal)
        if iterations < 0:
            accept = np.isfinite(trial_cost)
            if not accept:
                return Answer(best, best_voxels, DIVERGED, trial_cost, 0)
        else:
            verdict = judge(cost, trial_cost, predicted, damping, growth, tolerance)
            accept, damping, growth = verdict.accept, verdict.damping, verdict.growth
            promised = np.inf if accept else predicted if promised == np.inf else promised
        iterations += 1
        if accept:
            best[:], best_voxels[:], cost = trial, trial_voxels, trial_cost
        elif not ending:
            linearise(best, best_voxels, place, free_voxels, links, seen, axes, summary, normal)
        if not ending:
            for i in range(size):
                scales[i] = normal.own[i, i] if normal.own[i, i] > 0 else 1.0
            scales_of(normal.blocks, voxel_scales)
        if converged or damping > LARGEST or iterations >= most:
            # Jacobians at first estimates give no exact gradient: near the optimum no step may lower the cost.
            near = len(summary.about) > 0 and promised <= FAINT * (cost + FLOOR)
            code = CONVERGED if converged else DIVERGED if damping > LARGEST and not near else MAX_ITERATIONS
            break

        least = _reduce(
            seen, first_seen, next_seen, place, free_voxels, normal, scales, voxel_scales, damping, halves, system,
            right,
        )  # fmt: skip
        clear = least > CLEAR * damping
        if least == 0.0:
            if damping < 1e-4:
                damping = 1e-4
            else:
                damping, growth = damping * growth, 2.0 * growth
            predicted = np.nan
            trial[:], trial_voxels[:] = best, best_voxels
            if damping > LARGEST:
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
                predicted += 0.5 * (damping * scales[pa + k] * step * step - normal.gradient[pa + k] * step)
            moved(best[i], tangent, trial[i])
        for v in range(voxel_count):
            if not free_voxels[v] or first_seen[v] < 0:
                continue
            x, y, z = -normal.pulls[v, 0], -normal.pulls[v, 1], -normal.pulls[v, 2]
            a = first_seen[v]
            while a >= 0:
                pa = place[seen.keys[a, 0]]
                if pa >= 0:
                    for i in range(d):
                        x -= normal.cross[a, i, 0] * right[pa + i]
                        y -= normal.cross[a, i, 1] * right[pa + i]
                        z -= normal.cross[a, i, 2] * right[pa + i]
                a = next_seen[a]
            x, y, z = solved(halves, v, x, y, z)
            for i, step in enumerate((x, y, z)):
                trial_voxels[v, i] = best_voxels[v, i] + step
                predicted += 0.5 * (damping * voxel_scales[v, i] * step * step - normal.pulls[v, i] * step)
    # Damped steps do not show whether the normal equations themselves determine every variable.
    if code != DIVERGED and not clear:
        least = _reduce(
            seen, first_seen, next_seen, place, free_voxels, normal, scales, voxel_scales, 0.0, halves, system, right
        )  # fmt: skip
        if least == 0.0:
            code = SINGULAR
    return Answer(best, best_voxels, code, cost, iterations)
