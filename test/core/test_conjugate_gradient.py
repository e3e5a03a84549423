"""Conjugate gradients against direct solvers: answers, derivatives, result codes, and memory that follows the rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factor_rows import small_world

from dsg_ros import poses
from dsg_ros.core import theta as th
from dsg_ros.core.compilation import CompileCounter, quick_compilation
from dsg_ros.core.factors import (
    FACTOR_TYPES,
    Kernel,
    Loop,
    OdomSE3,
    PosePrior,
    Registration,
    VoxelPointObs,
    VoxelPrior,
    VoxelSensorObs,
)
from dsg_ros.core.implicit import implicit_jacobian, implicit_vjp
from dsg_ros.core.solution import Result, marginal_covariance
from dsg_ros.core.solve import solve, solve_differentiable
from dsg_ros.core.solvers import ConjugateGradient, DenseCholesky, LevenbergMarquardt, SparseCholesky
from dsg_ros.core.solvers.conjugate_gradient import IterativeFactor, conjugate_gradients
from dsg_ros.core.solvers.cyclic_reduction import BlockTridiagonal
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.variables import State
from dsg_ros.core.world import Capacity, WorldModel

COUNT = 100
# One capacity for all: one program a solver.  More poses than cyclic reduction leaves to its last, dense block, and an
# odd number at its second level.
ROOM = Capacity(134, COUNT, dict.fromkeys(FACTOR_TYPES, 512))
# Less for tests that need programs of their own.
BARE_ROOM = Capacity(48, 48, {OdomSE3: 64})
THETA = to_float64(Theta.neutral())
LINEAR = ConjugateGradient(segments=8)
ITERATIVE = LevenbergMarquardt(LINEAR, tolerance=1e-15)
DENSE = LevenbergMarquardt(DenseCholesky(), tolerance=1e-13)


def chain(types=(OdomSE3, Loop), count=COUNT, noise=0.02, priors=False):
    """A chain of poses that goes round in circles and is closed once a round; nothing but held poses fixes its gauge,
    unless ``priors`` stay."""
    world = small_world(types, count=count, noise=noise)
    if not priors:
        for cls in (PosePrior, VoxelPrior):
            world.remove(world.rows(cls)[0])
    if Loop in types:
        rng = np.random.default_rng(1)
        first = np.arange(0, count - 32, 5)
        measured = poses.between(world.poses[first], world.poses[first + 32])
        measured = poses.compose(measured, poses.exp(noise * rng.normal(size=(len(first), 6))))
        world.add_rows(Loop, first=first, second=first + 32, measured=measured, sqrt_info=4 * np.eye(6))
    return world


def with_voxels():
    """The chain with 60 voxels, each seen from six poses one after the other."""
    world, rng = chain(), np.random.default_rng(2)
    near, keys = rng.integers(0, COUNT - 6, 60), np.arange(60)
    true = world.poses[near, :3] + rng.normal(size=(60, 3))
    world.set_voxels(keys, true + 0.05 * rng.normal(size=true.shape))
    pose, voxel = (near[:, None] + np.arange(6)).ravel(), np.repeat(keys, 6)
    seen = poses.transform(poses.inverse(world.poses[pose]), true[voxel])
    point = seen + 0.02 * rng.normal(size=seen.shape)
    world.add_rows(VoxelSensorObs, pose=pose, voxel=voxel, point=point, sqrt_info=20 * np.eye(3))
    world.add_rows(VoxelPointObs, voxel=keys[:5], point=true[:5], sigma=0.1)
    return world


def with_false_loops():
    world, rng = chain(), np.random.default_rng(3)
    first, second = rng.integers(0, COUNT, (2, 12))
    measured = poses.exp(rng.normal(size=(12, 6)))
    for kernel in (Kernel.CAUCHY, Kernel.HUBER, Kernel.GEMAN_MCCLURE):
        world.add_rows(Loop, first=first, second=second, measured=measured, sqrt_info=np.eye(6), kernel=int(kernel))
    return world


CASES = {
    "loops": lambda: chain().snapshot(fixed=[0], capacity=ROOM),
    "registrations": lambda: chain((Registration, Loop)).snapshot(fixed=[0], capacity=ROOM),
    "priors": lambda: chain((OdomSE3,), priors=True).snapshot(capacity=ROOM),
    "voxels": lambda: with_voxels().snapshot(fixed=[0], capacity=ROOM),
    "held": lambda: with_voxels().snapshot(fixed=[3, 90, 91], fixed_voxels=[5, 6], capacity=ROOM),
    "planar": lambda: chain().snapshot(fixed=[0], axes=(0, 1, 5), capacity=ROOM),
    "robust": lambda: with_false_loops().snapshot(fixed=[0], capacity=ROOM),
}


@pytest.fixture(scope="module")
def solutions():
    """Problem, iterative and dense solution of a case, each solved once."""
    known = {}

    def of(name):
        if name not in known:
            problem = CASES[name]()
            known[name] = problem, solve(problem, THETA, ITERATIVE), solve(problem, THETA, DENSE)
        return known[name]

    return of


def hessian(problem, state):
    """The Gauss-Newton matrix (D, D), dense, and which of its numbers are free."""
    _, normal = jax.jit(type(problem).linearise)(problem, THETA, state)
    p, v = normal.cross.shape[:2]
    matrix = np.zeros((6 * p + 3 * v, 6 * p + 3 * v))
    matrix[: 6 * p, : 6 * p] = np.asarray(normal.poses).transpose(0, 2, 1, 3).reshape(6 * p, 6 * p)
    cross = np.asarray(normal.cross).transpose(0, 2, 1, 3).reshape(6 * p, 3 * v)
    matrix[: 6 * p, 6 * p :], matrix[6 * p :, : 6 * p] = cross, cross.T
    for i, block in enumerate(np.asarray(normal.voxels)):
        matrix[6 * p + 3 * i :][:3, 6 * p + 3 * i :][:, :3] = block
    return matrix, np.asarray(problem.free)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_dense_cholesky(name, solutions):
    problem, ours, dense = solutions(name)
    assert ours.code is Result.CONVERGED
    assert dense.code is Result.CONVERGED
    assert ours.state.poses.dtype == np.float64
    np.testing.assert_allclose(ours.cost, dense.cost, rtol=1e-10)
    np.testing.assert_allclose(ours.state.poses, dense.state.poses, atol=1e-5)
    np.testing.assert_allclose(ours.state.voxels, dense.state.voxels, atol=1e-5)
    held = ~np.asarray(problem.free_poses).any(axis=1)
    assert held.any()
    np.testing.assert_array_equal(np.asarray(ours.state.poses)[held], np.asarray(problem.state.poses)[held])
    for key in (60, 99):
        covariance = marginal_covariance(ours, key)
        np.testing.assert_allclose(covariance, marginal_covariance(dense, key), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["loops", "held", "planar"])
def test_the_residual_of_what_the_factorisation_solves(name, solutions):
    problem, ours, _ = solutions(name)
    matrix, free = hessian(problem, ours.state)
    right = np.random.default_rng(0).normal(size=(len(free), 11)) * free[:, None]
    answer = np.asarray(ours.factorisation.solve(right))
    assert not answer[~free].any()
    scale = 1 / np.sqrt(np.diag(matrix)[free])
    residual = scale[:, None] * (right - matrix @ answer)[free]
    assert np.abs(residual).max() < 1e-9 * np.abs(scale[:, None] * right[free]).max()
    for column in (0, 8, 10):
        alone = np.asarray(ours.factorisation.solve(right[:, column]))
        np.testing.assert_allclose(alone, answer[:, column], atol=1e-8 * np.abs(alone).max())


def test_the_product_and_the_preconditioner_are_what_they_say(solutions):
    problem, ours, _ = solutions("held")
    factor = ours.factorisation
    matrix, free = hessian(problem, ours.state)
    scale = np.where(free, 1 / np.sqrt(np.where(free, np.diag(matrix), 1.0)), 0.0)
    np.testing.assert_allclose(factor.scale, scale, rtol=1e-12)
    vectors = np.random.default_rng(4).normal(size=(3, len(free)))
    product, precondition = jax.jit(IterativeFactor.product), jax.jit(IterativeFactor.precondition)
    for vector in vectors:
        expected = scale * (matrix @ (scale * vector)) + np.where(free, 0.0, vector)
        np.testing.assert_allclose(product(factor, vector), expected, atol=1e-10)
    images = np.array([precondition(factor, vector) for vector in vectors])
    inner = images @ vectors.T
    np.testing.assert_allclose(inner, inner.T, rtol=1e-7)
    assert np.linalg.eigvalsh(inner).min() > 0
    # A chain without loops is the block-tridiagonal matrix itself.
    world = WorldModel()
    for k in range(COUNT):
        world.add_pose(poses.from_planar(float(k), 0.0, 0.0))
    step = poses.from_planar(1.0, 0.0, 0.1)
    world.add_rows(Registration, first=np.arange(COUNT - 1), second=np.arange(1, COUNT), measured=step)
    bare = world.snapshot(fixed=[0], capacity=ROOM)
    linear = ConjugateGradient(segments=0)
    _, rows = jax.jit(linear.linearise)(bare, THETA, bare.state)
    alone = jax.jit(linear.factorise)(bare, rows, jnp.zeros(()))
    found = jax.jit(lambda f, b: f.iterate(b, 1e-6, 0.0))(alone, vectors[0] * np.asarray(bare.free))
    assert found.met
    assert int(found.iterations) <= 2


def test_segments_carry_long_waves(solutions):
    problem, ours, _ = solutions("loops")
    right = np.random.default_rng(0).normal(size=ours.state.dof) * np.asarray(problem.free)

    def iterations(factor):
        return int(jax.jit(lambda f, b: f.iterate(b, 1e-8, 0.0))(factor, right).iterations)

    linear = ConjugateGradient(segments=0)
    _, rows = jax.jit(linear.linearise)(problem, THETA, ours.state)
    without = jax.jit(linear.factorise)(problem, rows, jnp.zeros(()))
    counts = iterations(ours.factorisation), iterations(without)
    print("iterations with and without segments:", *counts)
    assert counts[0] < 0.85 * counts[1]


def test_derivatives_agree_with_direct_solvers(solutions):
    problem, ours, _ = solutions("loops")
    reference = solve(problem, THETA, LevenbergMarquardt(SparseCholesky(), tolerance=1e-13))
    chosen = th.mask(THETA, "odometry.scale", "odometry.lever.y", "extrinsic.x", "loop_noise")
    rng = np.random.default_rng(0)
    cotangent = State(rng.normal(size=ours.state.poses.shape), rng.normal(size=ours.state.voxels.shape))
    jacobians, gradients = [], []
    for solution in (ours, reference):
        jacobians.append(np.asarray(implicit_jacobian(problem, THETA, solution, chosen)))
        gradient = implicit_vjp(problem, THETA, solution, cotangent)
        gradients.append(np.asarray(th.flatten(gradient, chosen)))
    tangent = np.asarray(ours.state.pull_back(cotangent)) * np.asarray(problem.free)
    for mine, other in (jacobians, gradients, (gradients[0], tangent @ jacobians[0])):
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(mine, other, atol=1e-6 * np.abs(other).max())


def test_derivatives_against_central_differences(solutions):
    problem, ours, _ = solutions("held")
    chosen = th.mask(THETA, "odometry.scale", "extrinsic.x")
    jacobian = np.asarray(implicit_jacobian(problem, THETA, ours, chosen, exact=True))
    origin = jax.tree.map(np.asarray, ours.state)

    def moved(index, step):
        vector = np.asarray(th.flatten(THETA, chosen)).copy()
        vector[index] += step
        state = jax.tree.map(
            np.asarray, solve(problem, to_float64(th.unflatten(vector, THETA, chosen)), ITERATIVE).state
        )
        turned = poses.log(poses.between(origin.poses, state.poses))
        return np.concatenate([turned.ravel(), (state.voxels - origin.voxels).ravel()])

    def central(index, h):
        return (moved(index, h) - moved(index, -h)) / (2 * h)

    for index in range(jacobian.shape[1]):
        expected = (4 * central(index, 1e-3) - central(index, 2e-3)) / 3
        error = np.abs(jacobian[:, index] - expected).max() / np.abs(expected).max()
        print(f"{th.names(chosen)[index]}: relative error {error:.1e}")
        assert np.abs(expected).max() > 1e-3
        assert error < 1e-5


def test_the_solved_state_is_differentiable_inside_jit():
    count = 48
    problem = chain((OdomSE3,), count=count).snapshot(fixed=[0], capacity=BARE_ROOM)
    ours = solve(problem, THETA, ITERATIVE)

    def loss(theta):
        return jnp.sum(solve_differentiable(problem, theta, ITERATIVE).poses[:count, :3] ** 2)

    gradient = jax.jit(jax.grad(loss), compiler_options=quick_compilation())(THETA)
    cotangent = State(np.zeros(ours.state.poses.shape), np.zeros(ours.state.voxels.shape))
    cotangent.poses[:count, :3] = 2 * np.asarray(ours.state.poses)[:count, :3]
    expected = implicit_vjp(problem, THETA, ours, cotangent, exact=True)
    for leaf in ("scale", "lever", "bias"):
        theirs = np.asarray(getattr(expected, leaf))
        np.testing.assert_allclose(getattr(gradient, leaf), theirs, rtol=1e-5, atol=1e-7 * np.abs(theirs).max())
    assert abs(float(gradient.scale)) > 1


def unpinned():
    """The chain with nothing held."""
    return chain().snapshot(capacity=ROOM)


def without_height():
    """A chain whose rows say nothing about the direction that is upwards for its first pose."""
    world = WorldModel()
    for k in range(80):
        world.add_pose(poses.from_planar(float(k), 0.1 * k, 0.02 * k))
    measured = poses.from_planar(1.0, 0.0, 0.01)
    blind = np.diag([9.0, 9.0, 0.0, 9.0, 9.0, 9.0])
    world.add_rows(Registration, first=np.arange(79), second=np.arange(1, 80), measured=measured, sqrt_info=blind)
    return world.snapshot(fixed=[0], capacity=ROOM)


def hinged():
    """Two rigid chains with nothing in common but two voxels: each may turn about the line through them.

    Rows hold every variable and every pair of neighbours, and the graph is connected to a held pose; only the whole
    system is singular.
    """
    world, rng = WorldModel(), np.random.default_rng(5)
    for part in range(2):
        for k in range(20):
            world.add_pose(poses.from_planar(1.0 * k, 10.0 * part, 0.1 * k))
    keys = world.add_voxels(np.array([[5.0, 5.0, 1.0], [9.0, 6.0, 2.0], [2.0, 14.0, 3.0], [3.0, 16.0, -1.0]]))

    def link(cls, first, second, **more):
        measured = poses.compose(poses.between(world.poses[first], world.poses[second]), poses.exp(noise(len(first))))
        world.add_rows(cls, first=first, second=second, measured=measured, **more)

    def noise(count):
        return 0.01 * rng.normal(size=(count, 6))

    for start in (0, 20):
        link(Registration, start + np.arange(19), start + np.arange(1, 20), sqrt_info=5 * np.eye(6))
        link(Loop, start + np.arange(0, 15, 5), start + np.arange(4, 19, 5), sqrt_info=5 * np.eye(6))
    # The second chain sees two voxels of its own besides the two that the first one sees as well.
    pose = np.array([2, 7, 2, 7, 22, 27, 22, 27, 22, 27, 22, 27])
    voxel = keys[[0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3]]
    point = poses.transform(poses.inverse(world.poses[pose]), world.voxels[voxel])
    point += 0.01 * rng.normal(size=point.shape)
    world.add_rows(VoxelSensorObs, pose=pose, voxel=voxel, point=point, sqrt_info=5 * np.eye(3))
    return world.snapshot(fixed=[0], capacity=ROOM)


@pytest.mark.parametrize("case", [unpinned, without_height, hinged])
def test_an_underconstrained_problem_is_reported_and_solved_all_the_same(case):
    problem = case()
    solution, dense = solve(problem, THETA, ITERATIVE), solve(problem, THETA, DENSE)
    assert dense.code is Result.SINGULAR
    assert solution.code is Result.SINGULAR
    np.testing.assert_allclose(solution.cost, dense.cost, rtol=1e-7, atol=1e-9)
    assert np.isfinite(solution.state.poses).all()
    assert solution.underconstrained == dense.underconstrained
    right = np.random.default_rng(0).normal(size=solution.state.dof)
    assert np.isfinite(np.asarray(solution.factorisation.solve(right))).all()


def test_result_codes():
    snapshot = chain(noise=0.2).snapshot(fixed=[0], capacity=ROOM)
    poisoned = to_float64(THETA.replace(scale=np.asarray(np.nan)))
    solution = solve(snapshot, poisoned, ITERATIVE)
    assert solution.code is Result.DIVERGED
    np.testing.assert_array_equal(solution.state.poses, snapshot.state.poses)
    assert solve(WorldModel().snapshot(capacity=ROOM), THETA, ITERATIVE).code is Result.CONVERGED
    assert solve(chain().snapshot(fixed=range(COUNT), capacity=ROOM), THETA, ITERATIVE).code is Result.CONVERGED


def test_a_solve_cut_off_lowers_the_cost_and_is_not_called_converged():
    snapshot = chain((OdomSE3,), noise=0.1, count=48).snapshot(fixed=[0], capacity=BARE_ROOM)
    cut = LevenbergMarquardt(ConjugateGradient(segments=8, max_iterations=1), max_iterations=4, tolerance=1e-2)
    solution, best = solve(snapshot, THETA, cut), solve(snapshot, THETA, ITERATIVE)
    # The promise of a step from one iteration is small enough to be taken for convergence, were it a whole one's.
    assert solution.code is Result.MAX_ITERATIONS
    assert best.code is Result.CONVERGED
    assert float(best.cost) < float(solution.cost) < float(snapshot.cost(THETA, snapshot.state))


def test_one_program_a_capacity(solutions):
    solutions("loops")
    with CompileCounter() as counter:
        for world in (chain(noise=0.01, count=90), with_false_loops()):
            solution = solve(world.snapshot(fixed=[0], capacity=ROOM), THETA, ITERATIVE)
            marginal_covariance(solution, 50)
    assert counter.count == 0


def sizes(jaxpr):
    """Numbers in each array that a traced program computes, those inside its loops and calls included."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for parameter in jax.tree.leaves(equation.params):
            if hasattr(parameter, "eqns"):
                yield from sizes(parameter)


