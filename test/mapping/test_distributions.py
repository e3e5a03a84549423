"""Count, mean and covariance of the points in each voxel of a finished map, at any resolution."""

from __future__ import annotations

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.mapping import distributions as module
from dsg_ros.mapping import voxel_map
from dsg_ros.mapping.distributions import distributions


@pytest.fixture
def seen() -> tuple[list[np.ndarray], np.ndarray]:
    """Clouds of several sizes, one of them empty, and where they were seen from: far from the origin."""
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(count, 3)) * [2.0, 1.0, 0.3] for count in (40, 0, 300, 1, 120)]
    trajectory = poses.from_planar(500.0 + np.arange(5.0) / 3, -300.0 + np.zeros(5), np.linspace(0.0, 2.0, 5))
    return clouds, trajectory


@pytest.mark.parametrize("size", [0.3, 1.2])
@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("at_once", [2, 1000])
def test_they_are_the_moments_of_the_points_in_each_cell(seen, size, planar, at_once, monkeypatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    clouds, trajectory = seen
    points = np.concatenate([poses.transform(pose, cloud) for pose, cloud in zip(trajectory, clouds, strict=True)])
    keys = voxel_map.pack(voxel_map.cells_of(points, size, planar=planar))
    found = distributions(clouds, trajectory, size, planar=planar)
    np.testing.assert_array_equal(found.keys, np.unique(keys))
    assert found.counts.sum() == len(points)
    rows, columns = np.triu_indices(3)
    for key, count, mean, covariance in zip(*found, strict=True):
        own = points[keys == key]
        assert count == len(own)
        np.testing.assert_allclose(mean, own.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(covariance, np.cov(own.T, bias=True)[rows, columns], atol=1e-10)


def test_of_nothing_there_are_none() -> None:
    assert len(distributions([], np.zeros((0, 7)), 0.3, planar=True).keys) == 0
    assert len(distributions([np.zeros((0, 3))], poses.IDENTITY[None], 0.3, planar=True).keys) == 0
