"""Preconditioned conjugate gradients: the linear solver for graphs of any size inside jit, and for a GPU.

The matrix is never formed: it is applied as the rows' Jacobian blocks (`dsg_ros.core.solvers.row_blocks`).  The
preconditioner adds the exact inverse of its block-tridiagonal part over the chain of poses, block Jacobi for the voxels
and a coarse correction by rigid segments of the chain.  The last is what makes it fast: on a simulated city of 10,000
poses the whole solve took 15,069 iterations without it, 215 with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int

from dsg_ros.core.native.damping import REGULAR
from dsg_ros.core.problem import Problem
from dsg_ros.core.solvers.cyclic_reduction import BlockTridiagonal
from dsg_ros.core.solvers.linear import SMALLEST_PIVOT
from dsg_ros.core.solvers.rigid_segments import RigidSegments
from dsg_ros.core.solvers.row_blocks import Rows
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State

LOOSEST, TIGHTEST = 0.1, 1e-6
"""Share of its decrease of the model that a step may lack: at most, and at least where the model is exact."""

_FLOOR = 1e-13
"""Damping of the preconditioner alone, so that its factorisation stands rounding where the system is singular."""
_NOTHING = 1e-20
"""Curvature, against a unit diagonal, that only the null space has: rows cancel to 1e-16, squared."""
_SHORTEST = 32
"""Poses of a segment, at least.  On a CPU a coarse system that is finer costs more than the iterations it saves."""
_TOGETHER = 8
"""Right-hand sides that are solved side by side: what they need is a multiple of the rows' residuals."""


class Iterated(NamedTuple):
    """What conjugate gradients came to: ``met`` says that a test was passed, ``softest`` is the least curvature seen
    along a direction, ``p^T H p / p^T p``."""

    answer: Float[Array, " D"]
    iterations: Int[Array, ""]
    met: Bool[Array, ""]
    softest: Float[Array, ""]


class _Carry(NamedTuple):
    answer: Float[Array, " D"]
    residual: Float[Array, " D"]
    direction: Float[Array, " D"]
    rho: Float[Array, ""]
    decrease: Float[Array, ""]
    gain: Float[Array, ""]
    iterations: Int[Array, ""]
    softest: Float[Array, ""]
    broken: Bool[Array, ""]


def conjugate_gradients(
    product: Callable[[Array], Array],
    precondition: Callable[[Array], Array],
    right: Float[Array, " D"],
    tolerance: Array | float,
    lacking: Array | float,
    limit: int,
) -> Iterated:
    """``H^-1 right`` (Hestenes & Stiefel 1952), until the residual is ``tolerance`` of ``right``, or k iterations have
    lowered ``x^T H x / 2 - right^T x`` and k times the latest decrease is at most ``lacking`` of all of it (Nash &
    Sofer 1990; Ceres stops likewise), or ``limit`` iterations are done.  It also stops along a direction without
    curvature, and at what is not finite; the answer is the one before.
    """
    goal = tolerance * jnp.linalg.norm(right)

    def met(c: _Carry) -> Array:
        slow = (c.iterations > 0) & (c.iterations * c.gain <= lacking * c.decrease)
        return ~c.broken & ((jnp.linalg.norm(c.residual) <= goal) | slow)

    def goes_on(c: _Carry) -> Array:
        return ~met(c) & ~c.broken & (c.iterations < limit)

    def iterate(c: _Carry) -> _Carry:
        z = precondition(c.residual)
        rho = c.residual @ z
        direction = z + rho / c.rho * c.direction
        image = product(direction)
        curvature, squared = direction @ image, direction @ direction
        sound = curvature > _NOTHING * squared
        step = jnp.where(sound, rho / jnp.where(sound, curvature, 1.0), 0.0)
        gain = 0.5 * step * rho
        return _Carry(
            jnp.where(sound, c.answer + step * direction, c.answer),
            jnp.where(sound, c.residual - step * image, c.residual),
            direction,
            rho,
            c.decrease + gain,
            gain,
            c.iterations + 1,
            jnp.where(squared > 0, jnp.minimum(c.softest, curvature / jnp.where(squared > 0, squared, 1.0)), c.softest),
            ~sound,
        )

    zero, none = jnp.zeros_like(right), jnp.zeros(())
    begin = _Carry(
        zero, right, zero, jnp.ones(()), none, none, jnp.zeros((), int), jnp.asarray(jnp.inf), jnp.zeros((), bool)
    )
    end = jax.lax.while_loop(goes_on, iterate, begin)
    return Iterated(end.answer, end.iterations, met(end), end.softest)


