"""Priors: what is known of a variable from outside the graph."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsg_ros import poses
from dsg_ros.core import geometry
from dsg_ros.core.factors.base import Factor, PosesKnown, VoxelsKnown, data, pose_key, voxel_key
from dsg_ros.core.methods import host_method
from dsg_ros.core.theta import Theta


class PosePrior(Factor):
    """``pose`` was known to be ``mean`` (7,), in map: error ``log(mean^-1 pose)`` (6,) with ``sqrt_info`` (6, 6)."""

    pose: Int[Array, ""] = pose_key()
    mean: Float[Array, " 7"] = data(poses.IDENTITY)
    sqrt_info: Float[Array, "6 6"] = data(np.eye(6))

    def error(self, theta: Theta, pose: Float[Array, " 7"]) -> Float[Array, " 6"]:
        return geometry.log(geometry.between(self.mean, pose))

    def sqrt_information(self, theta: Theta) -> Float[Array, "6 6"]:
        return jnp.asarray(self.sqrt_info)

    def jacobians(self, theta: Theta, pose: Float[Array, " 7"]) -> tuple[Array, tuple[Array, ...]]:
        error, jacobian = geometry.log_jlog(geometry.between(self.mean, pose))
        return error, (jacobian,)

    @host_method
    def host_form(self, theta: Theta) -> PosesKnown:
        return PosesKnown(np.asarray(self.mean), np.asarray(self.sqrt_info))


class VoxelPrior(Factor):
    """``voxel`` was known to be at ``mean`` (3,) [m] in map: error ``voxel - mean`` with ``sqrt_info`` (3, 3) [1/m]."""

    voxel: Int[Array, ""] = voxel_key()
    mean: Float[Array, " 3"] = data(np.zeros(3))
    sqrt_info: Float[Array, "3 3"] = data(np.eye(3))

    def error(self, theta: Theta, voxel: Float[Array, " 3"]) -> Float[Array, " 3"]:
        return voxel - self.mean

    def sqrt_information(self, theta: Theta) -> Float[Array, "3 3"]:
        return jnp.asarray(self.sqrt_info)

    def jacobians(self, theta: Theta, voxel: Float[Array, " 3"]) -> tuple[Array, tuple[Array, ...]]:
        return self.error(theta, voxel), (jnp.eye(3),)

    @host_method
    def host_form(self, theta: Theta) -> VoxelsKnown:
        return VoxelsKnown(np.asarray(self.mean), np.asarray(self.sqrt_info))
