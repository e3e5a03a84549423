"""The calibration of single increments agrees with the factor that theta acts in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsg_ros import config, poses
from dsg_ros.core import geometry
from dsg_ros.core.factors.odometry import calibrated, noise
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.interface import OdometryTrack
from dsg_ros.learning.increments import IncrementModel, rate

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


def test_nothing_learned_changes_nothing() -> None:
    neutral = IncrementModel(to_float64(Theta.neutral()), config.Odometry())
    for angle in (0.0, 1e-9, 1e-4, 0.3, 3.1):
        increment = poses.exp(np.array([0.2, -0.1, 0.05, 0.0, 0.0, angle]))
        np.testing.assert_allclose(neutral.predict(increment, 1.0)[0], increment, atol=1e-12)


def test_odometry_is_taken_at_the_moment_of_the_scan() -> None:
    velocity = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.3])
    model = IncrementModel(Theta.neutral().replace(time_offset=np.array(0.06)), config.Odometry())
    before, increment = poses.exp(np.array([1.0, 2.0, 0.0, 0.0, 0.0, 0.7])), poses.exp(0.4 * velocity)
    moved = model.in_time(before, velocity)
    np.testing.assert_allclose(moved, poses.compose(before, poses.exp(0.06 * velocity)), atol=1e-12)
    assert IncrementModel(Theta.neutral(), config.Odometry()).in_time(before, velocity) is before
    np.testing.assert_allclose(rate(increment, velocity, velocity), np.zeros(6), atol=1e-9)

    faster = velocity * 1.5
    told = rate(increment, velocity, faster)
    true = poses.compose(poses.compose(poses.exp(-0.06 * velocity), increment), poses.exp(0.06 * faster))
    np.testing.assert_allclose(poses.log(increment) + 0.06 * told, poses.log(true), atol=1e-4)


def test_the_track_tells_its_velocity() -> None:
    velocity = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.3])
    stamps = np.array([0, 20_000_000, 40_000_000])
    track = OdometryTrack(stamps, poses.exp(velocity * stamps[:, None] * 1e-9))
    for stamp in (0, 15_000_000, 20_000_000, 40_000_000, 50_000_000):
        np.testing.assert_allclose(track.velocity(stamp), velocity, atol=1e-9)
    assert not OdometryTrack(stamps[:1], track.poses[:1]).velocity(0).any()
