"""Linear solvers for normal equations inside jit: dense Cholesky, and the Schur complement over voxels.

Every system is scaled to a unit diagonal first (Jacobi).  Then Marquardt's damping is a multiple of the identity, and a
pivot says how much of a variable's own information is left once the others are known: a gauge freedom leaves 1e-15.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float

from dsg_ros.core.native.damping import REGULAR
from dsg_ros.core.problem import Normal, Problem
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State

SMALLEST_PIVOT = 1e-13
"""Pivots of a scaled system below this are rounding: the system is singular."""


def scales(problem: Problem, normal: Normal) -> Float[Array, " D"]:
    """Jacobi scales, ``1 / sqrt(diagonal)``, zero for held variables."""
    index = jnp.arange(normal.poses.shape[0])
    poses = jnp.einsum("pii->pi", normal.poses[index, index])
    voxels = jnp.einsum("vii->vi", normal.voxels)
    diagonal = jnp.concatenate([poses.ravel(), voxels.ravel()])
    positive = diagonal > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, diagonal, 1.0)), 1.0) * problem.free


def _scaled(problem: Problem, normal: Normal, scale: Array, damping: Array) -> tuple[Array, Array, Array]:
    """Pose block (6P, 6P), cross block (6P, V, 3) and voxel blocks (V, 3, 3): unit diagonal plus damping."""
    p, v = normal.poses.shape[0], normal.voxels.shape[0]
    sp, sv = scale[: 6 * p], scale[6 * p :].reshape(v, 3)
    held_poses = jnp.where(problem.free_poses.ravel(), 0.0, 1.0)
    held_voxels = jnp.where(problem.free_voxels, 0.0, 1.0)
    poses = normal.poses.transpose(0, 2, 1, 3).reshape(6 * p, 6 * p) * sp[:, None] * sp + jnp.diag(held_poses + damping)
    cross = normal.cross.transpose(0, 2, 1, 3).reshape(6 * p, v, 3) * sp[:, None, None] * sv
    eye = jnp.eye(3)
    voxels = normal.voxels * sv[:, :, None] * sv[:, None, :] + (held_voxels + damping)[:, None, None] * eye
    return poses, cross, voxels


def _columns(right: Array) -> tuple[Array, bool]:
    right = jnp.asarray(right)
    return (right[:, None], True) if right.ndim == 1 else (right, False)


class Direct(abc.ABC):
    """What Levenberg-Marquardt asks of a linear solver that factorises `Normal`."""

    @abc.abstractmethod
    def factorise(self, problem: Problem, normal: Normal, damping: Float[Array, ""]) -> Any:
        """The factorisation of the scaled, damped system."""

    def linearise(self, problem: Problem, theta: Theta, state: State) -> tuple[Float[Array, ""], Normal]:
        """The cost and the normal equations at a state."""
        return problem.linearise(theta, state)

    def zeros(self, problem: Problem, theta: Theta) -> Normal:
        """Empty normal equations of the problem's size."""
        return Normal.zeros(problem)

    def step(
        self, factor: Any, gradient: Float[Array, " D"], mismatch: Float[Array, ""]
    ) -> tuple[Float[Array, " D"], Bool[Array, ""]]:
        """The step down ``gradient``, always solved exactly; iterative solvers do so as far as ``mismatch`` asks for.

        That is by how much of it the last step missed what was promised; infinite where this step is not wanted.
        """
        return factor.solve(-gradient), jnp.ones((), bool)

    def final(self, problem: Problem, normal: Normal) -> tuple[Any, Bool[Array, ""]]:
        """The undamped factorisation, or a damped one where that is singular, and whether it is the first."""
        factor = self.factorise(problem, normal, jnp.zeros(()))
        healthy = factor.healthy
        regular = jnp.where(healthy, 0.0, REGULAR)
        return jax.lax.cond(healthy, lambda: factor, lambda: self.factorise(problem, normal, regular)), healthy


