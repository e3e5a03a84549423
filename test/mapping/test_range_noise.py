"""The noise of a planar scanner's ranges, measured on its scans, and what becomes of inliers by it."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import scan
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.range_noise import FEWEST_SCANS, RangeNoise

Array = NDArray[np.float64]
PLACES = poses.from_planar(-1.5 + 0.1 * np.arange(20), 0.0, 0.3 * np.arange(20))


def scans(noise: float, every: int = 1) -> list[Array]:
    """A tour of a room, of ``every``-th beam."""
    return [worlds.scan(worlds.room(), pose, noise=noise, seed=k)[::every] for k, pose in enumerate(PLACES)]


def heard(found: list[Array]) -> RangeNoise:
    noise = RangeNoise()
    for points in found:
        noise.hear(points.astype(np.float32))
    return noise


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
def test_noise_is_measured_and_rather_told_too_small(sigma: float, every: int) -> None:
    assert 0.5 * sigma < heard(scans(sigma, every)).deviation < 1.1 * sigma


@pytest.mark.parametrize("every", [1, 5])
def test_walls_and_their_corners_are_no_noise(every: int) -> None:
    assert heard(scans(0.0, every)).deviation < 0.001


def test_what_stands_about_is_no_noise() -> None:
    random, found = np.random.default_rng(3), scans(0.01)
    for points in found:
        struck = random.random(len(points)) < 0.3
        points[struck] *= random.uniform(0.2, 1.0, (struck.sum(), 1))
    assert heard(found).deviation < 0.02


def test_where_most_scans_are_of_bushes_the_others_count() -> None:
    assert heard(scans(0.01) + 5 * scans(0.2)).deviation < 0.02


def test_of_a_few_scans_or_points_nothing_is_said() -> None:
    assert heard(scans(0.05)[: FEWEST_SCANS - 1]).deviation == 0.0
    assert heard([points[:15] for points in scans(0.05)]).deviation == 0.0
    assert heard([points[:count] for points in scans(0.05) for count in (0, 1, 2)]).deviation == 0.0


def test_what_was_heard_can_be_kept() -> None:
    first, other = heard(scans(0.05)), RangeNoise()
    other.restore(first.state())
    assert other.deviation == first.deviation > 0.0
    for points in scans(0.01):
        first.hear(points)
        other.hear(points)
    assert other.deviation == first.deviation < 0.02


def test_of_a_noisy_scanner_a_good_match_is_not_in_doubt(settings: config.Slam) -> None:
    mapper = LocalMapper(settings.registration, settings.input, planar=True)
    seen = [scan.thin(points, settings.input.cell, mapper.capacity) for points in scans(0.07)]
    local_map, prior = mapper.build(PLACES[:-1], seen[:-1]), np.eye(6) * 1e4
    matched = mapper.register(local_map, seen[-1], PLACES[-1:], PLACES[-1], prior)
    assert mapper.doubt(matched.inliers) > 0.5
    for points in scans(0.07):
        mapper.range_noise.hear(points)
    matched = mapper.register(local_map, seen[-1], PLACES[-1:], PLACES[-1], prior)
    assert mapper.doubt(matched.inliers) < 0.1


def test_of_a_scanner_that_is_not_the_inlier_distance_is_what_was_told(settings: config.Slam) -> None:
    mapper = LocalMapper(settings.registration, settings.input, planar=True)
    for points in scans(0.02):
        mapper.range_noise.hear(points)
    assert mapper.inlier_distance == settings.registration.inlier_distance
