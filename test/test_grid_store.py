"""The grid store against a plain dictionary of cells, over random histories."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsg_ros.grid_store import GridStore
from dsg_ros.interface import GridUpdate, OccupancyGrid

TILE = 4


def update(tiles: dict[tuple[int, int], int], version: int, whole: bool = False) -> GridUpdate:
    """Tiles filled with one value each, but for their first cell, which is occupied."""
    cells = np.empty((len(tiles), TILE, TILE), np.int8)
    cells[:] = np.array(list(tiles.values()), np.int8).reshape(-1, 1, 1)
    cells[:, 0, 0] = 100
    return GridUpdate(version, 0.5, np.array(list(tiles), np.int64).reshape(-1, 2), cells, whole)


def known(grid: OccupancyGrid) -> dict[tuple[int, int], int]:
    """Cells that are not unknown, by their place in the map."""
    rows, columns = np.nonzero(grid.cells != -1)
    places = zip((columns + grid.corner[0]).tolist(), (rows + grid.corner[1]).tolist(), strict=True)
    return dict(zip(places, grid.cells[rows, columns].tolist(), strict=True))


def expected(tiles: dict[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    return {
        (TILE * i + x, TILE * j + y): 100 if x == y == 0 else value
        for (i, j), value in tiles.items()
        for x in range(TILE)
        for y in range(TILE)
        if value != -1 or x == y == 0
    }


places = st.tuples(st.integers(-6, 6), st.integers(-6, 6))
steps = st.lists(st.tuples(st.dictionaries(places, st.sampled_from([-1, 0, 100]), max_size=5), st.booleans()))


@settings(max_examples=150)
@given(steps, st.integers(0, 3))
def test_a_listener_that_applies_the_parts_sees_the_grid(history, margin):
    store, truth, seen = GridStore(margin), {}, None
    for version, (tiles, whole) in enumerate(history, 1):
        truth = tiles if whole else truth | tiles
        part = store.update(update(tiles, version, whole))
        assert store.version == version
        grid = store.grid
        assert known(grid) == expected(truth)
        if part is None:
            seen = (grid.corner, grid.cells.copy())
        else:
            assert seen is None or grid.corner == seen[0]
            rows, columns = slice(part.y, part.y + part.height), slice(part.x, part.x + part.width)
            if part.width:
                seen[1][rows, columns] = grid.cells[rows, columns]
        if seen is not None:
            np.testing.assert_array_equal(seen[1], grid.cells)
    store.clear()
    assert (len(store), store.version) == (0, 0)


def test_the_rectangle_stays_while_there_is_room():
    store = GridStore(margin=2)
    assert store.update(update({(0, 0): 0}, 1)) is None
    assert store.update(update({(1, 0): 0}, 2)) is None, "grown, with a margin on that side"
    part = store.update(update({(2, 0): 0, (3, 0): 100}, 3))
    assert part is not None
    assert (part.x, part.y, part.width, part.height) == (8, 0, 8, 4)
    assert store.grid.corner == (0, 0)
    assert store.update(update({}, 4)) is not None
    assert store.grid.cells.shape == (4, 16)
    assert store.update(update({(0, -1): 0}, 5)) is None
    assert store.grid.origin == (0.0, -6.0)
