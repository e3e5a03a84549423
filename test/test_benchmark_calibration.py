"""The benchmark of self-calibration: its robot, its scores, and what it makes of a set of drives."""

from __future__ import annotations

import argparse
import dataclasses
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import calibration, scores
from benchmarks.measuring import cores
from benchmarks.options import add_options
from benchmarks.simulated_drive import INCREMENTS, WHEELS, Case, Learned, Outcome, Recording, drive, told_noise
from benchmarks.table import Row
from dsg_ros import config, poses
from dsg_ros.core.theta import Theta
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Parameter, SavedMap
from dsg_ros.io.logs import frames
from dsg_ros.learning.increments import IncrementModel
from dsg_ros.simulation.robot import Robot

SCALE = Learned(1.041, 0.001, "learned", "ratio", 1.04, 1.0)
LEVER = Learned(0.053, 0.002, "learned", "m", 0.05, 0.0)
GAIN = Learned(1.0, 0.02, "unobservable", "ratio", 0.97, 1.0)


def outcome(seed: int = 0, **changed: object) -> Outcome:
    plain = Outcome(
        seed=seed,
        metres=200.0,
        keyframes=600,
        parameters={"odometry.scale": SCALE, "odometry.lever.x": LEVER, "odometry.rotation_gain": GAIN},
        theta_nees=2.0,
        theta_numbers=2,
        pose_nees=0.9,
        nis=1.05,
        nis_second_half=1.0,
        noise={"translation": 1.1, "rotation": 0.95},
        ate={"learned": 0.012, "given": 0.011, "odometry": 1.5},
        alarms=(),
        settled=None,
        seconds=1.0,
    )
    return dataclasses.replace(plain, **changed)  # type: ignore[arg-type]


def found(rows: Sequence[Row]) -> dict[str, Row]:
    return {row.what: row for row in rows}


# The robot


@pytest.fixture(scope="module")
def exact() -> Outcome:
    """A drive of a lap without any noise: what is learned is the truth, of the right sign."""
    quiet = [f"wheels.noise_{name}=0" for name in ("translation", "rotation", "rotation_turning")]
    robot = (*quiet, "scanner.noise=0", "wheels.time_offset=0", "mounting.yaw=0", "wheels.turn_per_metre=0.02")
    told = config.Odometry()
    settings = tuple(f"odometry.{s.name}={s.value}" for s in config.settings(told))
    return drive(Case(0, metres=90.0, settings=settings, robot=robot))


def test_without_noise_the_truth_is_learned(exact: Outcome) -> None:
    errors = {name: parameter.error for name, parameter in exact.parameters.items()}
    assert abs(errors["odometry.scale"]) < 0.002
    assert abs(errors["odometry.rotation_gain"]) < 0.006
    assert abs(errors["odometry.turn_per_metre"]) < 0.003
    assert abs(errors["odometry.lever.x"]) < 0.01
    assert abs(errors["odometry.lever.y"]) < 0.01
    states = {name: parameter.status for name, parameter in exact.parameters.items()}
    assert {states[f"odometry.{name}"] for name in ("scale", "rotation_gain", "turn_per_metre", "lever.x")} == {
        "learned"
    }
    assert exact.ate["learned"] < 0.02 < 1.0 < exact.ate["odometry"]
    assert exact.keyframes > 200


def test_told_deviations_are_those_of_the_wheels_from_keyframe_to_keyframe() -> None:
    once, thrice = (IncrementModel(Theta.neutral(), told_noise(WHEELS, factor)) for factor in (1.0, 3.0))
    for way, turn in INCREMENTS:
        step = poses.exp(np.array([way, 0, 0, 0, 0, turn]))
        _, sigmas = once.predict(step, 1.0)
        assert sigmas[0] == pytest.approx(0.01 * np.sqrt(way), rel=0.1)
        assert sigmas[5] == pytest.approx(np.sqrt(0.005**2 * way + 0.02**2 * turn), rel=0.15)
        np.testing.assert_allclose(thrice.predict(step, 1.0)[1], 3 * sigmas)
    config.check_all(told_noise(dataclasses.replace(WHEELS, noise_rotation=0.0), 1.0))


def keyframes_of(case: Case) -> tuple[scores.Keyframes, Robot]:
    """Of a drive with keyframes as far apart as the pipeline's, at the true poses."""
    robot = Robot(case.simulation())
    seen = list(frames(Recording(robot), config.Input()))
    stamps = np.array([frame.stamp for frame in seen])
    truth = scores.truth_at(robot, case.simulation(), stamps)
    there = poses.between(truth[0], truth)
    estimates, last = [], there[0]
    for frame, pose in zip(seen, there, strict=True):
        away = poses.log(poses.between(last, pose))
        keyframe = not estimates or bool(np.hypot(*away[:2]) > 0.25 or abs(away[5]) > 0.25)
        last = pose if keyframe else last
        estimates.append(Estimate(frame.stamp, pose, frame.odometry.at(frame.stamp), np.eye(6), keyframe))
    return scores.Keyframes.of(estimates, robot, case.simulation()), robot


