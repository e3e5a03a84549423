"""The held-out loss and its derivatives."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from robots import Robot, drive, links_of

from dsg_ros import config, poses
from dsg_ros.core.solve import solve
from dsg_ros.core.theta import Theta, flatten, mask, to_float64, unflatten
from dsg_ros.learning import losses
from dsg_ros.learning.block import Block, Link, make_block, pairs_of
from dsg_ros.learning.parameters import LEARNABLE

LENGTH = 5
ALL = mask(Theta.neutral(), *LEARNABLE)
ROBOT = Robot(0.97, 1.02, 0.03, (0.08, 0.01))


def block_of(links: list[Link]) -> Block:
    return make_block(links, pairs_of(LENGTH), config.Odometry())


@jax.jit
def whitened(block: Block, vector: np.ndarray, reference: Theta) -> tuple[jax.Array, jax.Array]:
    """Innovations at ``vector``, whitened by S at ``reference``: the residuals whose squares the cost sums."""
    problem = block.problem(reference)
    held = losses.predict(block, reference, solve(problem, reference, losses.INNER))
    covariance = solve(problem, reference, losses.INNER).factorisation.solve(np.eye(held.jacobian.shape[2]))
    theta = unflatten(vector, reference, ALL)
    now = losses.predict(block, theta, solve(problem, theta, losses.INNER)).innovation
    return now, held.jacobian @ covariance @ held.jacobian.transpose(0, 2, 1)


score = jax.jit(lambda block, theta: losses.score(block, theta, ALL, 3.0))


@pytest.fixture(scope="module")
def spatial_links() -> list[Link]:
    """A motion in all six directions, predicted badly, so that every parameter matters."""
    rng = np.random.default_rng(5)
    true = poses.exp(rng.normal(0, 0.2, (LENGTH, 6)))
    measured = poses.compose(true, poses.exp(rng.normal(0, 0.02, (LENGTH, 6))))
    root = rng.normal(size=(6, 6)) * 20
    return [Link(m, 0.4, t, root.T @ root) for m, t in zip(measured, true, strict=True)]


def cost_at_fixed_covariance(innovation: np.ndarray, covariance: np.ndarray, links: list[Link]) -> float:
    """The robust cost, written with S itself, for registrations of full rank."""
    total = 0.0
    for e, p, link in zip(innovation, covariance, links, strict=True):
        s = e @ np.linalg.solve(np.linalg.inv(link.information) + p, e)
        total += 0.5 * 54 * np.log1p(s / 54)  # a width of 3 in each of six directions
    return total


def test_normalised_innovation_is_the_loss_without_the_kernel(spatial_links: list[Link]) -> None:
    block, theta = block_of(spatial_links), to_float64(Theta.neutral())
    innovation, covariance = whitened(block, np.asarray(flatten(theta, ALL)), theta)
    squares = [
        e @ np.linalg.solve(np.linalg.inv(link.information) + p, e)
        for e, p, link in zip(np.asarray(innovation), np.asarray(covariance), spatial_links, strict=True)
    ]
    got = score(block, theta)
    assert float(got.nis) == pytest.approx(np.sum(squares) / (6 * LENGTH), rel=1e-9)
    assert float(got.loss) < float(got.nis), "the kernel takes something off"


def test_normalised_innovation_is_one_where_the_told_deviations_are_right() -> None:
    """Over blocks of a robot whose odometry scatters as told and whose scans are exact."""
    rng, told = np.random.default_rng(0), config.Odometry()
    found = []
    for _ in range(60):
        true = poses.exp(np.tile([0.25, 0.0, 0.0, 0.0, 0.0, 0.1], (LENGTH, 1)))
        sigma_t = told.sigma_translation + 0.25 * told.translation_per_metre + 0.1 * told.translation_per_radian
        sigma_r = told.sigma_rotation + 0.25 * told.rotation_per_metre + 0.1 * told.rotation_per_radian
        noise = rng.standard_normal((LENGTH, 6)) * [sigma_t, sigma_t, 0, 0, 0, sigma_r]
        measured = poses.compose(true, poses.exp(noise))
        sure = np.diag([1e8, 1e8, 0.0, 0.0, 0.0, 1e8])
        block = block_of([Link(m, 0.4, t, sure) for m, t in zip(measured, true, strict=True)])
        found.append(float(score(block, to_float64(Theta.neutral())).nis))
    assert np.mean(found) == pytest.approx(1.0, rel=0.15)


def test_cost_and_gradient_are_those_of_the_definition(spatial_links: list[Link]) -> None:
    block = block_of(spatial_links)
    theta = to_float64(Theta.neutral())
    vector = np.asarray(flatten(theta, ALL)) + 0.01
    theta = to_float64(unflatten(vector, theta, ALL))
    got = score(block, theta)

    def cost(v: np.ndarray) -> float:
        innovation, covariance = whitened(block, v, theta)
        return cost_at_fixed_covariance(np.asarray(innovation), np.asarray(covariance), spatial_links)

    assert float(got.cost) == pytest.approx(cost(vector), rel=1e-9)
    step = 1e-5
    numeric = np.array([(cost(vector + d) - cost(vector - d)) / (2 * step) for d in step * np.eye(len(vector))])
    np.testing.assert_allclose(got.gradient, numeric, rtol=1e-5, atol=1e-5 * np.abs(numeric).max())


def test_hessian_predicts_how_the_gradient_changes_where_innovations_are_small() -> None:
    links = links_of(ROBOT, drive("rooms", LENGTH), seed=2)
    block = block_of(links)
    theta = to_float64(Theta.neutral()).replace(
        scale=np.asarray(-0.03), rotation_gain=np.asarray(0.02), turn_per_metre=np.asarray(0.03),
        lever=np.array([0.08, 0.01, 0.0]),
    )  # fmt: skip
    got = score(block, to_float64(theta))
    moved = score(block, to_float64(theta.replace(scale=np.asarray(-0.03 + 1e-3))))
    predicted = np.asarray(got.hessian)[:, 0] * 1e-3
    assert np.linalg.norm(moved.gradient - got.gradient - predicted) < 0.1 * np.linalg.norm(predicted)


def test_unobserved_directions_and_empty_registrations_add_nothing() -> None:
    links = links_of(ROBOT, drive("rooms", LENGTH), seed=1)
    along = np.zeros((6, 6))
    along[1, 1] = along[5, 5] = 1e5
    blind = [Link(k.measured, k.seconds, k.relative, np.zeros((6, 6))) for k in links]
    corridor = [Link(k.measured, k.seconds, k.relative, along) for k in links]
    theta = to_float64(Theta.neutral())
    nothing = score(block_of(blind), theta)
    assert float(nothing.cost) == 0.0
    assert not np.asarray(nothing.hessian).any()
    some = block_of(corridor)
    np.testing.assert_array_equal(some.directions, 2.0)
    got = score(some, theta)
    assert np.isfinite(np.asarray(got.hessian)).all()
    assert float(got.loss) > 0
    # A registration that observes nothing along x cannot be moved along x into a worse score (to first order).
    shifted = [
        Link(k.measured, k.seconds, poses.compose(k.relative, poses.exp([1e-6, 0, 0, 0, 0, 0])), along)
        for k in links[:1]
    ]
    change = float(score(block_of(shifted + corridor[1:]), theta).cost) - float(got.cost)
    sideways = [
        Link(k.measured, k.seconds, poses.compose(k.relative, poses.exp([0, 1e-6, 0, 0, 0, 0])), along)
        for k in links[:1]
    ]
    other = float(score(block_of(sideways + corridor[1:]), theta).cost) - float(got.cost)
    assert abs(change) < 0.5 * abs(other)


def test_loss_is_near_one_where_the_model_is_right() -> None:
    """Noise as told: the mean normalised innovation squared is one a direction."""
    rng = np.random.default_rng(3)
    told = config.Odometry()
    information = np.zeros((6, 6))
    axes = np.array([0, 1, 5])
    information[axes, axes] = [1e4, 1e4, 1e5]
    totals = []
    for _ in range(60):
        seen, links, before = poses.IDENTITY, [], poses.IDENTITY
        for forward, turn in zip(rng.uniform(0.1, 0.3, LENGTH), rng.normal(0, 0.2, LENGTH), strict=True):
            tangent = np.array([forward, 0, 0, 0, 0, turn])
            translation = (
                told.sigma_translation + told.translation_per_metre * forward + told.translation_per_radian * abs(turn)
            )
            rotation = told.sigma_rotation + told.rotation_per_radian * abs(turn) + told.rotation_per_metre * forward
            noise = np.array([translation, translation, 0, 0, 0, rotation]) * rng.standard_normal(6)
            seen = poses.compose(seen, poses.compose(poses.exp(tangent), poses.exp(noise)))
            error = np.zeros(6)
            error[axes] = rng.standard_normal(3) * [1e-2, 1e-2, 10**-2.5]
            placed = poses.compose(seen, poses.exp(error))
            links.append(Link(poses.exp(tangent), 0.5, poses.between(before, placed), information))
            before = placed
        totals.append(float(score(block_of(links), to_float64(Theta.neutral())).loss))
    # The Cauchy kernel of width 3 takes about a tenth off the mean of a chi-square of 3 a row.
    assert 0.8 < np.mean(totals) < 1.05


@pytest.mark.parametrize("told", [1.0, 2.0])
def test_dilution_is_what_noise_adds_to_the_gains_gradient(told: float) -> None:
    """Straight ahead with theta right: the gradient in the rotation gain has a mean, and it is this.

    It is told by the innovations themselves, so that deviations need be right in their ratio only.
    """
    noises, rng = config.Slam().odometry, np.random.default_rng(0)
    theta, names = to_float64(Theta.neutral()), losses.DILUTED
    learned = mask(theta, *names)
    turn = noises.sigma_rotation + 0.25 * noises.rotation_per_metre
    seen = 0.1 * turn
    scored = jax.jit(lambda block: losses.score(block, theta, learned, 100.0).gradient)
    explained = jax.jit(lambda block: losses.dilution(block, theta, 100.0))
    found = []
    for _ in range(200):
        links = [
            Link(
                poses.from_planar(0.25, 0.0, float(rng.normal(0.0, turn / told))), 0.5,
                poses.from_planar(0.25, 0.0, float(rng.normal(0.0, seen / told))),
                np.diag([1e4, 1e4, 0.0, 0.0, 0.0, seen**-2]),
            )
            for _ in range(5)
        ]  # fmt: skip
        block = make_block(links, pairs_of(5), noises)
        found.append((np.asarray(scored(block))[1], np.asarray(explained(block))[1]))
    gradients, dilutions = np.array(found).T
    error = np.std(gradients - dilutions) / np.sqrt(len(found))
    assert abs(gradients.mean() - dilutions.mean()) < 3 * error
    assert dilutions.mean() > 10 * error, "or the test would say nothing"
