"""CARMEN logs (.clf, .log): laser scans with the odometry that each scan line carries.

Format: http://carmen.sourceforge.net/logger_playback.html.  A line is ``NAME fields... ipc_timestamp ipc_hostname
logger_timestamp``; the stamp of the measurement is the third field from the end, the logger's clock is not used.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.records import OdometryRecord, Record, ScanRecord
from dsg_ros.io.textfile import LineErrors

_log = logging.getLogger(__name__)

NO_RETURN = 81.83
"""SICK LMS codes 8183...8191 [cm] are errors (no return, dazzled, ...), whatever maximum a log states."""

_SCANS = (b"ROBOTLASER1", b"FLASER")
RECORDS = frozenset(
    b"FLASER RLASER ROBOTLASER0 ROBOTLASER1 ROBOTLASER2 RAWLASER0 RAWLASER1 RAWLASER2 RAWLASER3 RAWLASER4 "
    b"LASER3 LASER4 LASER5 REMISSIONFLASER REMISSIONRLASER ODOM PARAM SYNC TRUEPOS MARKER TAG SONAR BUMPER SCANMARK "
    b"POSITION CORR GPS NMEAGGA NMEARMC NMEA-GGA NMEA-RMC NMEA-VTG ARM MESSAGES_NEWLOG_V2".split()
)
"""Names of the records a CARMEN log may hold."""
_STEADY = 1e-5  # metres and radians: differences of six-decimal numbers, not a moved sensor

Pair = tuple[OdometryRecord, ScanRecord]


class CarmenLog:
    """Scans in file order, each preceded by its own odometry.

    Beside ROBOTLASER1 (or, where a log has none, FLASER) lines, all records are counted and ignored: the log's ODOM
    lines are the same wheel odometry under other stamps, and mixing both would make the robot jump back and forth.
    """

    paired = True
    tells_odometry = True

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._lines = data.split(b"\n")
        names = Counter(line.split(None, 1)[0] for line in self._lines if line and not line.isspace())
        self._scan_name = next((name for name in _SCANS if names[name]), b"")
        self._scans = names[self._scan_name]
        if not self._scans:
            found = ", ".join(f"{n} {name.decode(errors='replace')}" for name, n in names.most_common(6))
            raise UserError(f"{path}: the CARMEN log holds no FLASER or ROBOTLASER1 line (found: {found or 'nothing'})")
        self._counts: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return str(self._path)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def __len__(self) -> int:
        return self._scans

    def __iter__(self) -> Iterator[Record]:
        self._counts.clear()
        errors = LineErrors(self._path, self._counts, _log)
        offset = [0.0, 0.0, 0.0]
        steady = SteadyExtrinsic(self._counts)
        for number, line in enumerate(self._lines, 1):
            words = line.split()
            if not words or words[0].startswith(b"#"):
                continue
            try:
                if words[0] == self._scan_name:
                    flaser = self._scan_name == b"FLASER"
                    odometry, scan = parse_flaser(words, offset) if flaser else parse_robotlaser(words)
                    yield odometry
                    yield steady(scan)
                elif words[0] in RECORDS:
                    self._counts[f"ignored_{words[0].decode().lower()}"] += 1
                    if words[0] == b"PARAM":
                        _front_laser_offset(words, offset)
                else:
                    errors.add(number, f"unknown record {words[0][:20]!r}")
            except (ValueError, IndexError) as error:
                errors.add(number, f"{words[0].decode()}: {error}")


class SteadyExtrinsic:
    """Keeps one base-from-laser while a log's six-decimal poses repeat it up to rounding; counts true changes."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._current: NDArray[np.float64] | None = None

    def __call__(self, scan: ScanRecord) -> ScanRecord:
        pose = scan.base_from_sensor
        if pose is None or pose is self._current:
            return scan
        if self._current is None:
            self._current = pose
            return scan
        if np.abs(pose - self._current).max() > _STEADY:
            self._counts["extrinsic_changes"] += 1
            self._current = pose
            return scan
        return dataclasses.replace(scan, base_from_sensor=self._current)


def parse_stamp(word: bytes) -> int:
    """Nanoseconds of a decimal number of seconds, exactly; ValueError where it is not one."""
    seconds, _, fraction = word.partition(b".")
    if not seconds.isdigit() or (fraction and not fraction.isdigit()):
        raise ValueError(f"stamp {word.decode(errors='replace')!r} is not a number of seconds")
    return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))


