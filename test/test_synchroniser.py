from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsg_ros import poses
from dsg_ros.config import Input
from dsg_ros.synchroniser import Synchroniser, dropped_scans

MS = 1_000_000
POINTS = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], np.float32)
ARRIVED = {
    "scans_repeated_stamp",
    "scans_without_odometry",
    "scans_too_old",
    "dropped_queue_full",
    "dropped_clock_jump",
    "frames",
}


class Room:
    """A synchroniser and what it said."""

    def __init__(self, **settings):
        self.said: list[str] = []
        self.sync = Synchroniser(Input(**settings), lambda level, text: self.said.append(f"{level}: {text}"))

    def odom(self, *stamps_ms, x=None):
        frames = []
        for stamp in stamps_ms:
            frames += self.sync.add_odometry(round(stamp * MS), poses.from_planar(stamp if x is None else x, 0.0, 0.0))
        return frames

    def scan(self, stamp_ms, times=None, points=POINTS, source="scan", frame=""):
        times = None if times is None else np.asarray(times, np.float32)
        return self.sync.add_scan(round(stamp_ms * MS), points, times, planar=True, source=source, sensor_frame=frame)

    @property
    def counts(self):
        return {name: count for name, count in self.sync.counts.items() if count}


def _stamps(frames):
    return [frame.stamp // MS for frame in frames]


def _track(frame):
    return (frame.odometry.stamps // MS).tolist()


def test_a_scan_waits_until_odometry_has_passed_it():
    room = Room()
    assert room.odom(0, 20) == []
    assert room.scan(30) == []
    assert room.sync.waiting == 1
    (frame,) = room.odom(40)
    assert _track(frame) == [0, 20, 40]
    assert frame.odometry.at(frame.stamp)[0] == pytest.approx(30)
    assert frame.planar
    assert room.said == []


def test_an_exact_stamp_is_enough_for_an_instantaneous_scan():
    room = Room()
    room.odom(0, 20)
    (frame,) = room.scan(20)
    assert _track(frame) == [20]


def test_the_track_spans_the_sweep_with_one_sample_more_behind_and_some_before_the_scan():
    room = Room()
    room.odom(*range(0, 400, 10))
    assert room.scan(325, [0.0, 0.1]) == []
    assert room.odom(410, 420) == []
    (frame,) = room.odom(430)
    assert _track(frame) == [*range(20, 400, 10), 410, 420, 430]
    np.testing.assert_allclose(frame.times, [0.0, 0.1])


def test_with_a_margin_a_scan_waits_for_so_much_more_and_takes_it_along():
    room = Room(odometry_margin=0.05)
    room.odom(*range(0, 100, 20))
    assert room.scan(35) == []
    (frame,) = room.odom(100, 120)
    assert _track(frame) == [0, 20, 40, 60, 80, 100]
    assert room.scan(115) == []
    (frame,) = room.sync.flush()
    assert _track(frame) == [0, 20, 40, 60, 80, 100, 120]
    assert "scans_held_odometry" not in room.counts, "odometry spans it"


def test_times_before_the_stamp_reach_back():
    room = Room()
    room.odom(*range(0, 100, 10))
    (frame,) = room.scan(75, [-0.05, 0.0])
    assert _track(frame) == [0, 10, 20, 30, 40, 50, 60, 70, 80]


def test_scans_leave_in_order_of_arrival():
    room = Room()
    room.odom(0)
    for stamp in (30, 10, 20):
        room.scan(stamp)
    assert _stamps(room.odom(40)) == [30, 10, 20]


def test_scans_before_the_first_odometry_are_dropped_and_told():
    room = Room()
    assert room.scan(5) == []
    assert room.odom(10, 20) == []
    assert room.counts["scans_without_odometry"] == 1
    assert "scan at 0.005" in room.said[0]
    assert "0.005 s before the first odometry" in room.said[0]


def test_points_out_of_range_are_dropped_with_their_times_and_scans_without_any_told_and_used():
    room = Room(min_range=0.5, max_range=5.0)
    room.odom(0, 100)
    points = np.array([[0.1, 0, 0], [1, 0, 0], [9, 0, 0], [np.nan, 1, 1], [0, 0, 5.0]], np.float32)
    (frame,) = room.scan(10, [0.0, 0.01, 0.02, 0.03, 0.04], points)
    np.testing.assert_array_equal(frame.points, points[[1, 4]])
    np.testing.assert_allclose(frame.times, [0.01, 0.04])
    for stamp, times, none in ((20, [0.02], points[:1]), (30, None, np.empty((0, 3), np.float32))):
        (blind,) = room.scan(stamp, times, none)
        assert (blind.points.shape, blind.times) == ((0, 3), None)
        assert blind.odometry.at(blind.stamp)[0] == pytest.approx(stamp)
    assert room.counts["points_out_of_range"] == 4
    assert room.counts["scans_without_points"] == 2
    assert dropped_scans(room.counts) == {}
    assert "scan at 0.020000: none of its 1 points is within range" in room.said[0]


def test_a_full_queue_drops_the_oldest():
    room = Room(queue=2)
    room.odom(0)
    for stamp in (10, 20, 30):
        room.scan(stamp)
    assert room.counts["dropped_queue_full"] == 1
    assert _stamps(room.odom(40)) == [20, 30]


def test_a_scan_from_the_future_does_not_block_the_others_for_ever():
    room = Room(queue=3)
    room.odom(0)
    room.scan(1e6)
    for stamp in (10, 20, 30):
        room.scan(stamp)
    assert _stamps(room.odom(40)) == [10, 20, 30]


def test_a_scan_stamped_an_hour_ahead_is_overtaken_and_goes_when_a_queue_of_scans_came_after_it():
    room = Room(queue=5)
    room.odom(0)
    room.scan(3_600_000)
    assert "the latest odometry is 3600.0 s older" in room.said[0]
    emitted = []
    for stamp in range(10, 60, 10):
        emitted += _stamps(room.scan(stamp - 5) + room.odom(stamp))
        assert room.sync.waiting == (stamp < 50)
    assert emitted == [5, 15, 25, 35, 45]
    assert room.counts["dropped_queue_full"] == 1
    assert "scan at 3600.000000: dropped" in room.said[1]


def test_a_scan_within_the_timeout_is_not_overtaken():
    room = Room(odometry_timeout=1.0)
    room.odom(0, 100)
    room.scan(1099)
    assert room.scan(50) == []
    assert _stamps(room.odom(1100)) == [1099, 50]


def test_after_an_outage_of_odometry_scans_leave_in_order_of_arrival():
    room = Room(odometry_timeout=0.5)
    room.odom(0)
    for stamp in (1000, 3000, 2000, 4000):
        room.scan(stamp)
    assert _stamps(room.odom(5000, 5020)) == [1000, 3000, 2000, 4000]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 5])
