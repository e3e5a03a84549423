"""Relative poses from registration: the scan matcher's between neighbours, and loop closures."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsg_ros import poses
from dsg_ros.core import geometry
from dsg_ros.core.factors.base import Factor, RelativePoses, Values, data, pose_key
from dsg_ros.core.methods import host_method
from dsg_ros.core.theta import Theta


def relative_error(measured: Array, first: Array, second: Array) -> Float[Array, " 6"]:
    """``log(measured^-1 first^-1 second)``."""
    return geometry.log(geometry.between(measured, geometry.between(first, second)))


def relative_jacobians(measured: Array, first: Array, second: Array) -> tuple[Float[Array, " 6"], tuple[Array, Array]]:
    """`relative_error` and its derivatives in both poses' tangents: moving ``first`` moves the relative pose by
    -Ad(it^-1).
    """
    relative = geometry.between(first, second)
    error, by_second = geometry.log_jlog(geometry.between(measured, relative))
    return error, (-by_second @ geometry.adjoint(geometry.inverse(relative)), by_second)


def relative_along(
    measured: Array, values: Values, tangents: tuple[Array, ...]
) -> tuple[Float[Array, " 6"], Float[Array, " 6"]]:
    """`relative_error` of two poses and its derivative along their tangents: `relative_jacobians` without the product
    of their matrices.
    """
    relative = geometry.between(*values)
    error, by_second = geometry.log_jlog(geometry.between(measured, relative))
    return error, by_second @ (tangents[1] - geometry.adjoint(geometry.inverse(relative)) @ tangents[0])


class Registration(Factor):
    """Scan matching saw pose ``second`` at ``measured`` (7,) in the frame of ``first``.

    Error ``log(measured^-1 first^-1 second)`` (6,) with ``sqrt_info`` (6, 6); theta.registration_noise is the
    logarithm of the ratio of the true deviation to the told one.
    """

    first: Int[Array, ""] = pose_key()
    second: Int[Array, ""] = pose_key()
    measured: Float[Array, " 7"] = data(poses.IDENTITY)
    sqrt_info: Float[Array, "6 6"] = data(np.eye(6))

    def error(self, theta: Theta, first: Float[Array, " 7"], second: Float[Array, " 7"]) -> Float[Array, " 6"]:
        return relative_error(self.measured, first, second)

    def sqrt_information(self, theta: Theta) -> Float[Array, "6 6"]:
        return self.sqrt_info * jnp.exp(-theta.registration_noise)

    def jacobians(self, theta: Theta, first: Array, second: Array) -> tuple[Array, tuple[Array, ...]]:
        return relative_jacobians(self.measured, first, second)

    def along(self, theta: Theta, values: Values, tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        return relative_along(self.measured, values, tangents)

    @host_method
    def host_form(self, theta: Theta) -> RelativePoses:
        return RelativePoses(np.asarray(self.measured), self.sqrt_info * np.exp(-np.asarray(theta.registration_noise)))

    @host_method
    def pull_back(self, theta: Theta, by_measured: np.ndarray, by_columns: np.ndarray) -> dict[str, np.ndarray]:
        return {"registration_noise": -by_columns.sum()}
