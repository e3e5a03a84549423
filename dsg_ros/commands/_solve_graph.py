"""A pose graph file's content to its optimum: into a world model, solved, and back."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np

from dsg_ros import poses
from dsg_ros.commands._spanning_tree import with_all_values
from dsg_ros.core.compilation import enable_cache
from dsg_ros.core.factors import Registration, VoxelSensorObs
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Free, Result, Solution, free_variables
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import Kind
from dsg_ros.core.world import WorldModel
from dsg_ros.io.posegraph import PLANAR_AXES, Floats, Landmarks, PoseGraph, cost

MAX_ITERATIONS = 200


@dataclass(frozen=True)
class Optimised:
    """What `solve_graph` returns.

    poses, landmarks: (P, 7) and (L, 3), in the order of the graph's
    cost: half the sum of the squared whitened errors at them
    converged: whether they are a minimum, and the only one near by
    seconds: from the graph to the optimum, initial values and symbolic analysis included
    result: how the solve ended, in words
    underconstrained: the variables that could move without changing the cost; empty where none can
    """

    poses: Floats
    landmarks: Floats
    cost: float
    iterations: int
    converged: bool
    seconds: float
    result: str
    underconstrained: tuple[str, ...] = ()

    def followed_by(self, last: Optimised) -> Optimised:
        """What ``last`` found, converged only where both did; with the time and the iterations of both."""
        return dataclasses.replace(
            last,
            iterations=self.iterations + last.iterations,
            seconds=self.seconds + last.seconds,
            converged=self.converged and last.converged,
        )


def solve_graph(graph: PoseGraph, max_iterations: int = MAX_ITERATIONS, tolerance: float = 1e-7) -> Optimised:
    """The minimum of the graph's cost that its values lead to, or, where it has none, those along a spanning tree; or
    the chordal relaxation, where that costs less.

    Compiles nothing after `warm_up`.  `UserError` where initial values are missing and cannot be made; a solve that
    ends badly raises nothing.
    """
    began = time.perf_counter()
    graph = with_all_values(graph)
    solution = optimum(graph, max_iterations, tolerance)
    return outcome(graph, solution, time.perf_counter() - began)


def optimum(
    graph: PoseGraph, max_iterations: int = MAX_ITERATIONS, tolerance: float = 1e-7, *, relaxed: bool = True
) -> Solution:
    """The minimum that a descent with step control leads to from the graph's values, all of them known, or, if
    ``relaxed``, from its chordal relaxation where that costs less.
    """
    solver = LevenbergMarquardt(SparseCholesky(), max_iterations=max_iterations, tolerance=tolerance, relaxed=relaxed)
    # Numbers beyond all bounds are told by the result, and need no warning of NumPy's beside it.
    with np.errstate(over="ignore", invalid="ignore"):
        return solve(snapshot_of(world_of(graph), graph), Theta.neutral(), solver)


def outcome(graph: PoseGraph, solution: Solution, seconds: float) -> Optimised:
    """What a solution is to the graph that was solved."""
    found = graph.with_values(
        np.array(solution.state.poses)[: len(graph.keys)],
        np.array(solution.state.voxels)[: len(graph.landmarks.keys)],
    )
    code = solution.code
    return Optimised(
        poses=found.poses,
        landmarks=found.landmarks.positions,
        # The solver leaves out edges between held poses; the cost of a graph has them.
        cost=cost(found),
        iterations=int(solution.iterations),
        converged=code is Result.CONVERGED,
        seconds=seconds,
        result=in_words(code),
        underconstrained=tuple(_named(graph, f) for f in free_variables(solution)) if code is Result.SINGULAR else (),
    )


def in_words(result: Result) -> str:
    """How a solve ended."""
    return {
        Result.CONVERGED: "converged",
        Result.MAX_ITERATIONS: "not converged: the limit of iterations is reached",
        Result.SINGULAR: "the edges do not determine every variable",
        Result.DIVERGED: "diverged: no step lowers the cost, or it is not finite",
    }[result]


def warm_up(landmarks: bool) -> None:
    """Compile what `solve_graph` needs, for graphs with landmarks too if so wanted."""
    enable_cache()
    solve_graph(tiny(landmarks), max_iterations=2)


def snapshot_of(world: WorldModel, graph: PoseGraph) -> Problem:
    """The whole `world_of` a graph as a problem; edges between held poses are left out."""
    axes = PLANAR_AXES if graph.planar else range(6)
    return world.snapshot(fixed=graph.held, fixed_voxels=graph.landmarks.fixed, axes=axes)


def world_of(graph: PoseGraph) -> WorldModel:
    """Keys of the world's poses and voxels are the graph's indices; `Registration` rows are its edges, in order."""
    world, marks = WorldModel(), graph.landmarks
    world.add_poses(graph.poses)
    world.add_voxels(marks.positions)
    if len(graph.first):
        world.add_rows(
            Registration, first=graph.first, second=graph.second, measured=graph.measured, sqrt_info=graph.sqrt_info
        )
    if len(marks.pose):
        sqrt_info = marks.sqrt_info.copy()
        if graph.planar:
            # Height is no unknown of a planar graph, but a voxel has one: held at zero, where it adds no cost.
            sqrt_info[:, 2, 2] = 1.0
        world.add_rows(
            VoxelSensorObs,
            pose=marks.pose,
            voxel=marks.landmark,
            point=marks.points,
            sqrt_info=sqrt_info,
            base_from_sensor=marks.base_from_sensor,
        )
    return world


def _named(graph: PoseGraph, free: Free) -> str:
    """A variable under its key in the file, with what of it can move."""
    if free.kind is Kind.VOXEL:
        return f"landmark {graph.landmarks.keys[free.key]}"
    parts = ["position"] * free.position + ["rotation"] * free.rotation
    return f"pose {graph.keys[free.key]} ({' and '.join(parts)})"


def tiny(landmarks: bool) -> PoseGraph:
    """Two poses with two equal edges between them, and one landmark seen twice: compiled loops take any number."""
    rows = 2
    marks = Landmarks.none(planar=False)
    if landmarks:
        marks = Landmarks(
            keys=np.zeros(1, np.int64),
            positions=np.ones((1, 3)),
            known=np.ones(1, bool),
            fixed=np.zeros(0, np.int64),
            pose=np.zeros(rows, np.int64),
            landmark=np.zeros(rows, np.int64),
            points=np.ones((rows, 3)),
            information=np.zeros((rows, 6)),
            sqrt_info=np.tile(np.eye(3), (rows, 1, 1)),
            offset_keys=np.zeros(0, np.int64),
            offsets=np.zeros((0, 7)),
            offset=np.full(rows, -1),
        )
    return PoseGraph(
        planar=False,
        keys=np.arange(2),
        poses=np.tile(poses.IDENTITY, (2, 1)),
        known=np.ones(2, bool),
        fixed=np.zeros(0, np.int64),
        first=np.zeros(rows, np.int64),
        second=np.ones(rows, np.int64),
        measured=np.tile(poses.IDENTITY, (rows, 1)),
        information=np.zeros((rows, 21)),
        sqrt_info=np.tile(np.eye(6), (rows, 1, 1)),
        landmarks=marks,
    )
