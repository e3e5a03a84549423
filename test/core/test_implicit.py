"""d solution / d theta: implicit against central differences and against the unrolled solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factor_rows import small_world

from dsg_ros import poses
from dsg_ros.core import implicit
from dsg_ros.core import theta as th
from dsg_ros.core.factors import FACTOR_TYPES, Loop, OdomSE3, PosePrior, VoxelPointObs, VoxelPrior
from dsg_ros.core.implicit import implicit_jacobian, implicit_vjp
from dsg_ros.core.native import manifold
from dsg_ros.core.solution import Result
from dsg_ros.core.solve import solve, solve_differentiable
from dsg_ros.core.solvers import DenseCholesky, GradientDescent, LevenbergMarquardt, SchurVoxels, SparseCholesky
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.variables import State
from dsg_ros.core.world import Capacity
from dsg_ros.experiments import hero

COUNT = 4
TIGHT = LevenbergMarquardt(DenseCholesky(), tolerance=1e-20)
SOLVERS = {
    "dense": TIGHT,
    "schur": LevenbergMarquardt(SchurVoxels(), tolerance=1e-20),
    "sparse": LevenbergMarquardt(SparseCholesky(), tolerance=1e-20),
}
USES = {
    "PosePrior": set(),
    "VoxelPrior": set(),
    "OdomSE3": {
        "scale",
        "rotation_gain",
        "turn_per_metre",
        "lateral_slip",
        "lever",
        "lever_rotation",
        "time_offset",
        "bias",
        "odometry_noise",
    },
    "Registration": {"registration_noise"},
    "Loop": {"loop_noise"},
    "VoxelPointObs": {"voxel_noise"},
    "VoxelSensorObs": {"extrinsic", "voxel_noise"},
    "learned OdomSE3": {"odom", "odometry_noise"},
    "learned VoxelPointObs": {"obs", "voxel_noise"},
}


def case(name, types=FACTOR_TYPES):
    learned, wanted = name.startswith("learned"), name.split()[-1]
    world = small_world([cls for cls in FACTOR_TYPES if cls.__name__ == wanted], COUNT, learned=learned)
    theta = Theta.neutral(COUNT - 1, COUNT)
    if learned:
        odom, obs = world.rows(OdomSE3)[1]["measured"], world.rows(VoxelPointObs)[1]["point"]
        theta = theta.replace(odom=odom if len(odom) else theta.odom, obs=obs if len(obs) else theta.obs)
    rng = np.random.default_rng(5)
    theta = jax.tree.map(lambda leaf: leaf + 0.02 * rng.normal(size=np.shape(leaf)), theta)
    return world.snapshot(capacity=Capacity(COUNT, COUNT, dict.fromkeys(types, 2 * COUNT))), to_float64(theta)


def moved(problem, theta, chosen, index, step, origin):
    """The solution's tangent at ``origin`` when one number of theta moves by ``step``."""
    vector = np.asarray(th.flatten(theta, chosen)).copy()
    vector[index] += step
    state = solve(problem, to_float64(th.unflatten(vector, theta, chosen)), TIGHT).state
    turned = poses.log(poses.between(np.asarray(origin.poses), np.asarray(state.poses)))
    return np.concatenate([turned.ravel(), np.ravel(np.asarray(state.voxels) - origin.voxels)])


def difference(problem, theta, chosen, index, origin, step=2e-3):
    """Central difference with Richardson's extrapolation: the error is of fourth order in the step."""

    def central(h):
        plus, minus = (moved(problem, theta, chosen, index, s, origin) for s in (h, -h))
        return (plus - minus) / (2 * h)

    return (4 * central(step / 2) - central(step)) / 3


@pytest.mark.parametrize("name", USES)
def test_against_central_differences(name):
    problem, theta = case(name)
    solution = solve(problem, theta, TIGHT)
    assert solution.code is Result.CONVERGED
    everything = th.mask(theta, *th.SPECS)
    jacobian = np.asarray(implicit_jacobian(problem, theta, solution, everything, exact=True))
    owners = [leaf for leaf in th.SPECS for _ in range(np.size(getattr(theta, leaf)))]
    for leaf in th.SPECS:
        columns = [i for i, owner in enumerate(owners) if owner == leaf]
        if leaf not in USES[name]:
            assert not jacobian[:, columns].any(), leaf
            continue
        expected = [difference(problem, theta, everything, i, solution.state) for i in columns]
        error = np.abs(jacobian[:, columns] - np.transpose(expected)).max() / np.abs(expected).max()
        print(f"{name}.{leaf}: relative error {error:.1e}")
        assert error < 1e-6, leaf


