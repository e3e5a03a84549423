"""The occupancy grid: what is free, what is not, and that it follows the graph."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import OccupancyGrid
from dsg_ros.mapping import occupancy_kernel as kernel
from dsg_ros.mapping.occupancy import AT_ONCE, OccupancyMapper

Array = NDArray[np.float64]
HALF = 3.02
"""Half the edge of the room: its walls lie inside cells, not between two."""
SENSOR = poses.compose(poses.from_planar(0.3, -0.1, 0.4), poses.exp(np.array([0, 0, 0.2, 0, 0, 0])))


def ranges(x: float, y: float, bearing: Array) -> Array:
    """Distances (n,) from (x, y) to the walls of the room."""
    c, s = np.cos(bearing), np.sin(bearing)
    with np.errstate(divide="ignore"):
        return np.minimum((HALF - np.sign(c) * x) / np.abs(c), (HALF - np.sign(s) * y) / np.abs(s))


def scan(pose: Array, beams: int = 360) -> Array:
    """Returns (n, 3) in the base frame of a scanner at `SENSOR` on a robot at ``pose`` in the room."""
    eye = poses.compose(pose, SENSOR)
    angles = np.linspace(-np.pi, np.pi, beams, endpoint=False)
    distance = ranges(eye[0], eye[1], angles + poses.yaw(eye))
    seen = np.column_stack([distance * np.cos(angles), distance * np.sin(angles), np.zeros(beams)])
    return poses.transform(SENSOR, seen)


def circle(count: int) -> Array:
    """Poses (count, 7) on a circle about the room's middle, looking along it."""
    turn = np.linspace(0.0, 2 * np.pi, count, endpoint=False)
    return poses.from_planar(np.cos(turn), np.sin(turn), turn + np.pi / 2)


def mapper(trajectory: Array, **changed: float) -> OccupancyMapper:
    """One that has seen the room from ``trajectory`` (k, 7)."""
    out = OccupancyMapper(dataclasses.replace(config.Grid(), **changed), planar=True)
    for pose in trajectory:
        out.add(scan(pose), SENSOR)
    return out


def shown(grid: OccupancyMapper) -> dict[tuple[int, int], int]:
    """Known cells and their values, as told tile by tile."""
    change = grid.changes()
    cells = {}
    for (column, row), tile in zip(change.tiles.tolist(), change.cells, strict=True):
        for y, x in np.argwhere(tile != -1).tolist():
            cells[column * kernel.TILE + x, row * kernel.TILE + y] = int(tile[y, x])
    return cells


def dense(grid: OccupancyGrid) -> dict[tuple[int, int], int]:
    """Known cells and their values, of a whole grid."""
    known = np.argwhere(grid.cells != -1)
    corner = np.array(grid.corner)
    return {tuple((at[::-1] + corner).tolist()): int(grid.cells[tuple(at)]) for at in known}