class IterativeFactor(eqx.Module):
    """``S^-1 (S H S + shift) S^-1`` with the scales S (zero where held), and the preconditioner of what is between.

    ``shift`` is the damping, and one where a variable is held.
    """

    rows: Rows
    scale: Float[Array, " D"]
    shift: Float[Array, " D"]
    chain: BlockTridiagonal
    voxels: Float[Array, "V 3 3"]
    segments: RigidSegments | None
    options: ConjugateGradient = eqx.field(static=True)

    def solve(self, right: Array) -> Array:
        """``H^-1 right`` for (D,) or (D, K), to a residual of ``options.tolerance`` or as near as
        ``options.max_iterations`` come: nothing but a residual taken of the answer tells which."""
        return _solve(self, right)

    def iterate(self, right: Float[Array, " D"], tolerance: Array | float, lacking: Array | float) -> Iterated:
        """`conjugate_gradients` on the scaled system: ``right`` is ``S`` times the right-hand side, the answer
        ``S^-1`` times that of the whole."""
        return conjugate_gradients(
            self.product, self.precondition, right, tolerance, lacking, self.options.max_iterations
        )

    def product(self, vector: Float[Array, " D"]) -> Float[Array, " D"]:
        """The scaled, damped matrix times a vector."""
        return self.scale * self.rows.product(self.scale * vector) + self.shift * vector

    def precondition(self, residual: Float[Array, " D"]) -> Float[Array, " D"]:
        """About the inverse of that."""
        poses, voxels = self.rows.state.split(residual)
        moved, shifted = self.chain.solve(poses), jnp.einsum("nij,nj->ni", self.voxels, voxels)
        if self.segments is not None:
            along, with_them = self.segments.apply(poses, voxels)
            moved, shifted = moved + along, shifted + with_them
        return jnp.concatenate([moved.ravel(), shifted.ravel()])

    def definite(self) -> Bool[Array, ""]:
        """Whether the matrix is positive definite, as far as a solve with a random right-hand side tells.

        Whatever of it lies in the null space stays in the residual.  One that falls far below the share of a single
        direction says: there is none, but for a chance of 1 in 100 that the vector was almost normal to it.  One that
        does not, while directions without curvature turn up, says that there is.  Neither within the iterations
        allowed is no verdict, and counts as definite.
        """
        free = self.scale > 0
        random = jax.random.normal(jax.random.key(0), free.shape) * free
        found = self.iterate(random, 0.01 / jnp.sqrt(jnp.maximum(jnp.sum(free), 1)), 0.0)
        return found.met | (found.softest > SMALLEST_PIVOT)


@jax.jit
def _solve(factor: IterativeFactor, right: Array) -> Array:
    def one(column: Array) -> Array:
        return factor.scale * factor.iterate(factor.scale * column, factor.options.tolerance, 0.0).answer

    if right.ndim == 1:
        return one(right)
    together = min(_TOGETHER, right.shape[1])
    columns = jnp.pad(right.T, ((0, -right.shape[1] % together), (0, 0)))
    solved = jax.lax.map(jax.vmap(one), columns.reshape(-1, together, len(right)))
    return solved.reshape(columns.shape)[: right.shape[1]].T


