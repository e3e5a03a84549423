from __future__ import annotations

import array
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dsg_ros.io.pointcloud import decode
from dsg_ros.io.records import MalformedMessage

TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
XYZ = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [-7.0, 8.0, 0.5]])
STAMP = 1_700_000_000_250_000_000


@dataclass(frozen=True)
class Field:
    name: str
    offset: int
    datatype: int
    count: int = 1


@dataclass(frozen=True)
class Cloud:
    """The fields of sensor_msgs/PointCloud2 that matter."""

    fields: list[Field]
    point_step: int
    data: Any
    width: int
    height: int = 1
    row_step: int = 0
    is_bigendian: bool = False
    is_dense: bool = True


@dataclass
class Layout:
    columns: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)

    def cloud(self, big: bool = False, padding: int = 3) -> Cloud:
        """A cloud of these columns, each point followed by ``padding`` bytes."""
        order = ">" if big else "<"
        dtype = np.dtype([(name, order + kind) for name, (kind, _) in self.columns.items()] + [("pad", "V", padding)])
        table = np.zeros(len(next(iter(self.columns.values()))[1]), dtype)
        for name, (_, values) in self.columns.items():
            table[name] = values
        fields = [Field(name, dtype.fields[name][1], TYPES[kind]) for name, (kind, _) in self.columns.items()]
        data = table.tobytes()
        return Cloud(fields, dtype.itemsize, data, len(table), row_step=len(data), is_bigendian=big)


def xyz(points=XYZ, kind="f4", **columns) -> Layout:
    points = np.asarray(points)
    return Layout({axis: (kind, points[:, i]) for i, axis in enumerate("xyz")} | columns)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize(
    "wrap", [bytes, bytearray, memoryview, lambda b: array.array("B", b), lambda b: np.frombuffer(b, "u1")]
)
def test_any_byte_order_width_and_buffer(big, kind, wrap):
    cloud = xyz(kind=kind, intensity=("u1", np.arange(3))).cloud(big)
    decoded = decode(replace(cloud, data=wrap(cloud.data)))
    np.testing.assert_array_equal(decoded.points, XYZ.astype(np.float32))
    assert decoded.points.dtype == np.float32
    assert decoded.times is None
    assert decoded.dropped == {}


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.floats(width=32)), st.booleans())
def test_finite_points_come_back_in_order_and_the_rest_is_counted(points, big):
    decoded = decode(xyz(points).cloud(big))
    finite = np.isfinite(points).all(axis=1)
    np.testing.assert_array_equal(decoded.points, points[finite])
    assert decoded.dropped.get("not_finite", 0) == (~finite).sum()


def test_not_finite_points_go_with_their_time_whatever_is_dense_says():
    points = XYZ.copy()
    points[1, 2] = np.nan
    cloud = xyz(points, t=("u4", np.array([0, 50_000_000, 100_000_000]))).cloud()
    for dense in (True, False):
        decoded = decode(replace(cloud, is_dense=dense), STAMP)
        np.testing.assert_allclose(decoded.times, [0.0, 0.1])
        assert len(decoded.points) == 2
        assert decoded.dropped == {"not_finite": 1}


def test_float64_beyond_float32_is_not_finite():
    decoded = decode(xyz([[1e300, 0, 0], [1, 2, 3]], "f8").cloud())
    np.testing.assert_array_equal(decoded.points, [[1, 2, 3]])
    assert decoded.dropped == {"not_finite": 1}


def test_rows_may_be_padded():
    cloud = xyz(np.arange(12.0).reshape(4, 3)).cloud()
    used = 2 * cloud.point_step
    rows = cloud.data[:used] + b"\xff" * 5 + cloud.data[used:] + b"\xff" * 5
    organised = replace(cloud, data=rows, width=2, height=2, row_step=used + 5)
    np.testing.assert_array_equal(decode(organised).points, np.arange(12.0).reshape(4, 3))


@pytest.mark.parametrize("height", [0, 1])
def test_empty_clouds_are_fine(height):
    cloud = replace(xyz(np.empty((0, 3))).cloud(), height=height)
    assert decode(cloud).points.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": [Field("x", 0, 7), Field("y", 4, 7), Field("rgb", 8, 7)]}, r"no field 'z' .*\(x, y, rgb\)"),
        ({"fields": []}, r"no field 'x' .*\(none\)"),
        ({"fields": [Field("x", 0, 6), Field("y", 4, 7), Field("z", 8, 7)]}, "'x' is UINT32"),
        (
            {"fields": [Field("x", 0, 7), Field("y", 4, 7), Field("z", 13, 7)]},
            "'z' at offset 13 ends beyond point_step 15",
        ),
        ({"fields": [Field("x", 0, 7), Field("y", 4, 7), Field("z", 8, 7), Field("t", 0, 9)]}, "unknown datatype 9"),
        ({"point_step": 0}, "point_step is 0"),
        ({"point_step": 2**31, "width": 0, "row_step": 0, "data": b""}, "point_step is 2147483648"),
        ({"row_step": 44}, "row_step 44 is less than width 3 x point_step 15 = 45"),
        ({"data": bytes(44)}, "data has 44 bytes, row_step 45 x height 1 makes 45"),
        ({"height": 2}, "data has 45 bytes, row_step 45 x height 2 makes 90"),
    ],
)
def test_contradictions_are_refused_by_name(change, message):
    with pytest.raises(MalformedMessage, match=message):
        decode(replace(xyz().cloud(), **change))


SWEEP = np.array([0.0, 0.05, 0.1])


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("t", "u4", SWEEP * 1e9),
        ("time_offset", "i4", SWEEP * 1e9),
        ("time", "f4", SWEEP),
        ("timestamp", "f4", SWEEP * 1e6),
        ("timestamp", "f8", SWEEP + STAMP * 1e-9),
        ("timestamp", "f8", SWEEP * 1e9 + float(STAMP)),
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_time_fields_become_seconds_after_the_stamp(name, kind, values, big):
    decoded = decode(xyz(**{name: (kind, values)}).cloud(big), STAMP)
    np.testing.assert_allclose(decoded.times, SWEEP, atol=2e-6)
    assert decoded.dropped == {}


def test_a_short_sweep_of_absolute_nanoseconds_is_not_taken_for_seconds():
    values = float(STAMP) + np.array([0.0, 256.0, 512.0])
    np.testing.assert_allclose(decode(xyz(timestamp=("f8", values)).cloud(), STAMP).times, values * 0, atol=1e-6)


def test_times_before_the_stamp_stay_negative():
    decoded = decode(xyz(time=("f4", SWEEP - 0.1)).cloud(), STAMP)
    np.testing.assert_allclose(decoded.times, SWEEP - 0.1, atol=1e-7)


def test_a_clock_of_the_sensor_s_own_counts_from_the_first_point():
    decoded = decode(xyz(timestamp=("f8", SWEEP + 5000.0)).cloud(), STAMP)
    np.testing.assert_allclose(decoded.times, SWEEP, atol=1e-9)
    assert decoded.dropped == {"foreign_clock": 3}


@pytest.mark.parametrize("values", [np.array([0.0, np.nan, 1.0]), np.array([0.0, 1e15, 1.0])])
def test_times_without_sense_are_left_out_but_points_stay(values):
    decoded = decode(xyz(time=("f8", values)).cloud(), STAMP)
    assert decoded.times is None
    assert len(decoded.points) == 3
    assert decoded.dropped == {"time_refused": 3}
