"""What is estimated: poses and voxel centres, stacked, and the kinds of keys that name them."""

from __future__ import annotations

import enum

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsg_ros.core import geometry


class Kind(enum.Enum):
    """Kind of variable a key names."""

    POSE = "pose"
    VOXEL = "voxel"

    @property
    def stored(self) -> int:
        """Numbers a value is stored in."""
        return 7 if self is Kind.POSE else 3

    @property
    def dof(self) -> int:
        """Degrees of freedom: the size of its tangent."""
        return 6 if self is Kind.POSE else 3


class State(eqx.Module):
    """``poses`` (P, 7), base in map, and ``voxels`` (V, 3) centres in map [m].

    Its tangent is one vector ``(P*6 + V*3,)``: the poses' tangents in order, then the voxels' displacements.
    """

    poses: Float[Array, "P 7"]
    voxels: Float[Array, "V 3"]

    @property
    def dof(self) -> int:
        """Length of the tangent."""
        return self.poses.shape[0] * 6 + self.voxels.shape[0] * 3

    def retract(self, tangent: Float[Array, " D"]) -> State:
        """The state moved by ``tangent``: poses by right perturbation, voxels by addition."""
        poses, voxels = self.split(tangent)
        return State(geometry.retract(self.poses, poses), self.voxels + voxels)

    def split(self, tangent: Float[Array, " D"]) -> tuple[Float[Array, "P 6"], Float[Array, "V 3"]]:
        """The tangent's poses (P, 6) and voxels (V, 3)."""
        border = self.poses.shape[0] * 6
        return tangent[:border].reshape(-1, 6), tangent[border:].reshape(-1, 3)

    def pull_back(self, cotangent: State) -> Float[Array, " D"]:
        """Gradient with respect to the tangent at zero of a function whose gradient in the stored numbers is given."""
        rotation = geometry.rotation_matrix(self.poses)
        translation = jnp.einsum("pij,pi->pj", rotation, cotangent.poses[:, :3])
        # exp turns the quaternion by q * (phi, 0) / 2; the adjoint of multiplying by q is multiplying by its conjugate.
        axis, w = self.poses[:, 3:6], self.poses[:, 6:]
        c_axis, c_w = cotangent.poses[:, 3:6], cotangent.poses[:, 6:]
        turn = 0.5 * (w * c_axis - c_w * axis - jnp.cross(axis, c_axis))
        return jnp.concatenate([jnp.concatenate([translation, turn], axis=1).ravel(), cotangent.voxels.ravel()])
