"""Scan after scan: prediction, matching, restarts, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import scan
from dsg_ros.mapping.keyframes import Rows, ScanLog
from dsg_ros.mapping.local_map import LocalMap, LocalMapper
from dsg_ros.mapping.tracking import Tracker
from dsg_ros.memory import resident_bytes

Array = NDArray[np.float64]
SIGMAS = np.repeat([0.02, 0.01], 3)


@pytest.fixture(scope="module")
def in_room(mapper: LocalMapper) -> LocalMap:
    places = poses.from_planar(-1.5 + 0.1 * np.arange(20), 0.0, 0.3 * np.arange(20))
    return mapper.build(places, [cloud_at(pose, mapper) for pose in places])


def cloud_at(pose: Array, mapper: LocalMapper) -> Array:
    return scan.thin(worlds.scan(worlds.room(), pose, noise=0.01), 0.05, mapper.capacity)


@pytest.fixture
def tracker(settings: config.Slam, mapper: LocalMapper) -> Tracker:
    return Tracker(settings, mapper, lambda measured, seconds: (measured, SIGMAS))


def test_without_a_map_poses_follow_odometry(tracker: Tracker, mapper: LocalMapper) -> None:
    first, second = poses.from_planar(5, 5, 1), poses.from_planar(5.1, 5, 1.1)
    cloud = cloud_at(poses.IDENTITY, mapper)
    np.testing.assert_allclose(tracker.track(cloud, first, 0).pose, poses.IDENTITY, atol=1e-12)
    tracked = tracker.track(cloud, second, 1)
    np.testing.assert_allclose(tracked.pose, poses.between(first, second), atol=1e-12)
    np.testing.assert_array_equal(tracked.information, 0.0)
    assert tracker.counts["scans_on_odometry_alone"] == 0  # that is no lack of points


def test_the_length_of_a_corridor_is_counted_as_left_open(tracker: Tracker, mapper: LocalMapper) -> None:
    truth = poses.from_planar(-3.0 + 0.1 * np.arange(30), 0.0, 0.3)
    clouds = [scan.thin(worlds.scan(worlds.corridor(), pose, noise=0.01), 0.05, mapper.capacity) for pose in truth]
    tracker.set_map(mapper.build(truth[:20], clouds[:20]))
    tracker.move(truth[19])
    for index in range(19, 30):
        tracker.track(clouds[index], truth[index], index * worlds.SECOND // 10)
        count, widest = tracker.open
        assert count == 1
        assert np.arctan(widest[1] / widest[0]) == pytest.approx(-0.3, abs=0.05)
    assert tracker.counts["scans_with_open_directions"] == 11


def test_a_drive_is_followed_in_spite_of_its_odometry(
    tracker: Tracker, mapper: LocalMapper, in_room: LocalMap, caplog: pytest.LogCaptureFixture
) -> None:
    truth = worlds.drive([(-1.4, 0.1), (0.2, 0.1)], step=0.1)
    wheels = worlds.biased(truth, scale=1.1, turn_per_metre=0.1)
    tracker.set_map(in_room)
    tracker.move(truth[0])
    for index, (pose, odometry) in enumerate(zip(truth, wheels, strict=True)):
        tracked = tracker.track(cloud_at(pose, mapper), odometry, index * worlds.SECOND // 10)
        assert np.linalg.norm(poses.log(poses.between(pose, tracked.pose))[:3]) < 0.02
        assert tracked.inliers > 0.9
    assert not any(tracker.counts.values())
    assert "in doubt" not in caplog.text
    # The scan's own opinion is nearer to the truth than the prediction, and the innovation leads there.
    error = np.linalg.norm(poses.log(poses.between(truth[-1], tracked.own))[:3])
    assert error < 0.01
    assert tracked.innovation[0] < -0.005  # odometry told 11 cm of 10


def test_few_points_follow_odometry(tracker: Tracker, mapper: LocalMapper, in_room: LocalMap) -> None:
    tracker.set_map(in_room)
    start = tracker.track(cloud_at(poses.IDENTITY, mapper), poses.IDENTITY, 0).pose
    step = poses.from_planar(0.3, 0.1, 0.2)
    tracked = tracker.track(np.zeros((0, 3)), step, 1)
    np.testing.assert_allclose(tracked.pose, poses.compose(start, step), atol=1e-12)
    assert tracked.inliers == 0.0
    assert tracker.counts["scans_on_odometry_alone"] == 1


def test_a_turn_that_odometry_missed_is_found_by_restarts(
    tracker: Tracker, mapper: LocalMapper, in_room: LocalMap
) -> None:
    tracker.set_map(in_room)
    here = poses.from_planar(-0.6, 0.0, 0.0)
    tracker.move(here)
    tracker.track(cloud_at(here, mapper), poses.IDENTITY, 0)
    turned = poses.compose(here, poses.from_planar(0.0, 0.0, np.deg2rad(25)))
    tracked = tracker.track(cloud_at(turned, mapper), poses.IDENTITY, 1)
    assert tracked.restarted
    assert tracker.counts["restarts_taken"] == 1
    assert np.linalg.norm(poses.log(poses.between(turned, tracked.pose))) < 0.02
    assert tracked.doubtful, "what the scans say of this step is not to be bent by what odometry says"


def test_a_scan_that_fits_nowhere_may_tear_the_map(
    tracker: Tracker, settings: config.Slam, mapper: LocalMapper, in_room: LocalMap
) -> None:
    tracker.set_map(in_room)
    here = poses.from_planar(-0.6, 0.0, 0.0)
    tracker.move(here)
    tracker.track(cloud_at(here, mapper), poses.IDENTITY, 0)
    assert not tracker.torn
    elsewhere = np.random.default_rng(5).uniform(-1.2, 1.2, (120, 3)) * [1.0, 1.0, 0.0]
    told = poses.from_planar(0.1, 0.0, 0.4)
    tracked = tracker.track(elsewhere, told, 1)
    assert tracker.torn
    assert tracker.counts["scans_fitting_nowhere"] == 1
    assert tracked.inliers < settings.registration.restart_below
    again = Tracker(settings, mapper, lambda measured, seconds: (measured, SIGMAS))
    again.restore(tracker.state())
    assert again.torn
    tracker.move(here)
    tracker.track(cloud_at(here, mapper), told, 2)
    assert not tracker.torn, "the next scan fits: nothing has happened"


@pytest.mark.parametrize(("unknown", "least", "most"), [(0.32, 0.6, 0.75), (0.44, 0.5, 0.6)])
def test_where_every_start_leads_is_believed_though_much_is_not_in_the_map(
    tracker: Tracker, mapper: LocalMapper, in_room: LocalMap, unknown: float, least: float, most: float
) -> None:
    """Odometry fails in no known way, and too much is new for a match that is good in itself (MIT CSAIL log)."""
    tracker.set_map(in_room)
    rng = np.random.default_rng(3)

    def seen(pose: Array) -> Array:
        cloud = cloud_at(pose, mapper)
        elsewhere = rng.random(len(cloud)) < unknown
        cloud[elsewhere] = rng.uniform(-1.2, 1.2, (int(elsewhere.sum()), 3)) * [1.0, 1.0, 0.0]
        return cloud

    step = poses.from_planar(0.02, 0.0, 0.0)
    truth = [poses.from_planar(-0.8, 0.0, 0.0)]
    truth += [poses.compose(truth[0], step)]
    truth += [poses.compose(truth[1], poses.from_planar(0.3, 0.0, np.deg2rad(12)))]
    told = [*truth[:2], poses.compose(truth[1], poses.from_planar(0.3, 0.0, np.deg2rad(-14)))]
    tracker.move(truth[0])
    for index, (pose, odometry) in enumerate(zip(truth, told, strict=True)):
        tracked = tracker.track(seen(pose), odometry, index * worlds.SECOND // 10)
    assert tracked.restarted
    assert least < tracked.inliers < most
    assert np.linalg.norm(poses.log(poses.between(truth[-1], tracked.pose))) < 0.05


@pytest.mark.parametrize(
    ("unknown", "way", "turn"),
    [(0.0, 0.12, 14.0), (0.4, 0.2, 25.0)],
    ids=["in a known room", "where much is not in the map"],
)
def test_odometry_that_comes_late_is_found_out(
    tracker: Tracker, mapper: LocalMapper, in_room: LocalMap, unknown: float, way: float, turn: float
) -> None:
    """It stands still for some scans, and then tells all of their motion at once (seen on the MIT CSAIL log)."""
    tracker.set_map(in_room)
    rng = np.random.default_rng(0)

    def seen(pose: Array) -> Array:
        cloud = cloud_at(pose, mapper)
        elsewhere = rng.random(len(cloud)) < unknown
        cloud[elsewhere] = rng.uniform(-1.2, 1.2, (int(elsewhere.sum()), 3)) * [1.0, 1.0, 0.0]
        return cloud

    step = poses.from_planar(way, 0.0, np.deg2rad(turn))
    truth = [poses.from_planar(-1.2, -0.4, 0.0)]
    for _ in range(9):
        truth.append(poses.compose(truth[-1], step))
    late = [*truth[:3], *[truth[2]] * 4, *truth[7:]]
    tracker.move(truth[0])
    tracker.track(seen(truth[0]), truth[0], 0)
    for index in range(1, len(truth)):
        tracked = tracker.track(seen(truth[index]), late[index], index * worlds.SECOND // 5)
        assert np.linalg.norm(poses.log(poses.between(truth[index], tracked.pose))) < 0.05
    assert tracker.counts["restarts_taken"] >= 1


def test_odometry_that_tells_of_more_than_before_does_not_stand_still(
    settings: config.Slam, mapper: LocalMapper
) -> None:
    """In a room of five equal walls, a fifth of the way around its middle another wall looks as the first did; of that
    the map knows nothing yet (ACES, seen by half of the beams: it is silent while the robot turns by 57 degrees).
    """
    corner = np.deg2rad(72.0 * np.arange(5))
    pentagon = worlds.polygon(*np.column_stack([4.0 * np.cos(corner), 4.0 * np.sin(corner)]).tolist())

    def seen(pose: Array) -> Array:
        cloud = worlds.scan(pentagon, pose, noise=0.01)
        ahead = np.abs(np.arctan2(cloud[:, 1], cloud[:, 0])) < np.deg2rad(35.0)
        return scan.thin(cloud[ahead], 0.05, mapper.capacity)

    # So sure of its turns that no start around where it leads ends at the first wall.
    tracker = Tracker(settings, mapper, lambda measured, seconds: (measured, np.repeat([0.02, 0.001], 3)))
    here, around = (poses.from_planar(x, 0.0, np.deg2rad(degrees)) for x, degrees in ((0.3, 30.0), (0.0, 72.0)))
    tracker.set_map(mapper.build(here[None], [seen(here)]))
    tracker.move(here)
    for index, pose in enumerate([here, here, poses.compose(around, here)]):
        tracked = tracker.track(seen(pose), pose, index * worlds.SECOND // 5)
        assert np.linalg.norm(poses.log(poses.between(pose, tracked.pose))) < 0.2
    assert tracker.counts["restarts_tried"] == 1
    assert tracker.counts["restarts_taken"] == 0


def test_stamps_that_run_backwards_are_no_negative_time(settings: config.Slam, mapper: LocalMapper) -> None:
    asked = []

    def predict(measured: Array, seconds: float) -> tuple[Array, Array]:
        asked.append(seconds)
        return measured, SIGMAS

    tracker = Tracker(settings, mapper, predict)
    for stamp in (0, 2 * worlds.SECOND, worlds.SECOND):
        tracker.track(np.zeros((0, 3)), poses.IDENTITY, stamp)
    assert asked == [0.0, 2.0, 0.0]


def test_rows_grow_and_keep_their_values() -> None:
    rows = Rows(2)
    for number in range(200):
        rows.append([number, -number])
    assert len(rows) == 200
    np.testing.assert_array_equal(rows.values, np.column_stack([np.arange(200), -np.arange(200)]))


def test_a_table_of_rows_takes_what_they_take() -> None:
    rows, before = Rows(7), resident_bytes()
    for _ in range(100):  # 53 MiB, in room for 64 at least
        rows.extend(10_000)
        rows.values[-10_000:] = 1.0
    assert rows.values.all()
    assert 0.98 * rows.nbytes < resident_bytes() - before < 1.02 * rows.nbytes


def test_scans_hang_on_their_keyframes() -> None:
    log = ScanLog(most_points=0)
    step = poses.from_planar(1.0, 0.0, 0.0)
    for keyframe in (0, 0, 1):
        log.add(0, keyframe, step, poses.IDENTITY, poses.IDENTITY, np.zeros((5, 3)))
    moved = poses.from_planar(np.array([0.0, 10.0]), 0.0, np.array([0.0, np.pi / 2]))
    np.testing.assert_allclose(log.on(moved)[:, :2], [[1, 0], [1, 0], [10, 1]], atol=1e-12)
    assert not any(map(len, log.clouds))


def test_a_match_that_leaves_much_unexplained_moves_odometry_less(
    tracker: Tracker, mapper: LocalMapper, in_room: LocalMap
) -> None:
    """The same scan and the same error of the odometry, alone and among returns that no map has."""
    tracker.set_map(in_room)
    cloud = cloud_at(poses.IDENTITY, mapper)
    litter = np.random.default_rng(0).uniform(-1.2, 1.2, (len(cloud), 3)) * [1.0, 1.0, 0.0]
    moved = []
    for seen in (cloud, np.concatenate([cloud[::3], litter])):
        tracker.place(poses.from_planar(0.02, 0.0, 0.0), poses.IDENTITY, 0)
        tracked = tracker.track(seen, poses.IDENTITY, 1)
        assert abs(tracked.own[0]) < 0.006  # both are matched where the robot is
        moved.append((tracked.inliers, tracked.pose[0]))
    (clear, at_own), (littered, held) = moved
    assert clear > 0.9 > 0.6 > littered
    assert abs(at_own) < 0.004
    assert 0.012 < held < 0.02


@pytest.mark.parametrize(("share", "off"), [(1, 0.01), (2, 0.03)])
def test_matches_in_doubt_hold_a_robot_that_stands_where_it_is(
    tracker: Tracker,
    mapper: LocalMapper,
    in_room: LocalMap,
    share: int,
    off: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Odometry creeps by a millimetre a scan.  Weighed by one step's deviation each match would give way to it."""
    tracker.set_map(in_room)
    rng, cloud = np.random.default_rng(0), cloud_at(poses.IDENTITY, mapper)
    for scan_number in range(400):
        litter = rng.uniform(-1.2, 1.2, (share * len(cloud) // 2, 3)) * [1.0, 1.0, 0.0]
        seen = np.concatenate([cloud[::2], litter])
        tracked = tracker.track(seen, poses.from_planar(0.001 * scan_number, 0.0, 0.0), scan_number)
    assert tracked.inliers < 0.6
    assert abs(tracked.pose[0]) < off
    assert tracker.counts["matches_in_doubt"] > 390
    assert caplog.text.count("each of the first 30 matches is in doubt") == 1
