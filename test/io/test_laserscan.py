from __future__ import annotations

import math
import re

import numpy as np
import pytest

from dsg_ros.io.laserscan import decode
from dsg_ros.io.point_times import PointTimes, SensorTimes
from dsg_ros.io.records import MalformedMessage

NAN, INF = math.nan, math.inf


def test_beams_point_where_their_angle_says():
    scan = decode([1.0, 2.0, 3.0], -math.pi / 2, math.pi / 2, 0.1, 10.0)
    np.testing.assert_allclose(scan.points, [[0, -1, 0], [2, 0, 0], [0, 3, 0]], atol=1e-6)
    assert scan.points.dtype == np.float32
    assert scan.times is None
    assert scan.dropped == {}


def test_only_ranges_within_the_limits_count_and_the_rest_by_cause():
    ranges = [NAN, INF, -INF, 0.05, 0.1, 5.0, 10.0, 10.01, 1e9]
    scan = decode(ranges, 0.0, 0.01, 0.1, 10.0)
    np.testing.assert_allclose(np.linalg.norm(scan.points, axis=1), [0.1, 5.0, 10.0], rtol=1e-6)
    assert scan.dropped == {"not_a_number": 1, "no_return": 1, "too_close": 2, "too_far": 2}


def test_times_belong_to_the_beams_that_are_left():
    scan = decode([1.0, NAN, 1.0, 1.0], 0.0, 0.1, 0.0, 2.0, time_increment=0.25)
    np.testing.assert_allclose(scan.times, [0.0, 0.5, 0.75])


def test_clockwise_scanners_and_empty_scans():
    assert decode([1.0, 1.0], 0.0, -math.pi / 2, 0.0, 2.0).points[1, 1] == pytest.approx(-1.0)
    assert decode([], 0.0, 0.1, 0.0, 2.0).points.shape == (0, 3)
    assert decode([1.0], 0.0, 0.0, 0.0, 2.0).points.shape == (1, 3)


def test_infinite_range_max_means_no_limit():
    assert len(decode([1.0, INF], 0.0, 0.1, 0.0, INF).points) == 1


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ((NAN, 0.1, 0.0, 2.0, 0.0), "angle_min"),
        ((0.0, INF, 0.0, 2.0, 0.0), "angle_increment"),
        ((0.0, 0.1, NAN, 2.0, 0.0), "range_min"),
        ((0.0, 0.1, 0.0, 2.0, NAN), "time_increment"),
        ((0.0, 0.0, 0.0, 2.0, 0.0), "angle_increment is 0 with 2 ranges"),
    ],
)
def test_contradictory_geometry_is_refused(geometry, message):
    with pytest.raises(MalformedMessage, match=message):
        decode([1.0, 1.0], *geometry)


@pytest.mark.parametrize(("count", "increment"), [(2, 2.1), (2, -2.1), (2, 3e38), (20, 1e308)])
def test_times_of_a_sweep_no_scanner_makes_are_left_out_and_told_once(count, increment):
    said = []
    times = SensorTimes("scan (laser)", say=lambda *what: said.append(what))
    for _ in range(3):
        scan = decode([1.0] * count, 0.0, 0.1, 0.0, 2.0, increment, times)
        assert scan.times is None
        assert len(scan.points) == count
        assert scan.dropped == {"time_refused": count}
    ((level, text),) = said
    assert level == "warning"
    assert re.search(r"^scan \(laser\): .* time_increment makes a sweep of .* s where at most 2 s", text)


@pytest.mark.parametrize(("sweep", "kept"), [(0.099, True), (0.12, True), (0.2, False), (-0.2, False)])
def test_a_sweep_ends_before_the_next_begins(sweep, kept):
    sensor = PointTimes(say=lambda *what: None)
    for k in range(6):
        times = sensor.of("scan", "laser", k * 100_000_000)
    assert times.period == pytest.approx(0.1)
    scan = decode([1.0] * 11, 0.0, 0.1, 0.0, 2.0, sweep / 10, times)
    assert (scan.times is not None) is kept
    assert len(scan.points) == 11


def test_a_slow_sweep_of_either_direction_is_kept():
    assert decode([1.0] * 3, 0.0, 0.1, 0.0, 2.0, 1.0).times == pytest.approx([0.0, 1.0, 2.0])
    assert decode([1.0] * 3, 0.0, 0.1, 0.0, 2.0, -1.0).times == pytest.approx([0.0, -1.0, -2.0])


def test_ranges_must_be_a_list():
    with pytest.raises(MalformedMessage, match="2 dimensions"):
        decode([[1.0, 2.0]], 0.0, 0.1, 0.0, 2.0)
