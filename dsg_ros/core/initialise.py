"""Initial values for pose graphs by chordal relaxation: two linear least squares, whatever the start.

First the rotations, as matrices with the orthogonality dropped, then the nearest rotations; then the translations, for
which the cost is quadratic once the rotations are known (Carlone, Tron, Daniilidis and Dellaert, "Initialization
techniques for 3D SLAM", ICRA 2015; Martinec and Pajdla, CVPR 2007).  Both share the graph's elimination tree.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.linearisation import Edges, HostRows, Values
from dsg_ros.core.native import compiled, multifrontal, plan, substitution
from dsg_ros.core.native.elimination import Fronts
from dsg_ros.core.native.tree import RowHessians
from dsg_ros.core.problem import Problem
from dsg_ros.core.solvers.linear import SMALLEST_PIVOT
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def chordal(rows: HostRows, start: Floats) -> Floats | None:
    """Poses (P, 7) that solve the relaxed problem of the rows that are relative poses; held poses stay at ``start``.

    None where it determines nothing: no pose is held, or relative poses do not join all free ones to a held one.
    """
    edges = rows.relative
    if not len(edges.ends) or rows.moving.all():
        return None
    planar = np.array_equal(rows.axes, [0, 1, 5])
    count = int(rows.moving.sum())
    fronts = plan.analyse(edges.numbers, count, 3)
    held = poses.matrix(start)[:, :3, :3]
    rotations = _planar_rotations(fronts, edges, held, count) if planar else _rotations(fronts, edges, held, count)
    if rotations is None:
        return None
    turned = held.copy()
    turned[rows.moving] = rotations
    positions = _translations(fronts, edges, turned, start[:, :3], rows.moving, 2 if planar else 3)
    if positions is None:
        return None
    out = start.copy()
    out[rows.moving, 3:] = _quaternions(rotations)
    out[:, :3] = positions
    return out


def better_start(problem: Problem, theta: Theta) -> Problem:
    """``problem`` from the chordal relaxation where that costs less than its own state."""
    own = Values(np.array(problem.state.poses, float), np.asarray(problem.state.voxels))
    better: Any = better_values(HostRows(problem, theta), own)[0]
    return problem if better is own else dataclasses.replace(problem, state=State(*better))


def better_values(rows: HostRows, own: Values) -> tuple[Values, tuple[float, RowHessians]]:
    """``own``, or what the chordal relaxation makes of them where that costs less; with its cost and the rows there."""
    relaxed = chordal(rows, own.poses)
    if relaxed is not None:
        cost, other = rows.linearise(own)[0], own._replace(poses=relaxed)
        found, linearised = rows.linearise(other)
        if found < cost:
            return other, (found, linearised)
    return own, rows.linearise(own)


def _solved(fronts: Fronts, numbers: Ints, size: int, hessian: Floats, columns: Floats, count: int) -> Floats | None:
    """``H^-1 columns`` (k, N) for rows of two variables of ``size``; None where H is singular."""
    dims = np.full(count, size, np.int64)
    tree = plan.tree_of(fronts, numbers, dims)
    local = np.tile(np.array([0, size]), (len(numbers), 1))
    told = RowHessians(numbers, local, hessian, np.zeros(hessian.shape[:2]))
    order, nothing = np.arange(len(tree.panel)), np.zeros(count * size)
    _, bad = multifrontal.factorise(
        tree, told, order, nothing, nothing.copy(), np.zeros(count, np.int64), SMALLEST_PIVOT
    )
    if bad >= 0:
        return None
    substitution.solve(tree, order, columns)
    return columns


def _rotations(fronts: Fronts, edges: Edges, held: Floats, count: int) -> Floats | None:
    """``min sum w |R_j - R_i R_ij|^2``: each row of the matrices is an unknown of its own, all with one Hessian."""
    turn = poses.matrix(edges.measured)[:, :3, :3]
    weight = np.einsum("nij,nij->n", edges.sqrt_info[:, :, 3:], edges.sqrt_info[:, :, 3:]) / 3
    hessian = np.zeros((len(turn), 6, 6))
    hessian[:, [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]] = weight[:, None]
    hessian[:, :3, 3:] = -weight[:, None, None] * turn
    hessian[:, 3:, :3] = hessian[:, :3, 3:].swapaxes(1, 2)
    right = np.zeros((3, count, 3))
    for a, b, product in ((0, 1, turn.swapaxes(1, 2)), (1, 0, turn)):
        known = (edges.numbers[:, a] < 0) & (edges.numbers[:, b] >= 0)
        pull = np.einsum("n,nij,nkj->nki", weight[known], product[known], held[edges.ends[known, a]])
        for k in range(3):
            np.add.at(right[k], edges.numbers[known, b], pull[:, k])
    found = _solved(fronts, edges.numbers, 3, hessian, right.reshape(3, count * 3), count)
    return None if found is None else nearest_rotations(found.reshape(3, count, 3).transpose(1, 0, 2).copy())


def _planar_rotations(fronts: Fronts, edges: Edges, held: Floats, count: int) -> Floats | None:
    """The same in the plane: a rotation is its cosine and sine."""
    turn = poses.matrix(edges.measured)[:, :2, :2]
    weight = np.einsum("ni,ni->n", edges.sqrt_info[:, :, 5], edges.sqrt_info[:, :, 5])
    hessian = np.zeros((len(turn), 4, 4))
    hessian[:, [0, 1, 2, 3], [0, 1, 2, 3]] = weight[:, None]
    hessian[:, 2:, :2] = -weight[:, None, None] * turn
    hessian[:, :2, 2:] = hessian[:, 2:, :2].swapaxes(1, 2)
    right = np.zeros((count, 2))
    for a, b, product in ((0, 1, turn), (1, 0, turn.swapaxes(1, 2))):
        known = (edges.numbers[:, a] < 0) & (edges.numbers[:, b] >= 0)
        pull = np.einsum("n,nij,nj->ni", weight[known], product[known], held[edges.ends[known, a], :2, 0])
        np.add.at(right, edges.numbers[known, b], pull)
    found = _solved(fronts, edges.numbers, 2, hessian, right.reshape(1, count * 2), count)
    if found is None:
        return None
    c, s = (found / np.maximum(np.hypot(found[:, ::2], found[:, 1::2]), 1e-300).repeat(2, axis=1)).reshape(count, 2).T
    out = np.zeros((count, 3, 3))
    out[:, 0, 0], out[:, 0, 1], out[:, 1, 0], out[:, 1, 1], out[:, 2, 2] = c, -s, s, c, 1.0
    return out


def _translations(
    fronts: Fronts, edges: Edges, turned: Floats, start: Floats, moving: NDArray[np.bool_], size: int
) -> Floats | None:
    """Positions (P, 3) that minimise the rows' cost, given the rotations ``turned`` (P, 3, 3)."""
    first, second = edges.ends.T
    into = poses.matrix(edges.measured)[:, :3, :3]
    part = edges.sqrt_info[:, :, :3] @ into.swapaxes(1, 2)  # whitens an error in the first pose's frame
    jacobian = part @ turned[first].swapaxes(1, 2)
    known = np.where(moving[:, None], 0.0, start)
    if size == 2:  # height is not solved for
        known[:, 2] = start[:, 2]
    told = np.einsum("nij,nj->ni", part, edges.measured[:, :3])
    error = np.einsum("nij,nj->ni", jacobian, known[second] - known[first]) - told
    jacobian = jacobian[:, :, :size]
    block = jacobian.swapaxes(1, 2) @ jacobian
    hessian = np.concatenate([np.concatenate([block, -block], axis=2), np.concatenate([-block, block], axis=2)], axis=1)
    pull = np.einsum("nij,ni->nj", jacobian, error)
    count = int(moving.sum())
    right = np.zeros((count, size))
    for a, sign in ((0, 1.0), (1, -1.0)):
        free = edges.numbers[:, a] >= 0
        for k in range(size):
            right[:, k] += sign * np.bincount(edges.numbers[free, a], pull[free, k], count)
    found = _solved(fronts, edges.numbers, size, hessian, right.reshape(1, count * size), count)
    if found is None:
        return None
    out = start.copy()
    out[moving, :size] = found.reshape(count, size)
    return out