def test_memory_follows_the_rows():
    count = 3000
    world = WorldModel()
    for k in range(count):
        world.add_pose(poses.from_planar(float(k), 0.0, 0.0))
    world.add_rows(Registration, first=np.arange(count - 1), second=np.arange(1, count))
    problem = world.snapshot(fixed=[0], capacity=Capacity(count, 1, {Registration: count}))

    def largest(linear, limit):
        solver = LevenbergMarquardt(linear, max_iterations=limit)
        return max(sizes(jax.make_jaxpr(lambda p, t: solver.solve(p, t))(problem, THETA).jaxpr))

    coarse = (6 * 32) ** 2
    assert largest(ConjugateGradient(segments=32), 50) <= max(count * 6 * 18, coarse)
    # What this looks for is there to be found.
    assert largest(DenseCholesky(), 50) >= (6 * count) ** 2


@pytest.mark.parametrize("count", [1, 2, 64, 67, 133])
def test_cyclic_reduction_solves(count):
    rng = np.random.default_rng(count)
    rows = rng.normal(size=(count, 5, 2, 3))
    dense, upper = np.zeros((count + 1, 3, count + 1, 3)), np.zeros((count, 3, 3))
    for k, (own, following) in enumerate(rows.transpose(0, 2, 1, 3)):
        dense[k, :, k] += own.T @ own + 0.01 * np.eye(3)
        dense[k + 1, :, k + 1] += following.T @ following
        upper[k] = dense[k, :, k + 1] = own.T @ following
        dense[k + 1, :, k] = upper[k].T
    dense = dense[:-1, :, :-1]
    diagonal = np.einsum("kikj->kij", dense)
    matrix = dense.reshape(3 * count, 3 * count)
    factor = jax.jit(BlockTridiagonal.factorise)(diagonal, upper)
    right = rng.normal(size=(count, 3))
    found = jax.jit(BlockTridiagonal.solve)(factor, right)
    np.testing.assert_allclose(found.ravel(), np.linalg.solve(matrix, right.ravel()), atol=1e-9)
    least = np.linalg.eigvalsh(matrix)[0]
    assert least <= float(factor.pivot) <= np.diag(matrix).min() * (1 + 1e-12)
    indefinite = jax.jit(BlockTridiagonal.factorise)(diagonal - 2 * least * np.eye(3), upper)
    assert not float(indefinite.pivot) > 0


def test_conjugate_gradients_stop_where_they_should():
    matrix = np.diag([1.0, 2.0, 4.0, 8.0])
    right = np.ones(4)

    def run(matrix, right, tolerance=1e-12, lacking=0.0, limit=20):
        return conjugate_gradients(lambda v: jnp.asarray(matrix) @ v, lambda r: r, right, tolerance, lacking, limit)

    full = run(matrix, right)
    assert full.met
    assert int(full.iterations) == 4
    np.testing.assert_allclose(full.answer, 1 / np.diag(matrix), atol=1e-12)
    assert 1.0 <= float(full.softest) < 8.0
    assert not run(matrix, right, limit=2).met
    loose = run(matrix, right, lacking=0.5)
    assert loose.met
    assert int(loose.iterations) < 4
    assert int(run(matrix, np.zeros(4)).iterations) == 0
    # No curvature along the only direction: the answer stays what it was.
    flat = run(np.zeros((4, 4)), right)
    assert not flat.met
    assert not np.asarray(flat.answer).any()
    poisoned = run(np.full((4, 4), np.nan), right)
    assert not poisoned.met
    assert np.isfinite(poisoned.answer).all()
