"""An immutable snapshot of the graph, as a pytree: what solvers and derivatives work on.

All functions here are pure JAX over whole stacks, meant to be jitted for problems of fixed shapes, such as those that
learning differentiates.  A run's windows and whole graphs, whose shapes change, are linearised by compiled loops
(`dsg_ros.core.native`); `dsg_ros.core.chunks` takes their derivatives in theta, and their rows that no loop
linearises, in pieces of one fixed shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dsg_ros.core.factors import base
from dsg_ros.core.factors.base import Factor
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import Kind, State


class Normal(NamedTuple):
    """Normal equations ``H step = -g`` by blocks; no factor joins two voxels, so ``voxels`` is block diagonal."""

    poses: Float[Array, "P P 6 6"]
    cross: Float[Array, "P V 6 3"]
    voxels: Float[Array, "V 3 3"]
    gradient: Float[Array, " D"]

    @staticmethod
    def zeros(problem: Problem) -> Normal:
        """Empty normal equations of a problem's size."""
        p, v = problem.free_poses.shape[0], problem.free_voxels.shape[0]
        return Normal(jnp.zeros((p, p, 6, 6)), jnp.zeros((p, v, 6, 3)), jnp.zeros((v, 3, 3)), jnp.zeros(p * 6 + v * 3))


class Problem(eqx.Module):
    """Initial ``state``, stacks of rows (one per factor type, possibly empty) and which variables may move.

    ``pose_keys`` and ``voxel_keys`` are the world's keys of the rows of ``state``, -1 for padding.  Padding variables,
    variables held by request and variables that no row touches are not free; of a pose, each direction of the
    tangent is.
    """

    state: State
    free_poses: Bool[Array, "P 6"]
    free_voxels: Bool[Array, " V"]
    factors: tuple[Factor, ...]
    pose_keys: Int[Array, " P"]
    voxel_keys: Int[Array, " V"]

    @property
    def free(self) -> Bool[Array, " D"]:
        """Which numbers of the tangent may move."""
        return jnp.concatenate([self.free_poses.ravel(), jnp.repeat(self.free_voxels, 3)])

    def cost(self, theta: Theta, state: State) -> Float[Array, ""]:
        """``0.5 sum weight rho(|W e|^2)``."""
        return sum((jnp.sum(c) for c in self._map(base.row_cost, theta, state)), jnp.zeros(()))

    def residuals(self, theta: Theta, state: State) -> Float[Array, " R"]:
        """Whitened, weighted residuals of all rows without their robust kernels: ``cost = 0.5 |r|^2`` where none is
        robust.
        """
        rows = [r.ravel() for r in self._map(base.row_residual, theta, state)]
        return jnp.concatenate([jnp.zeros(0), *rows])

    def gradient(self, theta: Theta, state: State) -> Float[Array, " D"]:
        """Gradient of the cost in the state's tangent, zero where not free; differentiable again."""
        return self._scatter(self._map(base.row_gradient, theta, state))

    def linearise(self, theta: Theta, state: State) -> tuple[Float[Array, ""], Normal]:
        """The cost and the Gauss-Newton normal equations (robust weights as in `dsg_ros.core.factors.base`), gauge not
        fixed.
        """
        poses, cross, voxels, _ = Normal.zeros(self)
        cost, gradients = jnp.zeros(()), []
        for factor, row in zip(self._present(), self._map(base.row_linearise, theta, state), strict=True):
            cost += jnp.sum(row.cost)
            gradients.append(jnp.einsum("nrd,nr->nd", row.jacobian, row.residual))
            keys, kinds = _keys(factor), base.kinds(type(factor))
            borders = [sum(k.dof for k in kinds[:i]) for i in range(1, len(kinds))]
            parts = jnp.split(row.jacobian, borders, axis=2)
            for a, kind_a, left in zip(keys, kinds, parts, strict=True):
                for b, kind_b, right in zip(keys, kinds, parts, strict=True):
                    block = jnp.einsum("nra,nrb->nab", left, right)
                    if kind_a is Kind.POSE and kind_b is Kind.POSE:
                        poses = poses.at[a, b].add(block)
                    elif kind_a is Kind.POSE:
                        cross = cross.at[a, b].add(block)
                    elif kind_b is Kind.VOXEL:
                        voxels = voxels.at[a].add(block)
        return cost, Normal(poses, cross, voxels, self._scatter(gradients))

    def hessian_product(self, theta: Theta, state: State, vector: Float[Array, " D"]) -> Float[Array, " D"]:
        """The exact Hessian of the cost in the tangent times ``vector``, free numbers only."""
        return self._scatter(self._map(base.row_hessian_product, theta, state, tangent=vector * self.free))

    def theta_vjp(self, theta: Theta, state: State, vector: Float[Array, " D"]) -> Theta:
        """``vector^T d gradient / d theta``."""

        def product(t: Theta) -> Array:
            rows = self._map(base.row_theta_product, t, state, tangent=vector * self.free)
            return sum((jnp.sum(r) for r in rows), jnp.zeros(()))

        return jax.grad(product)(theta)

    def theta_jacobian(self, theta: Theta, state: State, ways: Theta) -> Float[Array, "D K"]:
        """``d gradient / d theta`` along K directions."""

        def rows(factor: Factor, t: Theta, values: base.Values) -> Array:
            return base.row_theta_jacobian(factor, t, values, ways)

        stacks = self._map(rows, theta, state)
        return jax.vmap(self._scatter, in_axes=1, out_axes=1)(stacks)

    def _present(self) -> list[Factor]:
        return [factor for factor in self.factors if factor.weight.shape[0]]

    def _map(
        self, function: Callable[..., Any], theta: Theta, state: State, *, tangent: Array | None = None
    ) -> list[Any]:
        """``function`` over the rows of every stack; with ``tangent`` each row also gets its part of that vector."""
        out = []
        for factor in self._present():
            values = gather(factor, state)
            if tangent is None:
                out.append(jax.vmap(function, in_axes=(0, None, 0))(factor, theta, values))
            else:
                poses, voxels = state.split(tangent)
                local = jnp.concatenate(gather(factor, State(poses, voxels)), axis=1)
                out.append(jax.vmap(function, in_axes=(0, None, 0, 0))(factor, theta, values, local))
        return out

    def _scatter(self, stacks: list[Array]) -> Float[Array, " D"]:
        """Sum the rows' local tangent vectors (n, d), one stack a factor type, into one vector; zero where not free."""
        poses = jnp.zeros((self.free_poses.shape[0], 6))
        voxels = jnp.zeros((self.free_voxels.shape[0], 3))
        for factor, local in zip(self._present(), stacks, strict=True):
            start = 0
            for key, kind in zip(_keys(factor), base.kinds(type(factor)), strict=True):
                part = local[:, start : start + kind.dof]
                start += kind.dof
                if kind is Kind.POSE:
                    poses = poses.at[key].add(part)
                else:
                    voxels = voxels.at[key].add(part)
        return jnp.concatenate([poses.ravel(), voxels.ravel()]) * self.free


def _keys(factor: Factor) -> list[Array]:
    return [getattr(factor, f.name) for f in base.key_fields(type(factor))]


def gather(factor: Factor, state: State) -> base.Values:
    """The values each row touches, stacked: (n, 7) or (n, 3) per key field (or whatever the state's rows hold)."""
    kinds = base.kinds(type(factor))
    return tuple(
        jnp.asarray(state.poses if kind is Kind.POSE else state.voxels)[key]
        for kind, key in zip(kinds, _keys(factor), strict=True)
    )
