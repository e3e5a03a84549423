"""Any recorded run behind one door: `open_log` finds out what a path holds, `frames` makes the pipeline's input of
it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.config import Input
from dsg_ros.errors import UserError
from dsg_ros.interface import Frame
from dsg_ros.io import laserscan
from dsg_ros.io.carmen import RECORDS, CarmenLog
from dsg_ros.io.g2o import G2oLog
from dsg_ros.io.kinds import bag_kind, first_bytes
from dsg_ros.io.point_times import PointTimes
from dsg_ros.io.records import (
    CloudRecord,
    Contents,
    Log,
    MalformedMessage,
    OdometryRecord,
    PointSet,
    ScanRecord,
    Topics,
)
from dsg_ros.io.textfile import is_compressed, read_bytes
from dsg_ros.synchroniser import Synchroniser
from dsg_ros.throttle import Say

_log = logging.getLogger(__name__)

ACCEPTED = (
    "a CARMEN log or a g2o file with ROBOTLASER1 scans (plain, .bz2, .gz, .xz, .zip), a ROS 1 bag (.bag), "
    "or a rosbag2 (folder, .mcap, .db3)"
)

_PROBED_LINES = 400
_NAMED = 5  # malformed scans told one by one; the rest only counted


def check_log(path: Path) -> bytes:
    """The beginning of the file at ``path``, empty for a folder; `UserError` where that is enough to refuse it."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; accepted is {ACCEPTED}")
    if path.is_dir():
        return b""
    head = first_bytes(path)
    if b"\0" in head and not bag_kind(head) and not is_compressed(head):
        # No text: not to be read in whole, it may be a film.
        raise UserError(_foreign(path, head))
    return head


def _is_bag(path: Path) -> bool:
    """Whether the log at ``path`` is a bag, for which the bag library is needed; `UserError` where it is none."""
    return bool(bag_kind(check_log(path))) or path.is_dir()


def open_log(path: Path | str, topics: Topics | None = None, point_time_unit: str = "auto") -> Log:
    """The log at ``path``, recognised by its content; `UserError` says what was found and what is accepted.

    ``point_time_unit`` is that of clouds, as `dsg_ros.config.Input` has it.
    """
    path = Path(path)
    if _is_bag(path):
        # Text logs do without the bag library, which is slow to import.
        from dsg_ros.io.bags import BagLog

        return BagLog(path, topics or Topics(), point_time_unit)
    data = read_bytes(path)
    if kind := bag_kind(data[:16]):
        raise UserError(f"{path}: a compressed {kind}; decompress it first")
    words = Counter(
        line.split(None, 1)[0] for line in data[:2_000_000].split(b"\n", _PROBED_LINES)[:_PROBED_LINES] if line.strip()
    )
    if any(word.startswith((b"VERTEX", b"EDGE")) for word in words):
        return G2oLog(path, data)
    if RECORDS & words.keys():
        return CarmenLog(path, data)
    raise UserError(_foreign(path, data))


def contents(path: Path, topics: Topics) -> Contents:
    """What kind of log is at ``path``; `UserError` where it is none."""
    if not _is_bag(path):
        return Contents(clouds=False, odometry=True)
    from dsg_ros.io import bags

    return bags.contents(path, topics)


def base_frame(path: Path, topics: Topics) -> str:
    """What the log at ``path`` calls the frame of the robot's base, empty where nothing names it."""
    if not _is_bag(path):
        return "base_link"  # as its records have it
    from dsg_ros.io import bags

    return bags.base_frame(path, topics)


def _foreign(path: Path, data: bytes) -> str:
    return f"{path}: not a log this program knows (it begins with {data[:24]!r}); accepted is {ACCEPTED}"


MARGIN = 0.3
"""Odometry beyond a scan [s] that goes with it at least: in a log, nobody waits for it."""


