from __future__ import annotations

import numpy as np
import pytest

from dsg_ros.io.point_times import PointTimes, SensorTimes

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
SCALES = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def told(kind, values, unit="auto", period=0.1, count=8, stamp=NOW, field="t"):
    """Seconds of the last of ``count`` clouds whose times are ``values``, what was dropped from it, what was said."""
    said = []
    times = PointTimes(unit, lambda *what: said.append(what))
    for k in range(count):
        now, dropped = stamp + round(k * period * 1e9), {}
        sensor = times.of("points", "lidar", now)
        found = sensor.seconds(np.asarray(values(now * 1e-9), kind), field, now, dropped)
    return found, dropped, said


def sweep(length, unit, start=0.0):
    return lambda now: (start + np.linspace(0.0, length, 65)) * SCALES[unit]


@pytest.mark.parametrize("period", [0.001, 0.02, 0.1, 1.0])
@pytest.mark.parametrize(("kind", "unit"), [*(("f4", u) for u in SCALES), *(("u4", u) for u in ("ms", "us", "ns"))])
def test_the_unit_is_that_in_which_sweeps_fill_the_time_between_stamps(period, kind, unit):
    if kind == "u4" and period * SCALES[unit] < 100:
        pytest.skip("integers too coarse for the sweep")
    found, dropped, said = told(kind, sweep(0.98 * period, unit), period=period)
    np.testing.assert_allclose(
        found, np.linspace(0.0, 0.98 * period, 65), atol=1.1 / SCALES[unit] if kind == "u4" else 1e-6
    )
    assert dropped == {}
    assert f"are in {unit}" in said[-1][1]
    assert {level for level, _ in said} == {"info"}


@pytest.mark.parametrize(
    ("kind", "unit"), [("f4", "s"), ("f4", "ms"), ("f4", "us"), ("f4", "ns"), ("u4", "us"), ("u4", "ns")]
)
@pytest.mark.parametrize("rate", [5.0, 10.0, 20.0])
def test_the_first_cloud_of_a_common_lidar_is_read_right(kind, unit, rate):
    found, _, said = told(kind, sweep(0.99 / rate, unit), period=1.0 / rate, count=1)
    assert found[-1] == pytest.approx(0.99 / rate, abs=1e-5)
    assert len(said) == 1


@pytest.mark.parametrize(("kind", "unit"), [("f8", "s"), ("f8", "ms"), ("f8", "us"), ("f8", "ns"), ("i8", "ns")])
def test_times_since_1970_are_told_after_the_stamp(kind, unit):
    def values(now):
        scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        offsets = np.linspace(-0.05, 0.04, 10) * scale
        return [round(now) * scale + int(o) for o in offsets] if kind == "i8" else round(now) * scale + offsets

    found, dropped, _ = told(kind, values, period=1.0)
    np.testing.assert_allclose(found, np.linspace(-0.05, 0.04, 10), atol=1e-5)
    assert dropped == {}


@pytest.mark.parametrize("kind", ["f4", "u4"])
def test_seconds_since_1970_in_32_bits_are_too_coarse(kind):
    found, dropped, said = told(kind, lambda now: now + np.linspace(0.0, 0.1, 65))
    assert found is None
    assert dropped == {"time_refused": 65}
    ((level, text),) = said
    assert level == "warning"
    assert "points (lidar)" in text
    assert "in steps of" in text


def test_one_cloud_of_a_few_points_does_not_change_the_unit():
    sensor, dropped = SensorTimes(say=lambda *what: None), {}
    for k in range(10):
        sensor.heard(NOW + k * SECOND // 10)
        length = 0.5 if k == 7 else 100.0
        found = sensor.seconds(np.linspace(0.0, length, 65, dtype=np.float32), "t", NOW + k * SECOND // 10, dropped)
        assert found[-1] == pytest.approx(length * 1e-3)


def test_the_setting_and_the_field_s_name_are_believed():
    assert told("u4", sweep(0.0005, "us"), unit="us")[0][-1] == pytest.approx(0.0005)
    assert told("u4", sweep(0.0005, "us"), field="t_us")[0][-1] == pytest.approx(0.0005)
    assert told("f4", sweep(1.9, "s"), unit="s")[0][-1] == pytest.approx(1.9)
    found, dropped, said = told("f4", sweep(0.1, "s"), unit="none")
    assert found is None
    assert dropped == {}
    assert said == []
    found, dropped, _ = told("f4", sweep(0.1, "ms"), unit="s")
    assert found is None
    assert dropped == {"time_refused": 65}


def test_what_changes_is_said_again():
    said = []
    sensor = SensorTimes("points", say=lambda *what: said.append(what))
    for k in range(40):
        sensor.heard(k * SECOND // 10)
        scale = 1e3 if k < 20 else 1.0
        sensor.seconds(np.linspace(0.0, 0.1, 65, dtype=np.float32) * scale, "t", k * SECOND // 10, {})
    assert [text.split("are in ")[1].split(",")[0] for _, text in said] == ["ms", "s"]


def test_sensors_are_told_apart_and_not_kept_without_end():
    times = PointTimes(say=lambda *what: None)
    first = times.of("points", "front", 0)
    assert times.of("points", "back", 1) is not first
    assert times.of("points", "front", 2) is first
    for k in range(16):
        times.of("points", f"{k}", 3)
    assert times.of("points", "front", 4) is not first


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0xFF800001])
def test_no_kind_of_nan_is_more_than_a_time_that_is_refused(bits):
    """A signalling NaN raises a warning where it is cast, an error in these tests."""
    raw = np.array([0, bits], np.uint32).view(np.float32)
    found, dropped, said = told("f4", lambda now: raw, count=1)
    assert found is None
    assert dropped == {"time_refused": 2}
    assert "nan" in said[0][1]
