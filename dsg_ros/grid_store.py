"""An occupancy grid put together from the tiles that changed: what the node publishes and a run saves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros.interface import GridUpdate, OccupancyGrid

UNKNOWN = -1


@dataclass(frozen=True)
class Rectangle:
    """Cells of the grid: ``x`` and ``y`` count from its first column and row."""

    x: int
    y: int
    width: int
    height: int


class GridStore:
    """One dense array over all tiles so far; it grows in steps, so that most updates leave its rectangle as it is."""

    def __init__(self, margin: int = 0) -> None:
        self._margin = margin
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.version = 0
        self._tile = 1
        self._corner = np.zeros(2, np.int64)
        self._cells = np.full((0, 0), UNKNOWN, np.int8)
        self.resolution = 0.0

    def __len__(self) -> int:
        return self._cells.size

    def update(self, change: GridUpdate) -> Rectangle | None:
        """Take over what changed; the rectangle around it, None where the grid got a new place or size.

        An update of nothing gives an empty rectangle.
        """
        if change.whole:
            self.clear()
        self.version, self.resolution, self._tile = change.version, change.resolution, change.cells.shape[1]
        tile = self._tile
        if not len(change.tiles):
            return None if change.whole else Rectangle(0, 0, 0, 0)
        grown = self._make_room(change.tiles.min(axis=0), change.tiles.max(axis=0) + 1)
        places = (change.tiles - self._corner) * tile
        for (x, y), cells in zip(places.tolist(), change.cells, strict=True):
            self._cells[y : y + tile, x : x + tile] = cells
        if grown or change.whole:
            return None
        low, high = places.min(axis=0), places.max(axis=0) + tile
        x, y, right, top = map(int, (*low, *high))
        return Rectangle(x, y, right - x, top - y)

    @property
    def grid(self) -> OccupancyGrid:
        """The whole grid; its cells are this store's own and change with the next update."""
        return OccupancyGrid(
            self._cells, (int(self._corner[0]) * self._tile, int(self._corner[1]) * self._tile), self.resolution
        )

    def _make_room(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> bool:
        """Have tiles from ``low`` (2,) to before ``high`` (2,) in the array; whether it had to grow."""
        size = np.array(self._cells.shape[::-1]) // self._tile
        if self._cells.size:
            if np.all(low >= self._corner) and np.all(high <= self._corner + size):
                return False
            # Only the sides that were passed get a margin.
            low = np.where(low < self._corner, low - self._margin, self._corner)
            end = self._corner + size
            high = np.where(high > end, high + self._margin, end)
        width, height = ((high - low) * self._tile).tolist()
        cells = np.full((height, width), UNKNOWN, np.int8)
        if self._cells.size:
            x, y = ((self._corner - low) * self._tile).tolist()
            cells[y : y + self._cells.shape[0], x : x + self._cells.shape[1]] = self._cells
        self._cells, self._corner = cells, low.astype(np.int64)
        return True
