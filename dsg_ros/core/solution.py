"""What a solve returns.  No solver raises for an answer that is not good: the result code says what it is worth."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from dsg_ros.core.methods import host_method
from dsg_ros.core.null_space import moving_parts
from dsg_ros.core.variables import Kind, State


class Result(enum.IntEnum):
    """How a solve ended."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    """Stopped early; the state is the best so far."""
    SINGULAR = 2
    """The normal equations at the answer are not positive definite: free gauge or unobserved variables.  The state is a
    minimum all the same; the factorisation is a damped one, so covariances and derivatives are not to be trusted."""
    DIVERGED = 3
    """The cost was not finite at the start, or no step lowered it; the state is the best so far."""


class Factorisation(Protocol):
    """Factorised normal equations of a state, over the whole tangent; held variables stay zero."""

    def solve(self, right: Any) -> Any:
        """``H^-1 right`` for (D,) or (D, K)."""


@runtime_checkable
class Marginals(Protocol):
    """A factorisation that has single blocks of the inverse cheaper than by back-substitutions."""

    def pose_covariance(self, position: int) -> NDArray[np.float64]:
        """Covariance (6, 6) of the pose at ``position`` of the state, in its own tangent."""

    def voxel_covariance(self, position: int) -> NDArray[np.float64]:
        """Covariance (3, 3) of the voxel at ``position`` of the state, in the map frame."""


class Solution(eqx.Module):
    """``state`` is finite whatever happened; ``result`` holds a `Result`; ``factorisation`` belongs to that state, and
    is None where the normal equations could not be factorised even with damping.
    """

    state: State
    result: Int[Array, ""]
    cost: Float[Array, ""]
    iterations: Int[Array, ""]
    factorisation: Any
    pose_keys: Int[Array, " P"]
    voxel_keys: Int[Array, " V"]

    @property
    def code(self) -> Result:
        """The result as an enum (not under jit)."""
        return Result(int(self.result))

    @property
    def underconstrained(self) -> tuple[tuple[Kind, int], ...]:
        """Kinds and keys of the variables that the rows do not determine, where the result is SINGULAR; else empty.

        Computed anew at every call, by the work of some thirty back-substitutions (`free_variables`).  Not
        under jit.
        """
        if self.code is not Result.SINGULAR:
            return ()
        return tuple((free.kind, free.key) for free in free_variables(self))

    @host_method
    def check_factorised(self, wanted: str) -> None:
        """ValueError unless there is a factorisation to have what is ``wanted`` from."""
        if self.factorisation is None:
            raise ValueError(f"{wanted}: this solution ({self.code.name}) has no factorisation, and so none of it")


class Free(NamedTuple):
    """A variable that could move without changing the cost, under the world's ``key``; of a pose, whether its
    ``position`` or its ``rotation``.  A voxel has a position alone.
    """

    kind: Kind
    key: int
    position: bool
    rotation: bool


def free_variables(solution: Solution) -> list[Free]:
    """Poses, then voxels, that move in the null space of the normal equations, in the order of the solution.  Empty
    where even the damped ones could not be factorised.
    """
    if solution.factorisation is None:
        return []
    border = 6 * len(np.asarray(solution.state.poses))
    poses, voxels = moving_parts(solution.factorisation.solve, np.asarray(solution.factorisation.scale), border)
    pose_keys, voxel_keys = np.asarray(solution.pose_keys), np.asarray(solution.voxel_keys)
    out = [Free(Kind.POSE, int(pose_keys[i]), *map(bool, poses[i])) for i in np.flatnonzero(np.any(poses, axis=1))]
    return out + [Free(Kind.VOXEL, int(voxel_keys[i]), True, False) for i in np.flatnonzero(voxels)]


def marginal_covariance(solution: Solution, key: int, kind: Kind = Kind.POSE) -> NDArray[np.float64]:
    """Marginal covariance of one variable: a block of H^-1, by the selected inverse or back-substitutions.

    Of a pose (6, 6) in its own tangent [m, rad], of a voxel (3, 3) in the map frame [m].  Zero for one that is held.
    KeyError if it takes no part in the solution, ValueError if that has no factorisation: none at all, or one that was
    left to be computed, and is singular.
    """
    solution.check_factorised("marginal covariance")
    keys, name = (solution.pose_keys, "pose") if kind is Kind.POSE else (solution.voxel_keys, "voxel")
    found = np.flatnonzero(np.asarray(keys) == key)
    if not len(found):
        raise KeyError(f"{name} {key} takes no part in this solution")
    position, factor = int(found[0]), solution.factorisation
    if isinstance(factor, Marginals):
        return factor.pose_covariance(position) if kind is Kind.POSE else factor.voxel_covariance(position)
    start = 0 if kind is Kind.POSE else len(solution.pose_keys) * Kind.POSE.dof
    places = start + position * kind.dof + np.arange(kind.dof)
    unit = np.zeros((solution.state.dof, kind.dof))
    unit[places, np.arange(kind.dof)] = 1.0
    block = np.asarray(factor.solve(unit))[places]
    return 0.5 * (block + block.T)
