"""Normal equations kept as the rows' Jacobian blocks: memory and work follow the number of rows, never its square."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dsg_ros.core.factors import base
from dsg_ros.core.problem import Problem, gather
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import Kind, State


class Stack(eqx.Module):
    """Rows of one factor type: of each variable they touch, in the order of `base.kinds`, where it stands and the
    Jacobian of the weighted, whitened residual in its tangent.

    Rows without weight stand past the end, where sums drop them: were they left at position 0, all the padding of a
    capacity would queue there for one atomic addition after the other on a GPU.
    """

    keys: tuple[Int[Array, " n"], ...]
    jacobians: tuple[Float[Array, "n r d"], ...]
    kinds: tuple[Kind, ...] = eqx.field(static=True)


class Rows(eqx.Module):
    """``H = sum J^T J`` over the rows, held variables included, at ``state``; ``gradient`` is zero for these."""

    stacks: tuple[Stack, ...]
    gradient: Float[Array, " D"]
    state: State

    @staticmethod
    def linearise(problem: Problem, theta: Theta, state: State) -> tuple[Float[Array, ""], Rows]:
        """The cost, and its Gauss-Newton normal equations at ``state``."""
        room = _room(state)
        poses, voxels = jnp.zeros((room[Kind.POSE], 6)), jnp.zeros((room[Kind.VOXEL], 3))
        gradient = {Kind.POSE: poses, Kind.VOXEL: voxels}
        cost, stacks = jnp.zeros(()), []
        for factor in problem.factors:
            if not factor.weight.shape[0]:
                continue
            row = jax.vmap(base.row_linearise, in_axes=(0, None, 0))(factor, theta, gather(factor, state))
            cost += jnp.sum(row.cost)
            kinds, start = base.kinds(type(factor)), 0
            keys, jacobians = [], []
            for field, kind in zip(base.key_fields(type(factor)), kinds, strict=True):
                key = jnp.where(factor.weight > 0, getattr(factor, field.name), room[kind])
                jacobian = row.jacobian[:, :, start : start + kind.dof]
                start += kind.dof
                local = jnp.einsum("nrd,nr->nd", jacobian, row.residual)
                gradient[kind] = gradient[kind].at[key].add(local, mode="drop")
                keys.append(key)
                jacobians.append(jacobian)
            stacks.append(Stack(tuple(keys), tuple(jacobians), kinds))
        return cost, Rows(tuple(stacks), _joined(gradient) * problem.free, state)

    @staticmethod
    def zeros(problem: Problem, theta: Theta) -> Rows:
        """Empty normal equations of a problem's size."""
        shapes: Any = jax.eval_shape(Rows.linearise, problem, theta, problem.state)[1]
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def scales(self, free: Bool[Array, " D"]) -> Float[Array, " D"]:
        """Jacobi scales as in `dsg_ros.core.solvers.linear`: ``1 / sqrt(diagonal)``, zero for held variables."""
        sums = {kind: jnp.zeros((count, kind.dof)) for kind, count in _room(self.state).items()}
        for stack in self.stacks:
            for key, jacobian, kind in zip(stack.keys, stack.jacobians, stack.kinds, strict=True):
                sums[kind] = sums[kind].at[key].add(jnp.sum(jacobian**2, axis=1), mode="drop")
        diagonal = _joined(sums)
        positive = diagonal > 0
        return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, diagonal, 1.0)), 1.0) * free

    def product(self, vector: Float[Array, " D"]) -> Float[Array, " D"]:
        """``H vector``."""
        poses, voxels = self.state.split(vector)
        values = {Kind.POSE: poses, Kind.VOXEL: voxels}
        sums = {kind: jnp.zeros_like(part) for kind, part in values.items()}
        for stack in self.stacks:
            each = list(zip(stack.keys, stack.jacobians, stack.kinds, strict=True))
            images = [jnp.einsum("nrd,nd->nr", jacobian, at(values[kind], key)) for key, jacobian, kind in each]
            image = sum(images[1:], images[0])
            for key, jacobian, kind in each:
                local = jnp.einsum("nrd,nr->nd", jacobian, image)
                sums[kind] = sums[kind].at[key].add(local, mode="drop")
        return _joined(sums)

    def chain(self) -> tuple[Float[Array, "P 6 6"], Float[Array, "P 6 6"], Float[Array, "V 3 3"]]:
        """Blocks of H: the poses' own, those between each pose and the next (the last one zero), the voxels' own.

        A row that touches two poses counts with all its blocks if they are neighbours, else with its diagonal ones,
        so that the block-tridiagonal matrix is positive semidefinite as H is.
        """
        room = _room(self.state)
        own = {kind: jnp.zeros((count, kind.dof, kind.dof)) for kind, count in room.items()}
        upper = jnp.zeros_like(own[Kind.POSE])
        for stack in self.stacks:
            for key, jacobian, kind in zip(stack.keys, stack.jacobians, stack.kinds, strict=True):
                own[kind] = own[kind].at[key].add(jnp.einsum("nra,nrb->nab", jacobian, jacobian), mode="drop")
            poses = [i for i, kind in enumerate(stack.kinds) if kind is Kind.POSE]
            if len(poses) == 2:
                (a, left), (b, right) = ((stack.keys[i], stack.jacobians[i]) for i in poses)
                block = jnp.einsum("nra,nrb->nab", left, right)
                block = jnp.where((a < b)[:, None, None], block, block.transpose(0, 2, 1))
                place = jnp.where(jnp.abs(a - b) == 1, jnp.minimum(a, b), room[Kind.POSE])
                upper = upper.at[place].add(block, mode="drop")
        return own[Kind.POSE], upper, own[Kind.VOXEL]


def at(values: Array, key: Int[Array, " n"]) -> Array:
    """The values at positions; at those past the end whatever is there last, which what it meets is zero for."""
    return values.at[key].get(mode="clip")


def _room(state: State) -> dict[Kind, int]:
    return {Kind.POSE: state.poses.shape[0], Kind.VOXEL: state.voxels.shape[0]}


def _joined(parts: dict[Kind, Array]) -> Float[Array, " D"]:
    return jnp.concatenate([parts[Kind.POSE].ravel(), parts[Kind.VOXEL].ravel()])