# Exact ones differ in nothing but what preconditions them, and take longest of all to compile.
@pytest.mark.parametrize(
    ("name", "exact"), [("OdomSE3", False), ("VoxelSensorObs", False), ("Loop", False), ("Loop", True)]
)
def test_solvers_and_both_modes_agree(name, exact):
    problem, theta = case(name)
    everything = th.mask(theta, *th.SPECS)
    rng = np.random.default_rng(0)
    cotangent = State(rng.normal(size=(COUNT, 7)), rng.normal(size=(COUNT, 3)))
    results = {}
    for label in ("dense", "sparse") if exact else SOLVERS:
        solution = solve(problem, theta, SOLVERS[label])
        jacobian = np.asarray(implicit_jacobian(problem, theta, solution, everything, exact=exact))
        gradient = th.flatten(implicit_vjp(problem, theta, solution, cotangent, exact=exact), everything)
        tangent = np.asarray(solution.state.pull_back(cotangent))
        np.testing.assert_allclose(gradient, tangent @ jacobian, atol=1e-9, err_msg=label)
        results[label] = jacobian
    for label, jacobian in results.items():
        np.testing.assert_allclose(jacobian, results["dense"], atol=1e-8, err_msg=label)


def test_pull_back_is_the_gradient_in_the_tangent():
    rng = np.random.default_rng(1)
    state = State(poses.exp(rng.normal(size=(3, 6))), rng.normal(size=(2, 3)))
    cotangent = State(rng.normal(size=(3, 7)), rng.normal(size=(2, 3)))

    def inner(tangent):
        new = state.retract(tangent)
        return jnp.sum(new.poses * cotangent.poses) + jnp.sum(new.voxels * cotangent.voxels)

    np.testing.assert_allclose(state.pull_back(cotangent), jax.grad(inner)(jnp.zeros(state.dof)), atol=1e-12)
    on_host = np.empty((len(state.poses), 6))
    manifold.pull_back(np.array(state.poses), np.array(cotangent.poses), on_host)
    np.testing.assert_allclose(on_host.ravel(), state.pull_back(cotangent)[: on_host.size], atol=1e-14)


def test_against_unrolled_gradient_descent_at_convergence():
    graph = hero.build_hybrid_graph()
    problem = hero.snapshot(graph)
    # The tutorial's increments sum to 5, where the loss has no gradient in them: turn and stretch them a little.
    rng = np.random.default_rng(2)
    odom = np.asarray(graph.theta.odom) + 0.05 * rng.normal(size=(5, 6))
    theta = graph.theta.replace(odom=jnp.asarray(odom))
    gradient = jax.jit(jax.grad(hero.supervised_loss), static_argnums=2)
    unrolled = gradient(theta, problem, GradientDescent(steps=20_000, rate=0.08))
    implicit = gradient(theta, problem, LevenbergMarquardt(DenseCholesky(), tolerance=1e-20))
    for leaf in ("odom", "obs"):
        x, y = np.asarray(getattr(unrolled, leaf)), np.asarray(getattr(implicit, leaf))
        print(f"{leaf}: relative difference {np.abs(x - y).max() / np.abs(x).max():.1e}")
        assert np.abs(x).max() > 1e-3
        assert np.abs(x - y).max() < 1e-6 * np.abs(x).max()


def test_a_host_solver_is_not_differentiated_silently():
    problem, theta = case("Loop")
    with pytest.raises(ValueError, match="implicit_vjp"):
        solve_differentiable(problem, theta, SOLVERS["sparse"])


@pytest.mark.parametrize("label", ["dense", "sparse"])
def test_conjugate_gradients_that_end_early_say_so_once_a_call(label, monkeypatch, caplog):
    problem, theta = case("Loop", (PosePrior, VoxelPrior, Loop))
    solution = solve(problem, theta, SOLVERS[label])
    rng = np.random.default_rng(0)
    cotangent = State(rng.normal(size=(COUNT, 7)), rng.normal(size=(COUNT, 3)))
    implicit_vjp(problem, theta, solution, cotangent)
    assert not caplog.records
    monkeypatch.setattr(implicit, "_ITERATIONS", 1)
    implicit._vjp.clear_cache()  # programs have the number in them
    try:
        implicit_vjp(problem, theta, solution, cotangent, exact=True)
        assert len(caplog.records) == 1
        if label == "sparse":  # as many right-hand sides as numbers of theta
            implicit_jacobian(problem, theta, solution, th.mask(theta, "scale", "loop_noise"), exact=True)
            assert len(caplog.records) == 2
    finally:
        implicit._vjp.clear_cache()
    for record in caplog.records:
        assert record.levelname == "WARNING"
        assert "conjugate gradients ended at a residual of " in record.getMessage()


def test_a_solution_that_is_no_minimum_says_so(caplog):
    matrix, right = np.diag([1.0, -1.0, 2.0]), np.array([1.0, 3.0, 1.0])
    answer, left = implicit.conjugate_gradients(lambda v: matrix @ v, lambda r: r, right)
    assert left == pytest.approx(np.linalg.norm(right - matrix @ answer) / np.linalg.norm(right))
    inside, other = implicit._conjugate_gradients(lambda v: matrix @ v, lambda r: r, jnp.asarray(right))
    np.testing.assert_allclose(inside, answer)
    assert float(other) == pytest.approx(left)
    assert left > 0.1
    implicit.warn_of_rest(other)
    assert f"residual of {left:.1e}" in caplog.text