def test_odometry_that_is_not_finite_is_refused(bad, column):
    room = Room()
    pose = poses.IDENTITY.copy()
    pose[column] = bad
    room.sync.add_odometry(7 * MS, pose, "wheel_odom")
    room.odom(10)
    assert room.counts == {"odometry_received": 2, "odometry_not_finite": 1}
    assert room.said[0].startswith("warning: wheel_odom at 0.007000: refused")
    assert ("x", "qz")[column == 5] in room.said[0]


@pytest.mark.parametrize("position", [1.1e7, -1e300])
def test_odometry_from_beyond_this_planet_is_refused(position):
    synchroniser = Synchroniser(Input())
    assert synchroniser.add_odometry(0, [0.0, position, 0.0, 0.0, 0.0, 0.0, 1.0]) == []
    assert synchroniser.counts == {"odometry_received": 1, "odometry_far_away": 1}
    synchroniser.add_odometry(1, [0.0, 9.9e6, 0.0, 0.0, 0.0, 0.0, 1.0])  # a northing of UTM
    assert synchroniser.counts["odometry_far_away"] == 1


def test_zero_quaternions_are_refused_and_others_normalised():
    room = Room()
    room.sync.add_odometry(0, [0, 0, 0, 0, 0, 0, 0])
    room.sync.add_odometry(10 * MS, [1, 2, 3, 0, 0, 0, 2])
    (frame,) = room.scan(10)
    np.testing.assert_array_equal(frame.odometry.poses, [[1, 2, 3, 0, 0, 0, 1]])
    assert room.counts["odometry_zero_quaternion"] == 1
    assert room.counts["odometry_unnormalised"] == 1


