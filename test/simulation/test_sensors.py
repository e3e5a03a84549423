"""What the simulated sensors measure: exact where it can be, distorted as real sweeps are, the same by seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dsg_ros import config, poses
from dsg_ros.interface import Frame, OdometryTrack
from dsg_ros.io.records import CloudRecord, OdometryRecord
from dsg_ros.mapping import scan
from dsg_ros.simulation.robot import Reference, Robot
from dsg_ros.simulation.scene import box, scene
from dsg_ros.simulation.sensors import MOUNT, Lidar, wheel_odometry

EXACT = config.SimulatedLidar(columns=360, noise=0.0)
ROOM = np.array([[-5.0, -4.0, 0.0], [5.0, 4.0, 3.0]])
PERFECT = config.SimulatedWheels(
    scale=1.0, rotation_gain=1.0, turn_per_metre=0.0, noise_translation=0.0, noise_rotation=0.0
)


def turning(seconds: np.ndarray) -> np.ndarray:
    """A robot that turns on an arc, fast: 1.5 m/s, 1.5 rad/s."""
    return poses.from_planar(np.sin(1.5 * seconds), 1 - np.cos(1.5 * seconds), 1.5 * seconds)


def off_the_walls(points: np.ndarray) -> np.ndarray:
    """Metres (n,) from points (n, 3) in world to the nearest wall of the room."""
    return np.abs(points[:, None] - ROOM[None]).min(axis=(1, 2))


@pytest.fixture(scope="module")
def sweep():
    return Lidar(EXACT, scene([box(*ROOM)])).sweep(turning, 0.3, np.random.default_rng(0))


def test_each_point_is_where_the_sensor_saw_it_then(sweep) -> None:
    sensor = poses.compose(turning(0.3 + sweep.times.astype(float)), MOUNT)
    assert len(sweep.points) == EXACT.columns * EXACT.beams
    assert off_the_walls(poses.transform(sensor, sweep.points.astype(float))).max() < 1e-5


def test_deskewing_takes_the_motion_out(sweep) -> None:
    start = 10**9
    offsets = np.linspace(0.0, 0.1, 6)
    track = OdometryTrack(start + np.round(offsets * 1e9).astype(np.int64), turning(0.3 + offsets))
    raw = Frame(start, sweep.points, track, MOUNT, None)
    in_world = [
        poses.transform(turning(np.array([0.3]))[0], scan.deskew(frame))
        for frame in (raw, dataclasses.replace(raw, times=sweep.times))
    ]
    distorted, mended = (off_the_walls(points) for points in in_world)
    assert np.percentile(distorted, 90) > 0.1
    # Odometry at 50 Hz is interpolated along chords of the arc.
    assert mended.max() < 2e-3


def test_range_noise_is_as_told() -> None:
    solids = scene([box(*ROOM)])
    lidars = (Lidar(dataclasses.replace(EXACT, noise=noise), solids) for noise in (0.0, 0.02))
    clean, noisy = (lidar.sweep(turning, 0.0, np.random.default_rng(1)).points.astype(float) for lidar in lidars)
    ranges = np.linalg.norm(clean, axis=1)
    error = np.linalg.norm(noisy, axis=1) - ranges
    assert abs(error.mean()) < 0.002
    assert error.std() == pytest.approx(0.02, rel=0.05)
    along = (noisy * clean).sum(axis=1) / np.linalg.norm(noisy, axis=1) / ranges
    np.testing.assert_allclose(along, 1.0, atol=1e-9)


def test_what_is_too_far_or_too_near_gives_no_return() -> None:
    near = Lidar(dataclasses.replace(EXACT, max_range=4.5), scene([box(*ROOM)]))
    assert 0 < len(near.sweep(turning, 0.0, np.random.default_rng(0)).points) < EXACT.columns * EXACT.beams
    nothing = Lidar(EXACT, scene([])).sweep(turning, 0.0, np.random.default_rng(0))
    assert (nothing.points.shape, nothing.times.shape) == ((0, 3), (0,))


def test_perfect_wheels_on_level_ground_tell_the_truth() -> None:
    truth = turning(np.arange(0.0, 3.0, 0.02))
    told = wheel_odometry(PERFECT, truth, np.random.default_rng(0))
    np.testing.assert_allclose(told, poses.between(truth[0], truth), atol=1e-12)


def test_wheels_err_as_told() -> None:
    truth = poses.from_planar(np.linspace(0, 10, 501), 0.0, 0.0)
    settings = dataclasses.replace(PERFECT, scale=1.05)
    assert wheel_odometry(settings, truth, np.random.default_rng(0))[-1, 0] == pytest.approx(10.5)
    settings = dataclasses.replace(PERFECT, turn_per_metre=0.01)
    assert poses.yaw(wheel_odometry(settings, truth, np.random.default_rng(0))[-1]) == pytest.approx(0.1)
    settings = dataclasses.replace(PERFECT, noise_translation=0.02, noise_rotation=0.01)
    ends = np.array([wheel_odometry(settings, truth, np.random.default_rng(seed))[-1] for seed in range(200)])
    assert poses.yaw(ends).std() == pytest.approx(0.01 * np.sqrt(10), rel=0.2)
    assert ends[:, 0].std() == pytest.approx(0.02 * np.sqrt(10), rel=0.2)


SHORT = config.Simulation(drive=config.SimulatedDrive(laps=0.02), lidar=config.SimulatedLidar(columns=60))


def test_records_come_when_they_are_known_and_odometry_spans_every_sweep() -> None:
    robot = Robot(SHORT, start=5)
    records = list(robot.records())
    times = [time for time, _ in records]
    assert times == sorted(times)
    odometry, clouds, reference = (
        [(time, r) for time, r in records if isinstance(r, kind)] for kind in (OdometryRecord, CloudRecord, Reference)
    )
    assert len(clouds) == robot.sweeps > 20
    stamps = [r.stamp for _, r in odometry]
    assert stamps[0] == 5
    assert np.diff(stamps).tolist() == [20_000_000] * (len(stamps) - 1)
    exact = {r.stamp: r.pose for _, r in reference}
    for time, cloud in clouds:
        assert cloud.times is not None
        assert time >= cloud.stamp + round(float(cloud.times.max()) * 1e9)
        assert max(stamp for stamp in stamps if stamp <= time) == time
        assert cloud.stamp in exact
    np.testing.assert_allclose(exact[5], robot.truth(np.zeros(1))[0])


def test_the_same_seed_makes_the_same_drive_and_a_longer_one_begins_alike() -> None:
    longer = dataclasses.replace(SHORT, drive=config.SimulatedDrive(laps=0.03))
    other = dataclasses.replace(SHORT, seed=1)
    one, same, long, different = (Robot(s).cloud(3).points for s in (SHORT, SHORT, longer, other))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(one, long)
    assert one.shape != different.shape or not np.array_equal(one, different)
