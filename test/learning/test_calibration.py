"""Learning from simulated robots whose calibration is known."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
from robots import TOLD, Robot, drive, links_of, noise_of

from dsg_ros import config, poses
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.errors import UserError
from dsg_ros.interface import Parameter
from dsg_ros.learning.block import Link
from dsg_ros.learning.calibration import Calibration

SETTINGS = config.replace(config.Slam(), TOLD)
SIZE = SETTINGS.learning.every_keyframes
TRUE = Robot(scale=0.96, rotation_gain=1.03, turn_per_metre=0.05, lever=(0.09, 0.0))
NEUTRAL = {"odometry.scale": 1.0, "odometry.rotation_gain": 1.0}


def learn(calibration: Calibration, links: list[Link], first_key: int = 1) -> None:
    """Feed links as the pipeline does."""
    travel = 0.3 * (first_key - 1)
    for key, link in enumerate(links, first_key):
        travel += float(np.linalg.norm(link.measured[:3]))
        calibration.add(key, link)
        if key % SIZE == 0:
            calibration.step(key * 10**9, travel)
            calibration.settle()


def by_name(calibration: Calibration) -> dict[str, Parameter]:
    return {p.name: p for p in calibration.parameters()}


@pytest.fixture(scope="module")
def learned() -> Calibration:
    calibration = Calibration(SETTINGS)
    calibration.warm_up(planar=True)
    learn(calibration, links_of(TRUE, drive("rooms", 400), seed=2))
    return calibration


def test_known_calibration_is_found_within_three_sigmas(learned: Calibration) -> None:
    found = by_name(learned)
    for name, value in (
        ("odometry.scale", TRUE.scale),
        ("odometry.rotation_gain", TRUE.rotation_gain),
        ("odometry.turn_per_metre", TRUE.turn_per_metre),
        ("odometry.lever.x", TRUE.lever[0]),
    ):
        assert found[name].status == "learned", found[name]
        assert abs(found[name].value - value) < 3 * found[name].sigma, found[name]
        assert found[name].sigma < 0.01


def test_mounting_and_time_offset_are_found_with_all_the_rest() -> None:
    robot = dataclasses.replace(TRUE, lever=(0.05, -0.03), lever_yaw=0.035, time_offset=0.06)
    names = f"{SETTINGS.learning.parameters}, odometry.lever.rz"
    calibration = Calibration(config.replace(SETTINGS, {"learning.parameters": names}))
    motion = drive("rooms", 600)
    motion[:, 0] *= 1.0 + 0.5 * np.sin(np.arange(600) / 2.3)  # an offset in time shows where the speed changes
    learn(calibration, links_of(robot, motion, seed=4))
    found = by_name(calibration)
    for name, value in (
        ("odometry.scale", robot.scale),
        ("odometry.rotation_gain", robot.rotation_gain),
        ("odometry.lever.x", robot.lever[0]),
        ("odometry.lever.y", robot.lever[1]),
        ("odometry.lever.rz", robot.lever_yaw),
        ("odometry.time_offset", robot.time_offset),
    ):
        assert found[name].status == "learned", found[name]
        assert abs(found[name].value - value) < 3 * found[name].sigma, found[name]
    assert found["odometry.time_offset"].sigma < 0.005


def test_without_velocities_the_time_offset_is_not_observable(learned: Calibration) -> None:
    links = [dataclasses.replace(link, rate=np.zeros(6)) for link in links_of(TRUE, drive("rooms", 100), seed=2)]
    calibration = Calibration(SETTINGS)
    learn(calibration, links)
    offset = by_name(calibration)["odometry.time_offset"]
    assert (offset.value, offset.status) == (0.0, "unobservable")


def test_deviations_are_honest() -> None:
    """Errors in units of the told deviations have a root mean square of about one, over parameters and drives."""
    errors = []
    for seed in range(4):
        calibration = Calibration(SETTINGS)
        learn(calibration, links_of(TRUE, drive("rooms", 300), seed))
        found = by_name(calibration)
        for name, value in (
            ("scale", TRUE.scale),
            ("rotation_gain", 1.03),
            ("turn_per_metre", 0.05),
            ("lever.x", 0.09),
        ):
            parameter = found[f"odometry.{name}"]
            errors.append((parameter.value - value) / parameter.sigma)
    assert 0.4 < np.sqrt(np.mean(np.square(errors))) < 1.6


def test_a_parameter_that_is_right_already_stays_where_it_is(learned: Calibration) -> None:
    lateral = by_name(learned)["odometry.lever.y"]
    assert (lateral.status, lateral.value) == ("frozen", 0.0)
    assert "standard deviations" in lateral.reason


def test_held_out_loss_falls(learned: Calibration) -> None:
    history = learned.history
    assert np.mean([s.loss_before for s in history[-10:]]) < 0.5 * history[0].loss_before
    assert history[-1].metres == pytest.approx(0.3 * 400, rel=0.1)


def test_calibrated_increment_is_nearer_to_the_truth(learned: Calibration) -> None:
    links = links_of(TRUE, drive("rooms", 60), seed=9)
    raw = [np.linalg.norm(poses.log(poses.between(k.relative, k.measured))) for k in links]
    calibrated = [
        np.linalg.norm(poses.log(poses.between(k.relative, learned.predict(k.measured, k.seconds)[0]))) for k in links
    ]
    assert np.mean(calibrated) < 0.6 * np.mean(raw)


def test_a_prediction_is_as_sure_as_theta_is(learned: Calibration) -> None:
    link = links_of(TRUE, drive("rooms", 4), seed=2)[3]
    fresh = Calibration(SETTINGS)
    (_, before), (_, after) = (c.predict(link.measured, link.seconds) for c in (fresh, learned))
    assert before[0] > 1.5 * noise_of(fresh, SETTINGS, link)[0]
    assert after[0] < 1.2 * noise_of(learned, SETTINGS, link)[0]
    off = config.replace(SETTINGS, {"learning.enabled": False})
    given = Calibration(off)
    np.testing.assert_array_equal(given.predict(link.measured, link.seconds)[1], noise_of(given, off, link))


def test_calibration_far_from_the_start_is_found_by_linearising_again() -> None:
    robot = Robot(scale=0.8, rotation_gain=1.2, turn_per_metre=0.2, lever=(0.4, 0.0))
    calibration = Calibration(SETTINGS)
    learn(calibration, links_of(robot, drive("rooms", 300), seed=4))
    found = by_name(calibration)
    assert found["odometry.scale"].value == pytest.approx(0.8, abs=0.01)
    assert found["odometry.rotation_gain"].value == pytest.approx(1.2, abs=0.02)
    assert found["odometry.turn_per_metre"].value == pytest.approx(0.2, abs=0.01)
    assert found["odometry.lever.x"].value == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_a_straight_corridor_says_nothing_about_turning(seed: int) -> None:
    calibration = Calibration(SETTINGS)
    learn(calibration, links_of(Robot(scale=0.96), drive("corridor", 200), seed))
    found = by_name(calibration)
    for name in ("odometry.rotation_gain", "odometry.lever.x", "odometry.lever.y"):
        assert found[name].status in ("unobservable", "frozen")
        assert found[name].value == NEUTRAL.get(name, 0.0)
    assert found["odometry.rotation_gain"].status == "unobservable"
    assert "m of driving" in found["odometry.rotation_gain"].reason
    assert abs(found["odometry.scale"].value - 0.96) < 3 * found["odometry.scale"].sigma


def test_a_poisoned_block_is_rolled_back_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    links = links_of(TRUE, drive("rooms", 7 * SIZE), seed=2)
    clean = Calibration(SETTINGS)
    learn(clean, links)
    poisoned = Calibration(SETTINGS)
    learn(poisoned, links[: 3 * SIZE])
    # A block in which the floor slides under the robot: as if its wheels were a quarter larger, and only there.
    sliding = dataclasses.replace(TRUE, scale=1.2, turn_per_metre=0.2)
    stretch = links_of(sliding, drive("rooms", 4 * SIZE), seed=2)[3 * SIZE :]
    with caplog.at_level(logging.WARNING):
        learn(poisoned, stretch, 3 * SIZE + 1)
        before = by_name(poisoned)
        learn(poisoned, links[4 * SIZE : 5 * SIZE], 4 * SIZE + 1)
    assert not poisoned.history[-1].accepted
    assert poisoned.history[-1].loss_after > poisoned.history[-1].loss_before
    assert poisoned.counts["blocks_forgotten"] == 1
    assert "forgotten" in caplog.text
    after = by_name(poisoned)
    for name, parameter in before.items():
        # Noise is learned apart: the update of the calibration is what is rolled back.
        assert name.startswith("noise.") or after[name].value == parameter.value
    learn(poisoned, links[5 * SIZE :], 5 * SIZE + 1)
    for name, parameter in by_name(clean).items():
        assert by_name(poisoned)[name].value == pytest.approx(parameter.value, abs=3 * parameter.sigma)


@pytest.mark.parametrize("field", ["measured", "relative", "information", "seconds"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_links_that_are_not_finite_are_refused_with_their_block(
    field: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    calibration = Calibration(SETTINGS)
    links = links_of(TRUE, drive("rooms", 3 * SIZE), seed=3)
    bad = links[3]
    links[3] = dataclasses.replace(bad, **{field: np.full_like(getattr(bad, field), value)})
    learn(calibration, links)
    assert calibration.counts["links_refused"] == 4
    assert "keyframe 4" in caplog.text
    assert len(calibration.history) == 2  # the next block starts behind the bad link
    assert all(np.isfinite(p.value) and np.isfinite(p.sigma) for p in calibration.parameters())


def test_a_link_with_a_zero_quaternion_is_refused() -> None:
    calibration = Calibration(SETTINGS)
    link = links_of(TRUE, drive("rooms", 1), seed=3)[0]
    learn(calibration, [dataclasses.replace(link, measured=np.zeros(7))])
    assert calibration.counts["links_refused"] == 1


def test_a_block_whose_loss_overflows_is_refused() -> None:
    calibration = Calibration(SETTINGS)
    links = links_of(TRUE, drive("rooms", 3 * SIZE), seed=3)
    learn(calibration, links[: 2 * SIZE])
    before = calibration.parameters()
    huge = [dataclasses.replace(k, relative=poses.from_planar(1e200, 0.0, 0.0)) for k in links[2 * SIZE :]]
    learn(calibration, huge, 2 * SIZE + 1)
    assert calibration.counts["blocks_refused"] == 1
    assert calibration.parameters() == before


def test_a_gap_between_keyframes_starts_a_new_block() -> None:
    calibration = Calibration(SETTINGS)
    links = links_of(TRUE, drive("rooms", 2 * SIZE), seed=3)
    learn(calibration, links[:4])
    learn(calibration, links[4:], 8)
    assert calibration.counts["links_refused"] == 5


def test_nothing_compiles_after_warm_up() -> None:
    calibration = Calibration(SETTINGS)
    calibration.warm_up(planar=True)
    links = links_of(TRUE, drive("rooms", 60 * SIZE), seed=5)
    with CompileCounter() as compilations:
        learn(calibration, links)
        calibration.predict(links[0].measured, 0.1)
    assert len(calibration.history) == 60
    assert compilations.count == 0


def test_robot_that_stands_teaches_nothing() -> None:
    calibration = Calibration(SETTINGS)
    still = [
        dataclasses.replace(k, measured=poses.IDENTITY, relative=poses.IDENTITY, rate=np.zeros(6))
        for k in links_of(TRUE, drive("rooms", 30), 0)
    ]
    learn(calibration, still)
    assert {p.status for p in calibration.parameters()} == {"unobservable"}


def test_learning_goes_on_from_given_parameters() -> None:
    given = [
        Parameter("odometry.scale", 0.96, 0.001, "ratio", "learned"),
        Parameter("extrinsic.x", 0.1, 0.01, "m", "learned"),
    ]
    calibration = Calibration(SETTINGS, given)
    told = by_name(calibration)
    assert told["odometry.scale"].value == pytest.approx(0.96)
    assert told["extrinsic.x"].value == 0.1
    assert float(calibration.theta.scale) == pytest.approx(-0.04)
    assert float(calibration.theta.extrinsic[0]) == 0.1
    increment, _ = calibration.predict(poses.from_planar(1.0, 0.0, 0.0), 1.0)
    assert increment[0] == pytest.approx(0.96)
    learn(calibration, links_of(TRUE, drive("rooms", 200), seed=6))
    assert by_name(calibration)["odometry.turn_per_metre"].status == "learned"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("odometry.wheels", 1.0, "unknown name 'odometry.wheels'"),
        ("odometry.scale", 3.0, "odometry.scale = 3.0 ratio is outside"),
        ("odometry.lever.x", float("nan"), "odometry.lever.x = nan"),
        ("noise.loop", -1.0, "must be positive"),
    ],
)
def test_given_parameters_that_cannot_be_are_refused(name: str, value: float, said: str) -> None:
    with pytest.raises(UserError, match="learned parameters: ") as caught:
        Calibration(SETTINGS, [Parameter(name, value, 0.1, "", "learned")])
    assert said in str(caught.value)


def test_parameters_that_cannot_be_learned_are_refused() -> None:
    settings = config.replace(SETTINGS, {"learning.parameters": "odometry.scale, extrinsic.x"})
    with pytest.raises(
        UserError, match=r"learning\.parameters: 'extrinsic\.x' cannot be learned; names are odometry\.scale"
    ):
        Calibration(settings)


def test_with_learning_off_parameters_are_said_to_be_frozen() -> None:
    off = Calibration(config.replace(SETTINGS, {"learning.enabled": False}))
    assert {(p.status, p.reason) for p in off.parameters()} == {("frozen", "learning is off")}


@pytest.mark.parametrize("learning", [True, False])
def test_noise_that_was_given_is_told_once(learning: bool) -> None:
    given = Parameter("noise.odometry.rotation", 1.3, 0.1, "ratio", "learned")
    settings = config.replace(SETTINGS, {"learning.enabled": learning, "learning.noise": True})
    calibration = Calibration(settings, [given])

    def told() -> Parameter:
        (parameter,) = (p for p in calibration.parameters() if p.name == given.name)
        return parameter

    assert (told().value, told().sigma, told().status) == (pytest.approx(1.3), 0.1, "frozen")
    if learning:
        learn(calibration, links_of(TRUE, drive("rooms", 4 * SIZE), seed=2))
        assert told().status == "learned"
        assert told().value != pytest.approx(1.3, abs=1e-6)


def test_a_state_between_two_blocks_goes_on_with_what_is_being_worked_out() -> None:
    """What a step works out beside the scans is neither lost nor taken over early by writing it down."""
    links = links_of(TRUE, drive("rooms", 6 * SIZE), seed=5)

    def fed(calibration: Calibration, first: int, last: int) -> None:
        for key in range(first, last):
            calibration.add(key, links[key - 1])
            if key % SIZE == 0:
                calibration.step(key * 10**9, 0.3 * key)

    straight, written = Calibration(SETTINGS), Calibration(SETTINGS)
    fed(straight, 1, 6 * SIZE)
    fed(written, 1, 3 * SIZE + 2)
    again = Calibration(SETTINGS)
    again.restore(written.state())
    for calibration in (written, again):
        fed(calibration, 3 * SIZE + 2, 6 * SIZE)
        calibration.settle()
    straight.settle()
    assert written.parameters() == straight.parameters()
    assert again.parameters() == straight.parameters()
    assert straight.history[-1].parameters != straight.parameters()
