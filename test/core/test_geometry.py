"""SE(3) in JAX against the NumPy module, against jaxlie, and against automatic differentiation."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsg_ros import poses
from dsg_ros.core import geometry

ANGLES = [0.0, 1e-12, 1e-8, 1e-5, 1e-3, 0.1, 0.1499, 0.1501, 1.0, 2.5, 3.1, np.pi - 1e-6]
FUNCTIONS = {name: jax.jit(getattr(geometry, name)) for name in ("exp", "log", "compose", "between", "inverse", "act")}
tangents = hnp.arrays(float, 6, elements=st.floats(-1.7, 1.7, allow_subnormal=False))


def tangent_of(angle, seed=0):
    value = np.random.default_rng(seed).normal(size=6)
    value[3:] *= angle / np.linalg.norm(value[3:])
    return value


@given(tangents, tangents)
@settings(max_examples=60, deadline=None)
def test_agrees_with_numpy(a, b):
    f = FUNCTIONS
    x, y = poses.exp(a), poses.exp(b)
    np.testing.assert_allclose(f["exp"](a), x, atol=1e-11)
    np.testing.assert_allclose(f["log"](x), poses.log(x), atol=1e-11)
    np.testing.assert_allclose(f["compose"](x, y), poses.compose(x, y), atol=1e-12)
    np.testing.assert_allclose(f["between"](x, y), poses.between(x, y), atol=1e-12)
    np.testing.assert_allclose(f["inverse"](x), poses.inverse(x), atol=1e-12)
    np.testing.assert_allclose(f["act"](x, b[:3]), poses.transform(x, b[None, :3])[0], atol=1e-12)


@pytest.mark.parametrize("angle", ANGLES)
def test_agrees_with_jaxlie(angle):
    tangent = tangent_of(angle)
    theirs = jaxlie.SE3.exp(jnp.asarray(tangent))
    ours = geometry.exp(tangent)
    np.testing.assert_allclose(ours, np.r_[theirs.translation(), np.roll(theirs.wxyz_xyz[:4], -1)], atol=1e-11)
    np.testing.assert_allclose(geometry.log(ours), theirs.log(), atol=1e-9)
    np.testing.assert_allclose(geometry.adjoint(ours), theirs.adjoint(), atol=1e-11)


@pytest.mark.parametrize("angle", ANGLES)
def test_logarithm_and_its_jacobian(angle):
    tangent = tangent_of(angle)
    pose = geometry.exp(tangent)
    value, jacobian = geometry.log_jlog(pose)
    np.testing.assert_allclose(value, tangent, atol=1e-9 if angle > 3 else 1e-14)
    expected = jax.jacfwd(lambda d: geometry.log(geometry.retract(pose, d)))(jnp.zeros(6))
    np.testing.assert_allclose(jacobian, expected, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, np.pi - 1e-9, np.pi])
def test_derivatives_are_finite_where_formulas_divide_by_zero(angle):
    tangent = jnp.asarray(tangent_of(angle) if angle else np.array([1.0, -2.0, 0.5, 0.0, 0.0, 0.0]))

    def through(t):
        return jnp.sum(geometry.log_jlog(geometry.retract(geometry.exp(t), 0.1 * t))[1] ** 2) + geometry.log(
            geometry.exp(t)
        ) @ jnp.arange(6.0)

    assert np.isfinite(jax.grad(through)(tangent)).all()
    assert np.isfinite(jax.hessian(through)(tangent)).all()


def test_adjoint_moves_a_perturbation_to_the_other_side():
    pose, xi = geometry.exp(tangent_of(1.0)), 0.3 * tangent_of(0.5, seed=3)
    left = geometry.compose(geometry.exp(geometry.adjoint(pose) @ xi), pose)
    np.testing.assert_allclose(left, geometry.compose(pose, geometry.exp(xi)), atol=1e-14)
