"""Pose algebra on NumPy arrays, for everything that must not import JAX (the node process, readers, writers).

A pose is ``(..., 7)`` float64 ``[x y z qx qy qz qw]``: metres and a unit quaternion, the order of ROS and of TUM files.
``a_from_b`` maps coordinates in frame b to frame a, which is also "the pose of b in a".  A tangent vector is
``(..., 6)`` ``[translation, rotation]`` and perturbs on the right: ``pose (+) xi = compose(pose, exp(xi))`` (Sola et
al., "A micro Lie theory", 2018, eq. 25).  `dsg_ros.core.geometry` states the same convention for JAX; a test compares
the two.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

IDENTITY: Array = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
IDENTITY.setflags(write=False)
FARTHEST = 1e7
"""Metres from an origin beyond which no measured pose is believed to be; UTM coordinates stay below it."""
LEAST_NORM, LARGEST_NORM = 1e-6, 1e6
"""Norms between which a measured quaternion is an orientation that only wants normalising."""
_FIELDS = ("x", "y", "z", "qx", "qy", "qz", "qw")
_CONJUGATE = np.array([-1.0, -1.0, -1.0, 1.0])
_NEXT, _LAST = np.array([1, 2, 0]), np.array([2, 0, 1])


class Flaw(NamedTuple):
    """Why a measured pose is none: the ``cause`` is not_finite, far_away, zero_quaternion or huge_quaternion."""

    cause: str
    text: str


def flaw(pose: Array) -> Flaw | None:
    """What is wrong with a measured pose (7,), whose quaternion need not be normalised; None where it can be used."""
    if not np.isfinite(pose).all():
        wrong = (f"{name} = {value}" for name, value in zip(_FIELDS, pose, strict=True) if not math.isfinite(value))
        return Flaw("not_finite", f"the pose holds {', '.join(wrong)}")
    if (farthest := float(np.abs(pose[:3]).max())) > FARTHEST:
        return Flaw("far_away", f"the position is {farthest:.4g} m away")
    norm = math.hypot(*pose[3:])  # as NumPy's norm, but without overflow
    if norm <= LEAST_NORM:
        return Flaw("zero_quaternion", "the orientation is a zero quaternion")
    if norm >= LARGEST_NORM:
        return Flaw("huge_quaternion", f"the quaternion's norm is {norm:.4g}")
    return None


def cross(a: Array, b: Array) -> Array:
    """Cross product of ``(..., 3)`` vectors; `numpy.cross` spends most of its time on shapes, and this runs often."""
    return a[..., _NEXT] * b[..., _LAST] - a[..., _LAST] * b[..., _NEXT]


def rotate(quaternion: Array, vector: Array) -> Array:
    """Rotate ``(..., 3)`` by ``(..., 4)`` [x y z w] (Rodrigues' formula in quaternion form)."""
    if quaternion.ndim == vector.ndim == 1:
        return np.array(_rotated(*quaternion.tolist(), *vector.tolist()))
    axis = quaternion[..., :3]
    turned = 2.0 * cross(axis, vector)
    return vector + quaternion[..., 3:] * turned + cross(axis, turned)


def multiply(a: Array, b: Array) -> Array:
    """Hamilton product of ``(..., 4)`` quaternions [x y z w]."""
    return _joined(*_product(*_parts(a), *_parts(b)))


def compose(a: ArrayLike, b: ArrayLike) -> Array:
    """``a_from_c = compose(a_from_b, b_from_c)``; broadcasts; the result's quaternion is normalised."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    ax, ay, az, *a_turn = _parts(a)
    b_parts = _parts(b)
    x, y, z = _rotated(*a_turn, *b_parts[:3])
    qx, qy, qz, qw = _product(*a_turn, *b_parts[3:])
    scale = (qx * qx + qy * qy + qz * qz + qw * qw) ** -0.5
    return _joined(ax + x, ay + y, az + z, qx * scale, qy * scale, qz * scale, qw * scale)


def inverse(pose: ArrayLike) -> Array:
    """``b_from_a`` of ``a_from_b``."""
    x, y, z, qx, qy, qz, qw = _parts(np.asarray(pose, float))
    back = _rotated(-qx, -qy, -qz, qw, -x, -y, -z)
    return _joined(*back, -qx, -qy, -qz, qw)


def _parts(array: Array) -> tuple[Any, ...]:
    """The numbers along the last axis: Python's own for a single vector (ten times quicker), arrays for stacks."""
    if array.ndim == 1:
        return tuple(array.tolist())
    return tuple(array[..., i] for i in range(array.shape[-1]))


def _joined(*parts: Any) -> Array:
    if isinstance(parts[0], float):
        return np.array(parts)
    return np.stack(np.broadcast_arrays(*parts), axis=-1)


def _cross(ax: Any, ay: Any, az: Any, bx: Any, by: Any, bz: Any) -> tuple[Any, Any, Any]:
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


def _rotated(qx: Any, qy: Any, qz: Any, qw: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any, Any]:
    tx, ty, tz = (2.0 * t for t in _cross(qx, qy, qz, x, y, z))
    ux, uy, uz = _cross(qx, qy, qz, tx, ty, tz)
    return x + qw * tx + ux, y + qw * ty + uy, z + qw * tz + uz


def _product(ax: Any, ay: Any, az: Any, aw: Any, bx: Any, by: Any, bz: Any, bw: Any) -> tuple[Any, Any, Any, Any]:
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _norm(vector: Array) -> Array:
    return np.sqrt(np.einsum("...i,...i->...", vector, vector))[..., None]


def between(a: ArrayLike, b: ArrayLike) -> Array:
    """``inverse(a) * b``: the pose of b as seen from a."""
    return compose(inverse(a), b)


def transform(pose: ArrayLike, points: ArrayLike) -> Array:
    """Map ``(n, 3)`` points by one pose ``(7,)``, or by one pose a point ``(n, 7)``."""
    pose, points = np.asarray(pose, float), np.asarray(points, float)
    if pose.ndim == 1:
        return points @ matrix(pose)[:3, :3].T + pose[:3]
    return rotate(pose[..., 3:], points) + pose[..., :3]


def matrix(pose: ArrayLike) -> Array:
    """``(..., 4, 4)`` homogeneous matrices."""
    pose = np.asarray(pose, float)
    if pose.ndim == 1:
        return np.array(_matrix(*pose.tolist()))
    x, y, z, w = pose[..., 3], pose[..., 4], pose[..., 5], pose[..., 6]
    out = np.zeros((*pose.shape[:-1], 4, 4))
    out[..., 0, 0] = 1 - 2 * (y * y + z * z)
    out[..., 0, 1] = 2 * (x * y - z * w)
    out[..., 0, 2] = 2 * (x * z + y * w)
    out[..., 1, 0] = 2 * (x * y + z * w)
    out[..., 1, 1] = 1 - 2 * (x * x + z * z)
    out[..., 1, 2] = 2 * (y * z - x * w)
    out[..., 2, 0] = 2 * (x * z - y * w)
    out[..., 2, 1] = 2 * (y * z + x * w)
    out[..., 2, 2] = 1 - 2 * (x * x + y * y)
    out[..., :3, 3] = pose[..., :3]
    out[..., 3, 3] = 1.0
    return out


def _matrix(px: float, py: float, pz: float, x: float, y: float, z: float, w: float) -> tuple[tuple[float, ...], ...]:
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), px),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), py),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), pz),
        (0.0, 0.0, 0.0, 1.0),
    )


