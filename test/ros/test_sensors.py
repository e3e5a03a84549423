"""The callbacks between messages and frames, called as rclpy calls them."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
from callbacks import BASE, SECOND, START, Robot
from diagnostic_msgs.msg import DiagnosticStatus

from dsg_ros import poses
from dsg_ros.interface import Estimate
from dsg_ros.poses import IDENTITY
from dsg_ros.ros import convert, status
from dsg_ros.ros.latencies import Latencies
from dsg_ros.ros.tf_broadcaster import TfBroadcaster
from dsg_ros.worker.backend import Status


def tf() -> TfBroadcaster:
    return TfBroadcaster(lambda correction, stamp: None, lambda: 0, lambda: 50.0, lambda: 0.1, lambda error: None)


def test_odometry_for_tf_is_normalised_and_never_goes_back():
    robot = Robot()
    robot.drive(START, (1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0))
    robot.drive(START + 2 * SECOND)
    robot.drive(START + SECOND)
    robot.drive(START + 2 * SECOND)
    robot.drive(START + 3 * SECOND)
    assert [stamp for stamp, _ in robot.broadcast] == [START, START + 2 * SECOND, START + 3 * SECOND]
    np.testing.assert_array_equal(robot.broadcast[0][1], BASE)


@pytest.mark.parametrize("policy", ["reset", "continue", "stop"])
def test_a_clock_jump_is_told_with_its_policy_and_drops_what_was_held(policy):
    robot = Robot(**{"input.on_clock_jump": policy})
    robot.drive(START)
    robot.scan(START, "unknown")
    robot.drive(START - 100 * SECOND)
    assert robot.jumps == [policy == "reset"]
    assert robot.sensors.inputs["scan"].refused == {"dropped_clock_jump": 1}
    assert robot.sensors.waiting == 0
    assert [stamp for stamp, _ in robot.broadcast] == [START, START - 100 * SECOND]


def test_after_a_jump_under_the_policy_stop_no_scan_is_used():
    robot = Robot(**{"input.on_clock_jump": "stop"})
    robot.drive(START)
    robot.scan(START)
    robot.drive(START - 100 * SECOND)
    robot.scan(START - 100 * SECOND)
    assert [frame.stamp for frame in robot.frames] == [START]
    assert robot.sensors.inputs["scan"].refused == {"paused": 1}
    assert "no scan is used until ~/resume" in robot.text()
    alone = Robot(**{"input.on_clock_jump": "stop", "input.odometry": "none"})
    for stamp in (START, START - 100 * SECOND, START - 99 * SECOND, START - 98 * SECOND):
        alone.scan(stamp)
    assert [frame.stamp for frame in alone.frames] == [START]
    assert alone.sensors.synchroniser.counts["dropped_clock_jump"] == 2
    assert alone.sensors.inputs["scan"].refused == {"paused": 1}


@pytest.mark.parametrize(("odometry", "cause"), [(False, "no_odometry"), (True, "no_transform")])
def test_what_overflows_is_counted_by_what_it_waited_for(odometry, cause):
    robot = Robot(**{"input.queue": 3})
    if odometry:
        robot.drive(START)
    for i in range(5):
        robot.scan(START + i * SECOND, "unknown")
    assert robot.sensors.inputs["scan"].refused == {cause: 2}
    assert "scan at 1000.000000: dropped: it waited for" in robot.text()
    assert sum(f"[{cause}]" in text for _, text in robot.said) == 1  # throttled


def test_two_sensors_that_stamp_alike_share_a_topic_each_with_its_own_place():
    robot = Robot()
    robot.stand("base_link", "front", poses.from_planar(0.2, 0.0, 0.0))
    robot.stand("base_link", "back", poses.from_planar(-0.2, 0.0, np.pi))
    for number in range(3):
        robot.drive(START + number * SECOND)
        for frame in ("front", "back"):
            robot.scan(START + number * SECOND, frame)
    assert [frame.base_from_sensor[0] for frame in robot.frames] == [0.2, -0.2] * 3
    assert robot.sensors.inputs["scan"].frame_changes == 1
    assert "frame_id changed from 'front' to 'back'" in robot.text()


def test_scans_of_a_robot_without_odometry_need_no_more_than_a_frame():
    robot = Robot(**{"input.odometry": "none"})
    robot.scan(START, "laser")
    robot.scan(START + SECOND, "laser")
    assert [frame.stamp for frame in robot.frames] == [START, START + SECOND]
    assert (robot.sensors.odom_frame, robot.sensors.base_frame) == ("laser", "laser")  # the map is its parent
    assert robot.sensors.heard
    robot.scan(START - 100 * SECOND, "laser")
    assert robot.jumps == []  # a single stamp is no clock
    robot.scan(START - 99 * SECOND, "laser")
    assert robot.jumps == [True]
    assert [frame.stamp for frame in robot.frames][2:] == [START - 100 * SECOND, START - 99 * SECOND]
    assert robot.sensors.inputs["scan"].refused == {}
    assert "odom" not in robot.sensors.inputs
    robot.scan(START, "")
    robot.sensors.base_frame = ""
    robot.scan(START, "")
    assert robot.sensors.inputs["scan"].refused == {"malformed": 1}
    assert "its header.frame_id is empty, and so is base_frame" in robot.text()


def test_the_base_of_a_robot_without_odometry_is_above_its_sensor_on_tf():
    """Else the sensor would get a second parent on /tf."""
    robot = Robot(**{"input.odometry": "none"})
    robot.stand("robot1/base_footprint", "robot1/base_link", IDENTITY)
    robot.stand("robot1/base_link", "laser")
    robot.scan(START, "laser")
    assert robot.sensors.odom_frame == robot.sensors.base_frame == "robot1/base_footprint"
    np.testing.assert_array_equal(robot.frames[0].base_from_sensor, BASE)
    robot.tree.others.sending("map", "robot1/base_footprint", 0)
    robot.stand("map", "robot1/base_footprint")  # what the node broadcasts
    robot.sensors.complain()
    assert robot.sensors.above.parent == ""
    robot.stand("odom", "robot1/base_footprint")
    robot.sensors.complain()
    assert robot.sensors.above.parent == "odom"
    assert "/tf has 'odom' above 'robot1/base_footprint'" in robot.text()


def judged(robot: Robot, subject: str, estimate: Estimate | None = None) -> tuple[bytes, str]:
    """Level and message of a ``subject`` in /diagnostics."""
    figures = status.figures("running", robot.sensors, Latencies(), Status("ready"), tf(), estimate)
    array = status.diagnostics(figures | {"other_inputs": {}}, figures, "hero", 0)
    found = next(each for each in array.status if each.name == f"hero: {subject}")
    return found.level, found.message


def test_it_is_told_what_a_worker_that_is_not_ready_is_doing_and_for_how_long() -> None:
    robot = Robot()
    figures = status.figures("warming up", robot.sensors, Latencies(), Status("warming up"), tf(), None)
    doing = {"doing": "compiling, 1 of 6: registration and voxels", "warming_up_for_s": 31}
    figures |= {"other_inputs": {}, "worker": figures["worker"] | doing}
    array = status.diagnostics(figures, None, "hero", 0)
    told = next(each for each in array.status if each.name == "hero: worker")
    assert told.level == DiagnosticStatus.WARN
    assert told.message == "warming up for 31 s: compiling, 1 of 6: registration and voxels"


def test_it_is_told_that_scans_alone_tell_of_the_way_now() -> None:
    robot = Robot()
    robot.drive(START)
    for alone, level, said in (
        (0.0, DiagnosticStatus.OK, "everything is used"),
        (1.0, DiagnosticStatus.WARN, "mapped by scans alone until it moves"),
    ):
        estimate = Estimate(START, IDENTITY, IDENTITY, np.eye(6), keyframe=False, metrics={"scans_alone": alone})
        found = judged(robot, "odometry", estimate)
        assert found[0] == level
        assert said in found[1]
    robot = Robot(**{"input.odometry": "none"})
    assert judged(robot, "odometry", estimate) == (DiagnosticStatus.OK, "none is used (input.odometry none)")
    robot.sensors.above.conflict = "somebody else"
    assert judged(robot, "map_to_odom")[0] == DiagnosticStatus.WARN


@pytest.mark.parametrize("silence", [0.0, 3.0])
def test_silent_odometry_is_told_with_its_topic_and_what_to_set(silence, monkeypatch):
    robot, now = Robot(**{"input.odometry_silence": silence}), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    robot.sensors._since = now[0]
    told = partial(judged, robot, "odometry")
    for number in range(7):
        robot.scan(START + number * SECOND)
        now[0] += 1.0
    level, text = told()
    assert level == DiagnosticStatus.ERROR
    assert "no odometry on odom for 6 s while scans come: nobody publishes it" in text
    assert "set input.odometry:=none" in text
    robot.drive(START)
    now[0] += 60.0  # both are silent: the robot was switched off, or a recording is over
    assert told() == (DiagnosticStatus.OK, "everything is used")
    robot.scan(START + 70 * SECOND)
    level, text = told()
    assert level == (DiagnosticStatus.WARN if silence else DiagnosticStatus.ERROR)
    assert "input.odometry_silence" in text
    robot.sensors.complain()
    assert text in robot.text()


def test_a_robot_without_odometry_may_have_a_base_that_tf_knows():
    robot = Robot(**{"input.odometry": "none", "base_frame": "base_link", "input.queue": 3})
    robot.scan(START, "laser")
    assert robot.frames == []
    assert "waiting for the transform from 'base_link' to 'laser'" in robot.text()
    assert robot.sensors.odom_frame == "base_link"


def test_a_child_frame_that_changes_is_said_and_counted():
    robot = Robot()
    robot.drive(START)
    robot.drive(START + SECOND, child="other_base")
    assert robot.sensors.inputs["odom"].frame_changes == 1
    assert "odom at 1001.000000: child_frame_id changed from 'base_link' to 'other_base'" in robot.text()


def test_an_error_nobody_foresaw_costs_one_message(monkeypatch):
    robot = Robot()
    robot.drive(START)
    with monkeypatch.context() as patch:
        patch.setattr(convert, "scan_points", lambda message, times: 1 / 0)
        robot.scan(START)
    assert robot.sensors.inputs["scan"].refused == {"unexpected": 1}
    level, text = robot.said[-1]
    assert level == "error"
    assert "scan at 1000.000000" in text
    assert "ZeroDivisionError" in text
    robot.scan(START)
    assert len(robot.frames) == 1


def test_a_held_scan_that_fails_does_not_block_those_behind(monkeypatch):
    robot = Robot()
    robot.scan(START)
    robot.scan(START + SECOND)
    add, failing = robot.sensors.synchroniser.add_scan, [START]

    def add_scan(stamp, *rest):
        if stamp in failing:
            raise RuntimeError("cannot add it")
        return add(stamp, *rest)

    monkeypatch.setattr(robot.sensors.synchroniser, "add_scan", add_scan)
    robot.drive(START)
    robot.drive(START + SECOND)
    assert robot.sensors.inputs["scan"].refused == {"unexpected": 1}
    assert robot.sensors.inputs["odom"].refused == {}
    assert [frame.stamp for frame in robot.frames] == [START + SECOND]


def test_rates_are_since_the_last_look():
    robot = Robot()
    for i in range(20):
        robot.drive(START + i * SECOND)
    odometry = robot.sensors.inputs["odom"]
    assert odometry.measured_rate() > 0
    assert odometry.measured_rate() == 0
