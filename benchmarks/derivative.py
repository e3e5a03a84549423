"""Derivatives: a vector-Jacobian product of a graph's optimum against the solve that found it.

The parameters are the odometry's increments, six for each edge between consecutive poses: learned `OdomSE3` rows,
beside which all other edges are `Registration`.  The function differentiated is the newest pose's position.  The solve
is ours from the loaded graph on; the product is `dsg_ros.core.implicit.implicit_vjp` at an optimum found as exactly,
the first thing asked of it: back-substitutions with the factor of the last step, and one product a factor type.  Once
for each graph its result is held against central differences of solved optima.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import jax
import numpy as np

from benchmarks import graphs, ours
from benchmarks.measuring import in_turn, stopwatch, times
from benchmarks.table import Row
from dsg_ros import poses as se3
from dsg_ros.core import initialise
from dsg_ros.core.factors import OdomSE3, Registration
from dsg_ros.core.implicit import implicit_vjp
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Solution
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.variables import State
from dsg_ros.core.world import WorldModel
from dsg_ros.io.posegraph import PLANAR_AXES, Floats, PoseGraph
from dsg_ros.io.posegraph_checks import matrices

GRAPHS = graphs.LITERATURE
GOAL = 0.15
ENTRIES = 6
"""Numbers of theta that are moved for the central differences, `STEP` [m or rad] each way."""
STEP = 1e-3
SEVERAL = 10
"""Products after one another with the same solution: the first ones go by the last step's factor, then its own is made.
"""
TOLERANCE = 1e-14
"""Of the solves that are subtracted: relative decrease of the cost."""


@dataclass(frozen=True)
class Learned:
    """A ``problem`` whose odometry is ``theta.odom``; ``exact`` tells whether the information of all those edges is the
    file's.
    """

    problem: Problem
    theta: Theta
    exact: bool


def run(names: Sequence[str], repeats: int) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """A row for each graph."""
    for name in names:
        yield compare(name, graphs.load(name), repeats)


def compare(name: str, graph: PoseGraph, repeats: int) -> tuple[list[Row], dict[str, Any]]:
    """Solve and product on one graph, in turn."""
    learned = with_learned_odometry(graph)
    problem, theta = learned.problem, learned.theta
    solution = optimum(problem, theta)
    cotangent = newest_position(solution)

    several: list[float] = []

    def product() -> float:
        # At the end of a solve as exact as the one it is held against, and the first thing asked of it.
        found = optimum(problem, theta, ours.TOLERANCE)
        taken = [
            stopwatch(lambda: jax.block_until_ready(implicit_vjp(problem, theta, found, cotangent)))[0]
            for _ in range(SEVERAL)
        ]
        several.append(sum(taken) / SEVERAL)
        return taken[0]

    product()
    several.clear()
    whole = ours.solve_batch(graph).seconds
    pairs = in_turn(product, lambda: ours.solve_batch(graph).seconds, times(whole, repeats))
    seconds = [median(part) for part in pairs]
    errors = relative_errors(problem, theta, solution)
    note = f"off central differences by {errors['gauss_newton']:.1e}, with exact curvature {errors['exact']:.1e}"
    rows = [
        Row("derivative", name, "vjp / solve", seconds[0], seconds[1], "s", GOAL, note),
        Row("derivative", name, f"one of {SEVERAL} / solve", median(several), seconds[1], "s", GOAL),
    ]
    return rows, {
        "graph": name,
        "vjp": pairs[0],
        f"mean_of_{SEVERAL}": several,
        "solve": pairs[1],
        "parameters": int(theta.odom.size),
        "odometry_information": "the file's" if learned.exact else "mean of its diagonal, translation and rotation",
        "relative_error": errors,
    }


def with_learned_odometry(graph: PoseGraph) -> Learned:
    """The graph with learned `OdomSE3` rows in the place of its edges between consecutive poses.

    `OdomSE3` has one deviation for translation and one for rotation: where a matrix is not of that form, those of the
    mean of its diagonal.
    """
    steps = graphs.neighbours(graph)
    loops, count = ~steps, int(steps.sum())
    information = matrices(graph.information[steps])
    split = 2 if graph.planar else 3
    diagonal = np.diagonal(information, axis1=1, axis2=2)
    parts = [diagonal[:, :split].mean(axis=1), diagonal[:, split:].mean(axis=1)]
    told = np.repeat(np.stack(parts, axis=1), [split, diagonal.shape[1] - split], axis=1)
    exact = np.allclose(information, told[:, :, None] * np.eye(diagonal.shape[1]), rtol=1e-6, atol=1e-9)
    constant = np.array([1.0, 0.0, 0.0])
    world = WorldModel()
    world.add_poses(graph.poses)
    world.add_rows(
        OdomSE3,
        previous=graph.first[steps],
        current=graph.second[steps],
        learned=np.arange(count),
        sigma_translation=constant / np.sqrt(parts[0])[:, None],
        sigma_rotation=constant / np.sqrt(parts[1])[:, None],
    )
    if loops.any():
        world.add_rows(
            Registration,
            first=graph.first[loops],
            second=graph.second[loops],
            measured=graph.measured[loops],
            sqrt_info=graph.sqrt_info[loops],
        )
    theta = to_float64(Theta.neutral(odom=count).replace(odom=se3.log(graph.measured[steps])))
    problem = world.snapshot(fixed=graph.held.tolist(), axes=PLANAR_AXES if graph.planar else range(6))
    return Learned(initialise.better_start(problem, theta), theta, bool(exact))


def optimum(problem: Problem, theta: Theta, tolerance: float = TOLERANCE) -> Solution:
    """Solved, by default until nothing is left that could be seen in a difference."""
    return LevenbergMarquardt(SparseCholesky(), max_iterations=200, tolerance=tolerance).solve(problem, theta)


def newest(solution: Solution) -> int:
    """The position of the newest pose in the state, which is padded."""
    return int(np.argmax(np.asarray(solution.pose_keys)))


def newest_position(solution: Solution) -> State:
    """The gradient of the sum of the newest pose's coordinates in the state's numbers."""
    poses: Any = np.zeros(solution.state.poses.shape)
    poses[newest(solution), :3] = 1.0
    voxels: Any = np.zeros(solution.state.voxels.shape)
    return State(poses, voxels)


def relative_errors(problem: Problem, theta: Theta, solution: Solution) -> dict[str, float]:
    """How far the product is from central differences, in the norm over `ENTRIES` numbers of theta.odom, relative to
    theirs: with Gauss-Newton's Hessian, as it is timed, and with the true one.
    """
    cotangent = newest_position(solution)
    found = {
        name: np.asarray(implicit_vjp(problem, theta, solution, cotangent, exact=exact).odom)
        for name, exact in (("gauss_newton", False), ("exact", True))
    }
    # Among the numbers that matter most: of the others little but the solver's tolerance would be seen.
    largest = np.argsort(-np.abs(found["exact"]).ravel(), kind="stable")[: 20 * ENTRIES]
    chosen = np.random.default_rng(0).choice(largest, ENTRIES, replace=False)
    wanted = np.array([_difference(problem, theta, solution, int(k)) for k in chosen])
    return {
        name: float(np.linalg.norm(gradient.ravel()[chosen] - wanted) / np.linalg.norm(wanted))
        for name, gradient in found.items()
    }


def _difference(problem: Problem, theta: Theta, solution: Solution, entry: int) -> float:
    """The central difference for one number of theta.odom, solved from the optimum on either side."""
    start = dataclasses.replace(problem, state=solution.state)
    ends = []
    for step in (STEP, -STEP):
        odom: Floats = np.array(theta.odom)
        odom.ravel()[entry] += step
        moved = optimum(start, to_float64(theta.replace(odom=odom)))
        ends.append(float(np.asarray(moved.state.poses)[newest(solution), :3].sum()))
    return (ends[0] - ends[1]) / (2 * STEP)
