"""What a place looks like, whichever way one faces: to find it again where no estimate leads.

Scan Context (Kim and Kim, "Scan Context: Egocentric spatial descriptor for place recognition within 3D point cloud
map", IROS 2018), here of walls seen from above: a disk around the robot is divided into rings and sectors, and each
cell holds whether anything is in it.  A robot that has turned sees the sectors shifted, and the shares of the rings
(the ring key) not at all: by these most places are ruled out, and the others are compared at every shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.mapping.keyframes import Rows
from dsg_ros.state import State

RINGS, SECTORS = 16, 60
REACH = 16.0
"""Radius of the disk [m]."""
COMPARED = 20
"""Places with the nearest ring keys, which are compared sector by sector."""
LEAST_CELLS = 12
"""Occupied cells below which a place has no looks."""


class Alike(NamedTuple):
    """A ``keyframe`` that the newest one looks like if it is turned by ``yaw`` [rad] in the keyframe's frame; they are
    at a ``distance`` from 0, the same, to 1.
    """

    keyframe: int
    yaw: float
    distance: float


def seen_from(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Occupancy (RINGS, SECTORS), 0 or 1, of ``points`` (n, 2) around the origin [m]."""
    cells = np.zeros((RINGS, SECTORS), np.float32)
    radius = np.hypot(*points.T)
    near = radius < REACH
    ring = (radius[near] * (RINGS / REACH)).astype(int)
    sector = np.floor(np.arctan2(points[near, 1], points[near, 0]) * (SECTORS / (2 * np.pi))).astype(int) % SECTORS
    cells[ring, sector] = 1.0
    return cells


class Looks:
    """What keyframes looked like when they were new."""

    def __init__(self) -> None:
        self._keyframes = Rows(dtype=np.int64)
        self._seen = Rows(RINGS, SECTORS, dtype=np.uint8)
        self._keys = Rows(RINGS)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return self._keyframes.nbytes + self._seen.nbytes + self._keys.nbytes

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        return {"keyframes": self._keyframes.values, "seen": self._seen.values}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        self._keyframes.load(state["keyframes"])
        self._seen.load(state["seen"])
        self._keys.load(self._seen.values.mean(axis=2))

    def add(self, keyframe: int, seen: NDArray[np.float32]) -> None:
        """Keep what ``keyframe`` looks like, as `seen_from` has it; nothing of one that sees hardly anything."""
        if seen.sum() >= LEAST_CELLS:
            self._keyframes.append(keyframe)
            self._seen.append(seen)
            self._keys.append(seen.mean(axis=1))

    def alike(self, seen: NDArray[np.float32], among: NDArray[np.bool_]) -> list[Alike]:
        """Those of the keyframes ``among`` (k,) that look most like what is ``seen``, the most alike first."""
        where = np.nonzero(among[self._keyframes.values])[0]
        if seen.sum() < LEAST_CELLS or not len(where):
            return []
        apart = np.abs(self._keys.values[where] - seen.mean(axis=1)).sum(axis=1)
        where = where[np.argsort(apart, kind="stable")[:COMPARED]]
        distances, shifts = _compared(self._seen.values[where].astype(np.float32), seen)
        order = np.argsort(distances, kind="stable")
        return [
            Alike(int(self._keyframes.values[where[k]]), float(shifts[k] * (2 * np.pi / SECTORS)), float(distances[k]))
            for k in order
        ]


def _compared(old: NDArray[np.float32], new: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of each of ``old`` (m, RINGS, SECTORS) the least distance to ``new`` (RINGS, SECTORS) over all turns, and the
    sectors by which ``new`` is turned in it then, from -SECTORS / 2 on; (m,) both.

    The distance is 1 less the mean cosine of the columns that both have; all sectors' sums are correlations, by FFT.
    """

    def columns(cells: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        length = np.sqrt((cells**2).sum(axis=-2, keepdims=True))
        filled = length > 0
        return np.fft.rfft(cells / np.where(filled, length, 1.0)), np.fft.rfft(filled[..., 0, :].astype(np.float32))

    (old_columns, old_filled), (new_columns, new_filled) = columns(old), columns(new)
    # Sector j of the new one is sector j + shift of an old one.
    cosines = np.fft.irfft((old_columns * new_columns.conj()).sum(axis=-2), SECTORS)
    both = np.fft.irfft(old_filled * new_filled.conj(), SECTORS)
    # Few columns in common agree by chance.
    likeness = cosines / np.maximum(both, 0.5 * new_filled[0].real)
    best = likeness.argmax(axis=1)
    shifts = np.where(best > SECTORS // 2, best - SECTORS, best)
    return 1.0 - likeness[np.arange(len(best)), best], shifts
