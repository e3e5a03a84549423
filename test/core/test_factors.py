"""Every registered factor type: Jacobians, padding, kernels, and derivatives that solvers and learning rely on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factor_rows import random_row, random_theta

from dsg_ros import poses
from dsg_ros.core import geometry
from dsg_ros.core.factors import FACTOR_TYPES, OdomSE3, VoxelPointObs, base
from dsg_ros.core.factors.odometry import calibrated
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.variables import Kind

every_type = pytest.mark.parametrize("cls", FACTOR_TYPES, ids=lambda cls: cls.__name__)


@every_type
def test_closed_form_jacobians(cls):
    rng = np.random.default_rng(1)
    theta = random_theta(rng)
    row, values = random_row(cls, rng)
    error, blocks = row.jacobians(theta, *values)
    expected_error, expected = base.Factor.jacobians(row, theta, *values)
    np.testing.assert_allclose(error, expected_error, atol=1e-13)
    for block, wanted in zip(blocks, expected, strict=True):
        np.testing.assert_allclose(block, wanted, atol=1e-11)


@every_type
@pytest.mark.parametrize("kernel", list(base.Kernel))
def test_gradient_is_that_of_the_robust_cost(cls, kernel):
    rng = np.random.default_rng(2)
    theta = random_theta(rng)
    row, values = random_row(cls, rng)
    row = cls(**{**{n: getattr(row, n) for n in row.__dataclass_fields__}, "kernel": np.int32(kernel)})

    def cost(tangents):
        return base.row_cost(row, theta, base.retract(row, values, tangents))

    expected = np.concatenate(jax.grad(cost)(base.zero_tangents(cls)))
    np.testing.assert_allclose(base.row_gradient(row, theta, values), expected, atol=1e-11)
    linearised = base.row_linearise(row, theta, values)
    np.testing.assert_allclose(linearised.jacobian.T @ linearised.residual, expected, atol=1e-11)
    np.testing.assert_allclose(linearised.cost, base.row_cost(row, theta, values), rtol=1e-14)


@every_type
def test_the_product_with_a_vector_is_the_gradients(cls):
    rng = np.random.default_rng(5)
    theta = random_theta(rng)
    row, values = random_row(cls, rng)
    vector = jnp.asarray(rng.normal(size=sum(kind.dof for kind in base.kinds(cls))))
    expected = vector @ base.row_gradient(row, theta, values)
    np.testing.assert_allclose(base.row_theta_product(row, theta, values, vector), expected, rtol=1e-11)


@every_type
def test_padding_adds_nothing_and_is_never_nan(cls):
    theta = to_float64(Theta.neutral(1, 1))
    origin = {Kind.POSE: poses.IDENTITY, Kind.VOXEL: np.zeros(3)}
    values = tuple(jnp.asarray(origin[kind]) for kind in base.kinds(cls))
    row = cls()
    assert float(base.row_cost(row, theta, values)) == 0.0
    assert not np.any(base.row_residual(row, theta, values))
    vector = jnp.ones(sum(kind.dof for kind in base.kinds(cls)))
    assert not np.any(base.row_gradient(row, theta, values))
    assert not np.any(base.row_hessian_product(row, theta, values, vector))
    by_theta = jax.grad(lambda t: base.row_theta_product(row, t, values, vector))(theta)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_theta))


@pytest.mark.parametrize("kernel", list(base.Kernel))
def test_kernels_start_like_squares_and_weights_are_their_slopes(kernel):
    s = jnp.array([0.0, 1e-9, 0.5, 2.0, 50.0])
    kernels, widths = jnp.full(5, int(kernel)), jnp.full(5, 1.2)
    value = jax.vmap(base.robust)(kernels, widths, s)
    slope = jax.vmap(jax.grad(base.robust, argnums=2))(kernels, widths, s)
    np.testing.assert_allclose(slope, jax.vmap(base.robust_weight)(kernels, widths, s), rtol=1e-12)
    assert value[0] == 0
    assert float(slope[0]) == pytest.approx(1, rel=1e-14)
    assert np.all(np.diff(value) > 0)


def test_calibration_in_words():
    theta = to_float64(Theta.neutral()).replace(
        scale=jnp.asarray(0.1), rotation_gain=jnp.asarray(-0.2), turn_per_metre=jnp.asarray(0.3)
    )
    increment = calibrated(theta, jnp.array([2.0, 0.0, 0.0, 0.0, 0.0, 1.0]), jnp.asarray(0.0))
    np.testing.assert_allclose(increment, [2.2, 0, 0, 0, 0, 0.8 + 0.6], atol=1e-15)


def test_lever_conjugates_the_increment():
    lever = np.array([0.3, -0.1, 0.2])
    measured = np.array([1.0, 0.2, -0.1, 0.1, -0.2, 0.7])
    theta = to_float64(Theta.neutral()).replace(lever=jnp.asarray(lever))
    base_from_centre = np.r_[lever, 0, 0, 0, 1.0]
    expected = poses.compose(poses.inverse(base_from_centre), poses.compose(poses.exp(measured), base_from_centre))
    np.testing.assert_allclose(
        geometry.exp(calibrated(theta, jnp.asarray(measured), jnp.zeros(()))), expected, atol=1e-14
    )


def test_learned_rows_take_their_measurement_from_theta():
    theta = random_theta(np.random.default_rng(3))
    np.testing.assert_allclose(OdomSE3(learned=np.int32(1)).increment(theta), geometry.exp(theta.odom[1]), atol=1e-15)
    np.testing.assert_allclose(VoxelPointObs(learned=np.int32(1)).error(theta, jnp.zeros(3)), -theta.obs[1])
