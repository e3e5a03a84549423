"""What is kept of keyframes and of the scans between them, beside the factor graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.native import plain, se3
from dsg_ros.state import State

_OF_KEYFRAMES = ("stamps", "odometry", "travel", "torn")
_OF_SCANS = ("stamps", "keyframe", "moves_with", "relative", "live", "odometry")
_NO_POINTS = np.zeros((0, 3), np.float32)

SAME_WAY, SAME_TURN = 0.005, 0.0044
"""How far [m, rad] a scan is from another on the same keyframe, at most, to see nothing else: a robot that stands."""


class Rows:
    """A growing array of rows: amortised O(1) append, read and changed through `values` without copying."""

    def __init__(self, *shape: int, dtype: type = np.float64) -> None:
        self._buffer: NDArray[Any] = np.zeros((64, *shape), dtype)
        self._count = 0

    def append(self, row: object) -> None:
        if self._count == len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.zeros_like(self._buffer)])
        self._buffer[self._count] = row
        self._count += 1

    def extend(self, count: int) -> None:
        """``count`` more rows of zeros."""
        while self._count + count > len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.zeros_like(self._buffer)])
        self._count += count

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

    def __len__(self) -> int:
        return len(self.clouds)

    def add(
        self, stamp: int, cloud: NDArray[np.float64], odometry: NDArray[np.float64], travel: float, torn: bool = False
    ) -> None:
        self.clouds.append(cloud)
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
        for name in _OF_KEYFRAMES:
            getattr(self, name).load(state[name])
            if len(getattr(self, name)) != len(self.clouds):
                raise ValueError(f"{name} of other keyframes than there are clouds")


@dataclass
class ScanLog:
    """Every scan, hung on its keyframe.

    By scan: stamp [ns], ``keyframe`` index, ``relative`` pose (7,) in it, ``live`` pose (7,) in map as published, raw
    ``odometry`` (7,).  ``clouds`` (n, 3) in the base frame are kept (float32) only if a final refinement may ask for
    them, and of a robot that stands only once a place: ``moves_with`` is the scan whose cloud stands for each, itself
    as a rule.
    """

    keep_clouds: bool
    stamps: Rows = field(default_factory=lambda: Rows(dtype=np.int64))
    keyframe: Rows = field(default_factory=lambda: Rows(dtype=np.int32))
    moves_with: Rows = field(default_factory=lambda: Rows(dtype=np.int32))
    relative: Rows = field(default_factory=lambda: Rows(7))
    live: Rows = field(default_factory=lambda: Rows(7))
    odometry: Rows = field(default_factory=lambda: Rows(7))
    clouds: list[NDArray[np.float32]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.stamps)

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
        if self.keep_clouds:
            self.clouds.append(cloud.astype(np.float32) if same is None else _NO_POINTS)
        self.stamps.append(stamp)
        self.keyframe.append(keyframe)
        self.relative.append(relative)
        self.live.append(live)
        self.odometry.append(odometry)

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
        return {"clouds": tuple(self.clouds), **{name: getattr(self, name).values for name in _OF_SCANS}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        for name in _OF_SCANS:
            getattr(self, name).load(state[name])
        self.clouds = list(state["clouds"]) if self.keep_clouds else []
        lengths = {len(getattr(self, name)) for name in _OF_SCANS} | ({len(self.clouds)} if self.keep_clouds else set())
        if len(lengths) != 1:
            raise ValueError("columns of other scans")

    def on(self, trajectory: NDArray[np.float64]) -> NDArray[np.float64]:
        """Poses (n, 7) of all scans in map, for keyframes at ``trajectory`` (k, 7)."""
        return poses.compose(trajectory[self.keyframe.values], self.relative.values)
