"""The correlative search against brute force over the same grid."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.mapping import correlative, scan

Array = NDArray[np.float64]
RESOLUTION, STEP = 0.1, 0.02
CAPACITY = 1024


def grids_of(reference: Array, centre: Array):
    padded, mask = scan.pad(scan.thin(reference, RESOLUTION, CAPACITY), CAPACITY)
    return correlative.pyramid(padded[:, :2], mask, centre, resolution=RESOLUTION)


def brute_force(grid: Array, centre: Array, points: Array, pivot: Array, radius: float, angle: float):
    """Scores (a, x, y) of every placement, and the axes: angles, and offsets in cells."""
    half = int(np.ceil(angle / STEP))
    angles = np.arange(-half, half + 1) * STEP
    reach = int(np.ceil(radius / RESOLUTION))
    offsets = np.arange(-reach, reach + 1)
    scores = np.zeros((len(angles), len(offsets), len(offsets)))
    for a, turn in enumerate(angles):
        c, s = np.cos(turn), np.sin(turn)
        turned = (points - pivot) @ np.array([[c, s], [-s, c]]) + pivot - centre
        cells = np.floor(turned / RESOLUTION).astype(int) + correlative.GRID // 2
        for i, x in enumerate(offsets):
            for j, y in enumerate(offsets):
                scores[a, i, j] = grid[cells[:, 0] + x, cells[:, 1] + y].astype(int).sum() / (255 * len(points))
    return scores, angles, offsets * RESOLUTION


def search(grids, points: Array, pivot: Array, **settings):
    bounds = {"radius": 1.0, "angle": 0.2, "least_score": 0.3, "rival_share": 0.8} | settings
    return correlative.search(grids, pivot, points, pivot=pivot, resolution=RESOLUTION, angle_step=STEP, **bounds)


@pytest.fixture(scope="module")
def reference() -> Array:
    """The room, seen from four places."""
    places = [poses.from_planar(x, 0.3, yaw) for x, yaw in ((-1, 0.0), (0.5, 1.5), (0.5, 3.0), (-1, -1.5))]
    return np.concatenate([poses.transform(pose, worlds.scan(worlds.room(), pose)) for pose in places])


@pytest.mark.parametrize("offset", [(0.43, -0.32, 0.11), (-0.7, 0.6, -0.17), (0.0, 0.0, 0.0), (0.98, -0.97, 0.0)])
def test_best_placement_is_that_of_brute_force(reference: Array, offset: tuple[float, float, float]) -> None:
    pose = poses.from_planar(0.4, 0.2, 0.3)
    seen = poses.transform(pose, worlds.scan(worlds.room(), pose))
    pivot = pose[:2] + np.array([0.2, 0.1])
    # The first guess is off by ``offset`` about the pivot, so the search has to find its inverse.
    wrong = poses.compose(poses.from_planar(*pivot, 0), poses.from_planar(*offset))
    wrong = poses.compose(wrong, poses.from_planar(*-pivot, 0))
    points = poses.transform(wrong, seen)[:, :2]
    grids = grids_of(reference, pivot)
    found = search(grids, points, pivot)
    assert found is not None
    scores, angles, offsets = brute_force(np.asarray(grids[0]), pivot, points, pivot, 1.0, 0.2)
    assert found.score == pytest.approx(scores.max(), abs=1e-6)
    at = (np.argmin(np.abs(angles - found.yaw)), *(np.argmin(np.abs(offsets - v)) for v in (found.x, found.y)))
    assert scores[at] == pytest.approx(scores.max(), abs=1e-6)
    # It is the right one, to the resolution of the grid.
    undone = poses.compose(
        poses.from_planar(pivot[0] + found.x, pivot[1] + found.y, found.yaw), poses.from_planar(*-pivot, 0)
    )
    assert np.abs(poses.transform(undone, np.column_stack([points, 0 * points[:, 0]])) - seen).max() < 0.25


def test_runner_up_is_exact_in_an_ambiguous_place() -> None:
    walls = worlds.pillared_corridor(1.2, 40)
    reference = np.concatenate(
        [poses.transform(p, worlds.scan(walls, p, reach=8)) for p in poses.from_planar(np.arange(-3, 3, 0.5), 0.0, 0.0)]
    )
    seen = worlds.scan(walls, poses.IDENTITY, reach=5)[:, :2]
    points, pivot = seen + np.array([0.3, 0.1]), np.zeros(2)
    grids = grids_of(reference, pivot)
    found = search(grids, points, pivot, radius=1.5)
    assert found is not None
    scores, angles, offsets = brute_force(np.asarray(grids[0]), pivot, points, pivot, 1.5, 0.2)
    assert found.score == pytest.approx(scores.max(), abs=1e-6)
    far = np.hypot(offsets[:, None] - found.x, offsets - found.y)[None] > 0.8
    far = far | (np.abs(angles - found.yaw) > 0.15)[:, None, None]
    assert found.runner_up == pytest.approx(scores[far].max(), abs=1e-6)
    assert found.runner_up > 0.8 * found.score


def test_nothing_is_found_where_nothing_fits(reference: Array) -> None:
    points = np.random.default_rng(0).uniform(-3, 3, (200, 2))
    assert search(grids_of(reference, np.zeros(2)), points, np.zeros(2), least_score=0.7) is None


def test_an_empty_reference_gives_nothing() -> None:
    grids = correlative.pyramid(np.zeros((CAPACITY, 2)), np.zeros(CAPACITY, bool), np.zeros(2), resolution=RESOLUTION)
    assert int(grids.max()) == 0
    assert search(grids, worlds.scan(worlds.room(), poses.IDENTITY)[:, :2], np.zeros(2)) is None


@pytest.mark.parametrize("radius", [0.5, 0.8, 1.0, 1.7])
def test_placements_lie_within_the_radius(radius: float) -> None:
    """What fits far better but lies beyond the bounds is not found."""
    pillar = np.array([[1.9, 0.0, 0.0], [1.9, 0.1, 0.0], [2.0, 0.0, 0.0], [2.0, 0.1, 0.0]])
    grids = grids_of(np.concatenate([pillar, [[0.0, 0.0, 0.0]]]), np.zeros(2))
    found = search(grids, pillar[:, :2] - [1.9, 0], np.zeros(2), radius=radius, least_score=0.05, rival_share=0.05)
    assert found is not None
    assert max(abs(found.x), abs(found.y)) <= radius + 1e-9


def test_pyramid_levels_are_maxima_over_blocks(reference: Array) -> None:
    grids = np.asarray(grids_of(reference, np.zeros(2)))
    base = grids[0].astype(int)
    rng = np.random.default_rng(1)
    for level in range(1, correlative.LEVELS):
        width = 1 << level
        for x, y in rng.integers(200, 560, (200, 2)):
            assert grids[level, x, y] == base[x : x + width, y : y + width].max()


def test_far_points_are_left_out_of_the_grid() -> None:
    far = np.array([[1e4, 0.0, 0.0], [0.0, -1e4, 0.0]])
    padded, mask = scan.pad(far, CAPACITY)
    assert int(correlative.pyramid(padded[:, :2], mask, np.zeros(2), resolution=RESOLUTION).max()) == 0