class Frames(Iterator[Frame]):
    """The frames of a log, in order, with what was left out on the way in ``counts`` by cause (complete once
    exhausted).
    """

    def __init__(self, log: Log, settings: Input, report: Say | None = None) -> None:
        self.log = log
        margin = max(settings.odometry_margin, MARGIN)
        self.synchroniser = Synchroniser(replace(settings, odometry_margin=margin), report)
        self.scans_read = 0
        self._times = PointTimes(settings.point_time_unit)
        self._alone = settings.odometry == "none"
        if not self._alone and not log.tells_odometry:
            raise UserError(f"{log.name}: it has no odometry; --set input.odometry=none maps by the scans alone")
        self._counts: Counter[str] = Counter()
        self._frames = self._paired() if log.paired else self._bracketed()

    def __len__(self) -> int:
        """The number of scans in the log: an upper bound of the number of frames."""
        return len(self.log)

    def __next__(self) -> Frame:
        return next(self._frames)

    @property
    def progress(self) -> float:
        """Fraction of the log's scans read so far."""
        return min(1.0, self.scans_read / max(1, len(self.log)))

    @property
    def counts(self) -> dict[str, int]:
        """Totals by cause: the log's, the synchroniser's, and ``points_<cause>`` of points dropped while decoding."""
        return dict(Counter(self.log.counts) + self.synchroniser.counts + self._counts)

    def _paired(self) -> Iterator[Frame]:
        odometry: OdometryRecord | None = None
        for record in self.log:
            if isinstance(record, OdometryRecord):
                odometry = record
            elif isinstance(record, ScanRecord) and odometry is not None:
                self.scans_read += 1
                scan = self._decoded(record)
                if scan is not None:
                    where = self._extrinsic(record), record.topic or "scan", record.frame
                    yield from self.synchroniser.add_paired(record.stamp, odometry.pose, scan.points, *where)

    def _bracketed(self) -> Iterator[Frame]:
        for record in self.log:
            if isinstance(record, OdometryRecord):
                if self._alone:
                    continue
                yield from self.synchroniser.add_odometry(record.stamp, record.pose, record.topic or "odom")
            elif isinstance(record, ScanRecord):
                self.scans_read += 1
                scan = self._decoded(record)
                if scan is not None:
                    yield from self._taken(record, scan.points, scan.times)
            elif isinstance(record, CloudRecord):
                self.scans_read += 1
                self._count_points(record.dropped)
                yield from self._taken(record, record.points, record.times)
        yield from self.synchroniser.flush()

    def _taken(
        self, record: ScanRecord | CloudRecord, points: NDArray[np.float32], times: NDArray[np.float32] | None
    ) -> list[Frame]:
        planar = isinstance(record, ScanRecord)
        where = self._extrinsic(record), planar, record.topic or ("scan" if planar else "points"), record.frame
        return self.synchroniser.add_scan(record.stamp, points, times, *where)

    def _decoded(self, record: ScanRecord) -> PointSet | None:
        try:
            times = self._times.of(record.topic or "scan", record.frame, record.stamp)
            scan = laserscan.decode_record(record, times)
        except MalformedMessage as error:
            self._counts["malformed_messages"] += 1
            if self._counts["malformed_messages"] <= _NAMED:
                stamp = record.stamp / 1e9
                _log.warning("%s: %s at %.6f: skipped: %s", self.log.name, record.topic or "scan", stamp, error)
            return None
        self._count_points(scan.dropped)
        return scan

    def _extrinsic(self, record: ScanRecord | CloudRecord) -> NDArray[np.float64]:
        if record.base_from_sensor is None:
            self._counts["scans_without_extrinsic"] += not self._alone  # without odometry the sensor is the base
            return poses.IDENTITY
        return record.base_from_sensor

    def _count_points(self, dropped: Mapping[str, int]) -> None:
        for cause, count in dropped.items():
            self._counts[f"points_{cause}"] += count


def frames(log: Log, settings: Input, report: Say | None = None) -> Frames:
    """The log's scans as `Frame`s, in order of arrival.

    Logs in file order (CARMEN, g2o) give each scan its own odometry pose, so that stamps may run backwards; bags go
    through the `Synchroniser`.
    """
    return Frames(log, settings, report)
