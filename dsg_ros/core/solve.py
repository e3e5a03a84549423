"""The front door: solve a snapshot, and solve it as a differentiable function of theta."""

from __future__ import annotations

from functools import partial

import jax

from dsg_ros.core import implicit
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Solution
from dsg_ros.core.solvers import GradientDescent, LevenbergMarquardt
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State

Solver = GradientDescent | LevenbergMarquardt


def solve(problem: Problem, theta: Theta, solver: Solver) -> Solution:
    """Minimise the cost over the state, from the problem's own.  A bad answer raises nothing: see `Solution.result`."""
    return solver.solve(problem, theta)


def solve_differentiable(problem: Problem, theta: Theta, solver: Solver, exact: bool = True) -> State:
    """The solved state as a function of theta for jax.grad and jax.jacrev: by the implicit function theorem.

    The derivative is that of the minimum, so it is right where the solver converged; ``exact`` as in `implicit_vjp`.
    Only for solvers that run inside jit: ValueError otherwise.  (`GradientDescent.descend` is the unrolled
    alternative.)
    """
    if isinstance(solver, LevenbergMarquardt) and solver.on_host:
        raise ValueError("a sparse solver runs on the host: call solve and implicit_vjp instead of differentiating")
    return _state(solver, exact, problem, theta)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _state(solver: Solver, exact: bool, problem: Problem, theta: Theta) -> State:
    return solver.solve(problem, theta).state


def _forward(
    solver: Solver, exact: bool, problem: Problem, theta: Theta
) -> tuple[State, tuple[Problem, Theta, Solution]]:
    solution = solver.solve(problem, theta)
    return solution.state, (problem, theta, solution)


def _backward(
    solver: Solver, exact: bool, kept: tuple[Problem, Theta, Solution], cotangent: State
) -> tuple[None, Theta]:
    return None, implicit.implicit_vjp(*kept, cotangent, exact=exact)


_state.defvjp(_forward, _backward)