@pytest.mark.parametrize("size", [1e6, 1e200, 1.7e308])
def test_absurdly_long_quaternions_are_refused(size):
    room = Room()
    room.sync.add_odometry(0, [0, 0, 0, 0, size, 0, size], "wheel_odom")
    assert room.counts == {"odometry_received": 1, "odometry_huge_quaternion": 1}
    assert room.said[0].startswith("warning: wheel_odom at 0.000000: refused: the quaternion's norm is ")
    room.sync.add_odometry(0, [0, 0, 0, 0, 0, 0, 1e5], "wheel_odom")
    (frame,) = room.scan(0)
    np.testing.assert_array_equal(frame.odometry.poses, [poses.IDENTITY])


def test_a_repeated_odometry_stamp_is_ignored():
    room = Room()
    room.odom(0, 10)
    room.odom(10, x=99.0)
    room.odom(0, x=98.0)
    (frame,) = room.scan(10)
    assert frame.odometry.poses[0, 0] == 10
    assert room.counts["odometry_repeated_stamp"] == 2


def test_odometry_slightly_out_of_order_is_put_in_its_place():
    room = Room()
    room.odom(0, 40, 20, 30)
    (frame,) = room.scan(25)
    assert _track(frame) == [0, 20, 30]
    assert room.counts["odometry_backwards"] == 2
    assert "scan" not in " ".join(room.said)


def test_a_repeated_scan_is_dropped_by_topic():
    room = Room()
    room.odom(0, 100)
    assert len(room.scan(10)) == 1
    assert room.scan(10) == []
    assert len(room.scan(10, source="points")) == 1
    assert room.counts["scans_repeated_stamp"] == 1


@pytest.mark.parametrize(("policy", "resets"), [("reset", 1), ("continue", 0)])
def test_a_clock_that_jumps_back_starts_over(policy, resets):
    room = Room(on_clock_jump=policy)
    room.odom(100_000, 100_020)
    room.scan(100_030)
    assert room.odom(5, 20) == []
    assert room.counts["clock_jumped_back"] == 1
    assert room.counts["dropped_clock_jump"] == 1
    assert room.sync.resets == resets
    assert f"jumped back by 100.0 s: {policy}" in room.said[0]
    assert _stamps(room.scan(10)) == [10]


@pytest.mark.parametrize(("policy", "resets"), [("reset", 1), ("continue", 0)])
def test_scans_of_a_robot_without_odometry_wait_for_nothing_and_tell_of_the_clock(policy, resets):
    room = Room(odometry="none", on_clock_jump=policy)
    for stamp in (100_000, 99_990, 100_200):  # a little out of order is no jump
        (frame,) = room.scan(stamp)
        assert _stamps([frame]) == _track(frame) == [stamp]
        np.testing.assert_array_equal(frame.odometry.poses, poses.IDENTITY[None])
    assert room.sync.waiting == 0
    assert room.scan(10) == []  # a single stamp is no clock
    assert room.sync.waiting == 1
    assert _stamps(room.scan(20)) == [10, 20]
    assert room.sync.resets == resets
    assert room.counts == {"scans_received": 5, "frames": 5, "clock_jumped_back": 1}
    assert "jumped back by 100.2 s" in room.said[0]
    assert len(room.scan(30)) == 1
    assert room.counts["clock_jumped_back"] == 1


@pytest.mark.parametrize("wrong", [0, 50_000, 150_000, 3_600_000])
def test_a_single_stamp_of_another_time_moves_no_clock(wrong):
    """Neither a robot's without odometry, nor the odometry's: nothing is begun anew, nothing held up."""
    room = Room(odometry="none")
    emitted = [_stamps(room.scan(stamp)) for stamp in (100_000, 100_100, wrong, 100_200, 100_300)]
    assert emitted == [[100_000], [100_100], [], [100_200], [100_300]]
    assert room.counts == {"scans_received": 5, "frames": 4, "scans_wrong_stamp": 1}
    if wrong != 50_000:  # that one is a jump of the clock
        room = Room()
        room.odom(100_000, 100_020, wrong, 100_040)
        assert _stamps(room.scan(100_030)) == [100_030]
        assert room.counts["odometry_wrong_stamp"] == 1
        assert room.sync.resets == 0


