"""What a relative pose's row adds to ``vector . gradient``, differentiated in what was measured and in its weights.

Of rows ``log(Z^-1 first^-1 second)`` (`dsg_ros.core.native.rows`), so that a derivative by the implicit function
theorem costs no program of JAX a thousand rows.

With ``D = Z^-1 first^-1 second``, ``e = log D``, ``J`` its derivative under a right perturbation of D, and u what
``vector`` moves D by, the row adds ``d/du f`` for its cost ``f``.  Moving Z by zeta moves D to ``exp(-zeta) D``, so
``df/dzeta = -Ad(D^-1)^T J^T y`` with ``y = weight rho' W^T W e``; both derivatives commute, and it is this one that is
taken along u, in closed form.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.manifold import logarithm, relative_pose
from dsg_ros.core.native.robust import robust

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Vector = tuple[float, float, float]


@compiled
def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@compiled
def _sum(s: float, a: Vector, t: float, b: Vector) -> Vector:
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


@compiled
def _turned(pose: Floats, sign: float, v: Vector) -> Vector:
    """``v`` turned by a pose, or (``sign`` -1) turned back."""
    axis = (sign * pose[3], sign * pose[4], sign * pose[5])
    twice = _cross(axis, v)
    twice = _sum(2.0, twice, 0.0, twice)
    return _sum(1.0, _sum(1.0, v, pose[6], twice), 1.0, _cross(axis, twice))


@compiled
def robust_bend(kernel: int, width: float, s: float) -> float:
    """``rho''(s)``: the derivative of the second number of `rows.robust`."""
    c2 = width * width
    if kernel == 1:
        return 0.0 if s <= c2 else -0.5 * width / (s * math.sqrt(s))
    if kernel == 2:
        return -c2 / (c2 + s) ** 2
    if kernel == 3:
        return -2.0 * c2 * c2 / (c2 + s) ** 3
    if kernel == 4:
        return 0.0 if s <= c2 else -8.0 * c2 * c2 / (c2 + s) ** 3
    return 0.0


@compiled
def _bend(x: float, c: float, slope: float) -> float:
    """``c''(x)`` of the ``c`` whose value and slope `rows.logarithm` tells, at ``x`` the squared angle."""
    if x < 1.0:  # c is the sum of |B_2n| / (2n)! x^(n-1), n > 0
        return (
            2 / 30240 + x * (6 / 1209600 + x * (12 / 47900160 + x * (20 * 691 / 1307674368000 + x * (
                30 / 74724249600 + x * (42 * 3617 / 10670622842880000 + x * (56 * 43867 / 5109094217170944000 + x * (
                    72 * 174611 / 802857662698291200000)))))))
        )  # fmt: skip
    k = 1.0 - c * x
    first = (k - k * k) / (2.0 * x) - 0.125
    second = (first - 2.0 * k * first) / (2.0 * x) - (k - k * k) / (2.0 * x * x)
    return -(second + 2.0 * slope) / x


@compiled
def _row(
    pose: Floats, u: Floats, root: Floats, weight: float, kernel: int, width: float, error: Floats, room: Floats,
    by_measured: Floats, by_columns: Floats,
) -> None:  # fmt: skip
    """One row, of D = ``pose``; ``room`` (5, 6)."""
    c, slope = logarithm(pose, error)
    w, t = (error[3], error[4], error[5]), (pose[0], pose[1], pose[2])
    x, dot = _dot(w, w), _dot(w, t)
    p, q = (u[0], u[1], u[2]), (u[3], u[4], u[5])
    # Along u: D's translation moves by dt, its logarithm by (.., dw).
    dt = _turned(pose, 1.0, p)
    dw = _sum(1.0, _sum(1.0 - c * x, q, 0.5, _cross(w, q)), c * _dot(w, q), w)
    dx, ddot = 2.0 * _dot(w, dw), _dot(dw, t) + _dot(w, dt)
    dc, dslope = slope * dx, _bend(x, c, slope) * dx
    # d(translation of the logarithm) / dw is the matrix c (dot I + w t^T) + v w^T + [t] / 2.
    v = _sum(2.0 * slope * dot, w, -2.0 * (slope * x + c), t)
    dv = _sum(
        1.0, _sum(2.0 * (dslope * dot + slope * ddot), w, 2.0 * slope * dot, dw),
        -2.0, _sum(dslope * x + slope * dx + dc, t, slope * x + c, dt),
    )  # fmt: skip
    first = _sum(1.0, _sum(1.0 - c * x, p, 0.5, _cross(w, p)), c * _dot(w, p), w)
    second = _sum(1.0, _sum(c * dot, dw, c * _dot(t, dw), w), 1.0, _sum(_dot(w, dw), v, 0.5, _cross(t, dw)))
    change, white, white_change, y, dy = room[0], room[1], room[2], room[3], room[4]
    for k in range(3):
        change[k], change[3 + k] = first[k] + second[k], dw[k]
    squared, along = 0.0, 0.0
    for i in range(6):
        white[i] = white_change[i] = 0.0
        for k in range(6):
            white[i] += root[i, k] * error[k]
            white_change[i] += root[i, k] * change[k]
        squared += white[i] * white[i]
        along += white[i] * white_change[i]
    _, level = robust(kernel, width, squared)
    level, bend = weight * level, weight * 2.0 * robust_bend(kernel, width, squared) * along
    for k in range(6):
        y[k] = dy[k] = 0.0
        for i in range(6):
            y[k] += root[i, k] * level * white[i]
            dy[k] += root[i, k] * (level * white_change[i] + bend * white[i])
        by_columns[k] = dy[k] * error[k] + y[k] * change[k]
    # h = J^T y and its derivative; J = [[M, T M], [0, M]], M = I + [w] / 2 + c (w w^T - x I).
    a, b = (y[0], y[1], y[2]), (y[3], y[4], y[5])
    da, db = (dy[0], dy[1], dy[2]), (dy[3], dy[4], dy[5])
    wa, va, dwa = _dot(w, a), _dot(v, a), _dot(dw, a) + _dot(w, da)
    lower = _sum(1.0, b, 1.0, _sum(c * dot, a, c * wa, t))
    lower = _sum(1.0, lower, 1.0, _sum(va, w, -0.5, _cross(t, a)))
    dlower = _sum(1.0, db, 1.0, _sum(dc * dot + c * ddot, a, c * dot, da))
    dlower = _sum(1.0, dlower, 1.0, _sum(dc * wa + c * dwa, t, c * wa, dt))
    dlower = _sum(1.0, dlower, 1.0, _sum(_dot(dv, a) + _dot(v, da), w, va, dw))
    dlower = _sum(1.0, dlower, -0.5, _sum(1.0, _cross(dt, a), 1.0, _cross(t, da)))
    upper_h, upper = _transposed(c, dc, w, dw, x, dx, a, da)
    lower_h, lower_d = _transposed(c, dc, w, dw, x, dx, lower, dlower)
    # Ad(D^-1)^T changes too: by -Ad(D^-1)^T ad(u)^T.
    upper = _sum(1.0, upper, 1.0, _cross(q, upper_h))
    lower_d = _sum(1.0, lower_d, 1.0, _sum(1.0, _cross(p, upper_h), 1.0, _cross(q, lower_h)))
    f, m = _turned(pose, 1.0, upper), _turned(pose, 1.0, lower_d)
    m = _sum(1.0, m, 1.0, _cross(t, f))
    for k in range(3):
        by_measured[k], by_measured[3 + k] = -f[k], -m[k]


@compiled
def _transposed(
    c: float, dc: float, w: Vector, dw: Vector, x: float, dx: float, a: Vector, da: Vector
) -> tuple[Vector, Vector]:
    """``M^T a``, and its derivative where c, w, x = w.w and a have these."""
    wa, dwa = _dot(w, a), _dot(dw, a) + _dot(w, da)
    value = _sum(1.0, _sum(1.0 - c * x, a, c * wa, w), -0.5, _cross(w, a))
    slope = _sum(1.0 - c * x, da, -(dc * x + c * dx), a)
    slope = _sum(1.0, slope, 1.0, _sum(dc * wa + c * dwa, w, c * wa, dw))
    return value, _sum(1.0, slope, -0.5, _sum(1.0, _cross(dw, a), 1.0, _cross(w, da)))


@compiled
def relative_products(
    poses: Floats, keys: Ints, vector: Floats, measured: Floats, roots: Floats, weights: Floats,
    kernels: NDArray[np.int32], widths: Floats, by_measured: Floats, by_columns: Floats,
) -> None:  # fmt: skip
    """Of each row the gradient of ``vector . gradient`` in the measured pose, moved by ``exp`` from the right
    (``by_measured`` (r, 6)), and in the logarithms of scales of its root's columns (``by_columns`` (r, 6)).

    ``vector`` (p, 6) moves the ``poses`` (p, 7), 0 where they are held; the rest as in `rows.relative_poses`.
    """
    relative, pose, u, error, room = np.empty(7), np.empty(7), np.empty(6), np.empty(6), np.empty((5, 6))
    for r in range(len(keys)):
        i, j = keys[r, 0], keys[r, 1]
        relative_pose(poses[i], poses[j], relative)
        relative_pose(measured[r], relative, pose)
        # u = v_second - Ad(relative^-1) v_first
        v = vector[i]
        turn = (v[3], v[4], v[5])
        shift = _sum(1.0, (v[0], v[1], v[2]), -1.0, _cross((relative[0], relative[1], relative[2]), turn))
        shift, turn = _turned(relative, -1.0, shift), _turned(relative, -1.0, turn)
        for k in range(3):
            u[k], u[3 + k] = vector[j, k] - shift[k], vector[j, 3 + k] - turn[k]
        _row(
            pose, u, roots[r], weights[r], kernels[r], widths[r], error, room, by_measured[r], by_columns[r]
        )  # fmt: skip


@compiled
def exp_pull_back(tangents: Floats, by_pose: Floats, out: Floats) -> None:
    """``Jr(t)^T g``: gradients in tangents (n, 6) of gradients in their poses ``exp(t)`` moved from the right (n, 6).

    With ``J`` as above at ``exp(t)``, ``Jr = J^-1``: its transpose by forward substitution of the two blocks.
    """
    for n in range(len(tangents)):
        w = (tangents[n, 3], tangents[n, 4], tangents[n, 5])
        x = _dot(w, w)
        if x < 1e-4:
            s, b = 0.5 - x / 24 * (1 - x / 30), 1 / 6 - x / 120 * (1 - x / 42)
            c, slope = 1 / 12 + x * (1 / 720 + x / 30240), 1 / 720 + x * (2 / 30240 + x * 3 / 1209600)
        else:
            angle = math.sqrt(x)
            s, b = 2.0 * (math.sin(0.5 * angle) / angle) ** 2, (angle - math.sin(angle)) / (angle * x)
            k = 0.5 * angle / math.tan(0.5 * angle)
            c = (1.0 - k) / x
            slope = -((k - k * k) / (2.0 * x) - 0.125 + c) / x
        rho = (tangents[n, 0], tangents[n, 1], tangents[n, 2])
        turned = _cross(w, rho)
        t = _sum(1.0, _sum(1.0, rho, s, turned), b, _cross(w, turned))
        dot = _dot(w, t)
        v = _sum(2.0 * slope * dot, w, -2.0 * (slope * x + c), t)
        f, m = (by_pose[n, 0], by_pose[n, 1], by_pose[n, 2]), (by_pose[n, 3], by_pose[n, 4], by_pose[n, 5])
        turned = _cross(w, f)
        first = _sum(1.0, _sum(1.0, f, s, turned), b, _cross(w, turned))
        turned = _cross(w, m)
        second = _sum(1.0, _sum(1.0, m, s, turned), b, _cross(w, turned))
        drag = _sum(c * dot, first, c * _dot(w, first), t)
        drag = _sum(1.0, drag, 1.0, _sum(_dot(v, first), w, -0.5, _cross(t, first)))
        for k in range(3):
            out[n, k], out[n, 3 + k] = first[k], second[k] - drag[k]