def adjoint(pose: ArrayLike) -> Array:
    """``Ad`` (6, 6) of one pose (7,): ``compose(pose, exp(xi)) = compose(exp(Ad xi), pose)`` (Sola et al., eq. 175)."""
    x, y, z, *turn = np.asarray(pose, float).tolist()
    (a, b, c, _), (d, e, f, _), (g, h, i, _), _ = _matrix(x, y, z, *turn)
    # Beside the rotation, the translation's cross product with each of its columns; a flat tuple is quick to convert.
    return np.array((
        a, b, c, y * g - z * d, y * h - z * e, y * i - z * f,
        d, e, f, z * a - x * g, z * b - x * h, z * c - x * i,
        g, h, i, x * d - y * a, x * e - y * b, x * f - y * c,
        0.0, 0.0, 0.0, a, b, c,
        0.0, 0.0, 0.0, d, e, f,
        0.0, 0.0, 0.0, g, h, i,
    )).reshape(6, 6)  # fmt: skip


def quaternion(rotation: Array) -> Array:
    """Unit quaternion (4,) [x y z w] of a rotation matrix (3, 3), from its largest component (Shepperd, 1978)."""
    a, b, c = np.diag(rotation)
    squares = np.array([1 + a - b - c, 1 - a + b - c, 1 - a - b + c, 1 + a + b + c])
    sums, differences = rotation + rotation.T, rotation - rotation.T
    turns = np.array([differences[2, 1], differences[0, 2], differences[1, 0]])
    largest = int(squares.argmax())
    out = np.append(turns, 0.0) if largest == 3 else np.append(sums[largest], turns[largest])
    out[largest] = squares[largest]
    normalised: Array = out / np.linalg.norm(out)
    return normalised


def from_planar(x: ArrayLike, y: ArrayLike, yaw: ArrayLike) -> Array:
    """Poses in the plane z = 0 from metres and radians; scalars or arrays of one shape."""
    x, y, yaw = np.broadcast_arrays(np.asarray(x, float), y, yaw)
    zero = np.zeros_like(x)
    return np.stack([x, y, zero, zero, zero, np.sin(yaw / 2), np.cos(yaw / 2)], axis=-1)


def yaw(pose: ArrayLike) -> Array:
    """Heading [rad] about z (ZYX Euler angles), in (-pi, pi]."""
    pose = np.asarray(pose, float)
    x, y, z, w = pose[..., 3], pose[..., 4], pose[..., 5], pose[..., 6]
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def rotation_exp(rotation_vector: ArrayLike) -> Array:
    """Quaternion ``(..., 4)`` [x y z w] of a rotation vector ``(..., 3)`` [rad]."""
    vector = np.asarray(rotation_vector, float)
    angle = _norm(vector)
    # sin(a/2)/a = sinc(a/2pi)/2 is smooth at zero.
    return np.concatenate([0.5 * np.sinc(angle / (2 * np.pi)) * vector, np.cos(angle / 2)], axis=-1)


