"""A scan made ready: deskewed, in the base frame, thinned, padded."""

from __future__ import annotations

import numpy as np
import worlds
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dsg_ros import poses
from dsg_ros.interface import Frame, OdometryTrack
from dsg_ros.mapping import scan

DURATION = 0.1
EXTRINSIC = poses.from_planar(0.2, -0.1, 0.05)


def turning_frame(*, timed: bool) -> Frame:
    """A wall at x = 3 m, swept in a tenth of a second by a robot that drives 1 m/s and turns 1.5 rad/s."""
    times = np.linspace(0, DURATION, len(worlds.BEAMS))
    truth = poses.from_planar(1.0 * times, 0.2 * times, 1.5 * times)
    wall = worlds.polygon((3, -50), (3, 50))
    points = []
    for pose, bearing in zip(truth, worlds.BEAMS, strict=True):
        sensor = poses.compose(pose, EXTRINSIC)
        distance = worlds.ranges(wall, sensor[:2], np.array([bearing + poses.yaw(sensor)]))[0]
        points.append([distance * np.cos(bearing), distance * np.sin(bearing), 0])
    kept = np.isfinite(np.array(points)).all(axis=1)
    start = 1_000 * worlds.SECOND
    stamps = start + np.arange(0, int(DURATION * 1e9) + 1, worlds.SECOND // 100)
    seconds = (stamps - start) / 1e9
    # Odometry lives in a frame of its own.
    odom_from_map = poses.from_planar(-4.0, 2.0, 1.0)
    track = OdometryTrack(
        stamps, poses.compose(odom_from_map, poses.from_planar(seconds, 0.2 * seconds, 1.5 * seconds))
    )
    found = np.array(points)[kept].astype(np.float32)
    return Frame(start, found, track, EXTRINSIC, times[kept].astype(np.float32) if timed else None, planar=True)


def bend(points: np.ndarray) -> float:
    """Largest deviation [m] from the wall at x = 3 m of the part within 8 m of the robot."""
    near = np.abs(points[:, 1]) < 8
    assert np.count_nonzero(near) > 100
    return float(np.abs(points[near, 0] - 3).max())


def test_deskewing_straightens_a_wall_seen_while_turning() -> None:
    assert bend(scan.deskew(turning_frame(timed=False))) > 0.3
    assert bend(scan.deskew(turning_frame(timed=True))) < 2e-3  # metres: what a linear interpolation over 10 ms leaves


def test_an_instantaneous_scan_is_only_brought_to_the_base_frame() -> None:
    frame = turning_frame(timed=False)
    np.testing.assert_allclose(scan.deskew(frame), poses.transform(EXTRINSIC, frame.points.astype(float)))


def test_an_empty_scan_stays_empty() -> None:
    frame = turning_frame(timed=True)
    empty = Frame(frame.stamp, frame.points[:0], frame.odometry, EXTRINSIC, np.zeros(0, np.float32))
    assert scan.deskew(empty).shape == (0, 3)
    assert scan.thin(scan.deskew(empty), 0.05, 256).shape == (0, 3)
    assert scan.thin(scan.deskew(empty), 0.0, 256).shape == (0, 3)


@given(
    arrays(np.float64, st.tuples(st.integers(0, 300), st.just(3)), elements=st.floats(-20, 20)),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.integers(8, 64),
)
def test_thinning_respects_the_capacity_and_the_bounds(points: np.ndarray, cell: float, capacity: int) -> None:
    thinned = scan.thin(points, cell, capacity)
    assert len(thinned) <= capacity
    assert (len(thinned) == 0) == (len(points) == 0)
    if len(points):
        assert np.all(thinned >= points.min(axis=0) - 1e-9)
        assert np.all(thinned <= points.max(axis=0) + 1e-9)


def test_thinning_averages_what_lies_in_one_cell() -> None:
    points = np.array([[0.01, 0.01, 0.0], [0.03, 0.01, 0.0], [1.01, 0.0, 0.0]])
    np.testing.assert_allclose(scan.thin(points, 0.05, 10), [[0.02, 0.01, 0.0], [1.01, 0.0, 0.0]])


def test_thinning_to_a_capacity_keeps_points_on_their_surfaces() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 3, (3000, 3))
    corner[np.arange(3000), rng.integers(0, 3, 3000)] = 0.0  # on one of three walls
    thinned = scan.thin(corner, 0.0, 100)
    assert 50 < len(thinned) <= 100
    np.testing.assert_array_equal(thinned.min(axis=1), 0.0)
    assert {tuple(point) for point in thinned} <= {tuple(point) for point in corner}
    smooth = scan.thin(corner, 0.05, 100)
    assert 50 < len(smooth) <= 100
    assert smooth.min(axis=1).max() < 0.05


def test_without_a_cell_few_points_stay_as_they_are() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3))
    assert scan.thin(points, 0.0, 20) is points
