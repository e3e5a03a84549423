"""sensor_msgs/PointCloud2 to points, and back.  NumPy only: the ROS node uses it too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsg_ros.io.point_times import UNITS, SensorTimes
from dsg_ros.io.records import MalformedMessage, PointSet

# sensor_msgs/PointField datatypes.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_NAMES = {1: "INT8", 2: "UINT8", 3: "INT16", 4: "UINT16", 5: "INT32", 6: "UINT32", 7: "FLOAT32", 8: "FLOAT64"}
_TIME_FIELDS = ("t", "time", "timestamp", "time_stamp", "timeStamp", "time_offset", "offset_time", "t_offset")
_TIME_NAMES = (*_TIME_FIELDS, *(f"{name}_{unit}" for name in _TIME_FIELDS for unit in UNITS))

_LONGEST = 2**31 - 1
"""Bytes of a NumPy record, at most; the points of an empty cloud may claim more."""

FIELDS = ("x", "y", "z", "time")
"""The fields of clouds that this package writes, all FLOAT32: `rows`."""


class PointField(Protocol):
    """A field of sensor_msgs/PointField, whoever's message class it is."""

    name: str
    offset: int
    datatype: int
    count: int


class PointCloud2(Protocol):
    """What is needed of sensor_msgs/PointCloud2; ``data`` is any buffer of bytes."""

    height: int
    width: int
    fields: Sequence[Any]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: Any


def decode(cloud: PointCloud2, stamp: int = 0, times: SensorTimes | None = None) -> PointSet:
    """Finite points (n, 3) float32 [m] of the cloud and, where it has a time field, when each was measured.

    ``stamp`` [ns] is the header's: times of an absolute clock are told as seconds after it, in the unit that ``times``
    makes out for this sensor (`SensorTimes.seconds`).  A point with a NaN or an infinite coordinate is dropped with its
    time and counted as not_finite, whatever ``is_dense`` says.  Raises `MalformedMessage` where there is no float x,
    y, z or the sizes contradict each other.
    """
    fields = {field.name: field for field in cloud.fields}
    data = _rows(cloud)
    layout = {axis: _axis(axis, fields, cloud) for axis in "xyz"}
    time_name = next((name for name in _TIME_NAMES if name in fields), "")
    if time_name:
        layout[time_name] = _place(fields[time_name], cloud)
    dtype = np.dtype(
        {
            "names": list(layout),
            "formats": [kind for kind, _ in layout.values()],
            "offsets": [offset for _, offset in layout.values()],
            "itemsize": cloud.point_step,
        }
    )
    table = data.view(dtype)
    points = np.empty((len(table), 3), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a float64 beyond float32 becomes inf, and is dropped as such
        for column, axis in enumerate("xyz"):
            points[:, column] = table[axis]
    dropped: dict[str, int] = {}
    finite = np.isfinite(points).all(axis=1)
    told = table[time_name] if time_name else None
    if not finite.all():
        dropped["not_finite"] = int(len(points) - np.count_nonzero(finite))
        points = points[finite]
        told = None if told is None else told[finite]
    if told is None:
        return PointSet(points, None, dropped)
    return PointSet(points, (times or SensorTimes()).seconds(told, time_name, stamp, dropped), dropped)


def rows(points: NDArray[np.float32], times: NDArray[np.float32] | None) -> NDArray[Any]:
    """The data of a cloud with `FIELDS`: points (n, 3) [m] and ``times`` (n,) [s] after the stamp, as one record each.

    Without times their field is left out.
    """
    columns = [*points.T] if times is None else [*points.T, times]
    table = np.empty(len(points), [(name, "<f4") for name in FIELDS[: len(columns)]])
    for name, column in zip(FIELDS, columns, strict=False):
        table[name] = column
    return table


def _rows(cloud: PointCloud2) -> NDArray[np.uint8]:
    """The points' bytes, (width * height * point_step,), without what pads the rows."""
    data = np.frombuffer(cloud.data, np.uint8) if len(cloud.data) else np.empty(0, np.uint8)
    used = cloud.width * cloud.point_step
    if cloud.point_step > _LONGEST or (cloud.point_step <= 0 and cloud.width * cloud.height):
        raise MalformedMessage(f"point_step is {cloud.point_step}")
    if cloud.row_step < used and cloud.height:
        raise MalformedMessage(
            f"row_step {cloud.row_step} is less than width {cloud.width} x point_step {cloud.point_step} = {used}"
        )
    expected = cloud.row_step * cloud.height
    if len(data) != expected:
        raise MalformedMessage(
            f"data has {len(data)} bytes, row_step {cloud.row_step} x height {cloud.height} makes {expected}"
        )
    if cloud.row_step == used or not expected:
        return data
    return np.ascontiguousarray(data.reshape(cloud.height, cloud.row_step)[:, :used]).reshape(-1)


def _axis(axis: str, fields: dict[str, PointField], cloud: PointCloud2) -> tuple[str, int]:
    if axis not in fields:
        names = ", ".join(fields) or "none"
        raise MalformedMessage(f"no field {axis!r} among the cloud's fields ({names}): x, y and z are needed")
    if fields[axis].datatype not in (7, 8):
        kind = _NAMES.get(fields[axis].datatype, str(fields[axis].datatype))
        raise MalformedMessage(f"field {axis!r} is {kind}; FLOAT32 or FLOAT64 is needed")
    return _place(fields[axis], cloud)


def _place(field: PointField, cloud: PointCloud2) -> tuple[str, int]:
    if field.datatype not in _TYPES:
        raise MalformedMessage(f"field {field.name!r} has the unknown datatype {field.datatype}")
    kind = (">" if cloud.is_bigendian else "<") + _TYPES[field.datatype]
    if field.offset + np.dtype(kind).itemsize > cloud.point_step:
        raise MalformedMessage(
            f"field {field.name!r} at offset {field.offset} ends beyond point_step {cloud.point_step}"
        )
    return kind, field.offset
