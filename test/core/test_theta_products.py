"""Compiled products ``vector^T d gradient / d theta`` against JAX's."""

from __future__ import annotations

import numpy as np
import pytest
from factor_rows import ANY_THETA, small_world
from numpy.testing import assert_allclose

from dsg_ros import poses
from dsg_ros.core import theta as th
from dsg_ros.core.chunks import Chunks
from dsg_ros.core.factors import FACTOR_TYPES, Kernel, Loop, OdomSE3, Registration
from dsg_ros.core.factors.base import Factor
from dsg_ros.core.linearisation import groups_of
from dsg_ros.core.native.relative_products import exp_pull_back, robust_bend
from dsg_ros.core.native.robust import robust
from dsg_ros.core.theta_products import theta_vjp

RELATIVE = (OdomSE3, Registration, Loop)


def numbers(theta: th.Theta) -> np.ndarray:
    return np.asarray(th.flatten(theta, th.mask(theta, *th.SPECS)))


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.4, 1.5])
@pytest.mark.parametrize("kernel", list(Kernel))
@pytest.mark.parametrize("cls", RELATIVE)
def test_compiled_products_are_those_of_jax(cls: type[Factor], kernel: Kernel, noise: float) -> None:
    world = small_world((cls,), noise=noise)
    ids, _ = world.rows(cls)
    world.set_rows(ids, kernel=int(kernel), kernel_width=np.asarray(0.7))
    problem = world.snapshot(fixed=[1])
    vector = np.random.default_rng(3).normal(size=problem.state.dof)
    found = numbers(theta_vjp(problem, ANY_THETA, problem.state, vector, groups_of(problem, ANY_THETA)))
    expected = numbers(Chunks(problem).theta_vjp(ANY_THETA, problem.state, vector))
    assert np.abs(expected).max() > (1e-6 if noise else 0)
    assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max() + 1e-13)


@pytest.mark.parametrize("learned", [False, True])
def test_a_graph_of_all_types(learned: bool) -> None:
    world = small_world(FACTOR_TYPES, noise=0.3, learned=learned)
    problem = world.snapshot(fixed=[0], axes=(0, 1, 5))
    theta = ANY_THETA
    if learned:
        theta = th.to_float64(theta.replace(odom=np.full((20, 6), 0.1), obs=np.full((20, 3), 0.2)))
    vector = np.random.default_rng(4).normal(size=problem.state.dof)
    found = numbers(theta_vjp(problem, theta, problem.state, vector, groups_of(problem, theta)))
    expected = numbers(problem.theta_vjp(theta, problem.state, vector))
    assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    assert np.count_nonzero(expected) > 20


def test_gradients_in_tangents_at_any_angle() -> None:
    rng = np.random.default_rng(5)
    directions = rng.normal(size=(9, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    angles = np.array([0.0, 1e-9, 1e-3, 0.0099, 0.0101, 0.5, 2.0, 3.1, 4.0])
    tangents = np.concatenate([rng.normal(size=(9, 3)), directions * angles[:, None]], axis=1)
    by_pose, found, step = rng.normal(size=(9, 6)), np.empty((9, 6)), 1e-5
    exp_pull_back(tangents, by_pose, found)
    for k in range(6):
        way = step * np.eye(6)[k]
        moved = poses.log(poses.between(poses.exp(tangents - way), poses.exp(tangents + way))) / (2 * step)
        assert_allclose(found[:, k], np.sum(moved * by_pose, axis=1), atol=1e-8)


@pytest.mark.parametrize("kernel", list(Kernel))
def test_a_kernels_bend_is_the_slope_of_its_weight(kernel: Kernel) -> None:
    for s in (0.1, 0.9, 1.1, 5.0, 100.0):
        slope = (robust(int(kernel), 1.0, s + 1e-6)[1] - robust(int(kernel), 1.0, s - 1e-6)[1]) / 2e-6
        assert_allclose(robust_bend(int(kernel), 1.0, s), slope, rtol=1e-5, atol=1e-9)