def rotation_log(quaternion: ArrayLike) -> Array:
    """Rotation vector ``(..., 3)`` [rad], norm at most pi, of a unit quaternion ``(..., 4)`` [x y z w]."""
    q = np.asarray(quaternion, float)
    q = np.where(q[..., 3:] < 0, -q, q)
    sine = _norm(q[..., :3])
    angle = 2 * np.arctan2(sine, q[..., 3:])
    small = sine < 1e-12
    return q[..., :3] * np.where(small, 2.0, angle / np.where(small, 1.0, sine))


def exp(tangent: ArrayLike) -> Array:
    """SE(3) exponential of ``(..., 6)`` (Sola et al., eq. 172-174)."""
    tangent = np.asarray(tangent, float)
    if tangent.ndim == 1:
        return np.array(_exp(*tangent.tolist()))
    rho, phi = tangent[..., :3], tangent[..., 3:]
    angle = _norm(phi)
    # Differences of nearly equal numbers lose all digits of a small angle: a series, and half the angle, keep them.
    small = angle < 0.01
    safe = np.where(small, 1.0, angle)
    x = np.where(small, angle**2, 0.0)
    half = np.where(small, 1 / 2 - x * (1 / 48 - x / 3840), np.sin(0.5 * safe) / safe)
    a = 2 * half**2
    b = np.where(small, 1 / 6 - x * (1 / 120 - x / 5040), (safe - np.sin(safe)) / safe**3)
    turned = cross(phi, rho)
    translation = rho + a * turned + b * cross(phi, turned)
    return np.concatenate([translation, half * phi, np.cos(0.5 * angle)], axis=-1)


def _exp(x: float, y: float, z: float, u: float, v: float, w: float) -> tuple[float, ...]:
    angle = math.hypot(u, v, w)
    if angle < 0.01:  # as in `exp`
        squared = angle**2
        half, b = 1 / 2 - squared * (1 / 48 - squared / 3840), 1 / 6 - squared * (1 / 120 - squared / 5040)
    else:
        half, b = math.sin(0.5 * angle) / angle, (angle - math.sin(angle)) / angle**3
    a = 2 * half**2
    once = _cross(u, v, w, x, y, z)
    twice = _cross(u, v, w, *once)
    moved = (t + a * p + b * q for t, p, q in zip((x, y, z), once, twice, strict=True))
    return *moved, half * u, half * v, half * w, math.cos(0.5 * angle)


def log(pose: ArrayLike) -> Array:
    """SE(3) logarithm ``(..., 6)``; the inverse of `exp` for rotations below pi."""
    pose = np.asarray(pose, float)
    if pose.ndim == 1:
        return np.array(_log(*pose.tolist()))
    phi = rotation_log(pose[..., 3:])
    angle = _norm(phi)
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    # 1/a^2 - (1 + cos a) / (2 a sin a), written with the half angle so that it stays finite at pi.
    coefficient = np.where(small, 1 / 12 + angle**2 / 720, (1 - 0.5 * safe / np.tan(0.5 * safe)) / safe**2)
    t = pose[..., :3]
    turned = cross(phi, t)
    return np.concatenate([t - 0.5 * turned + coefficient * cross(phi, turned), phi], axis=-1)


def _log(x: float, y: float, z: float, qx: float, qy: float, qz: float, qw: float) -> tuple[float, ...]:
    if qw < 0:
        qx, qy, qz, qw = -qx, -qy, -qz, -qw
    sine = math.hypot(qx, qy, qz)
    angle = 2 * math.atan2(sine, qw)
    factor = 2.0 if sine < 1e-12 else angle / sine
    u, v, w = factor * qx, factor * qy, factor * qz
    if angle < 1e-4:
        coefficient = 1 / 12 + angle**2 / 720
    else:
        coefficient = (1 - 0.5 * angle / math.tan(0.5 * angle)) / angle**2
    once = _cross(u, v, w, x, y, z)
    twice = _cross(u, v, w, *once)
    moved = (t - 0.5 * p + coefficient * q for t, p, q in zip((x, y, z), once, twice, strict=True))
    return *moved, u, v, w


def interpolate(a: ArrayLike, b: ArrayLike, fraction: ArrayLike) -> Array:
    """Poses between a ``(..., 7)`` and b: linear in translation, geodesic in rotation.

    ``fraction`` ``(...)`` is 0 at a and 1 at b; values outside extrapolate at constant velocity.
    """
    a, b, f = np.asarray(a, float), np.asarray(b, float), np.asarray(fraction, float)[..., None]
    translation = a[..., :3] + f * (b[..., :3] - a[..., :3])
    relative = rotation_log(multiply(a[..., 3:] * _CONJUGATE, b[..., 3:]))
    quaternion = multiply(*np.broadcast_arrays(a[..., 3:], rotation_exp(f * relative)))
    return np.concatenate([translation, quaternion / _norm(quaternion)], axis=-1)
