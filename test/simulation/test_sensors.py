"""What the simulated sensors measure: exact where it can be, distorted as real sweeps are, the same by seed."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest

from dsg_ros import config, poses
from dsg_ros.interface import Frame, OdometryTrack
from dsg_ros.io import laserscan
from dsg_ros.io.records import CloudRecord, OdometryRecord, ScanRecord
from dsg_ros.mapping import scan
from dsg_ros.simulation.robot import Reference, Robot
from dsg_ros.simulation.scene import box, scene
from dsg_ros.simulation.sensors import MOUNT, Lidar, Scanner, mounted

EXACT = config.SimulatedLidar(columns=360, noise=0.0)
ROOM = np.array([[-5.0, -4.0, 0.0], [5.0, 4.0, 3.0]])


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


def scanned(settings: config.SimulatedScanner, motion=turning, mount=MOUNT, seed: int = 0):
    """A scan of the room, as the points that a reader makes of it, with their times."""
    scanner = Scanner(settings, scene([box(*ROOM)]), mount)
    ranges = scanner.scan(motion, 0.3, np.random.default_rng(seed))
    return laserscan.decode(ranges, scanner.angle_min, scanner.angle_increment, 0.1, 20.0, scanner.time_increment)


@pytest.mark.parametrize(("beams", "view"), [(360, 2 * np.pi), (181, np.pi)])
def test_each_beam_is_measured_where_the_scanner_is_then(beams: int, view: float) -> None:
    scan = scanned(config.SimulatedScanner(beams=beams, field_of_view=view, noise=0.0))
    assert scan.times is not None
    assert len(scan.points) == beams
    # The mirror turns once in a tenth of a second, whatever it sees.
    assert scan.times[-1] == pytest.approx(0.1 * view / (2 * np.pi), rel=0.01)
    bearings = np.arctan2(scan.points[:, 1], scan.points[:, 0])
    assert np.ptp(bearings) == pytest.approx(view, rel=0.01)
    np.testing.assert_allclose(bearings, -bearings[::-1], atol=1e-5)
    sensor = poses.compose(turning(0.3 + scan.times.astype(float)), MOUNT)
    assert off_the_walls(poses.transform(sensor, scan.points.astype(float))).max() < 1e-4


def test_a_sensor_mounted_elsewhere_sees_from_there() -> None:
    mount = mounted(config.SimulatedMounting(x=0.05, y=-0.03, yaw=0.035))
    np.testing.assert_allclose(mount[:3] - MOUNT[:3], [0.05, -0.03, 0.0], atol=1e-12)
    exact = config.SimulatedScanner(noise=0.0)

    def still(seconds: np.ndarray) -> np.ndarray:
        return poses.from_planar(0 * seconds + 1.0, 0.5, 0.3)

    points = scanned(exact, still, mount).points.astype(float)
    place = still(np.zeros(1))[0]
    assert off_the_walls(poses.transform(poses.compose(place, mount), points)).max() < 1e-4
    assert off_the_walls(poses.transform(poses.compose(place, MOUNT), points)).max() > 0.05


def test_a_scanner_tells_noise_no_return_and_what_is_too_close() -> None:
    settings = config.SimulatedScanner(noise=0.02)
    clean, noisy = (scanned(dataclasses.replace(settings, noise=s)).points.astype(float) for s in (0.0, 0.02))
    error = np.linalg.norm(noisy, axis=1) - np.linalg.norm(clean, axis=1)
    assert error.std() == pytest.approx(0.02, rel=0.15)
    far = Scanner(dataclasses.replace(settings, max_range=4.5), scene([box(*ROOM)]))
    ranges = far.scan(turning, 0.0, np.random.default_rng(0))
    assert 0 < np.isposinf(ranges).sum() < len(ranges)
    assert ranges[np.isfinite(ranges)].max() <= 4.5
    pillar = Scanner(settings, scene([box(*ROOM)], [(0.3, 0.0, 0.15, 0.0, 2.0)]))
    assert np.isneginf(pillar.scan(turning, 0.0, np.random.default_rng(0))).any()


SHORT = config.Simulation(drive=config.SimulatedDrive(metres=2.2), lidar=config.SimulatedLidar(columns=60))


@pytest.mark.parametrize("sensor", ["lidar", "scanner"])
def test_records_come_when_they_are_known_and_odometry_spans_every_sweep(sensor: Literal["lidar", "scanner"]) -> None:
    robot = Robot(dataclasses.replace(SHORT, sensor=sensor), start=5)
    records = list(robot.records())
    times = [time for time, _ in records]
    assert times == sorted(times)
    kinds = OdometryRecord, ScanRecord if robot.planar else CloudRecord, Reference
    odometry, sweeps, reference = ([(time, r) for time, r in records if isinstance(r, kind)] for kind in kinds)
    assert len(sweeps) == robot.sweeps > 20
    stamps = [r.stamp for _, r in odometry]
    assert stamps[0] == 5
    assert np.diff(stamps).tolist() == [20_000_000] * (len(stamps) - 1)
    exact = {r.stamp: r.pose for _, r in reference}
    for time, swept in sweeps:
        last = (len(swept.ranges) - 1) * swept.time_increment if robot.planar else float(swept.times.max())
        assert time >= swept.stamp + round(last * 1e9)
        assert max(stamp for stamp in stamps if stamp <= time) == time
        assert swept.stamp in exact
    np.testing.assert_allclose(exact[5], robot.truth(np.zeros(1))[0])


@pytest.mark.parametrize("offset", [0.06, -0.06])
def test_late_and_early_stamps_tell_of_another_time_and_still_span_every_sweep(offset: float) -> None:
    wheels = dataclasses.replace(SHORT.wheels, time_offset=offset, noise_translation=0.0, noise_rotation=0.0, scale=1.0)
    records = list(Robot(dataclasses.replace(SHORT, wheels=wheels)).records())
    odometry = {r.stamp: r.pose for _, r in records if isinstance(r, OdometryRecord)}
    exact = {r.stamp: r.pose for _, r in records if isinstance(r, Reference)}
    sweeps = [r for _, r in records if isinstance(r, CloudRecord)]
    assert min(odometry) <= sweeps[0].stamp
    assert max(odometry) >= sweeps[-1].stamp + 100_000_000
    shift = round(offset * 1e9)
    assert all(stamp - shift in exact for stamp in odometry)
    way = {stamp: np.linalg.norm(exact[stamp - shift][:3] - exact[0][:3]) for stamp in odometry}
    told = [float(np.linalg.norm(odometry[stamp][:3] - odometry[min(odometry)][:3])) for stamp in odometry]
    np.testing.assert_allclose(told, list(way.values()), atol=1e-3)


def test_the_same_seed_makes_the_same_drive_and_a_longer_one_begins_alike() -> None:
    longer = dataclasses.replace(SHORT, drive=config.SimulatedDrive(metres=3.4))
    other = dataclasses.replace(SHORT, seed=1)
    one, same, long, different = (Robot(s).sweep(3).points for s in (SHORT, SHORT, longer, other))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(one, long)
    assert one.shape != different.shape or not np.array_equal(one, different)
    odometry = [
        np.array([r.pose for _, r in Robot(s).records() if isinstance(r, OdometryRecord)]) for s in (SHORT, longer)
    ]
    begun = len(odometry[0]) // 2  # before the shorter one brakes
    np.testing.assert_array_equal(odometry[0][:begun], odometry[1][:begun])


def test_a_drive_can_be_told_in_parts() -> None:
    robot = Robot(SHORT, start=7)
    parts = [robot.records(end=0.55), robot.records(0.55, 0.8), robot.records(0.8)]
    told = [(time, type(record), record.stamp) for part in parts for time, record in part]
    assert told == [(time, type(record), record.stamp) for time, record in robot.records()]
    assert len(list(robot.records(0.55, 0.8))) > 5
