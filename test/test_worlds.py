"""The simulated places measure what they say."""

from __future__ import annotations

import numpy as np
import worlds

from dsg_ros import poses


def test_scan_of_a_box_lies_on_its_walls() -> None:
    pose = poses.from_planar(1.0, -0.5, 0.7)
    points = worlds.scan(worlds.box(0, 0, 8, 6), pose)
    assert len(points) == 180
    x, y, z = poses.transform(pose, points).T
    assert np.minimum(np.abs(np.abs(x) - 4), np.abs(np.abs(y) - 3)).max() < 1e-9
    assert np.all(z == 0)
    assert np.all(np.abs(x) < 4 + 1e-9)
    assert np.all(np.abs(y) < 3 + 1e-9)


def test_nearest_wall_hides_the_others() -> None:
    walls = np.vstack([worlds.box(0, 0, 10, 10), worlds.box(2, 0, 1, 1)])
    bearings = np.array([0.0, np.pi, np.pi / 2])
    np.testing.assert_allclose(worlds.ranges(walls, np.zeros(2), bearings), [1.5, 5.0, 5.0])
    assert np.isinf(worlds.ranges(worlds.corridor(), np.zeros(2), np.array([0.0]))[0])


def test_drive_passes_the_corners_in_small_steps() -> None:
    truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1.0))
    np.testing.assert_allclose(truth[0, :2], worlds.BLOCK_ROUTE[0])
    np.testing.assert_allclose(truth[-1, :2], worlds.BLOCK_ROUTE[0], atol=1e-12)
    steps = worlds.increments(truth)
    assert np.linalg.norm(steps[:, :2], axis=1).max() <= 0.1 + 1e-9
    assert np.abs(poses.yaw(steps)).max() <= 0.1 + 1e-9
    for corner in worlds.BLOCK_ROUTE:
        assert np.linalg.norm(truth[:, :2] - corner, axis=1).min() < 1e-9


def test_bias_is_the_one_asked_for() -> None:
    truth = worlds.drive([(0, 0), (10, 0)])
    wheels = worlds.biased(truth, scale=1.1, turn_per_metre=0.02)
    assert np.isclose(poses.yaw(wheels[-1]), 0.2)
    assert np.isclose(np.linalg.norm(worlds.increments(wheels)[:, :2], axis=1).sum(), 11.0)
    np.testing.assert_allclose(worlds.biased(truth)[-1], poses.between(truth[0], truth[-1]), atol=1e-12)
