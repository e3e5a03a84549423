"""What a change of theta does to the map: displacements of the keyframes, by the implicit function theorem.

The map is taken as what the graph makes of its rows: odometry, which theta calibrates, against registrations and loop
closures, which are as they were measured.  Which keyframes, matches and closures a run with another theta would have
come to is not asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.factors import OdomSE3
from dsg_ros.core.native import se3
from dsg_ros.core.problem import Problem
from dsg_ros.core.sensitivity import first_order
from dsg_ros.core.solution import Result, Solution, marginal_covariance
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.effect import Effect, displacement
from dsg_ros.errors import UserError
from dsg_ros.interface import Parameter
from dsg_ros.learning.amounts import NATURAL, changed, check_bounds, full_name, parse_change, value_of
from dsg_ros.learning.parameters import LEAVES, PLACES, spec_of

Array = NDArray[np.float64]

NOISE = ("odometry_noise", "registration_noise", "loop_noise")
"""Leaves that weigh the rows of a graph between poses."""

WHERE_USED = ("lever_rotation", "time_offset", "bias")
"""Leaves of calibrations that few robots need."""

_OUT_OF_PLANE = tuple(f"odometry.{leaf}.{axis}" for leaf in ("lever", "bias") for axis in ("z", "rx", "ry"))


class Sensitivity:
    """A graph solved at one theta, to be asked what changes of theta would do to it.

    ``problem`` is of poses alone; ``told`` are the parameters as told to the world, with their deviations.  ``names``
    are the parameters that move these poses.  `UserError` where there is nothing to be moved, or the graph does not
    determine its poses.
    """

    def __init__(self, problem: Problem, theta: Theta, told: Sequence[Parameter]) -> None:
        self._theta, self._told = to_float64(theta), {parameter.name: parameter for parameter in told}
        self._count = int(np.count_nonzero(np.asarray(problem.pose_keys) >= 0))
        if self._count < 2:
            keyframes = "1 keyframe" if self._count == 1 else f"{self._count} keyframes"
            raise UserError(f"{keyframes}: there is nothing that a parameter could move")
        self._solver = LevenbergMarquardt(SparseCholesky(), max_iterations=100, tolerance=1e-12)
        self._solution = self._solved(problem, self._theta, "with the parameters as they are")
        self._problem = dataclasses.replace(problem, state=self._solution.state)
        planar = not np.asarray(problem.free_poses)[:, 2].any()
        self.names = tuple(
            name for name, (leaf, _) in PLACES.items()
            if leaf in (*LEAVES, *NOISE) and not (planar and name in _OUT_OF_PLANE)
        )  # fmt: skip

    @property
    def trajectory(self) -> Array:
        """Keyframe poses (k, 7), base in map, at the graph's minimum."""
        return self._poses(self._solution)

    @property
    def calibration(self) -> tuple[str, ...]:
        """Those of ``names`` that calibrate the odometry; of `WHERE_USED`, those that are told or other than 0."""
        chosen = [(name, PLACES[name][0]) for name in self.names if PLACES[name][0] in LEAVES]
        return tuple(
            name for name, leaf in chosen
            if leaf not in WHERE_USED or name in self._told or value_of(self._theta, name)
        )  # fmt: skip

    def deviation(self) -> Array:
        """Standard deviations (6,) [m, rad] of the last pose in its own tangent, theta being what it is."""
        return np.asarray(np.sqrt(np.diag(marginal_covariance(self._solution, self._count - 1))))

    def effect(self, name: str, change: str = "", *, check: bool = False) -> Effect:
        """What becomes of the map when the parameter ``name`` changes by ``change``, by default a natural amount.

        With ``check`` the graph is also solved at the opposite change.  `UserError` for a name or a change that there
        is not.
        """
        name = full_name(name, self.names)
        spec, value = spec_of(name), value_of(self._theta, name)
        amount = parse_change(change or NATURAL[spec.unit], spec, value)
        theta = to_float64(changed(self._theta, name, value + amount))
        tangent = first_order(self._problem, self._theta, self._solution, theta)[: 6 * self._count].reshape(-1, 6)
        moved = np.concatenate([poses.rotate(self.trajectory[:, 3:], tangent[:, :3]), tangent[:, 3:]], axis=1)
        told = self._told.get(name)
        return Effect(
            name,
            spec.unit,
            value,
            None if told is None else told.sigma,
            "not learned" if told is None else told.status,
            amount,
            moved,
            self._resolved(theta, f"at {name} = {value + amount:.6g}"),
            displacement(self._reckoned(self._theta), self._reckoned(theta)),
            self._opposite(name, value, amount) if check else None,
        )

    def _opposite(self, name: str, value: float, amount: float) -> Array:
        """`_resolved` with the opposite change, in the scale in which theta stores it: of a ratio kept as its logarithm
        by the inverse.
        """
        spec = spec_of(name)
        against = spec.physical(2 * spec.leaf(value) - spec.leaf(value + amount))
        check_bounds(spec, against, f"{name}: the opposite change, for the check")
        return self._resolved(to_float64(changed(self._theta, name, against)), f"at {name} = {against:.6g}")

    def _resolved(self, theta: Theta, where: str) -> Array:
        """Displacement (k, 6) of the keyframes where the graph is solved with another theta, ``where`` in words."""
        return displacement(self.trajectory, self._poses(self._solved(self._problem, theta, where)))

    def _reckoned(self, theta: Theta) -> Array:
        """Poses (k, 7) by odometry alone, from the first keyframe's on."""
        (odometry,) = (factor for factor in self._problem.factors if isinstance(factor, OdomSE3))
        rows = np.asarray(odometry.weight) > 0
        steps = np.tile(poses.IDENTITY, (self._count, 1))
        steps[np.asarray(odometry.current)[rows]] = odometry.host_form(theta).measured[rows]
        steps[0] = self.trajectory[0]
        for step in range(1, self._count):
            steps[step] = se3.compose(steps[step - 1], steps[step])
        return steps

    def _solved(self, problem: Problem, theta: Theta, where: str) -> Solution:
        solution = solve(problem, theta, self._solver)
        if solution.code in (Result.DIVERGED, Result.SINGULAR):
            raise UserError(f"the graph of {self._count} keyframes has no minimum {where}: {solution.code.name}")
        return solution

    def _poses(self, solution: Solution) -> Array:
        return np.asarray(solution.state.poses)[: self._count].copy()