@compiled
def nearest_rotations(matrices: Floats) -> Floats:
    """The rotations (n, 3, 3) nearest to ``matrices`` (n, 3, 3) in the Frobenius norm.

    Where the determinant is positive by Newton's iteration for the polar factor (Higham, SIAM J. Sci. Stat. Comput. 7,
    1986), else by the singular value decomposition.
    """
    out, inverse = np.empty_like(matrices), np.empty((3, 3))
    for n in range(len(matrices)):
        x = matrices[n].copy()
        good = True
        for _ in range(40):
            for i in range(3):
                j, k = (i + 1) % 3, (i + 2) % 3
                for c in range(3):  # the inverse transposed, times the determinant
                    d, e = (c + 1) % 3, (c + 2) % 3
                    inverse[i, c] = x[j, d] * x[k, e] - x[j, e] * x[k, d]
            determinant = x[0, 0] * inverse[0, 0] + x[0, 1] * inverse[0, 1] + x[0, 2] * inverse[0, 2]
            if not determinant > 1e-12:
                good = False
                break
            scale = determinant ** (-1.0 / 3.0)
            change = 0.0
            for i in range(3):
                for c in range(3):
                    new = 0.5 * (scale * x[i, c] + inverse[i, c] / (determinant * scale))
                    change = max(change, abs(new - x[i, c]))
                    x[i, c] = new
            if change < 1e-14:
                break
        if not good:
            u, _, v = np.linalg.svd(matrices[n])
            if np.linalg.det(np.dot(u, v)) < 0:
                u[:, 2] = -u[:, 2]
            x = np.dot(u, v)
        out[n] = x
    return out


@compiled
def _quaternions(rotations: Floats) -> Floats:
    """Quaternions (n, 4) [x y z w] of rotations (n, 3, 3), from the largest component (Shepperd, 1978)."""
    out = np.empty((len(rotations), 4))
    q = np.empty(4)
    for n in range(len(rotations)):
        r = rotations[n]
        trace = r[0, 0] + r[1, 1] + r[2, 2]
        best, most = 3, trace
        for i in range(3):
            if r[i, i] > most:
                best, most = i, r[i, i]
        if best == 3:
            q[0], q[1], q[2] = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]
            q[3] = 1.0 + trace
        else:
            j, k = (best + 1) % 3, (best + 2) % 3
            q[best] = 1.0 + r[best, best] - r[j, j] - r[k, k]
            q[j], q[k] = r[j, best] + r[best, j], r[k, best] + r[best, k]
            q[3] = r[k, j] - r[j, k]
        norm = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2 + q[3] ** 2)
        for i in range(4):
            out[n, i] = q[i] / norm
    return out