def test_a_clock_that_went_on_is_believed_at_the_second_stamp():
    """As after a gap in a recording."""
    room = Room(odometry="none")
    emitted = [_stamps(room.scan(stamp)) for stamp in (0, 100, 9_000, 9_100, 20_000)]
    assert emitted == [[0], [100], [], [9_000, 9_100], []]
    assert _stamps(room.sync.flush()) == [20_000]
    assert room.sync.waiting == 0
    room = Room()
    room.odom(0, 20, 9_000)
    assert _stamps(room.scan(8_990) + room.odom(9_020)) == [8_990]


def test_sparse_stamps_wait_for_nothing():
    room = Room(odometry="none")
    stamps = (0, 3_000, 6_000, 15_000, 18_000)
    assert [_stamps(room.scan(stamp)) for stamp in stamps] == [[stamp] for stamp in stamps]
    assert [_stamps(room.scan(stamp)) for stamp in (1_000, 4_000, 7_000)] == [[], [1_000, 4_000], [7_000]]
    assert room.sync.resets == 1
    assert set(room.counts) == {"scans_received", "frames", "clock_jumped_back"}
    room = Room()
    for stamp in stamps:
        room.odom(stamp)
    assert room.counts == {"odometry_received": 5}


def test_the_last_scan_of_a_log_resets_nothing():
    room = Room(odometry="none")
    for stamp in (100_000, 100_100, 50):
        room.scan(stamp)
    assert room.sync.flush() == []
    assert room.sync.resets == 0
    assert room.counts["scans_wrong_stamp"] == 1


@pytest.mark.parametrize(
    ("one", "other"), [(("scan", ""), ("points", "")), (("scan", "front"), ("scan", "back"))], ids=["topics", "frames"]
)
def test_odometry_is_silent_for_as_long_as_each_sensor_says(one, other):
    """One lags: the time between them is not counted twice."""
    room = Room(odometry_silence=3.0)
    room.odom(0, 100)
    first = None
    for stamp in range(200, 6000, 100):
        frames = []
        for (source, frame), at in ((one, stamp), (other, stamp - 50)):
            frames += room.sync.add_scan(at * 1_000_000, np.ones((1, 3)), source=source, sensor_frame=frame)
        first = first or (frames and stamp)
    assert first == 3200


def test_of_two_sensors_on_one_topic_that_stamp_alike_no_scan_is_dropped():
    room = Room()
    room.odom(*range(0, 1000, 100))
    for stamp in range(0, 500, 100):
        for frame in ("front", "back"):
            assert _stamps(room.scan(stamp, frame=frame)) == [stamp]
    assert room.scan(400, frame="front") == []
    assert room.counts["scans_repeated_stamp"] == 1


def test_sensors_whose_frames_are_ever_new_are_not_all_remembered():
    room = Room()
    room.odom(0)
    for number in range(5000):
        room.scan(number, frame=f"laser{number}")
    assert len(room.sync._latest) == len(room.sync._unheard) == 16
    room.scan(4999, frame="laser4999")
    assert room.counts["scans_repeated_stamp"] == 1, "the latest are"


def test_odometry_that_repeats_its_last_message_is_silent():
    room = Room(odometry_silence=3.0)
    room.odom(0, 100)
    emitted = []
    for stamp in range(200, 5000, 100):
        emitted += room.odom(100) + room.scan(stamp)
    assert len(emitted) > 40
    assert not emitted[-1].heard


def test_scans_that_come_on_without_odometry_leave_with_the_last_of_it():
    room = Room(odometry_silence=3.0)
    room.odom(0, 100)
    emitted = {stamp: room.scan(stamp) for stamp in range(0, 5000, 100)}
    assert [stamp for stamp, frames in emitted.items() if frames and not frames[0].heard] == list(
        range(3000, 5000, 100)
    )
    assert _stamps(emitted[3000]) == list(range(200, 3100, 100))
    (frame,) = emitted[3200]
    np.testing.assert_array_equal(frame.odometry.at(frame.stamp), poses.from_planar(100.0, 0.0, 0.0))
    assert "input.odometry_silence" in room.said[-1]
    room.odom(5000, 5020)
    (frame,) = room.scan(5010)
    assert frame.heard
    assert room.counts["scans_held_odometry"] == 48
    assert room.sync.waiting == 0


