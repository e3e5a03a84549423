"""Graduated non-convexity: false loops are rejected, true ones are not, and what tells them apart is right."""

from __future__ import annotations

import numpy as np
import pytest
from false_loops import Drive, drive
from numpy.testing import assert_allclose

from dsg_ros import poses
from dsg_ros.core.factors import Kernel, Registration, VoxelSensorObs
from dsg_ros.core.linearisation import HostRows
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Result, marginal_covariance
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.solvers.graduated import Consensus, solve_graduated, width
from dsg_ros.core.solvers.host import descend, on_host
from dsg_ros.core.solvers.plausibility import Plausibility, mahalanobis
from dsg_ros.core.solvers.sparse import SparseFactor
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.world import WorldModel

THETA = to_float64(Theta.neutral())
PLANAR = pytest.mark.parametrize("planar", [True, False])


def world_of(graph: Drive, edges: np.ndarray, doubtful: np.ndarray, noise: float = 0.5) -> WorldModel:
    """The chosen ``edges`` from values far from the truth; rows are in their order."""
    random, world = np.random.default_rng(1), WorldModel()
    axes = np.diag(graph.sqrt_info) > 0
    start = poses.compose(graph.truth, poses.exp(noise * random.normal(size=(len(graph.truth), 6)) * axes))
    world.add_poses(np.concatenate([graph.truth[:1], start[1:]]))
    first, second = graph.pairs[edges].T
    rows = world.add_rows(
        Registration, first=first, second=second, measured=graph.measured[edges], sqrt_info=graph.sqrt_info
    )
    chosen = rows[doubtful[edges]]
    widest = width(np.broadcast_to(graph.sqrt_info, (len(chosen), 6, 6)))
    world.set_rows(chosen, kernel=np.int32(Kernel.GEMAN_MCCLURE), kernel_width=widest)
    return world


def problem_of(graph: Drive, edges: np.ndarray, doubtful: np.ndarray, noise: float = 0.5) -> Problem:
    axes = np.flatnonzero(np.diag(graph.sqrt_info))
    return world_of(graph, edges, doubtful, noise).snapshot(fixed=[0], axes=axes)


def consensus(graph: Drive) -> Consensus:
    every = np.ones(len(graph.pairs), bool)
    return solve_graduated(problem_of(graph, every, ~graph.odometry), THETA)


def optimum(graph: Drive, edges: np.ndarray) -> float:
    """The cost of the chosen edges at the minimum beside the truth."""
    problem = problem_of(graph, edges, np.zeros(len(edges), bool), noise=0.0)
    return float(solve(problem, THETA, LevenbergMarquardt(SparseCholesky())).cost)


@PLANAR
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("claimed", [1.0, 5.0])
def test_false_loops_are_rejected_and_the_others_optimum_is_found(planar: bool, seed: int, claimed: float) -> None:
    graph = drive(planar, seed, claimed=claimed)
    assert graph.false.sum() > 10
    found = consensus(graph)
    assert found.rejected[Registration].tolist() == np.flatnonzero(graph.false).tolist()
    assert found.solution.code is Result.CONVERGED
    assert_allclose(found.solution.cost, optimum(graph, ~graph.false), rtol=1e-6)
    assert np.linalg.eigvalsh(marginal_covariance(found.solution, 40)).max() > 0


@PLANAR
def test_as_many_false_loops_as_true_ones(planar: bool) -> None:
    graph = drive(planar, 5, false=1.0)
    assert consensus(graph).rejected[Registration].tolist() == np.flatnonzero(graph.false).tolist()


@PLANAR
def test_nothing_is_rejected_where_nothing_is_false(planar: bool) -> None:
    graph = drive(planar, false=0.0)
    found = consensus(graph)
    assert not found.rejected
    assert_allclose(found.solution.cost, optimum(graph, ~graph.false), rtol=1e-6)


@PLANAR
def test_measurements_without_any_error(planar: bool) -> None:
    graph = drive(planar, noise=0.0)
    found = consensus(graph)
    assert found.rejected[Registration].tolist() == np.flatnonzero(graph.false).tolist()
    assert found.solution.cost < 1e-12


def test_trusted_rows_are_kept_whatever_they_cost() -> None:
    graph = drive(True)
    every = np.ones(len(graph.pairs), bool)
    found = solve_graduated(problem_of(graph, every, ~graph.odometry & ~graph.false), THETA)
    assert not np.isin(np.flatnonzero(graph.false), found.rejected[Registration]).any()
    plain = solve_graduated(problem_of(graph, every, ~every), THETA)
    assert not plain.rejected
    assert plain.solution.code is Result.CONVERGED


def test_trusted_rows_that_leave_poses_free_are_told() -> None:
    graph = drive(True)
    edges = np.ones(len(graph.pairs), bool)
    edges[40] = False
    found = solve_graduated(problem_of(graph, edges, ~graph.odometry), THETA)
    assert found.solution.code is Result.SINGULAR
    assert len(found.rejected[Registration]) == (~graph.odometry).sum()


