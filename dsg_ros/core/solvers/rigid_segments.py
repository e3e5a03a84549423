"""A coarse correction for graphs of poses: segments of the chain moving as rigid bodies, with voxels seen from them.

What a preconditioner of neighbours leaves to conjugate gradients are long waves: the whole trajectory bending.  Rows
between poses do not resist rigid motions, so those of a few hundred segments span such waves (an aggregation coarse
space with the null space of the local operator; Vanek, Mandel & Brezina 1996).  The Galerkin matrix ``C = N^T H N`` is
dense, of a size that does not grow with the graph.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int

from dsg_ros.core import geometry
from dsg_ros.core.solvers.row_blocks import Rows, Stack, at
from dsg_ros.core.variables import Kind, State

_REGULAR = 1e-12
"""Added to the unit diagonal of the scaled C: above its rounding, below what a system that can be solved needs."""

_Parts = dict[Kind, Array]


class RigidSegments(eqx.Module):
    """``N C^-1 N^T`` on the scaled system: ``root`` is the inverse of the Cholesky factor of C."""

    pose_motions: Float[Array, "P 6 6"]
    voxel_motions: Float[Array, "V 3 6"]
    pose_segments: Int[Array, " P"]
    voxel_segments: Int[Array, " V"]
    root: Float[Array, "S6 S6"]

    @staticmethod
    def build(rows: Rows, scale: Float[Array, " D"], damping: Float[Array, ""], segments: int) -> RigidSegments:
        """For ``S H S + damping I`` with the scales S, zero where held."""
        poses, voxels = rows.state.split(scale)
        scales = {Kind.POSE: poses, Kind.VOXEL: voxels}
        member = _members(rows, poses, segments)
        motions = {
            kind: m * (scales[kind] > 0)[:, :, None] for kind, m in _motions(rows.state, member, segments).items()
        }
        coarse = jnp.zeros((segments, segments, 6, 6))
        for stack in rows.stacks:
            coarse = _add(coarse, stack, motions, member)
        index = jnp.arange(segments)
        for kind in Kind:
            motions[kind] = motions[kind] / jnp.where(scales[kind] > 0, scales[kind], 1.0)[:, :, None]
            gram = jnp.einsum("nda,ndb->nab", motions[kind], motions[kind])
            coarse = coarse.at[index, index].add(damping * jax.ops.segment_sum(gram, member[kind], segments))
        root = _inverse_root(coarse.transpose(0, 2, 1, 3).reshape(6 * segments, 6 * segments))
        return RigidSegments(motions[Kind.POSE], motions[Kind.VOXEL], member[Kind.POSE], member[Kind.VOXEL], root)

    def apply(self, poses: Float[Array, "P 6"], voxels: Float[Array, "V 3"]) -> tuple[Array, Array]:
        """The correction of a residual."""
        segments = len(self.root) // 6
        forces = jax.ops.segment_sum(
            jnp.einsum("nda,nd->na", self.pose_motions, poses), self.pose_segments, segments
        ) + jax.ops.segment_sum(jnp.einsum("nda,nd->na", self.voxel_motions, voxels), self.voxel_segments, segments)
        # The transpose as a vector from the left: `root.T @ vector` took XLA on the CPU 19 ms instead of 1.
        moves = ((self.root @ forces.ravel()) @ self.root).reshape(segments, 6)
        return (
            jnp.einsum("nda,na->nd", self.pose_motions, at(moves, self.pose_segments)),
            jnp.einsum("nda,na->nd", self.voxel_motions, at(moves, self.voxel_segments)),
        )


def _members(rows: Rows, scale: Float[Array, "P 6"], segments: int) -> _Parts:
    """The segment of each variable.

    Segments are of equal length from the first pose to the last that moves; a voxel goes with the first one it is seen
    from, or with none (``segments``).
    """
    place = jnp.arange(len(scale))
    used = 1 + jnp.max(jnp.where(jnp.any(scale > 0, axis=1), place, 0))
    of_pose = jnp.minimum(place * segments // used, segments - 1)
    of_voxel = jnp.full(len(rows.state.voxels), segments)
    for stack in rows.stacks:
        if Kind.POSE in stack.kinds and Kind.VOXEL in stack.kinds:
            pose, voxel = (stack.keys[stack.kinds.index(kind)] for kind in (Kind.POSE, Kind.VOXEL))
            of_voxel = of_voxel.at[voxel].min(at(of_pose, pose), mode="drop")
    return {Kind.POSE: of_pose, Kind.VOXEL: of_voxel}


def _motions(state: State, member: _Parts, segments: int) -> _Parts:
    """How each variable's tangent (n, d, 6) moves with its segment: along the axes of the map, about them through the
    middle of the segment.
    """
    positions, segment = state.poses[:, :3], member[Kind.POSE]
    count = jax.ops.segment_sum(jnp.ones(len(segment)), segment, segments)
    centres = jax.ops.segment_sum(positions, segment, segments) / jnp.maximum(count, 1.0)[:, None]
    around = state.poses.at[:, :3].add(-centres[segment])
    arms = state.voxels - at(centres, member[Kind.VOXEL])
    carried = jnp.concatenate([jnp.broadcast_to(jnp.eye(3), (len(arms), 3, 3)), -geometry.skew(arms)], axis=2)
    taken = (member[Kind.VOXEL] < segments)[:, None, None]
    return {Kind.POSE: geometry.adjoint(geometry.inverse(around)), Kind.VOXEL: jnp.where(taken, carried, 0.0)}


def _add(coarse: Float[Array, "S S 6 6"], stack: Stack, motions: _Parts, member: _Parts) -> Float[Array, "S S 6 6"]:
    """``coarse`` with what the rows of one type resist."""
    each = list(zip(stack.keys, stack.jacobians, stack.kinds, strict=True))
    parts = [jnp.einsum("nrd,nda->nra", jacobian, at(motions[kind], key)) for key, jacobian, kind in each]
    # Past the end, like the rows that count for nothing, stands the voxel that goes with no segment.
    segments = [member[kind].at[key].get(mode="fill", fill_value=len(coarse)) for key, _, kind in each]
    # Within a segment the parts cancel: summed before they are squared, they leave rounding of rounding.
    for i in range(len(parts)):
        for j in range(i + 1, len(parts)):
            same = (segments[i] == segments[j])[:, None, None]
            parts[i] = parts[i] + jnp.where(same, parts[j], 0.0)
            parts[j] = jnp.where(same, 0.0, parts[j])
    for i, left in enumerate(parts):
        for j, right in enumerate(parts[i:], i):
            block = jnp.einsum("nra,nrb->nab", left, right)
            coarse = coarse.at[segments[i], segments[j]].add(block, mode="drop")
            if j > i:
                coarse = coarse.at[segments[j], segments[i]].add(block.transpose(0, 2, 1), mode="drop")
    return coarse


def _inverse_root(matrix: Array) -> Array:
    """``R`` with ``R^T R`` the inverse of a positive semidefinite matrix, nearly; rows of zeros are left out."""
    diagonal = jnp.diag(matrix)
    positive = diagonal > 0
    unit = jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, diagonal, 1.0)), 0.0)
    scaled = matrix * unit[:, None] * unit + jnp.diag(jnp.where(positive, _REGULAR, 1.0))
    return solve_triangular(jnp.linalg.cholesky(scaled), jnp.diag(unit), lower=True)