@pytest.mark.parametrize("told", [1.0, 3.0])
def test_told_noise_is_compared_with_what_the_wheels_did(told: float) -> None:
    case = Case(0, metres=60.0, told=told, jump=0.04)
    keyframes, robot = keyframes_of(case)
    ratios = scores.noise_ratios(keyframes, robot, case.simulation(), case.pipeline(told), [])
    assert ratios["translation"] == pytest.approx(told, rel=0.2)
    assert ratios["rotation"] == pytest.approx(told, rel=0.2)


# Scores


def test_pose_nees_is_one_where_covariances_are_right() -> None:
    keyframes, _ = keyframes_of(Case(0, metres=60.0))
    rng = np.random.default_rng(0)
    root = np.diag([0.02, 0.03, 0.0, 0.0, 0.0, 0.01])
    root[0, 1] = 0.02

    def shaken(estimate: Estimate, factor: float) -> Estimate:
        off = poses.exp(factor * root @ rng.standard_normal(6))
        return dataclasses.replace(estimate, pose=poses.compose(estimate.pose, off), covariance=root @ root.T)

    for factor, wanted in ((1.0, 1.0), (2.0, 4.0)):
        estimates = [shaken(estimate, factor) for estimate in keyframes.estimates]
        assert scores.pose_nees(dataclasses.replace(keyframes, estimates=estimates)) == pytest.approx(wanted, rel=0.25)


def test_theta_nees_is_chi_squared_and_leaves_out_what_is_not_learned() -> None:
    rng = np.random.default_rng(1)
    root = rng.normal(size=(3, 3))
    covariance = root @ root.T
    names = ("a", "b", "c")
    # Deviations are told twice as large as the formal ones, with the same correlations.
    told = tuple(
        Parameter(n, 0.0, 2 * s, "", "learned") for n, s in zip(names, np.sqrt(np.diag(covariance)), strict=True)
    )
    kept = dataclasses.replace(_empty_map(), learned=names, information=np.linalg.inv(covariance), parameters=told)
    draws = [dict(zip(names, 2 * root @ rng.standard_normal(3), strict=True)) for _ in range(500)]
    squares = [scores.theta_nees(kept, errors) for errors in draws]
    low, high = calibration.band(1500)
    assert low < np.sum([s for s, _ in squares]) / 1500 < high
    two = [scores.theta_nees(kept, {name: errors[name] for name in ("a", "c")}) for errors in draws]
    assert {numbers for _, numbers in two} == {2}
    assert np.mean([s for s, _ in two]) == pytest.approx(2.0, rel=0.15)
    assert scores.theta_nees(kept, {}) == (0.0, 0)


def _empty_map() -> SavedMap:
    nothing: dict[str, object] = {field.name: () for field in dataclasses.fields(SavedMap)}
    return SavedMap(**nothing)  # type: ignore[arg-type]


def test_alarms_are_counted_from_the_jump() -> None:
    keyframes, _ = keyframes_of(Case(0, metres=20.0))
    count = len(keyframes.estimates)

    def with_counts(values: Sequence[int | None]) -> list[Estimate]:
        told = [{} if v is None else {scores.CHANGES: v} for v in values]
        return [dataclasses.replace(e, counts=c) for e, c in zip(keyframes.estimates, told, strict=True)]

    assert scores.alarms(with_counts([None] * count), 5) is None
    assert scores.alarms(with_counts([0] * count), 5) == []
    assert scores.alarms(with_counts([0, 0, 1, *[1] * 5, *[3] * (count - 8)]), 5) == [-3, 3, 3]


# Rows


def test_parameters_beyond_three_sigmas_and_far_off_are_told() -> None:
    far = dataclasses.replace(LEVER, value=0.057)
    outcomes = [outcome(0), outcome(1, parameters=outcome().parameters | {"odometry.lever.x": far})]
    rows = found(calibration.rows("office", outcomes, jumped=False))
    assert rows["odometry.scale: beyond 3 sigmas"].ours == 0.0
    beyond = rows["odometry.lever.x: beyond 3 sigmas"]
    assert (beyond.ours, beyond.reached, beyond.note) == (0.5, False, "2 learned")
    worst = rows["odometry.lever.x: worst error"]
    assert (worst.ours, worst.reached, worst.unit) == (pytest.approx(0.007), False, "m")
    assert rows["|NIS / 3 - 1|"].ours == pytest.approx(0.05)
    assert rows["|noise of rotation: told / true - 1|"].reached
    assert rows["ATE, learned / given"].ours == pytest.approx(12 / 11)
    assert not rows["ATE, learned / given"].reached
    assert rows["drives with a false alarm"].reached
    text = calibration.table(outcomes).splitlines()
    assert len(text) == 4
    assert text[2].split()[:4] == ["odometry.lever.x", "1", "of", "2"]


