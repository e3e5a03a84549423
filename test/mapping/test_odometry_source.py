"""Odometry of a robot that has none, or whose own stands still: what scans have seen goes on."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import Estimate, Frame, OdometryTrack
from dsg_ros.mapping.odometry_source import AWAY, IN_VAIN, STILL, OdometrySource
from dsg_ros.mapping.scan_odometry import LONGEST, SPAN, ScanOdometry, Step
from dsg_ros.pipeline import Slam

Array = NDArray[np.float64]
STEP = poses.from_planar(0.1, 0.0, 0.02)
TENTH = 100_000_000
SEEN, STOOD = Step(STEP, 0.1), Step(poses.IDENTITY, 0.1)


def frame(number: int, odometry: Array, times: Array | None = None) -> Frame:
    points = np.zeros((0 if times is None else len(times), 3), np.float32)
    track = OdometryTrack(np.array([number * TENTH]), odometry[None])
    return Frame(number * TENTH, points, track, times=None if times is None else times.astype(np.float32))


def calibrated(increment: Array, seconds: float) -> tuple[Array, Array]:
    return increment, np.full(6, 0.01)


def source(**settings: Any) -> OdometrySource:
    return OdometrySource(config.replace(config.Slam(), settings), calibrated)


def test_the_velocity_is_the_mean_of_a_while_whatever_single_stamps_say() -> None:
    scans = ScanOdometry(config.Odometry())
    np.testing.assert_array_equal(scans.velocity, np.zeros(6))
    scans.saw(Step(STEP, 0.001))
    assert scans.velocity[0] == pytest.approx(0.1 / SPAN, rel=1e-3)  # not 100 m/s
    for took in (0.05, 0.15, 0.0, 0.2, 0.1, 0.1, 0.1):
        scans.saw(Step(STEP, took))
    assert scans.velocity[0] == pytest.approx(1.0, rel=0.4)
    assert scans.velocity[5] == pytest.approx(0.2, rel=0.4)
    scans.saw(Step(STEP, LONGEST + 0.1))
    np.testing.assert_array_equal(scans.velocity, np.zeros(6))


def test_what_is_told_is_the_less_sure_the_longer_it_is_of() -> None:
    scans = ScanOdometry(config.Odometry(acceleration=2.0, angular_acceleration=4.0))
    floors = np.repeat([config.Odometry().sigma_translation, config.Odometry().sigma_rotation], 3)
    np.testing.assert_allclose(scans.sigmas(0.0), floors)
    np.testing.assert_allclose(scans.sigmas(0.5) - floors, np.repeat([2.0 * 0.25, 4.0 * 0.25], 3))


def test_odometry_that_moves_is_handed_on_as_it_is() -> None:
    told = source()
    for number in range(30):
        given = frame(number, poses.from_planar(0.1 * number, 0.0, 0.0))
        assert told.of(given, SEEN).odometry is given.odometry
        told.matched(0.1)  # scans that do not fit are nothing against it
        assert told.made_up(0.1) is None
    assert not told.alone
    np.testing.assert_array_equal(told.predict(STEP, 0.1)[1], np.full(6, 0.01))


def dead(told: OdometrySource, stands: Array, scans: int) -> Array:
    """Poses (scans, 7) told while odometry ``stands`` and scans see the robot move."""
    return np.array([told.of(frame(number, stands), SEEN).odometry.poses[-1] for number in range(scans)])


def test_odometry_that_stands_still_while_scans_see_the_robot_move_is_dead(caplog: pytest.LogCaptureFixture) -> None:
    told, stands = source(), poses.exp(np.array([3.7, -12.1, 0.0, 0.0, 0.0, 0.1]))
    with caplog.at_level(logging.WARNING, "dsg_ros"):
        way = dead(told, stands, 30)
    begins = STILL
    assert told.alone
    assert told.counts["odometry_stands_still"] == 1
    assert caplog.text.count("the odometry stands still for") == 1
    np.testing.assert_array_equal(way[:begins], np.tile(stands, (begins, 1)))
    on = poses.log(poses.between(way[begins:-1], way[begins + 1 :]))
    np.testing.assert_allclose(on, np.tile(poses.log(STEP), (len(on), 1)), atol=1e-9)  # at the velocity that was seen
    np.testing.assert_array_equal(told.raw, stands)
    assert told.predict(STEP, 0.1)[1][0] > 0.02


def test_odometry_that_moves_again_is_believed_from_there_on_without_a_jump() -> None:
    told, stands = source(), poses.from_planar(3.0, 1.0, 0.5)
    way = list(dead(told, stands, 30))
    jump = poses.from_planar(7.0, -2.0, 1.0)  # all at once what it did not tell, or nonsense
    for number in range(30, 34):
        raw = poses.compose(jump, poses.from_planar(0.3 * number, 0.0, 0.0))
        way.append(told.of(frame(number, raw), SEEN).odometry.poses[-1])
        np.testing.assert_allclose(told.raw, raw)
    assert not told.alone
    steps = poses.log(poses.between(np.array(way[28:-1]), np.array(way[29:])))
    np.testing.assert_allclose(steps[:2], np.tile(poses.log(STEP), (2, 1)), atol=1e-9)
    np.testing.assert_allclose(steps[2:], np.tile([0.3, 0, 0, 0, 0, 0], (3, 1)), atol=1e-9)
    assert told.made_up(0.5) is not None  # the way to this keyframe was told by scans in part
    assert told.made_up(0.5) is None


def test_it_is_told_where_nothing_fits_the_map_while_it_stands() -> None:
    """It is not given up: a robot that stands in a crowd sees the same."""
    told = source()
    for number in range(IN_VAIN + 20):
        told.of(frame(number, STEP), STOOD)
        told.matched(0.3)
    assert not told.alone
    assert told.counts["odometry_stands_still"] == 1


def test_what_was_not_seen_does_not_go_on() -> None:
    told = source(**{"input.odometry": "none"})
    dead(told, STEP, 20)
    told.begin_anew()
    track = told.of(frame(25, STEP), STOOD).odometry
    np.testing.assert_array_equal(track.poses[0], poses.IDENTITY)


def test_a_robot_that_stands_or_was_late_is_left_alone() -> None:
    told = source()
    for number in range(200):  # it stands, and its scans fit
        told.of(frame(number, STEP), STOOD)
        told.matched(0.9)
    for number in range(200, 300):  # it moves, but is told of it late, all at once
        told.of(frame(number, poses.from_planar(0.1 * (STILL - 1) * (number // (STILL - 1)), 0.0, 0.0)), SEEN)
    for number in range(300, 500):  # it stands, and its scans jump to and fro
        told.of(frame(number, STEP), SEEN if number % 2 else Step(poses.inverse(STEP), 0.1))
    assert not told.alone


def test_a_blinded_robot_is_taken_to_stop_and_then_to_be_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    """What was foretold is no sign of motion, though it is what a scan without points is given."""
    told = source(**{"input.odometry": "none"})
    way = list(dead(told, STEP, 10))
    sure, number = told.predict(STEP, 0.1)[1], 10
    while not told.away:
        way.append(
            told.of(frame(number, STEP), Step(poses.between(way[-2], way[-1]), 0.1, seen=False)).odometry.poses[-1]
        )
        number += 1
    assert (number - 9) * 0.1 == pytest.approx(AWAY + 0.1)  # the newest scan that saw anything is the one before
    on = np.linalg.norm(np.diff(np.array(way)[9:, :2], axis=0), axis=1)
    moved = round(LONGEST / 0.1)
    np.testing.assert_allclose(on[: moved - 1], np.linalg.norm(STEP[:2]), rtol=0.01)
    np.testing.assert_array_equal(on[moved + 1 :], 0.0)
    assert (told.predict(STEP, 0.1)[1] > 2.0 * sure).all()
    assert told.counts["motion_not_seen"] == caplog.text.count("taken to stand") == 1
    told.of(frame(number, STEP), STOOD)
    assert not told.away


def test_scans_that_do_not_come_leave_the_robot_anywhere_where_no_odometry_tells() -> None:
    for odometry in ("none", "measured"):
        told = source(**{"input.odometry": odometry})
        for number in (0, 1, 2, 3 + round(10 * AWAY)):
            told.of(frame(number, poses.from_planar(0.1 * number, 0.0, 0.0)), Step(STEP, 0.1, seen=odometry == "none"))
        assert told.away is (odometry == "none")


def test_odometry_that_falls_silent_is_gone_on_from_until_it_moves_again(caplog: pytest.LogCaptureFixture) -> None:
    told, way = source(), []
    for number in range(40):
        given = frame(number, poses.from_planar(0.2 * number if number < 10 or number >= 30 else 1.85, 0.0, 0.0))
        way.append(told.of(replace(given, heard=not 10 <= number < 30), SEEN).odometry.poses[-1])
        assert told.alone is (10 <= number <= 30), number  # of what it tells at once nothing is believed
    assert told.counts["odometry_fell_silent"] == caplog.text.count("the odometry does not come any more") == 1
    steps = poses.log(poses.between(np.array(way[:-1]), np.array(way[1:])))
    np.testing.assert_allclose(steps[9:30], np.tile(poses.log(STEP), (21, 1)), atol=1e-9)
    np.testing.assert_allclose(steps[30:, 0], 0.2, atol=1e-9)


def test_the_way_during_a_sweep_is_told_too() -> None:
    told = source(**{"input.odometry": "none"})
    for number in range(10):
        seen = told.of(frame(number, poses.IDENTITY, np.array([-0.0625, 0.125])), SEEN).odometry
    np.testing.assert_array_equal(seen.stamps, 9 * TENTH + np.array([-62_500_000, 0, 125_000_000]))
    np.testing.assert_allclose(
        poses.log(poses.between(seen.poses[0], seen.poses[2])), 1.875 * poses.log(STEP), atol=1e-8
    )


@pytest.mark.parametrize("scans", [3, 16, 31])
def test_a_state_goes_on_as_it_was(scans: int) -> None:
    one, other = source(), source()
    dead(one, STEP, scans)
    other.restore({name: np.array(value) for name, value in one.state().items()})
    for number in range(scans, scans + 20):
        raw = STEP if number < scans + 10 else poses.from_planar(0.1 * number, 0.0, 0.0)
        ways = [each.of(frame(number, raw), SEEN).odometry.poses for each in (one, other)]
        np.testing.assert_array_equal(*ways)
        assert (one.made_up(0.1) is None) == (other.made_up(0.1) is None)
        assert one.alone == other.alone
    assert one.counts == other.counts


@pytest.fixture(scope="module")
def drive() -> tuple[Array, Array]:
    truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1.2))
    return truth, worlds.biased(truth, scale=1.03, turn_per_metre=0.02)


def mapped(settings: config.Slam, truth: Array, odometry: Array) -> tuple[list[Estimate], Array, dict[str, int]]:
    """Estimates, the final trajectory and its errors (n,) [m] of a drive round the block, and the counts."""
    slam = Slam(settings)
    estimates = [slam.process(each) for each in worlds.frames(worlds.block(), truth, odometry)]
    result = slam.finish()
    away = result.trajectory[:, :3] - poses.between(truth[0], truth)[:, :3]
    return estimates, np.linalg.norm(away, axis=1), dict(result.counts)


@pytest.mark.parametrize("how", ["none", "dies", "never moves"])
def test_a_robot_without_odometry_is_mapped_by_its_scans(how: str, drive: tuple[Array, Array]) -> None:
    truth, odometry = drive
    told = odometry.copy()
    if how != "none":
        first = 0 if how == "never moves" else len(told) // 3
        told[first:] = told[first]
    settings = config.replace(config.Slam(), {"input.odometry": "none" if how == "none" else "measured"})
    estimates, errors, counts = mapped(settings, truth, told)
    assert counts["odometry_stands_still"] == (how != "none")
    assert counts["loops"] >= 1
    assert errors.mean() < 0.05
    assert errors.max() < 0.2
    final = estimates[-1]
    np.testing.assert_array_equal(final.odometry, told[-1])  # map->odom is for the odometry that others hear
    np.testing.assert_allclose(poses.compose(final.map_from_odom, told[-1]), final.pose, atol=1e-9)
    if how != "dies":
        assert all(p.status == "unobservable" for p in final.parameters if p.name.startswith("odometry."))


def test_odometry_that_stood_for_a_while_is_learned_from_again(drive: tuple[Array, Array]) -> None:
    """The robot goes on while it stands; when it moves again it tells no more of what was."""
    truth, odometry = drive
    third, steps = len(odometry) // 3, worlds.increments(odometry)
    steps[third : third + 60] = poses.IDENTITY
    estimates, errors, counts = mapped(config.Slam(), truth, worlds.chained(odometry[0], steps))
    assert counts["odometry_stands_still"] == 1
    assert errors.max() < 0.2
    scale = next(p for p in estimates[-1].parameters if p.name == "odometry.scale")
    assert scale.status == "learned"
    assert abs(scale.value * 1.03 - 1.0) < 3.0 * scale.sigma


def test_odometry_that_fell_silent_for_a_while_is_gone_on_from(drive: tuple[Array, Array]) -> None:
    """When it comes again it tells all at once of what it did not tell."""
    truth, odometry = (each[:160] for each in drive)
    slam = Slam(config.Slam())
    for number, each in enumerate(worlds.frames(worlds.block(), truth, odometry)):
        held = OdometryTrack(each.odometry.stamps, odometry[59:60])
        silent = 60 <= number < 110
        estimate = slam.process(replace(each, odometry=held, heard=False) if silent else each)
        assert bool(estimate.metrics["scans_alone"]) is (60 <= number < 111), number
        assert np.linalg.norm(estimate.pose[:3] - poses.between(truth[0], truth[number])[:3]) < 0.1
    assert estimate.counts["odometry_fell_silent"] == 1
