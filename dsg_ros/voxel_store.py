"""The map as it is shown: voxels by id, grouped in chunks of space, and which chunks changed."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros.interface import VoxelUpdate
from dsg_ros.voxel_colours import Colouring, Scale, colours

Chunk = tuple[int, int, int]
STRAY = 0.5
"""Percent of the voxels, above and below, that may lie beyond the colours of heights: a mirror makes a few."""


@dataclass(frozen=True)
class ChunkContent:
    """A chunk's stable marker ``id`` and its voxels, columns as in `VoxelUpdate`; none when it was emptied."""

    id: int
    means: NDArray[np.float32]
    counts: NDArray[np.int32]
    last_seen: NDArray[np.int64]
    deviations: NDArray[np.float32]

    def colours(self, colouring: Colouring, scale: Scale) -> NDArray[np.float32]:
        """Colours (n, 4) rgba in 0..1."""
        return colours(colouring, scale, self.means, self.counts, self.last_seen, self.deviations)


class VoxelStore:
    """Applies `VoxelUpdate`s; safe to use from several threads.

    A voxel keeps its row while it lives; freed rows are used again, so memory follows the largest map, not its history.
    """

    def __init__(self, chunk: float) -> None:
        self._edge = chunk
        self._lock = threading.Lock()
        self._ids: dict[Chunk, int] = {}
        self._coloured: tuple[Colouring, Scale] = "points", Scale()
        self.clear()

    def clear(self) -> None:
        """Forget all voxels; chunks that were sent are reported as emptied next time."""
        with self._lock:
            self.size = 0.0
            self.version = getattr(self, "version", 0) + 1
            self._dirty: dict[Chunk, None] = dict.fromkeys(self._ids)
            self._rows: dict[int, int] = {}
            self._free: list[int] = []
            self._members: dict[Chunk, set[int]] = {}
            self._means = np.empty((0, 3), np.float32)
            self._normals = np.empty((0, 3), np.float32)
            self._counts = np.empty(0, np.int32)
            self._last_seen = np.empty(0, np.int64)
            self._deviations = np.empty(0, np.float32)
            self._seen: tuple[int, int] | None = None
            self._chunks = np.empty((0, 3), np.int32)

    def __len__(self) -> int:
        return len(self._rows)

    def update(self, change: VoxelUpdate) -> None:
        """Take over what changed and drop what was removed."""
        with self._lock:
            self.size = change.size
            self.version += 1
            for identity in change.removed.tolist():
                self._remove(identity)
            if not len(change.ids):
                return
            rows, old = self._assign(change.ids)
            chunks = np.floor(change.means / self._edge).astype(np.int32)
            moved = ~old | (self._chunks[rows] != chunks).any(axis=1)
            there, here = _tuples(self._chunks[rows[moved]]), _tuples(chunks[moved])
            for row, known, former, chunk in zip(rows[moved].tolist(), old[moved].tolist(), there, here, strict=True):
                if known:
                    self._leave(former, row)
                self._members.setdefault(chunk, set()).add(row)
            self._means[rows], self._normals[rows], self._counts[rows] = change.means, change.normals, change.counts
            self._last_seen[rows], self._deviations[rows] = change.last_seen, change.deviations
            first, last = int(change.last_seen.min()), int(change.last_seen.max())
            self._seen = (first, last) if self._seen is None else (min(first, self._seen[0]), max(last, self._seen[1]))
            self._chunks[rows] = chunks
            self._dirty.update(dict.fromkeys(_tuples(_distinct(chunks))))

    @property
    def scale(self) -> Scale:
        """For colours: of the heights there are, but for `STRAY` at either end, and of all stamps there have been."""
        with self._lock:
            if not self._rows or self._seen is None:
                return Scale()
            heights = self._means[np.fromiter(self._rows.values(), np.int64, len(self._rows)), 2]
            low, high = np.percentile(heights, (STRAY, 100.0 - STRAY)).tolist()
            return Scale.of((low, high), self._seen)

    def coloured(self, colouring: Colouring) -> Scale:
        """The scale for colours of what is taken next; every chunk is reported again where those sent before would come
        to mean something else.
        """
        now = colouring, Scale() if colouring == "points" else self.scale
        if now != self._coloured:
            self.touch()
        self._coloured = now
        return now[1]

    def touch(self) -> None:
        """Have every chunk reported again, for a listener that came late."""
        with self._lock:
            self._dirty.update(dict.fromkeys(self._ids))
            self._dirty.update(dict.fromkeys(self._members))

    def take_changes(self, most: float = math.inf) -> list[ChunkContent]:
        """Content of the chunks that changed and were not taken since, those first that changed first.

        When they come to ``most`` voxels the others wait for the next call.
        """
        with self._lock:
            changes, count = [], 0
            for chunk in list(self._dirty):
                if count >= most:
                    break
                del self._dirty[chunk]
                rows = sorted(self._members.get(chunk, ()))
                if not rows and chunk not in self._ids:
                    continue  # filled and emptied between two calls: nobody knows it
                identity = self._ids.setdefault(chunk, len(self._ids))
                known = self._last_seen[rows], self._deviations[rows]
                changes.append(ChunkContent(identity, self._means[rows], self._counts[rows], *known))
                count += len(rows)
            return changes

    def all(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
        """Means (n, 3), normals (n, 3) and counts (n,) of every voxel."""
        with self._lock:
            rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
            return self._means[rows], self._normals[rows], self._counts[rows]

    def _assign(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of the voxels, new ones where they have none, and whether they had one."""
        rows = np.empty(len(ids), np.int64)
        old = np.ones(len(ids), bool)
        for i, identity in enumerate(ids.tolist()):
            row = self._rows.get(identity)
            if row is None:
                old[i] = False
                row = self._free.pop() if self._free else self._grow()
                self._rows[identity] = row
            rows[i] = row
        return rows, old

    def _grow(self) -> int:
        capacity = len(self._means)
        larger = max(1024, 2 * capacity)
        for name in ("_means", "_normals", "_counts", "_last_seen", "_deviations", "_chunks"):
            array = getattr(self, name)
            grown = np.zeros((larger, *array.shape[1:]), array.dtype)
            grown[:capacity] = array
            setattr(self, name, grown)
        self._free = list(range(larger - 1, capacity, -1))
        return capacity

    def _remove(self, identity: int) -> None:
        row = self._rows.pop(identity, None)
        if row is not None:
            self._leave(tuple(self._chunks[row].tolist()), row)
            self._free.append(row)

    def _leave(self, chunk: Chunk, row: int) -> None:
        members = self._members[chunk]
        members.discard(row)
        if not members:
            del self._members[chunk]
        self._dirty[chunk] = None


def _tuples(rows: NDArray[np.int32]) -> Iterator[Chunk]:
    """The rows of ``rows`` (n, 3), one after the other: a list of so many has the garbage collector look at each."""
    x, y, z = rows.T.tolist()
    return zip(x, y, z, strict=True)


def _distinct(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The different rows among ``rows`` (n, 3), n >= 1.

    `numpy.unique` with an axis compares whole rows, and holds the interpreter's lock for 50 ms over 50,000 of them:
    map->odom would come late.
    """
    ordered = rows[np.lexsort(rows.T)]
    first = np.ones(len(rows), bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return ordered[first]
