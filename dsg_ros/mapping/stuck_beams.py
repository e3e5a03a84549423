"""Beams of a planar scanner that tell the same range wherever the robot is: dirt on its window, damage, or a part of
the robot in its view.

Beside a wall a beam tells the same for a whole corridor, so a way is not enough: the robot must have turned as well,
by so much that no wall stays as far along any beam.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import plain, se3
from dsg_ros.interface import Frame
from dsg_ros.state import State, packed, unpacked

STEP, STEP_TURN = 0.3, 0.3
"""Travel [m] and turn [rad] from one scan that is looked at to the next."""
LOOKS, TRAVEL, TURN = 20, 10.0, 1.0
"""Scans that are looked at, metres between them, and how far the robot must have been turned from its first heading
[rad], while the range stays the same, before a beam is called stuck.
"""
SAME_RANGE, SAME_BEARING = 0.05, 5e-4
"""Readings of a beam [m] closer than this are the same; scanners have beams 1.7e-3 rad apart or more."""
LONGEST = 0.95
"""Share of a scan's longest range from which on a reading is not looked at: it may stand for no return."""
SENSORS = 16
"""Of which so many at most are kept, told apart by where they sit."""

Array = NDArray[np.float64]
_log = logging.getLogger(__name__)


@dataclass
class _Sensor:
    """``beams`` (m, 2), bearing [rad] and range [m], have told the same for so many ``looks``, ``travel`` [m] and a
    largest ``turn`` [rad] since the pose ``first`` (7,); the latest look was at ``last`` (7,).
    """

    beams: Array
    first: Array
    last: Array
    looks: int = 1
    travel: float = 0.0
    turn: float = 0.0


class StuckBeams:
    """Looks at scans, and leaves out what stuck beams tell; how many there are is counted as ``beams_stuck``."""

    def __init__(self) -> None:
        self.counts = {"beams_stuck": 0}
        self._stuck: dict[bytes, Array] = {}
        self._sensors: dict[bytes, _Sensor] = {}

    def without(self, frame: Frame) -> Frame:
        """``frame`` without what stuck beams tell in it; clouds, which have no such beams, as they are."""
        if not frame.planar:
            return frame
        key, odometry = frame.base_from_sensor.tobytes(), frame.odometry.at(frame.stamp)
        due = self._due(key, odometry) and len(frame.points) > 0
        if not due and key not in self._stuck:
            return frame
        beams = _polar(frame.points)
        if due:
            self._look(key, beams, odometry)
        if key not in self._stuck:
            return frame
        used = ~_told_again(beams, self._stuck[key])
        times = None if frame.times is None else frame.times[used]
        return dataclasses.replace(frame, points=frame.points[used], times=times if used.any() else None)

    def _due(self, key: bytes, odometry: Array) -> bool:
        sensor = self._sensors.get(key)
        if sensor is None:
            return True
        travel, turn = _step(sensor.last, odometry)
        return travel >= STEP or turn >= STEP_TURN

    def _look(self, key: bytes, beams: Array, odometry: Array) -> None:
        sensor = self._sensors.pop(key, None)
        if sensor is not None:
            sensor.beams = sensor.beams[_told_again(sensor.beams, beams)]
            sensor.looks += 1
            sensor.travel += _step(sensor.last, odometry)[0]
            sensor.turn = max(sensor.turn, _step(sensor.first, odometry)[1])
            sensor.last = odometry
        enough = sensor is not None and sensor.looks >= LOOKS and sensor.travel >= TRAVEL and sensor.turn >= TURN
        if sensor is not None and enough and len(sensor.beams):
            self._tell(key, sensor)
        if sensor is None or enough or not len(sensor.beams):
            known = self._stuck.get(key)
            near = beams[beams[:, 1] < LONGEST * beams[:, 1].max()]
            sensor = _Sensor(near if known is None else near[~_told_again(near, known)], odometry, odometry)
        self._sensors[key] = sensor
        if len(self._sensors) > SENSORS:
            del self._sensors[next(iter(self._sensors))]

    def _tell(self, key: bytes, sensor: _Sensor) -> None:
        bearings, ranges = np.degrees(sensor.beams[:, 0]), sensor.beams[:, 1]
        self._stuck[key] = np.vstack([self._stuck.get(key, np.empty((0, 2))), sensor.beams])
        self.counts["beams_stuck"] += len(sensor.beams)
        _log.warning(
            "%d of the scanner's beams, from %.1f to %.1f deg, tell the same range (%.2f to %.2f m) over %.0f m of way "
            "and turns: dirt on its window, damage, or a part of the robot in its view; they are left out while they "
            "tell that", len(bearings), bearings.min(), bearings.max(), ranges.min(), ranges.max(), sensor.travel,
        )  # fmt: skip

    def state(self) -> State:
        """As `dsg_ros.state` says; what is being looked at is not in it."""
        rows = [np.append(np.frombuffer(key), beam) for key, beams in self._stuck.items() for beam in beams]
        return {"stuck": np.array(rows).reshape(-1, 9), "counts": packed(self.counts)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        self._stuck, self.counts = {}, unpacked(state["counts"])
        for row in np.array(state["stuck"]):
            key = row[:7].tobytes()
            self._stuck[key] = np.vstack([self._stuck.get(key, np.empty((0, 2))), row[7:]])


def _polar(points: NDArray[np.float32]) -> Array:
    """Bearing [rad] and range [m] (n, 2) of points (n, 3)."""
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    return np.column_stack([np.arctan2(y, x), np.hypot(x, y)])


def _told_again(beams: Array, others: Array) -> NDArray[np.bool_]:
    """Which of ``beams`` (n, 2) tell the same as one of ``others`` (m, 2)."""
    if not len(others):
        return np.zeros(len(beams), bool)
    ordered = others[np.argsort(others[:, 0])]
    after = np.searchsorted(ordered[:, 0], beams[:, 0])
    near = ordered[np.stack([np.maximum(after - 1, 0), np.minimum(after, len(ordered) - 1)])]
    apart = np.abs(near - beams)
    same: NDArray[np.bool_] = ((apart[..., 0] < SAME_BEARING) & (apart[..., 1] < SAME_RANGE)).any(axis=0)
    return same


def _step(before: Array, after: Array) -> tuple[float, float]:
    """Travel [m] and turn [rad] from one pose (7,) to another."""
    motion = se3.log(se3.between(plain(before), plain(after))).tolist()  # with every scan: compiled
    return math.hypot(*motion[:3]), math.hypot(*motion[3:])
