"""GTSAM's side: its factor graphs made from ours, and its batch solvers, each as its users call it.

Its wheel is built without TBB: it uses one thread.  Keys are indices of poses.  The first pose is held by a prior of
`HELD`, since its solvers take no fixed variable; at any optimum that prior's error is zero, so that costs agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import graphs
from benchmarks.measuring import stopwatch
from dsg_ros import poses as se3
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, PoseGraph

HELD = 1e-4
"""Standard deviation of the prior on the first pose [m, rad]."""
SAME = 1e-6
"""Costs this close, relative to the best, are one optimum."""

# GTSAM's tangent of a pose in space has the rotation first.
_ROTATION_FIRST = np.ix_([3, 4, 5, 0, 1, 2], [3, 4, 5, 0, 1, 2])


def gtsam() -> ModuleType:
    """The library; `UserError` where it is not installed."""
    try:
        import gtsam
    except ImportError as error:
        raise UserError("GTSAM is not installed: install requirements-dev.lock, as `make bench` does") from error
    return gtsam  # type: ignore[no-any-return, unused-ignore]


def to_pose(planar: bool, pose: Floats) -> Any:
    """A pose (7,) as GTSAM's Pose2 or Pose3."""
    lib = gtsam()
    if planar:
        return lib.Pose2(pose[0], pose[1], float(se3.yaw(pose)))
    return lib.Pose3(lib.Rot3.Quaternion(pose[6], pose[3], pose[4], pose[5]), pose[:3])


def from_pose(planar: bool, pose: Any) -> Floats:
    """The pose (7,) of a Pose2 or Pose3."""
    if planar:
        return se3.from_planar(pose.x(), pose.y(), pose.theta())
    q = pose.rotation().toQuaternion()
    return np.array([*pose.translation(), q.x(), q.y(), q.z(), q.w()])


def to_factors(planar: bool, edges: graphs.Edges | PoseGraph) -> list[Any]:
    """Between factors, with the noise model that GTSAM's own reader would choose."""
    lib = gtsam()
    factor = lib.BetweenFactorPose2 if planar else lib.BetweenFactorPose3
    row, column = np.triu_indices(3 if planar else 6)
    out = []
    for first, second, measured, triangle in zip(
        edges.first.tolist(), edges.second.tolist(), edges.measured, edges.information, strict=True
    ):
        information = np.empty((row[-1] + 1, row[-1] + 1))
        information[row, column] = information[column, row] = triangle
        if not planar:
            information = information[_ROTATION_FIRST]
        noise = lib.noiseModel.Gaussian.Information(information)
        out.append(factor(first, second, to_pose(planar, measured), noise))
    return out


def prior(planar: bool, pose: Floats) -> Any:
    """The prior that holds pose 0."""
    lib = gtsam()
    factor, size = (lib.PriorFactorPose2, 3) if planar else (lib.PriorFactorPose3, 6)
    return factor(0, to_pose(planar, pose), lib.noiseModel.Isotropic.Sigma(size, HELD))


def to_values(planar: bool, poses: Floats) -> Any:
    """All poses (P, 7) as Values."""
    values = gtsam().Values()
    for key, pose in enumerate(poses):
        values.insert(key, to_pose(planar, pose))
    return values


def from_values(planar: bool, values: Any) -> Floats:
    """All poses (P, 7) of Values with keys from 0 up."""
    at = values.atPose2 if planar else values.atPose3
    return np.array([from_pose(planar, at(key)) for key in range(values.size())])


@dataclass(frozen=True)
class Method:
    """One way to solve: GN or LM, from the graph's values or its chordal initialisation, and how to order variables."""

    optimiser: str
    chordal: bool
    ordering: str

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{'chordal + ' if self.chordal else ''}{self.optimiser}, {self.ordering}"


METHODS = tuple(
    Method(optimiser, chordal, ordering)
    for chordal in (False, True)
    for optimiser in ("GN", "LM")
    for ordering in ("COLAMD", "METIS")
)


@dataclass(frozen=True)
class Answer:
    """What a solve gave: GTSAM's values, its own figure for their cost, and the wall-clock seconds it took."""

    values: Any
    cost: float
    seconds: float
    iterations: int


class Batch:
    """A graph as GTSAM holds it once it is loaded."""

    def __init__(self, graph: PoseGraph) -> None:
        self._lib = gtsam()
        self._planar = graph.planar
        self.factors = self._lib.NonlinearFactorGraph()
        for factor in to_factors(graph.planar, graph):
            self.factors.add(factor)
        self.factors.add(prior(graph.planar, graph.poses[0]))
        self.values = to_values(graph.planar, graph.poses)
        self._diagonal = self._with_diagonal_noise() if graph.planar else None

    def solve(self, method: Method) -> Answer:
        """Solve with default parameters; RuntimeError where GTSAM gives up."""
        seconds, (values, iterations) = stopwatch(lambda: self._optimise(method))
        return Answer(values, self.factors.error(values), seconds, iterations)

    def poses(self, answer: Answer) -> Floats:
        """An answer's poses (P, 7)."""
        return from_values(self._planar, answer.values)

    def attempts(self, methods: Iterable[Method] = METHODS) -> dict[Method, Answer]:
        """Each method once; those that fail are left out."""
        found = {}
        for method in methods:
            try:
                found[method] = self.solve(method)
            except RuntimeError:
                continue
        return found

    def _optimise(self, method: Method) -> tuple[Any, int]:
        values = self.values
        if method.chordal:
            lib = self._lib
            values = (
                lib.lago.initialize(self._diagonal) if self._planar else lib.InitializePose3.initialize(self.factors)
            )
        if method.optimiser == "GN":
            parameters = self._lib.GaussNewtonParams()
            parameters.setOrderingType(method.ordering)
            optimiser = self._lib.GaussNewtonOptimizer(self.factors, values, parameters)
        else:
            parameters = self._lib.LevenbergMarquardtParams()
            parameters.setOrderingType(method.ordering)
            optimiser = self._lib.LevenbergMarquardtOptimizer(self.factors, values, parameters)
        return optimiser.optimize(), optimiser.iterations()

    def _with_diagonal_noise(self) -> Any:
        """The planar graph with diagonal noise: LAGO, GTSAM's chordal initialisation in the plane, takes no other."""
        lib = self._lib
        factors = lib.NonlinearFactorGraph()
        for k in range(self.factors.size()):
            factor = self.factors.at(k)
            covariance = factor.noiseModel().covariance()
            noise = lib.noiseModel.Diagonal.Variances(np.diag(covariance))
            keys = factor.keys()
            if len(keys) == 1:
                factors.add(lib.PriorFactorPose2(keys[0], factor.prior(), noise))
            else:
                factors.add(lib.BetweenFactorPose2(keys[0], keys[1], factor.measured(), noise))
        return factors


def reaching(answers: dict[Method, Answer]) -> dict[Method, Answer]:
    """Those of the answers that are at the best cost among them."""
    if not answers:
        raise UserError("GTSAM solved this graph by no method")
    best = min(answer.cost for answer in answers.values())
    return {method: answer for method, answer in answers.items() if answer.cost <= best * (1 + SAME)}
