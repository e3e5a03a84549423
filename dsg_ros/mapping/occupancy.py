"""The occupancy grid for navigation: what of the plane is free, from the rays of the keyframes' scans.

Each cell counts the keyframes that had a return in it (hits) and those whose rays passed it (misses).  Their share is
the cell's probability to reflect (the counting model: Haehnel, Burgard, Thrun, "Learning compact 3D models with a
mobile robot", 2003; Karto does the same), and from it follow free and occupied.  Not log-odds (Moravec and Elfes 1985):
those of OctoMap are clamped, so that a keyframe could not be taken out again, and unclamped a wall seen through its own
noise, hit in every third scan, would be free.

Counts add up in any order, so the grid follows the graph: a keyframe that moved is taken out where it was drawn and
drawn where it is.  After a global solve, when that is more than `AT_ONCE` keyframes, a thread draws all of them into a
new grid while the old one is shown.  The grid is brought up to date when somebody asks for it; a keyframe itself costs
its virtual scan alone.

Memory: by keyframe 20 bytes a ray, ``directions`` of them at most; by cell four bytes in tiles that a ray touched, for
at most ``most_cells`` (twice that while a new grid is drawn).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.core.native import plain
from dsg_ros.core.room import room
from dsg_ros.grid_store import GridStore
from dsg_ros.interface import GridUpdate, OccupancyGrid
from dsg_ros.mapping import occupancy_kernel as kernel
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.state import State

log = logging.getLogger(__name__)

AT_ONCE = 32
"""Keyframes drawn or taken out between two scans, at most: a few milliseconds."""

_EVERYWHERE = np.array([-np.inf, np.inf])


class Scans(NamedTuple):
    """The virtual scans of keyframes: ``rays`` (r, `kernel.COLUMNS`), one keyframe's after the other's.

    Keyframe k's begin at ``offsets[k]`` of (k + 1,), and come from ``sensors[k]`` of (k, 3) in its base frame.
    """

    rays: NDArray[np.float32]
    offsets: NDArray[np.int64]
    sensors: NDArray[np.float64]


class ScanRows:
    """Virtual scans as they come."""

    def __init__(self) -> None:
        self._rays = Rows(kernel.COLUMNS, dtype=np.float32)
        self._offsets = Rows(dtype=np.int64)
        self._sensors = Rows(3)
        self._offsets.append(0)

    def __len__(self) -> int:
        return len(self._sensors)

    @property
    def nbytes(self) -> int:
        """Bytes of them."""
        return self._rays.nbytes + self._offsets.nbytes + self._sensors.nbytes

    @property
    def scans(self) -> Scans:
        """Those so far; what is added later does not change them."""
        return Scans(self._rays.values, self._offsets.values, self._sensors.values)

    def load(self, scans: Scans) -> None:
        """Have these scans and no others; ValueError where they do not belong together."""
        offsets = scans.offsets
        if len(offsets) != len(scans.sensors) + 1 or offsets[0] or (np.diff(offsets) < 0).any():
            raise ValueError("virtual scans that do not begin where those before them end")
        if offsets[-1] != len(scans.rays):
            raise ValueError("rays of no virtual scan")
        self._rays.load(scans.rays)
        self._offsets.load(offsets)
        self._sensors.load(scans.sensors)

    def add(self, rays: NDArray[np.float32], sensor: NDArray[np.float64]) -> None:
        """Rays (r, `kernel.COLUMNS`) of the next keyframe, from ``sensor`` (3,)."""
        before = len(self._rays)
        self._rays.extend(len(rays))
        self._rays.values[before:] = rays
        self._offsets.append(before + len(rays))
        self._sensors.append(sensor)


@dataclass
class Tiles:
    """Counts in tiles of cells, made where rays touch them, and where each keyframe's rays were drawn.

    ``index`` (rows, columns) holds a tile's number, -1 where there is none; its first is tile ``corner`` (2,), x first.
    ``counts`` (t, 2, n, n) are hits and misses, ``versions`` (t,) when a tile last changed, ``used`` how many there
    are.  ``placed`` (k, 7) are the keyframes' poses then, ``drawn`` (k,) those not left out; ``held`` (4,) the
    rectangle around all, in cells.  ``born`` is the version of a grid drawn anew: older ones are void.
    """

    resolution: float
    most_cells: int
    born: int = 0
    version: int = 0
    used: int = 0
    index: NDArray[np.int32] = field(default_factory=lambda: np.full((0, 0), -1, np.int32))
    corner: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    counts: NDArray[np.uint16] = field(
        default_factory=lambda: np.zeros((0, 2, kernel.TILE, kernel.TILE), np.uint16), repr=False
    )
    versions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    placed: Rows = field(default_factory=lambda: Rows(7))
    drawn: Rows = field(default_factory=lambda: Rows(dtype=np.bool_))
    held: NDArray[np.int64] | None = None
    _told: bool = False
    _marks: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(1, np.uint8))
    _found: NDArray[np.int32] = field(default_factory=lambda: np.zeros(1, np.int32))
    _shift: int = 0

    def draw(self, scans: Scans, poses: NDArray[np.float64], which: NDArray[np.int64]) -> None:
        """Draw keyframes ``which`` (w,), in increasing order, where ``poses`` (k, 7) are; drawn ones are moved there.

        Keyframes that were not yet drawn have numbers without gaps, from the number of those that were.
        """
        if not len(which):
            return
        self.version += 1
        old = which[which < len(self.placed)]
        self._apply(scans, self.placed.values, old[self.drawn.values[old]], -1)
        self.placed.extend(len(which) - len(old))
        self.drawn.extend(len(which) - len(old))
        self.placed.values[which] = poses[which]
        boxes = self._boxes(scans, poses, which)
        if self.held is None:
            self.held = boxes[0].copy()
        fits = kernel.admitted(boxes, self.held, self.most_cells)
        self.drawn.values[which] = fits
        if not (fits.all() or self._told):
            self._told = True
            log.warning(
                "the occupancy grid would need more than grid.most_cells = %d cells: keyframes that reach beyond are "
                "left out of it; raise grid.resolution or grid.most_cells", self.most_cells,
            )  # fmt: skip
        self._apply(scans, poses, which[fits], 1)

    @property
    def left_out(self) -> int:
        """Keyframes that are not drawn, for want of room."""
        return len(self.drawn) - int(np.count_nonzero(self.drawn.values))

    def changed(self, since: int, occupied: float, least_seen: int) -> GridUpdate:
        """The tiles that changed after version ``since``, as told by `GridUpdate`."""
        whole = since < self.born or since == 0 or since > self.version
        numbers = np.flatnonzero(self.versions[: self.used] > (0 if whole else since))
        rows, columns = np.nonzero(self.index >= 0)
        places = np.zeros((self.used, 2), np.int64)
        places[self.index[rows, columns]] = np.stack([columns, rows], axis=1) + self.corner
        cells = kernel.states(self.counts, numbers, occupied, least_seen)
        return GridUpdate(self.version, self.resolution, places[numbers], cells, whole)

    def _boxes(self, scans: Scans, poses: NDArray[np.float64], which: NDArray[np.int64]) -> NDArray[np.int64]:
        return kernel.extents(*scans, plain(poses), which, self.resolution)

    def _apply(self, scans: Scans, poses: NDArray[np.float64], which: NDArray[np.int64], amount: int) -> None:
        if not len(which):
            return
        boxes = self._boxes(scans, poses, which)
        self._make_room(boxes)
        self.used = kernel.place(
            (self.index, self.corner, self.counts, self.versions), self.used, self.version,
            *scans, plain(poses), which, boxes,
            self._marks, self._shift, self._found, self.resolution, amount,
        )  # fmt: skip

    def _make_room(self, boxes: NDArray[np.int64]) -> None:
        """An index over all tiles under ``boxes`` (w, 4), in cells, counts for them, and scratch for the largest."""
        low = boxes[:, :2].min(axis=0) >> kernel.SHIFT
        high = (boxes[:, 2:].max(axis=0) >> kernel.SHIFT) + 1
        size = np.array(self.index.shape[::-1])
        if not self.index.size or np.any(low < self.corner) or np.any(high > self.corner + size):
            if self.index.size:
                low, high = np.minimum(low, self.corner), np.maximum(high, self.corner + size)
            index = np.full((high - low)[::-1], -1, np.int32)
            x, y = (self.corner - low).tolist()
            index[y : y + size[1], x : x + size[0]] = self.index
            self.index, self.corner = index, low
        needed = self.used + kernel.tiles_wanted(self.index, self.corner, boxes)
        if needed > len(self.counts):
            counts = room((max(needed, 2 * self.used), 2, kernel.TILE, kernel.TILE), np.uint16)
            counts[: self.used] = self.counts[: self.used]
            versions = np.zeros(len(counts), np.int64)
            versions[: self.used] = self.versions[: self.used]
            self.counts, self.versions = counts, versions
        width, height = ((boxes[:, 2:] - boxes[:, :2]).max(axis=0) + 1).tolist()
        # Rows of a power of two: a cell's row and column are then a shift and a mask away.
        shift = max(self._shift, (width - 1).bit_length())
        if len(self._marks) < height << shift:
            self._marks, self._found = np.zeros(height << shift, np.uint8), np.zeros(height << shift, np.int32)
        self._shift = shift


class OccupancyMapper:
    """Keeps the virtual scans, and the grid drawn from them where it was asked for.

    ``planar``: a planar scanner measures no heights, so all its returns count.
    """

    def __init__(self, settings: config.Grid, *, planar: bool) -> None:
        self._settings = settings
        self._band = _EVERYWHERE if planar else np.array([settings.height_low, settings.height_high])
        self._scans = ScanRows()
        self._tiles = self._empty(0)
        self._drawing: threading.Thread | None = None
        self._fresh: Tiles | None = None
        self.left_out = 0
        """Keyframes that would have made the grid last drawn larger than ``most_cells``."""

    def __len__(self) -> int:
        """Keyframes known."""
        return len(self._scans)

    @property
    def nbytes(self) -> int:
        """Bytes of the scans and of the tiles that are drawn."""
        tiles = self._tiles
        drawn = tiles.counts[: tiles.used].nbytes + tiles.index.nbytes + tiles.placed.nbytes
        return self._scans.nbytes + drawn

    def add(self, points: NDArray[np.float64], base_from_sensor: NDArray[np.float64]) -> None:
        """Keep the next keyframe's scan: returns ``points`` (n, 3) in its base frame, and the sensor's pose (7,)."""
        if not self._settings.enabled:
            return
        s, sensor = self._settings, plain(base_from_sensor[:3])
        rays, there = kernel.virtual_scan(plain(points), sensor, s.directions, s.max_range, self._band)
        self._scans.add(rays[there], sensor)

    def state(self) -> State:
        """As `dsg_ros.state` says: the scans, of which the grid is drawn anew."""
        return dict(self._scans.scans._asdict())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        self._scans.load(Scans(state["rays"], state["offsets"], state["sensors"]))

    def follow(self, trajectory: NDArray[np.float64]) -> None:
        """Draw what is new and what moved, at the keyframes' poses ``trajectory`` (k, 7), or begin to.

        Returns when at most `AT_ONCE` keyframes are drawn; a grid of many is drawn by a thread, and shown by the first
        call after that.
        """
        self._adopt()
        if self._drawing is not None:
            return
        which = self._due(trajectory)
        if len(which) <= AT_ONCE:
            self._tiles.draw(self._scans.scans, trajectory, which)
            self.left_out = self._tiles.left_out
        else:
            self._draw_anew(trajectory.copy())

    def settle(self) -> None:
        """Wait for the thread, if there is one, and show what it drew."""
        if self._drawing is not None:
            self._drawing.join()
        self._adopt()

    def changes(self, since: int = 0) -> GridUpdate:
        """The grid's tiles that changed after version ``since``; with 0 all of them."""
        return self._tiles.changed(since, self._settings.occupied, self._settings.least_seen)

    def whole(self, trajectory: NDArray[np.float64]) -> OccupancyGrid | None:
        """The grid with every keyframe exactly at ``trajectory`` (k, 7); None where nothing was seen.

        It is drawn for this answer, for what `follow` keeps may be ``moved`` away from there; where that is nothing
        yet, this is kept.
        """
        tiles = self._empty(self._tiles.version + 1)
        tiles.draw(self._scans.scans, trajectory, np.arange(len(self)))
        self.left_out = tiles.left_out
        if self._drawing is None and not len(self._tiles.placed):
            self._tiles = tiles
        store = GridStore()
        store.update(tiles.changed(0, self._settings.occupied, self._settings.least_seen))
        return store.grid if len(store) else None

    def _empty(self, born: int) -> Tiles:
        return Tiles(self._settings.resolution, self._settings.most_cells, born, born)

    def _due(self, trajectory: NDArray[np.float64]) -> NDArray[np.int64]:
        """Keyframes that are new or lie elsewhere than they were drawn."""
        count = len(self._tiles.placed)
        s = self._settings
        away = kernel.moved(plain(trajectory[:count]), self._tiles.placed.values, s.moved, s.turned)
        return np.concatenate([np.flatnonzero(away), np.arange(count, len(self))])

    def _draw_anew(self, trajectory: NDArray[np.float64]) -> None:
        # One compiled call without the interpreter's lock: scans go on beside it.
        scans, tiles = self._scans.scans, self._empty(self._tiles.version + 1)

        def draw() -> None:
            tiles.draw(scans, trajectory, np.arange(len(scans.sensors)))
            self._fresh = tiles

        self._drawing = threading.Thread(target=draw, name="grid", daemon=True)
        self._drawing.start()

    def _adopt(self) -> None:
        if self._drawing is not None and not self._drawing.is_alive():
            self._drawing = None
            if self._fresh is not None:
                self._tiles, self._fresh = self._fresh, None
                self.left_out = self._tiles.left_out