@pytest.mark.parametrize(("nees", "outside"), [(2.0, 0.0), (20.0, 7.0), (0.0, 0.3)])
def test_theta_is_held_to_the_band_of_its_squared_error(nees: float, outside: float) -> None:
    row = found(calibration.rows("office", [outcome(k, theta_nees=nees) for k in range(10)], jumped=False))
    assert row["NEES of theta: outside its 95 % band by"].ours == pytest.approx(
        outside, abs=1.5 if outside > 1 else 0.3
    )
    assert row["NEES of theta: outside its 95 % band by"].reached == (outside == 0.0)


def test_where_nothing_is_learned_there_is_no_nees() -> None:
    row = found(calibration.rows("office", [outcome(theta_numbers=0, theta_nees=0.0)], jumped=False))
    assert row["NEES of theta: outside its 95 % band by"].reached is False


def test_in_the_corridor_what_is_hidden_stays_where_it_was() -> None:
    hidden = dict.fromkeys(calibration.HIDDEN, GAIN)
    fine = outcome(parameters=hidden, ate={})
    moved = dataclasses.replace(GAIN, value=0.98)
    known = dataclasses.replace(GAIN, status="frozen")
    wrong = [
        outcome(parameters=hidden | {"odometry.rotation_gain": moved}),
        outcome(parameters=hidden | {"odometry.lever.x": known}),
    ]
    rows = found(calibration.rows("corridor", [fine, *wrong], jumped=False))
    told = [rows[f"{name}: not unobservable, or changed"].ours for name in calibration.HIDDEN]
    assert told == [1, 1, 0]
    assert all(row.reached for row in calibration.rows("corridor", [fine], jumped=False))


@pytest.mark.parametrize(
    ("alarms", "worst", "false"),
    [(((10,), (55,)), 55, 0), (((10, 90), (61,)), 61, 0), (((), (5,)), None, 0), (((-30, 20), (7,)), 20, 1)],
)
def test_a_jump_must_be_noticed_in_time_and_not_before(
    alarms: tuple[tuple[int, ...], ...], worst: int | None, false: int
) -> None:
    outcomes = [outcome(k, alarms=each, settled=0.1) for k, each in enumerate(alarms)]
    rows = found(calibration.rows("office", outcomes, jumped=True))
    alarm = rows["keyframes from the jump to the alarm, worst"]
    assert (alarm.ours, alarm.reached) == (worst, worst is not None and worst <= 60)
    assert rows["drives with a false alarm"].ours == false


def test_a_learner_that_looks_for_no_changes_gives_no_answer() -> None:
    rows = found(calibration.rows("office", [outcome(alarms=None, settled=None)], jumped=True))
    assert {row.reached for row in rows.values()} == {False}
    assert not any("false alarm" in what for what in rows)


# The command


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


def test_options_make_a_case_a_seed() -> None:
    found = calibration.cases(options("--seeds", "3", "--told", "0.333", "--set", "learning.noise=false"))
    assert [case.seed for case in found] == [0, 1, 2]
    assert (found[0].metres, found[0].told) == (200.0, 0.333)
    assert found[0].pipeline(found[0].told).learning.noise is False
    assert calibration.cases(options("--world", "corridor"))[0].metres == 60.0
    with pytest.raises(UserError, match=r"--robot: unknown parameter 'wheels\.scal'"):
        calibration.cases(options("--robot", "wheels.scal=1"))[0].simulation()
    with pytest.raises(SystemExit):
        options("--seeds", "0")


def test_the_command_hands_on_its_options_and_every_core(tmp_path: Path) -> None:
    heard: list[tuple[str, int, argparse.Namespace]] = []

    def comparison(name: str, cores: int, told: Sequence[str], out: Path) -> list[Row]:
        heard.append((name, cores, options(*told)))
        return []

    words = ["--seeds", "7", "--metres", "50", "--jump", "0.04", "--robot", "seed=3", "--set", "learning.noise=false"]
    assert command.main(["calibration", *words, "--out", str(tmp_path)], comparison) == 0
    assert command.main(["calibration", "window", "--cores", "1"], comparison) == 0
    assert [name for name, _, _ in heard] == ["calibration", "calibration", "window"]
    assert [allowed for _, allowed, _ in heard] == [cores(), 1, 1]
    told = heard[0][2]
    assert (told.seeds, told.metres, told.jump, told.world) == (7, 50.0, 0.04, "office")
    assert (told.robot, told.set) == (["seed=3"], ["learning.noise=false"])


@pytest.mark.parametrize("workers", [1, 2])
def test_drives_come_in_the_order_of_their_seeds(workers: int) -> None:
    one: Any = operator.attrgetter("seed")  # which other processes can import
    assert calibration.driven([Case(seed) for seed in (3, 1, 2)], workers, one) == [3, 1, 2]