def at(grid: OccupancyGrid, x: float, y: float) -> int:
    """The value at a point of the map."""
    column, row = int((x - grid.origin[0]) // grid.resolution), int((y - grid.origin[1]) // grid.resolution)
    inside = 0 <= row < grid.cells.shape[0] and 0 <= column < grid.cells.shape[1]
    return int(grid.cells[row, column]) if inside else -1


def test_a_room_is_free_inside_occupied_at_its_walls_and_unknown_beyond() -> None:
    trajectory = circle(12)
    grid = mapper(trajectory).whole(trajectory)
    assert grid is not None
    rows, columns = np.indices(grid.cells.shape)
    x = grid.origin[0] + (columns + 0.5) * grid.resolution
    y = grid.origin[1] + (rows + 0.5) * grid.resolution
    from_wall = HALF - np.maximum(np.abs(x), np.abs(y))
    assert_array_equal(grid.cells[from_wall > 0.1], 0)
    assert_array_equal(grid.cells[from_wall < -grid.resolution], -1)
    wall = np.abs(from_wall) < 0.5 * grid.resolution
    assert (grid.cells[wall] == 100).mean() > 0.97
    assert (grid.cells == 100).sum() <= wall.sum()


@pytest.mark.parametrize("count", [6, AT_ONCE + 4], ids=["at once", "in the background"])
def test_the_grid_follows_keyframes_that_moved(count: int) -> None:
    before, step = circle(count), poses.from_planar(20.0, -7.5, 0.7)
    after = poses.compose(step, before)
    grid = mapper(before)
    grid.follow(before)
    grid.settle()
    first = grid.changes()
    grid.follow(after)
    grid.settle()
    assert grid.changes(first.version).version > first.version
    anew = mapper(before).whole(after)
    assert anew is not None
    assert shown(grid) == dense(anew)
    assert at(anew, *step[:2]) == 0
    assert (0, 0) not in shown(grid), "nothing is left where they were"


def test_what_changed_since_is_told_and_nothing_else() -> None:
    trajectory = circle(5)
    grid = mapper(trajectory)
    grid.follow(trajectory)
    first = grid.changes()
    assert first.whole
    assert len(first.tiles) == 4
    assert len(grid.changes(first.version).tiles) == 0
    far = poses.from_planar(100.0, 0.0, 0.0)
    grid.add(scan(poses.IDENTITY), SENSOR)
    grid.follow(np.concatenate([trajectory, far[None]]))
    second = grid.changes(first.version)
    assert not second.whole
    assert second.tiles[:, 0].min() * kernel.TILE * second.resolution > 90.0
    assert len(second.tiles) + len(first.tiles) == len(grid.changes().tiles)
    assert grid.changes(second.version + 1).whole, "a version of another grid"


def test_small_moves_are_left_until_they_matter() -> None:
    trajectory = circle(5)
    grid = mapper(trajectory, moved=0.05, turned=0.01)
    grid.follow(trajectory)
    version = grid.changes().version
    for step, matters in [((0.04, 0.0, 0.0), False), ((0.0, 0.0, 0.009), False), ((0.06, 0.0, 0.0), True)]:
        grid.follow(poses.compose(trajectory, poses.from_planar(*step)))
        assert (grid.changes().version > version) == matters, step
    grid.follow(poses.compose(trajectory, poses.from_planar(0.06, 0.0, 0.011)))
    assert grid.changes().version == version + 2
    # Small steps add up: they are measured from where the keyframe was drawn.
    grid.follow(poses.compose(trajectory, poses.from_planar(0.09, 0.0, 0.011)))
    grid.follow(poses.compose(trajectory, poses.from_planar(0.12, 0.0, 0.011)))
    assert grid.changes().version == version + 3


def test_the_scan_path_is_not_held_up_by_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a few are drawn by a thread: the former grid is shown until it has ended."""
    import threading

    go, draw = threading.Event(), kernel.place
    trajectory = circle(AT_ONCE + 1)
    grid = mapper(trajectory)
    monkeypatch.setattr(kernel, "place", lambda *args: (go.wait(20.0), draw(*args))[1])
    grid.follow(trajectory)
    assert len(grid.changes().tiles) == 0
    grid.follow(trajectory)  # does not begin a second one
    go.set()
    grid.settle()
    anew = grid.whole(trajectory)
    assert anew is not None
    assert shown(grid) == dense(anew)


def test_what_is_drawn_for_a_result_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trajectory = circle(AT_ONCE + 1)
    grid = mapper(trajectory)
    whole = grid.whole(trajectory)
    assert whole is not None
    monkeypatch.setattr(kernel, "place", lambda *_: pytest.fail("drawn again"))
    grid.follow(trajectory)
    assert shown(grid) == dense(whole)


def seen_by(keyframes: int, returns: int, occupied: float) -> int:
    """Value of a cell that each of ``keyframes`` sees, and in which ``returns`` of them had a return."""
    grid = OccupancyMapper(dataclasses.replace(config.Grid(), occupied=occupied), planar=True)
    for k in range(keyframes):
        grid.add(np.array([[1.02 if k < returns else 2.02, 0.02, 0.0]]), poses.IDENTITY)
    whole = grid.whole(np.tile(poses.from_planar(0.0, 0.0, 0.0), (keyframes, 1)))
    assert whole is not None
    return at(whole, 1.02, 0.02)


def test_a_share_of_returns_makes_an_obstacle() -> None:
    assert [seen_by(10, n, 0.25) for n in (0, 1, 2, 3, 10)] == [0, 0, 0, 100, 100]


def test_rays_beside_it_do_not_wear_a_wall_away() -> None:
    """A wall seen at a grazing angle: rays pass through cells in which others of the same scan return."""
    x = np.arange(1.0, 8.0, 0.01)
    grid = OccupancyMapper(dataclasses.replace(config.Grid(), directions=3600), planar=True)
    grid.add(np.column_stack([x, np.full_like(x, 0.42), np.zeros_like(x)]), poses.IDENTITY)
    whole = grid.whole(poses.IDENTITY[None])
    assert whole is not None
    row = whole.cells[int((0.42 - whole.origin[1]) // whole.resolution)]
    first = int((1.1 - whole.origin[0]) // whole.resolution)
    assert_array_equal(row[first : first + 40], 100)


def test_returns_beyond_the_range_are_no_obstacles_but_free_the_way() -> None:
    grid = OccupancyMapper(dataclasses.replace(config.Grid(), max_range=5.0), planar=True)
    grid.add(np.array([[9.02, 0.02, 0.0]]), poses.IDENTITY)
    whole = grid.whole(poses.IDENTITY[None])
    assert whole is not None
    assert [at(whole, x, 0.01) for x in (0.5, 4.9, 5.2, 9.02)] == [0, 0, -1, -1]


def cloud_grid(points: list[list[float]], height: float = 1.0) -> OccupancyGrid:
    """Grid of one cloud seen from ``height`` above the base, with obstacles between 0.1 and 1.5 m."""
    grid = OccupancyMapper(config.Grid(), planar=False)
    sensor = np.array([0.0, 0.0, height, 0.0, 0.0, 0.0, 1.0])
    grid.add(np.array(points), sensor)
    whole = grid.whole(poses.IDENTITY[None])
    return whole if whole is not None else OccupancyGrid(np.full((1, 1), -1, np.int8), (0, 0), 0.05)


def test_heights_that_count() -> None:
    wall = cloud_grid([[6.02, 0.02, 0.8]])
    assert [at(wall, x, 0.01) for x in (1.0, 5.9, 6.02, 6.2)] == [0, 0, 100, -1]
    ceiling = cloud_grid([[6.02, 0.02, 2.5]])  # the ray leaves the band a third of the way along
    assert [at(ceiling, x, 0.005) for x in (1.0, 1.9, 2.2, 6.02)] == [0, 0, -1, -1]
    floor = cloud_grid([[6.02, 0.02, 0.0]])  # free until 0.1 m above the floor: nine tenths of the way
    assert [at(floor, x, 0.015) for x in (1.0, 5.3, 5.6, 6.02)] == [0, 0, -1, -1]
    over = cloud_grid([[6.02, 0.02, 0.5]], height=2.0)  # enters the band a third of the way along
    assert [at(over, x, 0.01) for x in (1.0, 1.9, 2.2, 6.02)] == [-1, -1, 0, 100]


def test_behind_the_nearest_obstacle_nothing_is_said() -> None:
    """A wall seen over a box does not make the box passable, nor what lies between them."""
    grid = cloud_grid([[6.02, 0.02, 1.4], [2.02, 0.007, 0.3], [8.02, 0.026, 0.0]])
    assert [at(grid, x, 0.005) for x in (1.0, 2.02, 3.0, 6.02)] == [0, 100, -1, -1]


def test_memory_is_bounded_and_what_is_left_out_told(caplog: pytest.LogCaptureFixture) -> None:
    trajectory = poses.from_planar(np.array([0.0, 1.0, 1000.0, 2.0]), np.zeros(4), np.zeros(4))
    grid = OccupancyMapper(dataclasses.replace(config.Grid(), most_cells=1_000_000), planar=True)
    for _ in trajectory:
        grid.add(scan(poses.IDENTITY), SENSOR)
    with caplog.at_level(logging.WARNING):
        grid.follow(trajectory)
    assert grid.left_out == 1
    assert "grid.most_cells" in caplog.text
    assert at_most(grid) < 10.0
    # Where it belongs after the graph moved it, it is drawn.
    trajectory[2] = poses.from_planar(1.5, 0.0, 0.0)
    grid.follow(trajectory)
    assert grid.left_out == 0
    whole = grid.whole(trajectory)
    assert whole is not None
    assert shown(grid) == dense(whole)


def at_most(grid: OccupancyMapper) -> float:
    """Largest coordinate [m] of what is known."""
    return max(max(cell) for cell in shown(grid)) * config.Grid().resolution


def test_nothing_seen_is_no_grid() -> None:
    grid = OccupancyMapper(config.Grid(), planar=True)
    assert grid.whole(np.zeros((0, 7))) is None
    grid.follow(np.zeros((0, 7)))
    assert grid.changes().tiles.shape == (0, 2)
    grid.add(np.zeros((0, 3)), poses.IDENTITY)
    grid.follow(poses.IDENTITY[None])
    assert len(grid.changes().tiles) == 0
    off = OccupancyMapper(config.Grid(enabled=False), planar=True)
    off.add(scan(poses.IDENTITY), SENSOR)
    off.follow(poses.IDENTITY[None])
    assert off.whole(poses.IDENTITY[None]) is None


numbers = st.floats(-40.0, 40.0)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(numbers, numbers, st.floats(-3.0, 3.0)), min_size=1, max_size=20),
    st.tuples(numbers, numbers, st.floats(-3.1, 3.1)),
    st.tuples(numbers, numbers, st.floats(-3.1, 3.1)),
)
def test_what_is_put_in_can_be_taken_out(
    ends: list[tuple[float, float, float]], first: tuple[float, float, float], second: tuple[float, float, float]
) -> None:
    """Whatever the rays, drawn and moved is as drawn there at once; returns are where the points are."""
    grid = OccupancyMapper(dataclasses.replace(config.Grid(), max_range=60.0, moved=0.0, turned=0.0), planar=True)
    points = np.array(ends)
    grid.add(points, SENSOR)
    for pose in (first, second):
        grid.follow(poses.from_planar(*pose)[None])
    whole = grid.whole(poses.from_planar(*second)[None])
    known = {} if whole is None else dense(whole)
    assert shown(grid) == known
    places = poses.transform(poses.from_planar(*second), points)[:, :2] / 0.05
    near = {(x + i, y + j) for x, y in np.floor(places).astype(int).tolist() for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert {cell for cell, value in known.items() if value == 100} <= near
