"""Every solver on every problem, result codes, covariances, and a growing graph that compiles nothing."""

import gc
import weakref

import jax
import numpy as np
import pytest
from factor_rows import small_world

from dsg_ros import poses
from dsg_ros.core.chunks import Chunks
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.core.factors import FACTOR_TYPES, Loop, OdomSE3, PosePrior, Registration, VoxelPointObs, VoxelSensorObs
from dsg_ros.core.factors.odometry import noise
from dsg_ros.core.solution import Result, marginal_covariance
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import DenseCholesky, GradientDescent, LevenbergMarquardt, SchurVoxels, SparseCholesky
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.variables import Kind
from dsg_ros.core.world import Capacity, WorldModel

# One capacity for all: one program a solver.
ROOM = Capacity(8, 8, dict.fromkeys(FACTOR_TYPES, 16))
THETA = to_float64(Theta.neutral())
PROBLEMS = {
    "chain": (OdomSE3, Registration),
    "loop": (OdomSE3, Loop),
    "voxels": (Registration, VoxelPointObs, VoxelSensorObs),
}
SOLVERS = {
    "dense": LevenbergMarquardt(DenseCholesky(), tolerance=1e-13),
    "schur": LevenbergMarquardt(SchurVoxels(), tolerance=1e-13),
    "sparse": LevenbergMarquardt(SparseCholesky(), tolerance=1e-13),
    "gradient descent": GradientDescent(steps=15_000, rate=0.003, tolerance=1e-5),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_solvers_agree(problem):
    snapshot = small_world(PROBLEMS[problem]).snapshot(fixed=[2], capacity=ROOM)
    solutions = {name: solve(snapshot, THETA, solver) for name, solver in SOLVERS.items()}
    best = solutions["dense"]
    gradient = Chunks(snapshot).linearise(THETA, best.state)[2]
    assert np.abs(gradient).max() < 1e-6
    assert np.array_equal(best.state.poses[2], snapshot.state.poses[2])
    for name, solution in solutions.items():
        assert solution.code is Result.CONVERGED, name
        assert solution.state.poses.dtype == np.float64
        np.testing.assert_allclose(solution.cost, best.cost, rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(solution.state.poses, best.state.poses, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(solution.state.voxels, best.state.voxels, atol=1e-5, err_msg=name)
        covariance = marginal_covariance(solution, 3)
        np.testing.assert_allclose(covariance, marginal_covariance(best, 3), rtol=1e-3, atol=1e-6, err_msg=name)
        assert np.linalg.eigvalsh(covariance).min() > 0
        assert not marginal_covariance(solution, 2).any()
    with pytest.raises(KeyError, match="pose 77"):
        marginal_covariance(best, 77)


def test_covariance_is_the_inverse_of_the_information():
    world = WorldModel()
    world.add_pose(poses.IDENTITY)
    world.add(PosePrior, pose=0, sqrt_info=np.diag([1.0, 2, 4, 5, 8, 10]))
    for name, solver in SOLVERS.items():
        covariance = marginal_covariance(solve(world.snapshot(capacity=ROOM), THETA, solver), 0)
        np.testing.assert_allclose(np.diag(covariance), 1 / np.array([1, 4, 16, 25, 64, 100]), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("solver", ["dense", "schur", "sparse"])
def test_covariances_are_blocks_of_the_dense_inverse(solver):
    world = small_world(PROBLEMS["voxels"])
    snapshot = world.snapshot(fixed=[2], fixed_voxels=[1], capacity=ROOM)
    solution = solve(snapshot, THETA, SOLVERS[solver])
    chunks = Chunks(snapshot)
    _, hessians, _ = chunks.linearise(THETA, solution.state)
    full = np.zeros((chunks.dof, chunks.dof))
    for rows, hessian in zip(chunks.rows, hessians, strict=True):
        np.add.at(full, (rows.local[:, :, None], rows.local[:, None, :]), hessian)
    free = np.flatnonzero(chunks.free)
    inverse = np.zeros_like(full)
    inverse[np.ix_(free, free)] = np.linalg.inv(full[np.ix_(free, free)])
    border = 6 * len(snapshot.pose_keys)
    for kind, size, start in ((Kind.POSE, 6, 0), (Kind.VOXEL, 3, border)):
        for key in range(5):
            found, block = marginal_covariance(solution, key, kind), slice(start + size * key, start + size * (key + 1))
            np.testing.assert_allclose(found, inverse[block, block], rtol=1e-6, atol=1e-12, err_msg=f"{kind} {key}")
    assert not marginal_covariance(solution, 1, Kind.VOXEL).any()
    with pytest.raises(KeyError, match="voxel 77"):
        marginal_covariance(solution, 77, Kind.VOXEL)


@pytest.mark.parametrize("solver", ["dense", "schur", "sparse"])
def test_free_gauge_is_reported_and_solved_all_the_same(solver):
    world = WorldModel()
    for x in (0.0, 0.7):
        world.add_pose(poses.from_planar(x, 0.0, 0.0))
    world.add(Registration, first=0, second=1, measured=poses.from_planar(1.0, 0.0, 0.1))
    solution = solve(world.snapshot(capacity=ROOM), THETA, SOLVERS[solver])
    assert solution.code is Result.SINGULAR
    relative = poses.between(*np.asarray(solution.state.poses)[:2])
    np.testing.assert_allclose(relative, poses.from_planar(1.0, 0.0, 0.1), atol=1e-6)


@pytest.mark.parametrize("solver", ["dense", "schur", "sparse"])
def test_result_codes(solver):
    world = small_world(PROBLEMS["chain"], noise=0.3)
    options = SOLVERS[solver]
    short = LevenbergMarquardt(options.linear, max_iterations=1, tolerance=1e-15)
    assert solve(world.snapshot(capacity=ROOM), THETA, short).code is Result.MAX_ITERATIONS
    poisoned = THETA.replace(scale=np.asarray(np.nan))
    solution = solve(world.snapshot(capacity=ROOM), to_float64(poisoned), options)
    assert solution.code is Result.DIVERGED
    assert np.isfinite(solution.state.poses).all()
    assert solve(WorldModel().snapshot(capacity=ROOM), THETA, options).code is Result.CONVERGED


def test_padding_changes_nothing():
    world, solver = small_world(PROBLEMS["voxels"]), SOLVERS["schur"]
    tight = world.snapshot(capacity=Capacity(5, 5, {cls: world.count(cls) for cls in FACTOR_TYPES}))
    a, b = (solve(p, THETA, solver) for p in (tight, world.snapshot(capacity=ROOM)))
    np.testing.assert_allclose(a.cost, b.cost, rtol=1e-12)
    np.testing.assert_allclose(a.state.poses[:5], b.state.poses[:5], atol=1e-9)


def test_two_solutions_of_one_sparse_solver_keep_their_own_factors():
    solver = LevenbergMarquardt(SparseCholesky(), tolerance=1e-13)
    world = small_world(PROBLEMS["chain"])
    first = solve(world.snapshot(), THETA, solver)
    before = marginal_covariance(first, 4)
    ids, _ = world.rows(Registration)
    world.set_rows(ids, sqrt_info=30 * np.eye(6))
    second = solve(world.snapshot(), THETA, solver)
    assert solver.linear.analyses == 1
    assert np.trace(marginal_covariance(second, 4)) < 0.9 * np.trace(before)
    np.testing.assert_allclose(marginal_covariance(first, 4), before, rtol=1e-10)


def test_a_solver_that_forgets_frees_its_factor_and_others_work_on():
    solver = LevenbergMarquardt(SparseCholesky(), tolerance=1e-13)
    world = small_world(PROBLEMS["chain"])
    kept, solution = (solve(world.snapshot(), THETA, solver) for _ in range(2))
    before = marginal_covariance(kept, 4)
    gone = weakref.ref(solution.factorisation)
    gc.disable()  # which would find it sooner or later
    try:
        marginal_covariance(solution, 4)
        solver.linear.forget()
        del solution
        assert gone() is None
    finally:
        gc.enable()
    np.testing.assert_array_equal(marginal_covariance(kept, 4), before)


def test_a_growing_graph_compiles_nothing():
    solver = LevenbergMarquardt(SparseCholesky())
    marginal_covariance(solve(small_world((OdomSE3, Registration, Loop)).snapshot(), THETA, solver), 4)
    world = WorldModel()
    increment = poses.from_planar(0.5, 0.0, 0.02)
    world.add(PosePrior, pose=world.add_pose(poses.IDENTITY), sqrt_info=10 * np.eye(6))
    with CompileCounter() as counter:
        solve(world.snapshot(), THETA, solver)
        for target in (2, 40, 300, 1100, 3000):
            while (last := len(world.poses) - 1) < target - 1:
                world.add_pose(poses.compose(world.poses[last], increment))
                world.add(OdomSE3, previous=last, current=last + 1, duration=0.1, **_single(increment))
                world.add(Registration, first=last, second=last + 1, measured=increment, sqrt_info=5 * np.eye(6))
            if target > 100:
                measured = poses.between(world.poses[target - 90], world.poses[target - 1])
                world.add(Loop, first=target - 90, second=target - 1, measured=measured)
            solution = solve(world.snapshot(), THETA, solver)
            assert solution.code is Result.CONVERGED
            assert marginal_covariance(solution, target - 1).trace() > 0
    assert counter.count == 0


def _single(increment):
    return {name: value[0] for name, value in noise(increment[None]).items()}


def test_counter_counts():
    with CompileCounter() as counter:
        jax.jit(lambda x: x * 3.25 + 1)(np.float64(2.0))
    assert counter.count >= 1
