"""A robot that changes while it drives: told soon, learned anew; one that does not change raises no alarm."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from robots import TOLD, Robot, drive, links_of
from test_calibration import by_name, learn

from dsg_ros import config
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.change import Change, ChangeDetector

SETTINGS = config.replace(config.Slam(), TOLD)
SIZE = SETTINGS.learning.every_keyframes
TRUE = Robot(scale=0.96, rotation_gain=1.03, turn_per_metre=0.05, lever=(0.09, 0.0))
WORN = dataclasses.replace(TRUE, scale=0.96 * 1.04)
HALF = 40 * SIZE


def changing(seed: int) -> Calibration:
    """After half of the drive, everything measured is 4 % less than before."""
    motion = drive("rooms", 2 * HALF)
    before, after = links_of(TRUE, motion[:HALF], seed), links_of(WORN, motion[HALF:], seed + 1000)
    calibration = Calibration(SETTINGS)
    learn(calibration, before + after)
    return calibration


@pytest.mark.parametrize("seed", range(5))
def test_a_change_is_told_within_60_keyframes_and_learned_within_120(seed: int, caplog) -> None:
    calibration = changing(seed)
    assert calibration.counts["changes_detected"] == 1
    told = [i for i, step in enumerate(calibration.history) if step.change]
    assert HALF // SIZE <= told[0] <= HALF // SIZE + 5, "blocks of ten, counted from zero"
    assert "odometry.scale by +0.0" in calibration.history[told[0]].change
    assert "the robot has changed at" in caplog.text

    later = calibration.history[HALF // SIZE + 11].parameters
    scale = next(p for p in later if p.name == "odometry.scale").value
    assert abs(scale - WORN.scale) < 0.15 * (WORN.scale - TRUE.scale)
    found = by_name(calibration)
    for name in ("scale", "rotation_gain", "turn_per_metre"):
        parameter = found[f"odometry.{name}"]
        assert abs(parameter.value - getattr(WORN, name)) < 3.5 * parameter.sigma, parameter
        assert parameter.status == "learned"


@pytest.mark.parametrize("seed", range(10))
def test_a_robot_that_stays_as_it_is_raises_no_alarm(seed: int) -> None:
    calibration = Calibration(SETTINGS)
    slips = dict.fromkeys(range(7, 60 * SIZE, 61), 0.1)
    learn(calibration, links_of(dataclasses.replace(TRUE, slips=slips), drive("rooms", 60 * SIZE), seed))
    assert calibration.counts["changes_detected"] == 0


def blocks(count: int, seed: int, scatter: float = 1.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gradients as they should be where theta is right, with their Hessians."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        root = rng.standard_normal((2, 2)) * 30 + 200 * np.eye(2)
        made.append((scatter * root @ rng.standard_normal(2), root @ root.T))
    return made


def alarms(
    made: list[tuple[np.ndarray, np.ndarray]], diluted: tuple[float, float] = (0.0, 0.0), **settings: float
) -> list[Change | None]:
    """What a detector says after each block; the prior is 0.05 for both numbers.  Noise is told to explain that they
    seem to be less by ``diluted``.
    """
    learning = config.replace(config.Slam(), {f"learning.{k}": v for k, v in settings.items()}).learning
    detector, information = ChangeDetector(learning, np.full(2, 0.05)), np.eye(2) / 0.05**2
    said = []
    for gradient, hessian in made:
        said.append(detector.add(gradient, hessian @ diluted, hessian, information))
        information = information + hessian
    return said


@pytest.mark.parametrize("scatter", [0.3, 1.0, 3.0])
def test_false_alarms_are_as_rare_as_told_whatever_the_scatter(scatter: float) -> None:
    made = blocks(4000, seed=1, scatter=scatter)
    # Windows overlap: six in a row are about one independent test.
    often = sum(map(bool, alarms(made, change_probability=0.01, change_least=0.0)))
    assert often < 1.5 * 0.01 * len(made)
    assert not any(alarms(made))


def test_the_change_is_measured_with_its_deviation_and_its_beginning() -> None:
    made, step = blocks(100, seed=2), np.array([0.05, 0.0])
    changed = [(g - h @ step, h) if i >= 80 else (g, h) for i, (g, h) in enumerate(made)]
    found = [(i, c) for i, c in enumerate(alarms(changed)) if c]
    first, change = found[0]
    assert 80 <= first <= 86
    assert change.sure[0]
    assert abs(change.blocks - (first - 79)) <= 1
    latest = found[-1][1]
    assert np.all(np.abs(latest.step - step) < 4 * latest.sigmas)


def test_one_wild_block_and_a_small_step_are_no_change() -> None:
    made = blocks(100, seed=3)
    wild = [(g * 30, h) if i == 80 else (g, h) for i, (g, h) in enumerate(made)]
    assert not any(alarms(wild))
    small = [(g - h @ np.array([0.015, 0.0]), h) if i >= 80 else (g, h) for i, (g, h) in enumerate(made)]
    assert not any(alarms(small))
    assert any(alarms(small, change_least=0.1)), "with a smaller least change it is one"


def test_what_noise_in_the_measurements_explains_is_no_change() -> None:
    made = blocks(100, seed=4)
    fallen = [(g + h @ np.array([0.06, 0.0]), h) if i >= 80 else (g, h) for i, (g, h) in enumerate(made)]
    assert any(alarms(fallen))
    assert not any(alarms(fallen, diluted=(0.06, 0.0)))
    risen = [(g - h @ np.array([0.06, 0.0]), h) if i >= 80 else (g, h) for i, (g, h) in enumerate(made)]
    assert any(alarms(risen, diluted=(0.06, 0.0))), "noise makes nothing seem more"
    assert not any(alarms(made, diluted=(0.06, 0.0))), "and is no change itself"


def test_of_two_numbers_only_the_one_that_changed_is_told() -> None:
    noise, step = np.array([0.0, 0.06]), np.array([0.08, 0.0])
    made = [(g + h @ noise, h) for g, h in blocks(100, seed=5)]
    seems = [(g - h @ step, h) if i >= 80 else (g, h) for i, (g, h) in enumerate(made)]
    found = next(change for change in alarms(seems, diluted=(0.0, 0.06)) if change)
    assert found.sure.tolist() == [True, False]
