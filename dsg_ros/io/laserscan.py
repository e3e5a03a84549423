"""sensor_msgs/LaserScan to points.  NumPy only: the ROS node uses it too."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsg_ros.io.point_times import SensorTimes
from dsg_ros.io.records import MalformedMessage, PointSet, ScanRecord


def decode(
    ranges: ArrayLike,
    angle_min: float,
    angle_increment: float,
    range_min: float,
    range_max: float,
    time_increment: float = 0.0,
    times: SensorTimes | None = None,
) -> PointSet:
    """Points in the sensor frame of the beams that measured something.

    REP-117: a range counts only where it is finite and ``range_min <= range <= range_max``; NaN is an invalid
    reading, +inf no return, -inf too close.  Points' times are ``i * time_increment`` [s] after the message's stamp
    (which is that of the first beam), None where ``time_increment`` is zero or makes a sweep that ``times``, what is
    known of this sensor's, does not believe.  ``dropped`` counts by cause: not_a_number, no_return, too_close, too_far,
    time_refused (the points are kept).  Raises `MalformedMessage` where the geometry is not finite or beams coincide.
    """
    measured = np.asarray(ranges, np.float32)
    geometry = (angle_min, angle_increment, range_min, range_max, time_increment)
    if measured.ndim != 1:
        raise MalformedMessage(f"ranges have {measured.ndim} dimensions instead of one")
    finite = math.isfinite(angle_min) and math.isfinite(angle_increment) and math.isfinite(time_increment)
    if not finite or math.isnan(range_min) or math.isnan(range_max):
        raise MalformedMessage(
            "angle_min, angle_increment, range_min, range_max, time_increment are not all finite: "
            + ", ".join(f"{value:g}" for value in geometry)
        )
    if angle_increment == 0 and len(measured) > 1:
        raise MalformedMessage(f"angle_increment is 0 with {len(measured)} ranges")
    valid = (measured >= range_min) & (measured <= range_max)  # false for NaN
    if not (math.isfinite(range_min) and math.isfinite(range_max)):
        valid &= np.isfinite(measured)
    dropped = {} if valid.all() else _causes(measured[~valid], range_min)
    # The message carries float32 angles: rounding here makes a log and the bag converted from it give the same points.
    directions = _directions(len(measured), float(np.float32(angle_min)), float(np.float32(angle_increment)))
    points = directions[valid] * measured[valid, None]
    if not time_increment:
        return PointSet(points, None, dropped)
    if not (times or SensorTimes("scan")).believes(max(len(measured) - 1, 1) * float(time_increment)):
        return PointSet(points, None, dropped | {"time_refused": len(points)})
    after = (np.flatnonzero(valid) * np.float64(np.float32(time_increment))).astype(np.float32)
    return PointSet(points, after, dropped)


def decode_record(scan: ScanRecord, times: SensorTimes | None = None) -> PointSet:
    """`decode` of a log's record."""
    geometry = scan.angle_min, scan.angle_increment, scan.range_min, scan.range_max, scan.time_increment
    return decode(scan.ranges, *geometry, times)


def _causes(refused: NDArray[np.float32], range_min: float) -> dict[str, int]:
    causes = {
        "not_a_number": np.isnan(refused),
        "no_return": np.isposinf(refused),
        "too_close": refused < range_min,
    }
    counts = {name: int(mask.sum()) for name, mask in causes.items()}
    counts["too_far"] = len(refused) - sum(counts.values())
    return {name: count for name, count in counts.items() if count}


@lru_cache(maxsize=16)
def _directions(count: int, angle_min: float, angle_increment: float) -> NDArray[np.float32]:
    angles = angle_min + angle_increment * np.arange(count)
    directions = np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], axis=-1).astype(np.float32)
    directions.setflags(write=False)
    return directions
