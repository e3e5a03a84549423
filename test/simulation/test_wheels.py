"""Wheels that err as they are told to, and the calibration that undoes it."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dsg_ros import config, poses
from dsg_ros.core.factors.odometry import calibrated
from dsg_ros.core.theta import SPECS
from dsg_ros.interface import Parameter
from dsg_ros.learning.parameters import starting_theta
from dsg_ros.simulation.sensors import MOUNT, mounted
from dsg_ros.simulation.truth import assumed_base, true_parameters
from dsg_ros.simulation.wheels import wheel_odometry

PERFECT = config.SimulatedWheels(
    scale=1.0, rotation_gain=1.0, turn_per_metre=0.0, noise_translation=0.0, noise_rotation=0.0
)
STRAIGHT = poses.from_planar(np.linspace(0, 10, 501), 0.0, 0.0)


def winding(seconds: np.ndarray) -> np.ndarray:
    """A robot that stands, and then drives at 0.6 m/s, turning left and right by turns, up to 0.9 rad/s."""
    moving = np.maximum(seconds - 1.0, 0.0)
    # The heading is the integral of 0.9 sin(moving); x and y by small chords.
    heading = 0.9 * (1 - np.cos(moving))
    middle = 0.9 * (1 - np.cos(0.5 * (moving[:-1] + moving[1:])))
    step = 0.6 * np.diff(moving)
    x = np.concatenate([[0.0], np.cumsum(step * np.cos(middle))])
    y = np.concatenate([[0.0], np.cumsum(step * np.sin(middle))])
    return poses.from_planar(x, y, heading)


WINDING = winding(np.arange(0.0, 10.0, 0.02))


def odometry(settings: config.SimulatedWheels, truth: np.ndarray, seed: int = 0, **more: float) -> np.ndarray:
    return wheel_odometry(settings, truth, np.random.default_rng(seed), **more)


def test_perfect_wheels_on_level_ground_tell_the_truth() -> None:
    np.testing.assert_allclose(odometry(PERFECT, WINDING), poses.between(WINDING[0], WINDING), atol=1e-12)


def test_wheels_err_as_told() -> None:
    assert odometry(dataclasses.replace(PERFECT, scale=1.05), STRAIGHT)[-1, 0] == pytest.approx(10.5)
    assert poses.yaw(odometry(dataclasses.replace(PERFECT, turn_per_metre=0.01), STRAIGHT)[-1]) == pytest.approx(0.1)
    standing = np.tile(poses.IDENTITY, (501, 1))
    assert poses.yaw(odometry(dataclasses.replace(PERFECT, bias_turn=0.01), standing)[-1]) == pytest.approx(0.1)
    assert odometry(dataclasses.replace(PERFECT, bias_forward=0.01), standing)[-1, 0] == pytest.approx(0.1)


def test_the_scale_jumps_where_the_tyre_is_changed() -> None:
    path = odometry(dataclasses.replace(PERFECT, scale=1.02, scale_jump=0.05), STRAIGHT, jump_after=4.0)
    assert path[-1, 0] == pytest.approx(1.02 * 4.0 + 1.02 * 1.05 * 6.0, abs=0.002)


def test_noise_grows_as_a_random_walk_and_jitter_does_not() -> None:
    settings = dataclasses.replace(
        PERFECT,
        noise_translation=0.02,
        noise_rotation=0.01,
        noise_rotation_turning=0.03,
        noise_translation_turning=0.04,
    )
    ends = np.array([odometry(settings, STRAIGHT, seed)[-1] for seed in range(400)])
    assert poses.yaw(ends).std() == pytest.approx(0.01 * np.sqrt(10), rel=0.15)
    assert ends[:, 0].std() == pytest.approx(0.02 * np.sqrt(10), rel=0.15)
    spot = poses.from_planar(np.zeros(101), 0.0, np.linspace(0.0, 2.0, 101))
    ends = np.array([odometry(settings, spot, seed)[-1] for seed in range(400)])
    assert poses.yaw(ends).std() == pytest.approx(0.03 * np.sqrt(2), rel=0.15)
    assert np.sqrt((ends[:, :2] ** 2).mean()) == pytest.approx(0.04 * np.sqrt(2), rel=0.15)
    shaken = odometry(dataclasses.replace(PERFECT, jitter_translation=0.003, jitter_rotation=0.002), STRAIGHT)
    assert (shaken[:, 0] - STRAIGHT[:, 0]).std() == pytest.approx(0.003, rel=0.1)
    assert poses.yaw(shaken).std() == pytest.approx(0.002, rel=0.1)


def test_wheels_slip_as_often_as_told() -> None:
    settings = dataclasses.replace(PERFECT, slips_per_metre=0.5, slip_translation=0.2, slip_rotation=0.1)
    steps = np.concatenate([_steps(odometry(settings, STRAIGHT, seed)) for seed in range(40)])
    slipped = np.abs(steps[:, 5]) > 1e-9
    assert slipped.sum() == pytest.approx(0.5 * 10 * 40, rel=0.2)
    assert steps[slipped, 5].std() == pytest.approx(0.1, rel=0.2)
    assert (steps[slipped, 0] - 0.02).std() == pytest.approx(0.2, rel=0.2)


def _steps(path: np.ndarray) -> np.ndarray:
    return poses.log(poses.between(path[:-1], path[1:]))


# The truth


ERRING = config.Simulation(
    mounting=config.SimulatedMounting(x=0.05, y=-0.03, yaw=0.035),
    wheels=dataclasses.replace(
        PERFECT, scale=1 / 1.04, rotation_gain=1 / 0.97, turn_per_metre=0.02, bias_forward=0.003, bias_turn=-0.002
    ),
)


def values(parameters: tuple[Parameter, ...]) -> dict[str, float]:
    return {parameter.name: parameter.value for parameter in parameters}


def test_without_errors_the_truth_is_neutral() -> None:
    found = values(true_parameters(config.Simulation(wheels=PERFECT)))
    assert found.pop("odometry.scale") == found.pop("odometry.rotation_gain") == 1.0
    np.testing.assert_allclose(list(found.values()), 0.0, atol=1e-12)


def test_the_true_calibration_makes_of_the_odometry_what_the_scans_show() -> None:
    """Increments by `core.factors.odometry` under the true theta are those of the assumed base, to second order."""
    true = true_parameters(ERRING)
    lever = assumed_base(ERRING.mounting)
    np.testing.assert_allclose(poses.compose(lever, MOUNT), mounted(ERRING.mounting), atol=1e-12)
    told = odometry(ERRING.wheels, WINDING)
    measured = poses.log(poses.between(told[:-10:10], told[10::10]))
    base = poses.compose(WINDING, lever)
    shown = poses.log(poses.between(base[:-10:10], base[10::10]))

    def error(parameters: tuple[Parameter, ...]) -> float:
        found = calibrated(starting_theta(parameters), jnp.asarray(measured), jnp.full(len(measured), 0.2))
        return float(np.abs(np.asarray(found) - shown).max())

    assert error(true) < 2e-5
    # And none of them is of another sign, or without use.
    for k, parameter in enumerate(true):
        if parameter.value and parameter.name != "odometry.time_offset":
            neutral = 2.0 if parameter.unit == "ratio" else 0.0
            wrong = dataclasses.replace(parameter, value=neutral - parameter.value)
            assert error((*true[:k], wrong, *true[k + 1 :])) > 5e-5, parameter.name


def test_after_the_jump_the_truth_is_that_of_the_larger_wheel() -> None:
    settings = dataclasses.replace(ERRING, wheels=dataclasses.replace(ERRING.wheels, scale_jump=0.04))
    before, after = values(true_parameters(settings)), values(true_parameters(settings, jumped=True))
    assert before == values(true_parameters(ERRING))
    assert after["odometry.scale"] == pytest.approx(1.04 / 1.04)
    assert after["odometry.rotation_gain"] == before["odometry.rotation_gain"]


def test_names_and_units_are_those_of_theta() -> None:
    known = {spec.name: spec.unit for specs in SPECS.values() for spec in specs}
    for parameter in true_parameters(ERRING):
        assert known[parameter.name] == parameter.unit
