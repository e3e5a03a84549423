"""The classical alternatives to held-out prediction, against it, against differences, and in use."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from robots import TOLD, Robot, drive, links_of, noise_of

from dsg_ros import config, poses
from dsg_ros.core.theta import Theta, flatten, mask, to_float64, unflatten
from dsg_ros.learning import losses, state_losses
from dsg_ros.learning.block import Block, Link, make_block, pairs_of
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.parameters import LEARNABLE

LENGTH = 5
ALL = mask(Theta.neutral(), *LEARNABLE)
WIDE = 1e4
"""A kernel that changes nothing."""


def links(noise: float, seed: int = 5) -> list[Link]:
    """A motion in all six directions that is predicted as badly as ``noise`` says."""
    rng = np.random.default_rng(seed)
    true = poses.exp(rng.normal(0, 0.2, (LENGTH, 6)))
    measured = poses.compose(true, poses.exp(rng.normal(0, noise, (LENGTH, 6))))
    root = rng.normal(size=(6, 6)) * 20
    return [Link(m, 0.4, t, root.T @ root) for m, t in zip(measured, true, strict=True)]


def block_of(made: list[Link]) -> Block:
    return make_block(made, pairs_of(LENGTH), config.Odometry())


held_out = jax.jit(lambda block, theta, width: losses.score(block, theta, ALL, width))
joint = jax.jit(lambda block, theta, width: state_losses.score(block, theta, ALL, width))
laplace = jax.jit(lambda logs, block, width: state_losses.negative_log_likelihood(block, noisy(logs), width))


@pytest.fixture(scope="module")
def theta() -> Theta:
    rng = np.random.default_rng(1)
    neutral = to_float64(Theta.neutral())
    return to_float64(unflatten(0.01 * rng.normal(size=len(flatten(neutral, ALL))), neutral, ALL))


def test_where_it_is_linear_it_is_the_held_out_loss(theta: Theta) -> None:
    block, neutral = block_of(links(1e-5)), to_float64(Theta.neutral())
    one, other = held_out(block, neutral, WIDE), joint(block, neutral, WIDE)
    assert float(other.cost) == pytest.approx(float(one.cost), rel=1e-4)
    np.testing.assert_allclose(other.gradient, one.gradient, atol=1e-3 * np.abs(one.gradient).max())
    np.testing.assert_allclose(other.hessian, one.hessian, atol=1e-3 * np.abs(one.hessian).max())


@pytest.mark.parametrize("width", [0.2, WIDE])
def test_its_gradient_is_that_of_the_minimum(theta: Theta, width: float) -> None:
    block, start = block_of(links(0.02)), np.asarray(flatten(theta, ALL))
    found = joint(block, theta, width)
    expected = []
    for k in range(len(start)):
        moved = []
        for step in (1e-5, -1e-5):
            vector = start.copy()
            vector[k] += step
            moved.append(float(joint(block, to_float64(unflatten(vector, theta, ALL)), width).cost))
        expected.append((moved[0] - moved[1]) / 2e-5)
    error = np.abs(found.gradient - np.array(expected)).max() / np.abs(expected).max()
    print(f"width {width}: relative error {error:.1e}")
    assert error < 1e-5
    assert np.abs(expected).max() > 0.1


def test_its_hessian_is_that_of_the_minimum_where_residuals_are_small() -> None:
    block, neutral = block_of(links(1e-4)), to_float64(Theta.neutral())
    found, columns = joint(block, neutral, WIDE), []
    for k in range(len(found.gradient)):
        ends = []
        for step in (1e-5, -1e-5):
            vector = np.zeros(len(found.gradient))
            vector[k] = step
            ends.append(np.asarray(joint(block, to_float64(unflatten(vector, neutral, ALL)), WIDE).gradient))
        columns.append((ends[0] - ends[1]) / 2e-5)
    np.testing.assert_allclose(found.hessian, np.stack(columns, axis=1), atol=1e-2 * np.abs(columns).max())


def gaussian(block: Block, theta: Theta) -> float:
    """-log N(e; 0, S) of the innovations, written with S itself, up to a constant."""
    problem = block.problem(theta)
    solution = losses.solve(problem, theta, losses.INNER)
    held = losses.predict(block, theta, solution)
    covariance = np.asarray(solution.factorisation.solve(np.eye(held.jacobian.shape[2])))
    jacobian = np.asarray(held.jacobian).reshape(-1, covariance.shape[0])
    spread = jacobian @ covariance @ jacobian.T
    for i, root in enumerate(np.asarray(held.root)):
        spread[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] += np.linalg.inv(root.T @ root)
    e = np.asarray(held.innovation).ravel()
    return float(0.5 * e @ np.linalg.solve(spread, e) + 0.5 * np.linalg.slogdet(spread)[1])


def test_laplace_is_the_likelihood_of_what_is_linear() -> None:
    block = block_of(links(2e-4))
    found, expected = [], []
    for logs in (np.zeros(6), np.linspace(-0.5, 0.5, 6), np.full(6, 0.7)):
        found.append(float(laplace(logs, block, WIDE)))
        expected.append(gaussian(block, to_float64(noisy(logs))))
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-5)
    assert np.abs(np.diff(expected)).min() > 0.5


def noisy(logs: np.ndarray) -> Theta:
    return to_float64(Theta.neutral()).replace(odometry_noise=logs)


def test_its_gradient_in_the_noise_is_that_of_differences() -> None:
    block, at = block_of(links(0.01)), np.linspace(-0.3, 0.3, 6)
    gradient = jax.jit(jax.grad(laplace))
    for width in (1.0, 3.0):
        found = np.asarray(gradient(at, block, width))
        ends = [[float(laplace(at + sign * h, block, width)) for sign in (1, -1)] for h in 1e-5 * np.eye(6)]
        expected = np.array([(more - less) / 2e-5 for more, less in ends])
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_joint_loss_finds_a_calibration_too() -> None:
    robot = Robot(scale=0.96, rotation_gain=1.03, turn_per_metre=0.05, lever=(0.09, 0.0))
    calibration = Calibration(config.replace(config.Slam(), TOLD | {"learning.loss": "joint"}))
    for key, link in enumerate(links_of(robot, drive("rooms", 300), seed=2), 1):
        calibration.add(key, link)
        if key % 10 == 0:
            calibration.step(key, 0.3 * key)
            calibration.settle()
    found = {p.name: p for p in calibration.parameters()}
    for name, value in (("odometry.scale", 0.96), ("odometry.rotation_gain", 1.03), ("odometry.lever.x", 0.09)):
        assert found[name].status == "learned"
        assert abs(found[name].value - value) < 3 * found[name].sigma


@pytest.mark.parametrize("ratio", [1 / 3, 3.0])
def test_laplace_corrects_noise_told_three_times_wrong(ratio: float) -> None:
    more = {"learning.noise_loss": "laplace", "learning.noise_of_translation": True}
    told = {name: value * 2.0 for name, value in TOLD.items()}
    settings = config.replace(config.Slam(), told | more)
    calibration = Calibration(settings)
    made = links_of(Robot(noise=ratio * 2.0), drive("rooms", 2000), seed=1)
    before = noise_of(calibration, settings, made[3])
    for key, link in enumerate(made, 1):
        calibration.add(key, link)
        if key % 10 == 0:
            calibration.step(key, 0.3 * key)
            calibration.settle()
    after = noise_of(calibration, settings, made[3])
    assert before[5] * ratio == pytest.approx(after[5], rel=0.35)
    assert before[0] * ratio == pytest.approx(after[0], rel=0.5)
