"""What a solve returns.  No solver raises for an answer that is not good: the result code says what it is worth."""

from __future__ import annotations

import enum
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from dsg_ros.core.variables import State


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


class Solution(eqx.Module):
    """``state`` is finite whatever happened; ``result`` holds a `Result`; ``factorisation`` belongs to that state."""

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


def marginal_covariance(solution: Solution, pose_key: int) -> NDArray[np.float64]:
    """Covariance (6, 6) of a pose in its own tangent [m, rad]: a block of H^-1, by the selected inverse or six
    back-substitutions.

    Zero for a held pose.  KeyError if the pose takes no part in the solution.
    """
    position = np.flatnonzero(np.asarray(solution.pose_keys) == pose_key)
    if not len(position):
        raise KeyError(f"pose {pose_key} takes no part in this solution")
    if isinstance(solution.factorisation, Marginals):
        return solution.factorisation.pose_covariance(int(position[0]))
    rows = position[0] * 6 + np.arange(6)
    unit = np.zeros((solution.state.dof, 6))
    unit[rows, np.arange(6)] = 1.0
    block = np.asarray(solution.factorisation.solve(unit))[rows]
    return 0.5 * (block + block.T)