@dataclass(frozen=True)
class ConjugateGradient:
    """Conjugate gradients with a chain, voxel and segment preconditioner, inside jit; memory follows the rows.

    A step of Levenberg-Marquardt is solved as exactly as the model deserves: it may lack as large a part of the model's
    decrease as the step before missed what the model had foretold (the first forcing term of Eisenstat & Walker 1996,
    in the norm of the energy), between `LOOSEST` and `TIGHTEST`.  Derivatives and covariances are solved to a residual
    of ``tolerance``.  No solve takes more than ``max_iterations``: a step that is cut off there is taken as far as it
    got, and never counts as convergence.

    ``segments`` (at most, none shorter than 32 poses) are the bodies of the coarse correction, whose matrix of six
    times as many rows is factorised a step: more of them need fewer iterations, and pay where dense algebra is cheap,
    as on a GPU.  0 leaves it out.  The chain is that of the problem's poses in their order.
    """

    segments: int = 256
    tolerance: float = 1e-12
    max_iterations: int = 1000

    def linearise(self, problem: Problem, theta: Theta, state: State) -> tuple[Float[Array, ""], Rows]:
        """The cost and the normal equations at a state."""
        return Rows.linearise(problem, theta, state)

    def zeros(self, problem: Problem, theta: Theta) -> Rows:
        """Empty normal equations of the problem's size."""
        return Rows.zeros(problem, theta)

    def factorise(self, problem: Problem, normal: Rows, damping: Float[Array, ""]) -> IterativeFactor:
        """The system with its preconditioner."""
        scale = normal.scales(problem.free)
        shift = jnp.where(problem.free, damping, 1.0)
        own, upper, voxels = normal.chain()
        of_pose, of_voxel = normal.state.split(scale)
        added, added_voxels = normal.state.split(shift + _FLOOR)
        own = own * of_pose[:, :, None] * of_pose[:, None, :] + added[:, :, None] * jnp.eye(6)
        upper = upper * of_pose[:, :, None] * jnp.roll(of_pose, -1, axis=0)[:, None, :]
        voxels = voxels * of_voxel[:, :, None] * of_voxel[:, None, :] + added_voxels[:, :, None] * jnp.eye(3)
        root = solve_triangular(jnp.linalg.cholesky(voxels), jnp.broadcast_to(jnp.eye(3), voxels.shape), lower=True)
        count = min(self.segments, len(own) // _SHORTEST)
        return IterativeFactor(
            normal,
            scale,
            shift,
            BlockTridiagonal.factorise(own, upper),
            jnp.einsum("nji,njk->nik", root, root),
            RigidSegments.build(normal, scale, damping, count) if count > 1 else None,
            self,
        )

    def step(
        self, factor: IterativeFactor, gradient: Float[Array, " D"], mismatch: Float[Array, ""]
    ) -> tuple[Float[Array, " D"], Bool[Array, ""]]:
        """The step down ``gradient``, and whether it was solved as exactly as ``mismatch`` asks for.

        Cut short or not, the step x is the minimum over a subspace: ``x^T H x = -gradient^T x``, as for an exact one,
        and what it promises is told the same way.
        """
        found = self.solve_step(factor, gradient, mismatch)
        return factor.scale * found.answer, found.met

    def solve_step(self, factor: IterativeFactor, gradient: Float[Array, " D"], mismatch: Float[Array, ""]) -> Iterated:
        """The step as a solution of the scaled system; one iteration of it where ``mismatch`` is infinite: unwanted."""
        lacking = jnp.where(jnp.isfinite(mismatch), jnp.clip(mismatch, TIGHTEST, LOOSEST), mismatch)
        return factor.iterate(-factor.scale * gradient, self.tolerance, lacking)

    def final(self, problem: Problem, normal: Rows) -> tuple[IterativeFactor, Bool[Array, ""]]:
        """The undamped system, or a damped one where that is singular, and whether it is the first
        (`IterativeFactor.definite` says what that is worth)."""
        factor = self.factorise(problem, normal, jnp.zeros(()))
        healthy = factor.definite()
        shift = factor.shift + jnp.where(healthy, 0.0, REGULAR)
        return dataclasses.replace(factor, shift=shift), healthy