def test_only_relative_poses_are_doubtful() -> None:
    world = WorldModel()
    world.add_poses(np.tile(poses.IDENTITY, (2, 1)))
    world.add_voxel([1.0, 0.0, 0.0])
    world.add(Registration, first=0, second=1)
    world.add(VoxelSensorObs, pose=1, voxel=0, point=[1.0, 0.0, 0.0], kernel=np.int32(Kernel.GEMAN_MCCLURE))
    with pytest.raises(ValueError, match="only relative poses"):
        solve_graduated(world.snapshot(fixed=[0]), THETA)


def optimal(rows: HostRows, problem: Problem) -> tuple[SparseFactor, np.ndarray, float]:
    linear = SparseCholesky()
    found = descend(rows, on_host(problem.state), linear, 50, 1e-14, 0.0)
    factor = linear.factorise(rows, found.linearised, np.zeros(len(rows.free)))
    return factor, np.asarray(found.state.poses), found.cost


@PLANAR
def test_covariances_of_rows_and_samples_are_those_of_the_inverse(planar: bool) -> None:
    graph = drive(planar, false=0.1)
    every = np.ones(len(graph.pairs), bool)
    problem = problem_of(graph, every, ~every, noise=0.0)
    rows = HostRows(problem, THETA)
    factor, _, _ = optimal(rows, problem)
    count, width_ = len(rows.free), len(rows.axes)
    inverse = factor.solve(np.eye(problem.state.dof)[:, rows.free])[rows.free]
    samples = factor.sampled(np.eye(count))
    assert_allclose(samples @ samples.T, inverse, atol=1e-12)
    assert_allclose(factor.sampled(np.eye(count)[:, 7:8].copy()), samples[:, 7:8], atol=1e-14)
    found = factor.row_covariances()
    numbers = np.repeat(rows.keys * width_, width_, axis=1) + np.tile(np.arange(width_), 2)
    held = np.repeat(rows.keys < 0, width_, axis=1)
    for covariance, at, zero in zip(found, numbers, held, strict=True):
        expected = np.where(zero[:, None] | zero, 0.0, inverse[np.ix_(at, at)])
        assert_allclose(covariance, expected, atol=1e-12)


@PLANAR
def test_a_row_raises_the_others_cost_by_half_of_its_squared_innovation(planar: bool) -> None:
    """With small noise, where all is linear: whether it is judged by the rows it is not in, or among them."""
    graph = drive(planar, noise=1e-4, false=0.0)
    every = np.ones(len(graph.pairs), bool)
    problem = problem_of(graph, every, ~graph.odometry, noise=0.0)
    rows = HostRows(problem, THETA)
    doubtful = rows.doubtful
    judge = Plausibility(rows, doubtful)
    within = rows.weighted(every.astype(float))
    factor, at, cost = optimal(within, problem)
    judge.look(at, factor)
    judge.leave_one_out(factor, np.ones(len(judge.rows), bool))
    among = judge.squared.copy()
    for k in (0, 20, 50):
        without, there, less = optimal(rows.weighted((np.arange(len(every)) != judge.rows[k]).astype(float)), problem)
        assert_allclose(among[k], 2 * (cost - less), rtol=1e-3)
        # Covariances of what no row joins are sampled: alike, not the same.
        judge.look(there, without)
        assert_allclose(judge.squared[k], among[k], rtol=1.0)


def test_mahalanobis_needs_no_inverse_of_the_information() -> None:
    random = np.random.default_rng(0)
    error, root, other = random.normal(size=(5, 3)), random.normal(size=(5, 3, 3)), random.normal(size=(5, 3, 3))
    information, covariance = root @ root.swapaxes(1, 2), other @ other.swapaxes(1, 2)
    total = np.linalg.inv(information) + covariance
    squared, log_det = mahalanobis(error, information, covariance)
    assert_allclose(squared, np.einsum("ni,nij,nj->n", error, np.linalg.inv(total), error), rtol=1e-9)
    assert_allclose(log_det, np.linalg.slogdet(total @ information)[1], rtol=1e-9)
    planar = np.zeros((1, 6, 6))
    planar[:, 0, 0] = 4.0
    squared, log_det = mahalanobis(np.full((1, 6), 3.0), planar, np.eye(6))
    assert_allclose([squared[0], log_det[0]], [9 / 1.25, np.log(5.0)])


def test_rows_with_other_weights_are_those_of_a_problem_with_these() -> None:
    graph = drive(False, false=0.1)
    every = np.ones(len(graph.pairs), bool)
    problem = problem_of(graph, every, ~graph.odometry)
    rows = HostRows(problem, THETA)
    weights = np.random.default_rng(0).uniform(size=len(every))
    weights[::3] = 0.0
    weighted = rows.weighted(weights)
    cost, linearised = weighted.linearise(problem.state)
    assert (linearised.keys[::3] == -1).all()
    used = weights > 0
    world = world_of(graph, used, ~every)
    ids, _ = world.rows(Registration)
    world.set_rows(ids, weight=weights[used])
    plain = HostRows(world.snapshot(fixed=[0]), THETA)
    expected, other = plain.linearise(problem.state)
    assert_allclose(cost, expected, rtol=1e-12)
    assert_allclose(linearised.hessian[used], other.hessian, rtol=1e-12)
    assert_allclose(weighted.squared[used], plain.squared, rtol=1e-12)
    assert rows.by_stack(used) == {Registration: pytest.approx(np.flatnonzero(used))}
