"""Loop closures: relative poses that may be wrong altogether."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsg_ros import poses
from dsg_ros.core.factors.base import Factor, Kernel, RelativePoses, Values, data, pose_key
from dsg_ros.core.factors.between import relative_along, relative_error, relative_jacobians
from dsg_ros.core.methods import host_method
from dsg_ros.core.theta import Theta


class Loop(Factor):
    """A place seen again: pose ``second`` at ``measured`` (7,) in the frame of ``first``, robust unless told otherwise.

    As `Registration`, with its own noise (theta.loop_noise) and a Cauchy kernel three deviations wide.
    """

    kernel: Int[Array, ""] = data(int(Kernel.CAUCHY))
    kernel_width: Float[Array, ""] = data(3.0)
    first: Int[Array, ""] = pose_key()
    second: Int[Array, ""] = pose_key()
    measured: Float[Array, " 7"] = data(poses.IDENTITY)
    sqrt_info: Float[Array, "6 6"] = data(np.eye(6))

    def error(self, theta: Theta, first: Float[Array, " 7"], second: Float[Array, " 7"]) -> Float[Array, " 6"]:
        return relative_error(self.measured, first, second)

    def sqrt_information(self, theta: Theta) -> Float[Array, "6 6"]:
        return self.sqrt_info * jnp.exp(-theta.loop_noise)

    def jacobians(self, theta: Theta, first: Array, second: Array) -> tuple[Array, tuple[Array, ...]]:
        return relative_jacobians(self.measured, first, second)

    def along(self, theta: Theta, values: Values, tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        return relative_along(self.measured, values, tangents)

    @host_method
    def host_form(self, theta: Theta) -> RelativePoses:
        return RelativePoses(np.asarray(self.measured), self.sqrt_info * np.exp(-np.asarray(theta.loop_noise)))

    @host_method
    def pull_back(self, theta: Theta, by_measured: np.ndarray, by_columns: np.ndarray) -> dict[str, np.ndarray]:
        return {"loop_noise": -by_columns.sum()}
