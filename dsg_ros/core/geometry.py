"""SE(3) in JAX: the convention of `dsg_ros.poses`, for whole batches and with derivatives.

A pose is ``(..., 7)`` ``[x y z qx qy qz qw]``; a tangent is ``(..., 6)`` ``[translation, rotation]`` in metres and
radians and perturbs on the right: ``retract(pose, xi) = compose(pose, exp(xi))``.

Written out rather than taken from jaxlie, which the tests compare with, for two measured reasons: jaxlie 1.5 leaves its
Taylor series only below 1e-6 rad, where the closed forms have lost their digits (its jlog is off by 0.02 at 1e-5 rad
and by 1e-4 at 1e-4 rad); and a logarithm that reads sine and cosine of the half angle off the quaternion needs no
trigonometry but one arc tangent, which halves the size of every compiled factor.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Pose = Float[Array, "*batch 7"]
Tangent = Float[Array, "*batch 6"]
Point = Float[Array, "*batch 3"]
Column = Float[Array, "*batch 1"]

_SMALL = 0.15
"""Angle [rad] below which series are used: the first neglected terms are below 1e-16 there, and the closed forms
above it
lose at most four digits."""


def cross(a: Point, b: Point) -> Point:
    """Cross product (jnp.cross moves axes about: several times the operations)."""
    return jnp.roll(a, -1, -1) * jnp.roll(b, 1, -1) - jnp.roll(a, 1, -1) * jnp.roll(b, -1, -1)


def rotate(quaternion: Float[Array, "*batch 4"], vector: Point) -> Point:
    """Rotate by [x y z w] (Rodrigues' formula in quaternion form)."""
    axis, w = quaternion[..., :3], quaternion[..., 3:]
    twice = 2.0 * cross(axis, vector)
    return vector + w * twice + cross(axis, twice)


def compose(a: Pose, b: Pose) -> Pose:
    """``a_from_c`` of ``a_from_b`` and ``b_from_c``.  Quaternions stay as unit as they come: `retract` normalises."""
    av, aw, bv, bw = a[..., 3:6], a[..., 6:], b[..., 3:6], b[..., 6:]
    translation = a[..., :3] + rotate(a[..., 3:], b[..., :3])
    vector = aw * bv + bw * av + cross(av, bv)
    scalar = aw * bw - jnp.sum(av * bv, axis=-1, keepdims=True)
    return jnp.concatenate([translation, vector, scalar], axis=-1)


def inverse(pose: Pose) -> Pose:
    """``b_from_a`` of ``a_from_b``."""
    conjugate = pose[..., 3:] * jnp.array([-1.0, -1.0, -1.0, 1.0])
    return jnp.concatenate([-rotate(conjugate, pose[..., :3]), conjugate], axis=-1)


def between(a: Pose, b: Pose) -> Pose:
    """``inverse(a) * b``: b as seen from a."""
    conjugate = a[..., 3:] * jnp.array([-1.0, -1.0, -1.0, 1.0])
    difference = jnp.concatenate([b[..., :3] - a[..., :3], b[..., 3:]], axis=-1)
    return compose(jnp.concatenate([jnp.zeros_like(conjugate[..., :3]), conjugate], axis=-1), difference)


def act(pose: Pose, point: Point) -> Point:
    """``a_from_b`` applied to points in b."""
    return rotate(pose[..., 3:], point) + pose[..., :3]


def retract(pose: Pose, tangent: Tangent) -> Pose:
    """``pose * exp(tangent)``, normalised: the perturbation every Jacobian of this package is taken in."""
    moved = compose(pose, exp(tangent))
    quaternion = moved[..., 3:]
    norm = jnp.sqrt(jnp.sum(quaternion * quaternion, axis=-1, keepdims=True))
    return jnp.concatenate([moved[..., :3], quaternion / norm], axis=-1)


def skew(vector: Point) -> Float[Array, "*batch 3 3"]:
    """``skew(a) @ b = cross(a, b)``."""
    return jnp.einsum("ijk,...k->...ij", _SKEW, vector)


def rotation_matrix(pose: Pose) -> Float[Array, "*batch 3 3"]:
    """Rotation part as a matrix: ``(w^2 - v.v) I + 2 v v^T + 2 w skew(v)``."""
    v, w = pose[..., 3:6], pose[..., 6:]
    straight = (w * w - jnp.sum(v * v, axis=-1, keepdims=True))[..., None] * jnp.eye(3)
    return straight + 2 * _outer(v, v) + 2 * w[..., None] * skew(v)


def adjoint(pose: Pose) -> Float[Array, "*batch 6 6"]:
    """``Ad`` with ``pose * exp(xi) = exp(Ad xi) * pose`` (Sola et al., eq. 175)."""
    rotation = rotation_matrix(pose)
    return _blocks(rotation, skew(pose[..., :3]) @ rotation)


def exp(tangent: Tangent) -> Pose:
    """SE(3) exponential (Sola et al., eq. 172-174)."""
    rho, phi = tangent[..., :3], tangent[..., 3:]
    small, x, angle = _split(jnp.sum(phi * phi, axis=-1, keepdims=True))
    sine = jnp.where(small, _series(x, _HALF_SINE), jnp.sin(0.5 * angle) / angle)
    cosine = jnp.where(small, _series(x, _HALF_COSINE), jnp.cos(0.5 * angle))
    # (1 - cos a) / a^2 and (a - sin a) / a^3 from the half angle.
    second = 2 * sine * sine
    third = jnp.where(small, _series(x, _THIRD), (1 - 2 * sine * cosine) / (angle * angle))
    turned = cross(phi, rho)
    return jnp.concatenate([rho + second * turned + third * cross(phi, turned), sine * phi, cosine], axis=-1)


def log(pose: Pose) -> Tangent:
    """SE(3) logarithm, the inverse of `exp` for rotations below pi; finite values and gradients at 0 and at pi."""
    rotation, c, _ = _rotation(pose)
    return jnp.concatenate([_log_translation(rotation, c, pose[..., :3]), rotation], axis=-1)


def log_jlog(pose: Pose) -> tuple[Tangent, Float[Array, "*batch 6 6"]]:
    """`log`, and its Jacobian: ``log(pose * exp(d)) = log(pose) + J d`` to first order.

    The diagonal blocks are SO(3)'s inverse right Jacobian (Sola et al., eq. 144); the other one differentiates the
    translation ``t - w x t / 2 + c(|w|^2) w x (w x t)`` in the rotation vector w and applies the chain rule.
    """
    t = pose[..., :3]
    w, c, slope = _rotation(pose)
    x = jnp.sum(w * w, axis=-1, keepdims=True)
    dot = jnp.sum(w * t, axis=-1, keepdims=True)
    eye = jnp.eye(3)
    ww = _outer(w, w)
    right = eye + 0.5 * skew(w) + c[..., None] * (ww - x[..., None] * eye)
    turning = (
        0.5 * skew(t)
        + c[..., None] * (dot[..., None] * eye + _outer(w, t))
        + _outer(2 * slope * (dot * w - x * t) - 2 * c * t, w)
    )
    tangent = jnp.concatenate([_log_translation(w, c, t), w], axis=-1)
    return tangent, _blocks(right, turning @ right)


def _log_translation(rotation: Point, c: Column, t: Point) -> Point:
    turned = cross(rotation, t)
    return t - 0.5 * turned + c * cross(rotation, turned)


def _rotation(pose: Pose) -> tuple[Point, Column, Column]:
    """Rotation vector w (norm at most pi), ``c = 1/a^2 - cot(a/2) / (2 a)`` and its derivative in ``a^2``, where a =
    |w|.
    """
    quaternion = pose[..., 3:]
    quaternion = jnp.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    axis, w = quaternion[..., :3], quaternion[..., 3:]
    squared = jnp.sum(axis * axis, axis=-1, keepdims=True)
    # Each branch of a where sees a harmless argument where the other one is taken, so that neither makes a NaN
    # gradient.
    small = squared < 0.0055
    sine = jnp.sqrt(jnp.where(small, 1.0, squared))
    tangent2 = jnp.where(small, squared, 0.0) / jnp.where(small, w, 1.0) ** 2
    angle = 2 * jnp.arctan2(sine, w)
    ratio = jnp.where(small, 2 * _series(tangent2, _ARCTAN) / jnp.where(small, w, 1.0), angle / sine)
    rotation = ratio * axis
    x = jnp.where(small, ratio * ratio * squared, 0.0)
    cotangent = angle * w / sine
    c = jnp.where(small, _series(x, _INVERSE), (1 - 0.5 * cotangent) / angle**2)
    closed = (0.125 * (angle / sine) ** 2 + 0.25 * cotangent - 1) / angle**4
    slope = jnp.where(small, _series(x, _INVERSE_SLOPE), closed)
    return rotation, c, slope


def _split(squared: Column) -> tuple[Column, Column, Column]:
    """Which angles are small, angle^2 for the series, the angle for the closed form: each harmless where not used."""
    small = squared < _SMALL**2
    return small, jnp.where(small, squared, 0.0), jnp.sqrt(jnp.where(small, 1.0, squared))


def _series(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Polynomial in x (Horner)."""
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


def _outer(a: Point, b: Point) -> Float[Array, "*batch 3 3"]:
    return a[..., :, None] * b[..., None, :]


def _blocks(diagonal: Array, upper: Array) -> Float[Array, "*batch 6 6"]:
    top = jnp.concatenate([diagonal, upper], axis=-1)
    return jnp.concatenate([top, jnp.concatenate([jnp.zeros_like(diagonal), diagonal], axis=-1)], axis=-2)


_HALF_SINE = (1 / 2, -1 / 48, 1 / 3840, -1 / 645120, 1 / 185794560)
_HALF_COSINE = (1.0, -1 / 8, 1 / 384, -1 / 46080, 1 / 10321920, -1 / 3715891200)
_THIRD = (1 / 6, -1 / 120, 1 / 5040, -1 / 362880, 1 / 39916800, -1 / 6227020800)
# atan(sqrt(y)) / sqrt(y), and the Bernoulli numbers' series |B_2n| / (2n)! with its derivative.
_ARCTAN = (1.0, -1 / 3, 1 / 5, -1 / 7, 1 / 9, -1 / 11, 1 / 13, -1 / 15)
_INVERSE = (1 / 12, 1 / 720, 1 / 30240, 1 / 1209600, 1 / 47900160, 691 / 1307674368000)
_INVERSE_SLOPE = (1 / 720, 2 / 30240, 3 / 1209600, 4 / 47900160, 5 * 691 / 1307674368000)
# NumPy: importing this module must not start JAX's backend.
_SKEW = np.zeros((3, 3, 3))
_SKEW[[0, 1, 2], [2, 0, 1], [1, 2, 0]], _SKEW[[0, 1, 2], [1, 2, 0], [2, 0, 1]] = 1.0, -1.0
