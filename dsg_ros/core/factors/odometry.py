"""Odometry between neighbouring poses, through the calibration and the noise that theta carries."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike, NDArray

from dsg_ros import poses
from dsg_ros.core import geometry
from dsg_ros.core.factors.base import Factor, RelativePoses, Values, data, pose_key
from dsg_ros.core.factors.between import relative_along, relative_error, relative_jacobians
from dsg_ros.core.methods import host_method
from dsg_ros.core.native import plain
from dsg_ros.core.native.relative_products import exp_pull_back
from dsg_ros.core.theta import Theta


def calibrated(
    theta: Theta, measured: Float[Array, "*batch 6"], duration: Float[Array, "*batch"]
) -> Float[Array, "*batch 6"]:
    """True base increment, as a tangent, of a measured one over ``duration`` [s]: the linear map in
    `dsg_ros.core.theta`, but for the time offset.
    """
    forward = measured[..., :1]
    sideways = jnp.array([0.0, 1.0, 0.0]) * theta.lateral_slip
    upwards = jnp.array([0.0, 0.0, 1.0]) * theta.turn_per_metre
    translation = (1 + theta.scale) * measured[..., :3] + forward * sideways
    rotation = (1 + theta.rotation_gain) * measured[..., 3:] + forward * upwards
    translation = translation + geometry.cross(rotation, jnp.asarray(theta.lever))
    turn = geometry.exp(jnp.concatenate([jnp.zeros(3), -jnp.asarray(theta.lever_rotation)]))[3:]
    translation, rotation = geometry.rotate(turn, translation), geometry.rotate(turn, rotation)
    return jnp.concatenate([translation, rotation], axis=-1) + theta.bias * jnp.asarray(duration)[..., None]


@jax.jit
def linear_map(theta: Theta) -> Float[Array, "7 6"]:
    """`calibrated` as numbers: the images of the six unit increments, and what one second adds."""
    unit = jnp.concatenate([jnp.eye(6), jnp.zeros((1, 6))])
    return calibrated(theta, unit, jnp.zeros(7).at[6].set(1.0))


CALIBRATION = (
    "scale", "rotation_gain", "turn_per_metre", "lateral_slip", "lever", "lever_rotation", "bias"
)  # fmt: skip
"""Leaves of theta that `calibrated` reads."""


@jax.jit
def _pull_back_map(theta: Theta, by_map: Float[Array, "7 6"]) -> Theta:
    """Gradient in theta given that in `linear_map`."""
    return jax.vjp(linear_map, theta)[1](by_map)[0]


_mapped: dict[bytes, NDArray[np.float64]] = {}


def _host_map(theta: Theta) -> NDArray[np.float64]:
    """`linear_map` on the host, kept from one call to the next while the calibration stays."""
    key = b"".join(np.asarray(getattr(theta, name)).tobytes() for name in CALIBRATION)
    if key not in _mapped:
        _mapped.clear()
        _mapped[key] = np.asarray(linear_map(theta))
    return _mapped[key]


class OdomSE3(Factor):
    """Odometry told the motion from ``previous`` to ``current``: a geodesic error on SE(3).

    Error ``log(Z^-1 previous^-1 current)`` (6,) where ``Z = exp(calibrated(theta, measured, duration))``;
    ``measured`` (6,) is the logarithm of the increment in the previous body frame, ``rate`` (6,) what it gains a second
    when odometry is taken later at both ends.  A row with ``learned`` >= 0 takes
    row ``learned`` of theta.odom for its increment instead, as in the tutorial, and no calibration.

    The deviation of translation [m] is the sum of the three numbers in ``sigma_translation``, that of rotation [rad] of
    those in ``sigma_rotation`` (a constant, and what distance and turn add: see `noise`), each times the exponential of
    its number in theta.odometry_noise.
    """

    previous: Int[Array, ""] = pose_key()
    current: Int[Array, ""] = pose_key()
    measured: Float[Array, " 6"] = data(np.zeros(6))
    rate: Float[Array, " 6"] = data(np.zeros(6))
    duration: Float[Array, ""] = data(0.0)
    learned: Int[Array, ""] = data(-1)
    sigma_translation: Float[Array, " 3"] = data([1.0, 0.0, 0.0])
    sigma_rotation: Float[Array, " 3"] = data([1.0, 0.0, 0.0])

    def increment(self, theta: Theta) -> Float[Array, " 7"]:
        """The base increment that theta makes of the measurement."""
        tangent = calibrated(theta, self.measured + theta.time_offset * self.rate, self.duration)
        if theta.odom.shape[0]:
            tangent = jnp.where(self.learned >= 0, jnp.asarray(theta.odom)[jnp.maximum(self.learned, 0)], tangent)
        return geometry.exp(tangent)

    def error(self, theta: Theta, previous: Float[Array, " 7"], current: Float[Array, " 7"]) -> Float[Array, " 6"]:
        return relative_error(self.increment(theta), previous, current)

    def sqrt_information(self, theta: Theta) -> Float[Array, " 6"]:
        translation = jnp.sum(self.sigma_translation * jnp.exp(theta.odometry_noise[:3]))
        rotation = jnp.sum(self.sigma_rotation * jnp.exp(theta.odometry_noise[3:]))
        return 1 / jnp.concatenate([jnp.broadcast_to(translation, 3), jnp.broadcast_to(rotation, 3)])

    def jacobians(self, theta: Theta, previous: Array, current: Array) -> tuple[Array, tuple[Array, ...]]:
        return relative_jacobians(self.increment(theta), previous, current)

    def along(self, theta: Theta, values: Values, tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        return relative_along(self.increment(theta), values, tangents)

    @host_method
    def host_form(self, theta: Theta) -> RelativePoses:
        sigmas = np.stack([part.sum(axis=1) for part in self._deviations(theta)], axis=1)
        information = (1 / np.repeat(sigmas, 3, axis=1))[:, :, None] * np.eye(6)
        return RelativePoses(poses.exp(self._tangents(theta)), information)

    @host_method
    def pull_back(self, theta: Theta, by_measured: np.ndarray, by_columns: np.ndarray) -> dict[str, np.ndarray]:
        by_tangent = np.empty_like(by_measured)
        exp_pull_back(self._tangents(theta), plain(by_measured), by_tangent)
        out: dict[str, np.ndarray] = {}
        learned = np.asarray(self.learned)
        if theta.odom.shape[0]:
            own = learned >= 0
            out["odom"] = np.zeros(theta.odom.shape)
            rows = learned[own]
            if (rows[1:] > rows[:-1]).all():  # each once, as nearly always: twenty times as fast
                out["odom"][rows] = by_tangent[own]
            else:
                np.add.at(out["odom"], rows, by_tangent[own])
            by_tangent = np.where(own[:, None], 0.0, by_tangent)
        if by_tangent.any():
            measured = self.measured + float(theta.time_offset) * self.rate
            by_map = np.concatenate([measured.T @ by_tangent, np.asarray(self.duration)[None] @ by_tangent])
            # Without single factors' numbers: there would be a program for each count of them.
            shared = theta.replace(odom=np.zeros((0, 6)), obs=np.zeros((0, 3)))
            calibration = _pull_back_map(shared, by_map)
            out |= {name: np.asarray(getattr(calibration, name)) for name in CALIBRATION}
            out["time_offset"] = np.sum(self.rate * (by_tangent @ _host_map(theta)[:6].T))
        parts = zip(self._deviations(theta), (by_columns[:, :3], by_columns[:, 3:]), strict=True)
        one = np.ones(3)  # a product with it takes a fifth of the time of a sum over three columns
        shares = [-((by @ one) / (part @ one)) @ part for part, by in parts]
        return out | {"odometry_noise": np.concatenate(shares)}

    @host_method
    def _tangents(self, theta: Theta) -> NDArray[np.float64]:
        """Logarithms (n, 6) of what `increment` makes of a stack of rows, on the host."""
        learned = np.asarray(self.learned)
        own = learned >= 0 if theta.odom.shape[0] else np.zeros(len(learned), bool)
        single = np.asarray(theta.odom)
        if own.all():
            return single[learned]
        rows = _host_map(theta)
        measured = self.measured + float(theta.time_offset) * self.rate
        tangents: NDArray[np.float64] = measured @ rows[:6] + np.asarray(self.duration)[:, None] * rows[6]
        tangents[own] = single[learned[own]]
        return tangents

    @host_method
    def _deviations(self, theta: Theta) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What adds up to the deviations of translation and of rotation, each (n, 3)."""
        growth = np.exp(np.asarray(theta.odometry_noise))
        return self.sigma_translation * growth[:3], self.sigma_rotation * growth[3:]


def noise(
    increments: ArrayLike,
    translation: tuple[float, float, float] = (0.01, 0.03, 0.01),
    rotation: tuple[float, float, float] = (0.005, 0.05, 0.02),
) -> dict[str, NDArray[np.float64]]:
    """Fields ``measured``, ``sigma_translation`` and ``sigma_rotation`` of rows for increments (n, 7).

    ``translation`` is a constant [m], per metre and per radian [m/rad]; ``rotation`` a constant [rad], per radian and
    per metre [rad/m]: deviations that add up with the distance and the turn measured.
    """
    tangent = poses.log(increments)
    one = np.ones(tangent.shape[:-1])
    distance, turn = np.linalg.norm(tangent[..., :3], axis=-1), np.linalg.norm(tangent[..., 3:], axis=-1)
    return {
        "measured": tangent,
        "sigma_translation": np.stack([one, distance, turn], axis=-1) * translation,
        "sigma_rotation": np.stack([one, turn, distance], axis=-1) * rotation,
    }