def parse_flaser(words: Sequence[bytes], offset: Sequence[float]) -> Pair:
    """``FLASER n [ranges] x y theta odom_x odom_y odom_theta stamp host logger_stamp``.

    The opening is 180 deg from -90 deg: 180 beams step by 1 deg and end at +89, 181 end at +90, 360 and 361 likewise
    by 0.5. The laser stands at ``offset`` [m, m, rad] from the base (the log's PARAM lines): its pose in the line is
    none to measure the extrinsic with, corrected logs put the corrected robot pose there.
    """
    count = _count(words[1], 2)
    _expect(words, count + 11)
    ranges = _ranges(words[2 : 2 + count], NO_RETURN)
    odometry = _odometry(words[count + 5 : count + 8], parse_stamp(words[-3]))
    increment = math.pi / (count - count % 2)
    pose = _planar_pose(*offset)
    return odometry, ScanRecord(odometry.stamp, ranges, -math.pi / 2, increment, 0.0, NO_RETURN, base_from_sensor=pose)


def parse_robotlaser(words: Sequence[bytes]) -> Pair:
    """``ROBOTLASER1 type start_angle field_of_view angular_resolution maximum_range accuracy remission_mode n
    [ranges] m [remissions] laser_x laser_y laser_theta robot_x robot_y robot_theta tv rv forward side turn stamp host
    logger_stamp``.
    """
    start, _, increment, maximum = map(float, words[2:6])
    if not (math.isfinite(start) and math.isfinite(increment) and increment and maximum > 0):
        raise ValueError(f"start angle {start:g}, angular resolution {increment:g}, maximum range {maximum:g}")
    count = _count(words[8], 1)
    remissions = _count(words[9 + count], 0)
    _expect(words, count + remissions + 24)
    maximum = min(maximum, NO_RETURN)
    tail = words[10 + count + remissions :]
    odometry = _odometry(tail[3:6], parse_stamp(words[-3]), (float(tail[6]), float(tail[7])))
    laser, robot = [float(w) for w in tail[:3]], [float(w) for w in tail[3:6]]
    dx, dy, c, s = laser[0] - robot[0], laser[1] - robot[1], math.cos(robot[2]), math.sin(robot[2])
    turn = math.remainder(laser[2] - robot[2], 2 * math.pi)
    extrinsic = _planar_pose(c * dx + s * dy, c * dy - s * dx, turn)
    ranges = _ranges(words[9 : 9 + count], maximum)
    return odometry, ScanRecord(odometry.stamp, ranges, start, increment, 0.0, maximum, base_from_sensor=extrinsic)


@lru_cache(maxsize=64)
def _planar_pose(x: float, y: float, yaw: float) -> NDArray[np.float64]:
    pose = poses.from_planar(x, y, yaw) + 0.0  # turns -0.0 into 0.0
    pose.setflags(write=False)
    return pose


def _count(word: bytes, least: int) -> int:
    count = int(word)
    if count < least:
        raise ValueError(f"{count} readings announced")
    return count


def _expect(words: Sequence[bytes], fields: int) -> None:
    if len(words) != fields:
        raise ValueError(f"{len(words)} fields instead of {fields}")


def _ranges(words: Sequence[bytes], no_return: float) -> NDArray[np.float32]:
    ranges = np.fromiter(map(float, words), np.float32, len(words))
    ranges[ranges >= np.float32(no_return)] = np.inf
    return ranges


def _odometry(words: Sequence[bytes], stamp: int, speeds: tuple[float, float] | None = None) -> OdometryRecord:
    x, y, theta = map(float, words)
    twist = None if speeds is None else np.array([speeds[0], 0.0, 0.0, 0.0, 0.0, speeds[1]])
    pose = np.array([x, y, 0.0, 0.0, 0.0, math.sin(theta / 2), math.cos(theta / 2)])
    return OdometryRecord(stamp, pose, twist=twist)


def _front_laser_offset(words: Sequence[bytes], offset: list[float]) -> None:
    names = {b"robot_frontlaser_offset": 0, b"robot_frontlaser_side_offset": 1, b"robot_frontlaser_angular_offset": 2}
    if words[1] in names:
        offset[names[words[1]]] = float(words[2])