def test_what_is_silent_together_with_the_scans_is_waited_for():
    """A gap in a recording, and stamps of another time."""
    room = Room(odometry_silence=3.0)
    room.odom(0)
    for stamp in (0, 60_000, 60_100, 3_600_000, 60_200):
        assert all(frame.heard for frame in room.scan(stamp))
    frames = room.odom(60_150, 60_250)
    assert _stamps(frames) == [60_000, 60_100, 60_200]
    room = Room(odometry_silence=0.0)
    room.odom(0)
    assert not any(room.scan(stamp) for stamp in range(100, 4000, 100))


def test_without_odometry_from_the_first_no_scan_leaves():
    room = Room()
    assert not any(room.scan(stamp) for stamp in range(0, 4000, 100))


def test_in_silence_a_scan_of_another_time_waits():
    room = Room(odometry_silence=1.0)
    room.odom(0)
    emitted = [_stamps(room.scan(stamp)) for stamp in (500, 1000, 1600, 500_000, 1700)]
    assert emitted[2:] == [[500, 1000, 1600], [], [1700]]
    assert room.sync.waiting == 1


def test_silent_odometry_is_told_while_scans_go_on():
    room = Room()
    room.odom(0)
    room.scan(900)
    assert room.said == []
    room.scan(1500)
    assert "the latest odometry is 1.5 s older" in room.said[0]
    assert room.counts["scans_odometry_silent"] == 1


def test_the_same_complaint_is_not_repeated_at_once():
    room = Room()
    room.odom(*[10] * 50)
    assert room.counts["odometry_repeated_stamp"] == 49
    assert len(room.said) == 1


def test_flush_holds_the_last_odometry_but_not_for_ever():
    room = Room(odometry_timeout=1.0)
    room.odom(0, 100, 400)
    for stamp in (450, 2000):
        room.scan(stamp)
    (frame,) = room.sync.flush()
    assert _track(frame) == [100, 400]
    assert room.counts["scans_held_odometry"] == 1
    assert room.counts["scans_without_odometry"] == 1
    assert room.sync.waiting == 0


def test_flush_without_any_odometry_says_so():
    room = Room()
    room.scan(10)
    assert room.sync.flush() == []
    assert room.counts["scans_without_odometry"] == 1


def test_memory_is_bounded_and_a_scan_older_than_what_is_kept_is_told():
    room = Room()
    room.odom(*range(0, 10 * 9000, 10))
    assert room.scan(5) == []
    assert room.counts["scans_too_old"] == 1
    (frame,) = room.scan(89_985)
    assert _track(frame) == [*range(89_680, 90_000, 10)]


def test_paired_scans_take_their_own_odometry_whatever_the_order():
    room = Room()
    frames = []
    for stamp, x in ((30, 3.0), (10, 1.0), (20, 2.0)):
        frames += room.sync.add_paired(stamp * MS, poses.from_planar(x, 0, 0), POINTS)
    assert [(_stamps([f]), f.odometry.poses[0, 0]) for f in frames] == [([30], 3.0), ([10], 1.0), ([20], 2.0)]
    bad = poses.IDENTITY * math.nan
    assert room.sync.add_paired(40 * MS, bad, POINTS) == []
    assert room.counts["odometry_not_finite"] == 1
    assert room.counts["scans_without_odometry"] == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5000)), max_size=60), st.integers(1, 5))
def test_every_scan_is_emitted_waiting_or_counted(events, queue):
    room = Room(queue=queue)
    emitted = []
    for is_scan, stamp in events:
        emitted += room.scan(stamp) if is_scan else room.odom(stamp)
    for final in (False, True):
        if final:
            emitted += room.sync.flush()
        told = sum(count for name, count in room.counts.items() if name in ARRIVED)
        assert room.counts.get("scans_received", 0) == told + room.sync.waiting
        assert room.counts.get("frames", 0) == len(emitted)
    assert room.sync.waiting == 0
    for frame in emitted:
        assert (np.diff(frame.odometry.stamps) > 0).all()
        assert frame.odometry.stamps[0] <= frame.stamp
