"""A pose graph to its optimum by preconditioned conjugate gradients, on a GPU where JAX finds one."""

from __future__ import annotations

import time

import jax

from dsg_ros.commands._solve_graph import MAX_ITERATIONS, Optimised, outcome, snapshot_of, world_of
from dsg_ros.commands._spanning_tree import with_all_values
from dsg_ros.core import initialise
from dsg_ros.core.compilation import enable_cache
from dsg_ros.core.solvers import ConjugateGradient, LevenbergMarquardt
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.io.posegraph import PoseGraph


def solve_by_conjugate_gradients(
    graph: PoseGraph, max_iterations: int = MAX_ITERATIONS, tolerance: float = 1e-7
) -> Optimised:
    """What `solve_graph` finds, from the same initial values, by `ConjugateGradient` on JAX's default device.

    Its one program is compiled for the size of the graph, and kept on disk; ``seconds`` are without that.
    `UserError` where initial values are missing and cannot be made.
    """
    enable_cache()
    began = time.perf_counter()
    graph = with_all_values(graph)
    problem = initialise.better_start(snapshot_of(world_of(graph), graph), Theta.neutral())
    problem, theta = jax.device_put((problem, to_float64(Theta.neutral())))
    prepared = time.perf_counter() - began
    solver = LevenbergMarquardt(ConjugateGradient(), max_iterations=max_iterations, tolerance=tolerance)
    program = jax.jit(solver.solve).lower(problem, theta).compile()
    began = time.perf_counter()
    solution = jax.block_until_ready(program(problem, theta))
    return outcome(graph, solution, prepared + time.perf_counter() - began)
