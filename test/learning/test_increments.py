"""The calibration of single increments agrees with the factor that theta acts in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsg_ros import config, poses
from dsg_ros.core import geometry
from dsg_ros.core.factors.odometry import calibrated, noise
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.interface import OdometryTrack
from dsg_ros.learning.increments import IncrementModel, Moment, increment, widened
from dsg_ros.learning.programs import map_gained

NUMBERS = st.lists(st.floats(-1, 1), min_size=6, max_size=6)
THETA = to_float64(
    Theta.neutral().replace(
        scale=np.asarray(-0.04), rotation_gain=np.asarray(0.03), turn_per_metre=np.asarray(0.05),
        lateral_slip=np.asarray(0.02), lever=np.array([0.1, -0.2, 0.05]),
        lever_rotation=np.array([0.02, -0.03, 0.4]), bias=np.arange(6) * 1e-3,
        odometry_noise=np.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.6]),
    )
)  # fmt: skip
MODEL = IncrementModel(THETA, config.Odometry())


@given(NUMBERS, st.floats(0, 10))
def test_increment_is_the_one_of_the_odometry_factor(numbers: list[float], seconds: float) -> None:
    increment = poses.exp(np.array(numbers))
    got, _ = MODEL.predict(increment, seconds)
    expected = geometry.exp(calibrated(THETA, poses.log(increment), np.asarray(seconds)))
    np.testing.assert_allclose(got, expected, atol=1e-12)


@given(NUMBERS)
def test_deviations_are_those_of_the_odometry_factor(numbers: list[float]) -> None:
    increment = poses.exp(np.array(numbers))
    told = config.Odometry()
    fields = noise(
        increment[None],
        (told.sigma_translation, told.translation_per_metre, told.translation_per_radian),
        (told.sigma_rotation, told.rotation_per_radian, told.rotation_per_metre),
    )
    growth = np.exp(THETA.odometry_noise)
    _, sigmas = MODEL.predict(increment, 0.1)
    expected = [fields["sigma_translation"][0] @ growth[:3], fields["sigma_rotation"][0] @ growth[3:]]
    np.testing.assert_allclose(sigmas, np.repeat(expected, 3), rtol=1e-9)


@given(NUMBERS, st.floats(0, 10))
def test_what_theta_is_not_sure_of_adds_to_the_deviations(numbers: list[float], seconds: float) -> None:
    sigmas = np.array([0.02, 0.01])

    def of(scale: float, turn_per_metre: float) -> np.ndarray:
        theta = THETA.replace(scale=np.asarray(-0.04 + scale), turn_per_metre=np.asarray(0.05 + turn_per_metre))
        return np.asarray(calibrated(theta, np.array(numbers), np.asarray(seconds)))

    gained = map_gained(THETA, np.zeros(2), names=("odometry.scale", "odometry.turn_per_metre"))
    unsure = np.moveaxis(np.asarray(gained) * sigmas, -1, 0)
    _, noise_alone = MODEL.predict(poses.exp(np.array(numbers)), seconds)
    told = widened(noise_alone, poses.exp(np.array(numbers)), seconds, unsure)
    step = 1e-5
    by = [(of(step, 0.0) - of(-step, 0.0)) / (2 * step), (of(0.0, step) - of(0.0, -step)) / (2 * step)]
    expected = np.sqrt(noise_alone**2 + (by[0] * sigmas[0]) ** 2 + (by[1] * sigmas[1]) ** 2)
    np.testing.assert_allclose(told, expected, rtol=1e-6)


def test_nothing_learned_changes_nothing() -> None:
    neutral = IncrementModel(to_float64(Theta.neutral()), config.Odometry())
    for angle in (0.0, 1e-9, 1e-4, 0.3, 3.1):
        increment = poses.exp(np.array([0.2, -0.1, 0.05, 0.0, 0.0, angle]))
        np.testing.assert_allclose(neutral.predict(increment, 1.0)[0], increment, atol=1e-12)


VELOCITY = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.3])
LATE = 60_000_000
"""Nanoseconds by which the tracks below are stamped late."""


def late_track(first: int = 0, last: int = 500) -> OdometryTrack:
    """A robot that gets faster and turns, told every 20 ms between two stamps [ms], late."""
    stamps = np.arange(first, last + 1, 20) * 1_000_000
    return OdometryTrack(stamps, where(stamps - LATE))


def where(stamps: np.ndarray) -> np.ndarray:
    """Where that robot is."""
    seconds = np.asarray(stamps)[..., None] * 1e-9
    return poses.exp(VELOCITY * (seconds + 0.4 * seconds**2))


def told_late() -> IncrementModel:
    return IncrementModel(to_float64(Theta.neutral().replace(time_offset=np.array(0.06))), config.Odometry())


def taken(model: IncrementModel, track: OdometryTrack, stamp: int) -> Moment:
    """Odometry at the moment of a scan, as the pipeline takes it."""
    return model.moment(track, stamp, model.there(track, stamp, track.at(stamp)))


def test_odometry_is_taken_at_the_moment_of_the_scan() -> None:
    for stamp in (0, 110_000_000, 440_000_000):
        moment = taken(told_late(), late_track(), stamp)
        np.testing.assert_allclose(moment.odometry, where(np.array(stamp)), atol=2e-4)
    beyond = taken(told_late(), late_track(), 490_000_000)
    np.testing.assert_allclose(beyond.odometry, where(np.array(490_000_000)), atol=2e-3)


def test_an_increment_with_its_rate_is_right_whatever_offset_it_was_taken_with() -> None:
    true = poses.log(poses.between(where(np.array(100_000_000)), where(np.array(400_000_000))))
    for before, after in ((0.0, 0.0), (0.06, 0.06), (0.04, 0.06), (0.0, 0.03)):
        models = [
            IncrementModel(to_float64(Theta.neutral().replace(time_offset=np.array(t))), config.Odometry())
            for t in (before, after)
        ]
        track = late_track()
        first, second = (
            taken(model, track, stamp) for model, stamp in zip(models, (100_000_000, 400_000_000), strict=True)
        )
        measured, gained = increment(first, second)
        np.testing.assert_allclose(poses.log(measured) + 0.06 * gained, true, atol=3e-3)
        assert np.abs(poses.log(measured) - true).max() > 5e-3, "without the offset it is not"


def test_scans_are_straightened_by_the_motion_there_really_was() -> None:
    track = told_late().corrected(late_track(80, 320), 100_000_000)
    for stamp in (100_000_000, 150_000_000, 260_000_000, 300_000_000):
        seen = poses.between(where(np.array(100_000_000)), where(np.array(stamp)))
        ours = poses.between(track.at(100_000_000), track.at(stamp))
        np.testing.assert_allclose(ours, seen, atol=2e-3)
    neutral = IncrementModel(Theta.neutral(), config.Odometry())
    assert neutral.corrected(track, 100_000_000) is track

    scaled = IncrementModel(THETA, config.Odometry()).corrected(late_track(80, 320), 100_000_000)
    got = poses.between(scaled.at(100_000_000), scaled.at(300_000_000))
    raw = poses.between(late_track().at(100_000_000), late_track().at(300_000_000))
    np.testing.assert_allclose(got, IncrementModel(THETA, config.Odometry()).predict(raw, 0.2)[0], atol=2e-4)


def test_the_track_tells_its_velocity() -> None:
    velocity = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.3])
    stamps = np.array([0, 20_000_000, 40_000_000])
    track = OdometryTrack(stamps, poses.exp(velocity * stamps[:, None] * 1e-9))
    for stamp in (0, 15_000_000, 20_000_000, 40_000_000, 50_000_000):
        np.testing.assert_allclose(track.velocity(stamp), velocity, atol=1e-9)
    assert not OdometryTrack(stamps[:1], track.poses[:1]).velocity(0).any()


def test_the_velocity_can_be_of_samples_apart() -> None:
    """Samples within a sweep have no part in it; beyond the track the nearest ones are taken as they are."""
    stamps = np.arange(0, 800_000_000, 20_000_000)
    told = np.zeros((len(stamps), 6))
    told[:, 0] = 0.5 * stamps * 1e-9
    within = (stamps > 300_000_000) & (stamps < 500_000_000)
    told[within, 0] += 0.1
    track = OdometryTrack(stamps, poses.exp(told))
    for stamp in (400_000_000, 405_000_000, 395_000_000):  # samples need not be at the borders
        assert track.velocity(stamp, 100_000_000)[0] == pytest.approx(0.5)
    assert abs(track.velocity(320_000_000)[0] - 0.5) > 0.3
    assert track.velocity(780_000_000, 100_000_000)[0] == track.velocity(780_000_000)[0] == pytest.approx(0.5)
    turning = np.zeros((len(stamps), 6))
    turning[:, 0] = 0.4 * (stamps * 1e-9) ** 2
    even = OdometryTrack(stamps, poses.exp(turning))
    assert even.velocity(400_000_000, 100_000_000)[0] == pytest.approx(0.8 * 0.4)


def test_the_velocity_is_not_that_of_two_samples() -> None:
    """Samples that jump by 1 mm each time, 20 ms apart, are 0.1 m/s off between neighbours."""
    stamps = np.arange(0, 400_000_000, 20_000_000)
    told = np.zeros((len(stamps), 6))
    told[:, 0] = 0.5 * stamps * 1e-9 + 1e-3 * (-1.0) ** np.arange(len(stamps))
    track = OdometryTrack(stamps, poses.exp(told))
    assert abs(track.velocity(200_000_000)[0] - 0.5) < 0.02
    # At the end of the track there is only what lies before.
    assert abs(track.velocity(int(stamps[-1]) + 60_000_000)[0] - 0.5) < 0.04