class DenseFactor(eqx.Module):
    """``H = S^-1 L L^T S^-1`` with the scales S."""

    lower: Float[Array, "D D"]
    scale: Float[Array, " D"]

    def solve(self, right: Array) -> Array:
        columns, vector = _columns(right)
        out = self.scale[:, None] * cho_solve((self.lower, True), self.scale[:, None] * columns)
        return out[:, 0] if vector else out

    @property
    def healthy(self) -> Bool[Array, ""]:
        """Factorised, and no pivot is mere rounding.  (A NaN compares as False.)"""
        return jnp.min(jnp.diag(self.lower)) > SMALLEST_PIVOT**0.5


@dataclass(frozen=True)
class DenseCholesky(Direct):
    """One dense factorisation: for problems of up to a few hundred numbers."""

    def factorise(self, problem: Problem, normal: Normal, damping: Array) -> DenseFactor:
        scale = scales(problem, normal)
        poses, cross, voxels = _scaled(problem, normal, scale, damping)
        p, v = poses.shape[0], voxels.shape[0]
        cross = cross.reshape(p, 3 * v)
        index = jnp.arange(v)
        blocks = jnp.zeros((v, 3, v, 3)).at[index, :, index, :].set(voxels).reshape(3 * v, 3 * v)
        matrix = jnp.concatenate(
            [jnp.concatenate([poses, cross], axis=1), jnp.concatenate([cross.T, blocks], axis=1)], axis=0
        )
        return DenseFactor(jnp.linalg.cholesky(matrix), scale)


class SchurFactor(eqx.Module):
    """Voxels eliminated: ``reduced`` is the Cholesky factor of ``Hpp - Y Y^T``, with ``Y = Hpv Lv^-T`` as (6P, 3V)."""

    reduced: Float[Array, "P6 P6"]
    y: Float[Array, "P6 V3"]
    inverse_voxels: Float[Array, "V 3 3"]
    voxel_pivot: Float[Array, ""]
    scale: Float[Array, " D"]

    def solve(self, right: Array) -> Array:
        columns, vector = _columns(right)
        scaled = self.scale[:, None] * columns
        border, count = self.reduced.shape[0], self.inverse_voxels.shape[0]
        voxels = scaled[border:].reshape(count, 3, -1)
        z = jnp.einsum("vij,vjk->vik", self.inverse_voxels, voxels).reshape(count * 3, -1)
        poses = cho_solve((self.reduced, True), scaled[:border] - self.y @ z)
        z = (z - self.y.T @ poses).reshape(count, 3, -1)
        voxels = jnp.einsum("vji,vjk->vik", self.inverse_voxels, z).reshape(count * 3, -1)
        out = self.scale[:, None] * jnp.concatenate([poses, voxels])
        return out[:, 0] if vector else out

    @property
    def healthy(self) -> Bool[Array, ""]:
        """Factorised, and no pivot is mere rounding."""
        return jnp.minimum(jnp.min(jnp.diag(self.reduced)), self.voxel_pivot) > SMALLEST_PIVOT**0.5


@dataclass(frozen=True)
class SchurVoxels(Direct):
    """Eliminate the voxels (block diagonal), factorise the poses' dense Schur complement: for many voxels."""

    def factorise(self, problem: Problem, normal: Normal, damping: Array) -> SchurFactor:
        scale = scales(problem, normal)
        poses, cross, voxels = _scaled(problem, normal, scale, damping)
        lower = jnp.linalg.cholesky(voxels)
        inverse = solve_triangular(lower, jnp.broadcast_to(jnp.eye(3), lower.shape), lower=True)
        y = jnp.einsum("pvj,vij->pvi", cross, inverse).reshape(poses.shape[0], -1)
        pivot = jnp.min(jnp.einsum("vii->vi", lower))
        return SchurFactor(jnp.linalg.cholesky(poses - y @ y.T), y, inverse, pivot, scale)
