"""Beams that tell the same range wherever the robot is, and what only looks like one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.interface import Frame, OdometryTrack
from dsg_ros.mapping.stuck_beams import StuckBeams

Array = NDArray[np.float64]
Change = Callable[[Array, int], Array]

LAP = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1.0))
FRONT, BACK = poses.from_planar(0.2, 0.0, 0.0), poses.from_planar(-0.2, 0.0, np.pi)


def frames(
    walls: Array, truth: Array, change: Change, mount: Array = poses.IDENTITY, noise: float = 0.01
) -> list[Frame]:
    """Scans of a robot along ``truth`` (n, 7); ``change`` makes of a scan's ranges (180,) what the scanner tells."""
    found = []
    for number, pose in enumerate(truth):
        at = poses.compose(pose, mount)
        ranges = worlds.ranges(walls, at[:2], worlds.BEAMS + poses.yaw(at))
        ranges = change(ranges + np.random.default_rng(number).normal(0.0, noise, len(ranges)), number)
        seen = np.isfinite(ranges)
        flat = ranges[seen, None] * np.stack([np.cos(worlds.BEAMS[seen]), np.sin(worlds.BEAMS[seen])], axis=1)
        points = np.column_stack([flat, np.zeros(len(flat))]).astype(np.float32)
        stamp = number * worlds.SECOND // 10
        track = OdometryTrack(np.array([stamp]), poses.between(truth[0], pose)[None])
        times = np.flatnonzero(seen).astype(np.float32) * 1e-4
        found.append(Frame(stamp, points, track, mount, times, planar=True))
    return found


def as_it_is(ranges: Array, _: int) -> Array:
    return ranges


def stuck(ranges: Array, number: int) -> Array:
    """Beam 40 always, from scan 100 on, and one more after that."""
    ranges[40] = 0.853 if number >= 100 else ranges[40]
    ranges[120] = 6.0 if number >= 220 else ranges[120]
    return ranges


def told(frames: list[Frame], beams: StuckBeams | None = None) -> tuple[StuckBeams, list[Frame]]:
    beams = beams or StuckBeams()
    return beams, [beams.without(frame) for frame in frames]


def test_stuck_beams_are_told_once_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dsg_ros"):
        beams, used = told(given := frames(worlds.block(), LAP, stuck))
    assert beams.counts == {"beams_stuck": 2}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "1 of the scanner's beams, from -49.5 to -49.5 deg, tell the same range (0.85 to 0.85 m)" in said[0]
    assert "from 30.5 to 30.5 deg, tell the same range (6.00 to 6.00 m)" in said[1]
    assert used[100] is given[100], "not known yet"
    np.testing.assert_array_equal(used[-1].points, np.delete(given[-1].points, [40, 120], axis=0))
    np.testing.assert_array_equal(used[-1].times, np.delete(given[-1].times, [40, 120]))


def test_a_beam_that_measures_again_is_used_again() -> None:
    beams, _ = told(frames(worlds.block(), LAP, stuck))
    again = frames(worlds.block(), LAP[:1], as_it_is)
    assert len(told(again, beams)[1][0].points) == len(again[0].points)


def test_a_part_of_the_robot_in_view_is_as_stuck() -> None:
    def part(ranges: Array, number: int) -> Array:
        ranges[10:15] = 0.3 + np.random.default_rng(number).normal(0.0, 0.008, 5)
        return ranges

    assert told(frames(worlds.block(), LAP, part))[0].counts == {"beams_stuck": 5}


def test_a_scanner_that_tells_one_scan_for_ever_is_as_stuck() -> None:
    given = frames(worlds.block(), LAP, as_it_is)
    _, used = told([replace(frame, points=given[0].points, times=given[0].times) for frame in given])
    assert len(used[-1].points) < 20
    assert used[-1].times is None or len(used[-1].times) == len(used[-1].points)


@pytest.mark.parametrize("reach", [np.inf, 5.0, 3.0])
def test_walls_and_beams_that_meet_nothing_are_not_told_of(reach: float) -> None:
    """Nor where a scanner tells its longest range, and calls it valid, where there is no return."""
    corridor = worlds.drive([(-38.0, 0.0), (38.0, 0.0), (-38.0, 0.0)], step=0.2)
    for walls, truth in ((worlds.block(), LAP), (worlds.corridor(), corridor)):
        given = frames(walls, truth, lambda ranges, _: np.minimum(ranges, reach), noise=0.0)
        beams, used = told(given)
        assert beams.counts == {"beams_stuck": 0}
        assert all(after is before for after, before in zip(used, given, strict=True))


def test_sensors_are_told_apart_by_where_they_sit_and_few_are_kept() -> None:
    beams = StuckBeams()
    front = frames(worlds.block(), LAP, stuck, FRONT)
    back = frames(worlds.block(), LAP, as_it_is, BACK)
    for pair in zip(front, back, strict=True):
        used = [beams.without(frame) for frame in pair]
    assert beams.counts == {"beams_stuck": 2}
    assert [len(frame.points) for frame in used] == [178, 180]
    for number in range(100):
        beams.without(replace(front[0], base_from_sensor=poses.from_planar(0.01 * number, 0.0, 0.0)))
    assert len(beams._sensors) == 16


def test_what_is_stuck_is_kept_with_the_state() -> None:
    beams, used = told(given := frames(worlds.block(), LAP, stuck))
    other = StuckBeams()
    other.restore(beams.state())
    assert other.counts == {"beams_stuck": 2}
    np.testing.assert_array_equal(other.without(given[-1]).points, used[-1].points)
    other.restore(StuckBeams().state())
    assert other.without(given[-1]) is given[-1]
