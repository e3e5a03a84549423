"""What is kept of keyframes and of the scans between them, beside the factor graph."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.native import plain, se3
from dsg_ros.core.room import room
from dsg_ros.state import State, packed, unpacked

_log = logging.getLogger(__name__)

_OF_KEYFRAMES = ("stamps", "odometry", "travel", "torn")
_OF_SCANS = ("stamps", "keyframe", "moves_with", "relative", "live", "odometry")
_NO_POINTS = np.zeros((0, 3), np.float32)

SAME_WAY, SAME_TURN = 0.005, 0.0044
"""How far [m, rad] a scan is from another on the same keyframe, at most, to see nothing else: a robot that stands."""


class Rows:
    """A growing array of rows: amortised O(1) append, read and changed through `values` without copying.

    It doubles, and what is not yet used of it takes no memory.
    """

    def __init__(self, *shape: int, dtype: type = np.float64) -> None:
        self._buffer: NDArray[Any] = np.zeros((64, *shape), dtype)
        self._count = 0

    def append(self, row: object) -> None:
        self.extend(1)
        self._buffer[self._count - 1] = row

    def extend(self, count: int) -> None:
        """``count`` more rows of zeros."""
        needed = self._count + count
        if needed > len(self._buffer):
            larger = room((max(needed, 2 * len(self._buffer)), *self._buffer.shape[1:]), self._buffer.dtype)
            larger[: self._count] = self.values
            self._buffer = larger
        self._count = needed

    def load(self, rows: NDArray[Any]) -> None:
        """Have these rows and no others; ValueError where type or shape is another."""
        if rows.dtype != self._buffer.dtype or rows.shape[1:] != self._buffer.shape[1:]:
            raise ValueError(f"{rows.dtype} {rows.shape} where {self._buffer.dtype} {self._buffer.shape[1:]} is kept")
        self.replace(0, self._buffer[:0])
        self.extend(len(rows))
        self.values[:] = rows

    def replace(self, begin: int, rows: NDArray[Any]) -> None:
        """Have ``rows``, no more than there are from ``begin`` on, in place of these."""
        before, self._count = self._count, begin + len(rows)
        self._buffer[begin : self._count] = rows
        self._buffer[self._count : before] = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> NDArray[Any]:
        """The rows so far, a view."""
        return self._buffer[: self._count]

    @property
    def nbytes(self) -> int:
        """Bytes of the rows so far."""
        return self.values.nbytes


@dataclass
class Keyframes:
    """By keyframe: ``clouds`` (n, 3) in its base frame, ``stamps`` [ns], raw ``odometry`` (7,), ``travel`` [m], and
    whether the map may be ``torn`` between it and the one before: scans on the way fitted nowhere.
    """

    clouds: list[NDArray[np.float64]] = field(default_factory=list)
    stamps: Rows = field(default_factory=lambda: Rows(dtype=np.int64))
    odometry: Rows = field(default_factory=lambda: Rows(7))
    travel: Rows = field(default_factory=Rows)
    torn: Rows = field(default_factory=lambda: Rows(dtype=np.bool_))
    _points: int = 0

    def __len__(self) -> int:
        return len(self.clouds)

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self._points * 3 * 8 + sum(getattr(self, name).nbytes for name in _OF_KEYFRAMES)

    def add(
        self, stamp: int, cloud: NDArray[np.float64], odometry: NDArray[np.float64], travel: float, torn: bool = False
    ) -> None:
        self.clouds.append(cloud)
        self._points += len(cloud)
        self.stamps.append(stamp)
        self.odometry.append(odometry)
        self.travel.append(travel)
        self.torn.append(torn)

    def state(self) -> State:
        """As `dsg_ros.state` says; nothing of it ever changes."""
        return {"clouds": tuple(self.clouds), **{name: getattr(self, name).values for name in _OF_KEYFRAMES}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        self.clouds = list(state["clouds"])
        self._points = sum(map(len, self.clouds))
        for name in _OF_KEYFRAMES:
            getattr(self, name).load(state[name])
            if len(getattr(self, name)) != len(self.clouds):
                raise ValueError(f"{name} of other keyframes than there are clouds")


@dataclass
class ScanLog:
    """Every scan, hung on its keyframe.

    By scan: stamp [ns], ``keyframe`` index, ``relative`` pose (7,) in it, ``live`` pose (7,) in map as published, raw
    ``odometry`` (7,).  ``clouds`` (n, 3) in the base frame (float32) are what a final refinement asks for: not those of
    keyframes, which have their own, and of a robot that stands one a place: ``moves_with`` is the scan whose cloud
    stands for each, itself as a rule.  They have ``most_points`` in all, at most, none with 0: of more, the oldest
    ``evicted`` ones are forgotten.
    """

    most_points: int
    stamps: Rows = field(default_factory=lambda: Rows(dtype=np.int64))
    keyframe: Rows = field(default_factory=lambda: Rows(dtype=np.int32))
    moves_with: Rows = field(default_factory=lambda: Rows(dtype=np.int32))
    relative: Rows = field(default_factory=lambda: Rows(7))
    live: Rows = field(default_factory=lambda: Rows(7))
    odometry: Rows = field(default_factory=lambda: Rows(7))
    clouds: list[NDArray[np.float32]] = field(default_factory=list)
    evicted: int = 0
    _points: int = 0
    _oldest: int = 0

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self._points * 3 * 4 + sum(getattr(self, name).nbytes for name in _OF_SCANS)

    def add(
        self,
        stamp: int,
        keyframe: int,
        relative: NDArray[np.float64],
        live: NDArray[np.float64],
        odometry: NDArray[np.float64],
        cloud: NDArray[np.float64],
    ) -> None:
        same = self._same_place(keyframe, relative)
        self.moves_with.append(len(self) if same is None else same)
        between = len(self) > 0 and self.keyframe.values[-1] == keyframe
        kept = cloud.astype(np.float32) if between and same is None and self.most_points else _NO_POINTS
        self.clouds.append(kept)
        self._points += len(kept)
        self._evict()
        self.stamps.append(stamp)
        self.keyframe.append(keyframe)
        self.relative.append(relative)
        self.live.append(live)
        self.odometry.append(odometry)

    def _evict(self) -> None:
        """Forget the oldest clouds beyond those that are kept."""
        while self._points > self.most_points:
            if count := len(self.clouds[self._oldest]):
                if not self.evicted:
                    _log.warning(
                        "scans have more than refinement.most_points = %d points: the oldest are forgotten, and move "
                        "with their keyframes when these are refined", self.most_points,
                    )  # fmt: skip
                self.clouds[self._oldest] = _NO_POINTS
                self._points -= count
                self.evicted += 1
            self._oldest += 1

    def _same_place(self, keyframe: int, relative: NDArray[np.float64]) -> int | None:
        """The latest scan with a cloud on ``keyframe`` if that was taken where this one is."""
        if not len(self) or self.keyframe.values[-1] != keyframe:
            return None
        other = int(self.moves_with.values[-1])
        apart = se3.log(se3.between(plain(self.relative.values[other]), plain(relative))).tolist()
        same = math.hypot(*apart[:3]) < SAME_WAY and math.hypot(*apart[3:]) < SAME_TURN
        return other if same else None

    def highest_speed(self) -> float:
        """Of the robot [m/s] by its odometry, from scan to scan, but for one in a thousand; 0 where it is not known."""
        seconds, way = np.diff(self.stamps.values) * 1e-9, np.diff(self.odometry.values[:, :3], axis=0)
        moving = seconds > 1e-3
        return float(np.quantile(np.linalg.norm(way[moving], axis=1) / seconds[moving], 0.999)) if moving.any() else 0.0

    def state(self) -> State:
        """As `dsg_ros.state` says; nothing of it ever changes."""
        columns = {name: getattr(self, name).values for name in _OF_SCANS}
        return {"clouds": tuple(self.clouds), "evicted": packed(self.evicted), **columns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        for name in _OF_SCANS:
            getattr(self, name).load(state[name])
        # What is read from disk lies in one array, which would stay as long as one of them does.
        self.clouds = [cloud.copy() if len(cloud) else _NO_POINTS for cloud in state["clouds"]]
        self.evicted, self._oldest, self._points = unpacked(state["evicted"]), 0, sum(map(len, self.clouds))
        if {len(getattr(self, name)) for name in _OF_SCANS} != {len(self.clouds)}:
            raise ValueError("columns of other scans")

    def on(self, trajectory: NDArray[np.float64]) -> NDArray[np.float64]:
        """Poses (n, 7) of all scans in map, for keyframes at ``trajectory`` (k, 7)."""
        return poses.compose(trajectory[self.keyframe.values], self.relative.values)
