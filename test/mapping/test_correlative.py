"""The correlative search against brute force over the same grid."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.mapping import correlative

Array = NDArray[np.float64]
RESOLUTION, STEP = 0.1, 0.02
EXTENT = 20.0


def grids_of(reference: Array, centre: Array) -> correlative.Pyramid:
    return correlative.pyramid(reference[:, :2], centre, EXTENT, resolution=RESOLUTION)


def brute_force(reference: correlative.Pyramid, points: Array, pivot: Array, radius: float, angle: float):
    """Scores (a, x, y) of every placement, and the axes: angles, and offsets in cells."""
    half = int(np.ceil(angle / STEP))
    angles = np.arange(-half, half + 1) * STEP
    reach = int(np.ceil(radius / RESOLUTION))
    offsets = np.arange(-reach, reach + 1)
    scores = np.zeros((len(angles), len(offsets), len(offsets)))
    around = 200
    grid = np.pad(reference.grids[0], around)
    for a, turn in enumerate(angles):
        c, s = np.cos(turn), np.sin(turn)
        cells = reference.cells((points - pivot) @ np.array([[c, s], [-s, c]]) + pivot) + around
        for i, x in enumerate(offsets):
            for j, y in enumerate(offsets):
                scores[a, i, j] = grid[cells[:, 0] + x, cells[:, 1] + y].astype(int).sum() / (255 * len(points))
    return scores, angles, offsets * RESOLUTION


def search(reference: correlative.Pyramid, points: Array, pivot: Array, **settings):
    bounds = {"radius": 1.0, "angle": 0.2, "least_score": 0.3, "rival_share": 0.8} | settings
    return correlative.search(reference, points, pivot=pivot, angle_step=STEP, **bounds)


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
    scores, angles, offsets = brute_force(grids, points, pivot, 1.0, 0.2)
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
    scores, angles, offsets = brute_force(grids, points, pivot, 1.5, 0.2)
    assert found.score == pytest.approx(scores.max(), abs=1e-6)
    far = np.hypot(offsets[:, None] - found.x, offsets - found.y)[None] > 0.8
    far = far | (np.abs(angles - found.yaw) > 0.15)[:, None, None]
    assert found.runner_up == pytest.approx(scores[far].max(), abs=1e-6)
    assert found.runner_up > 0.8 * found.score


def test_nothing_is_found_where_nothing_fits(reference: Array) -> None:
    points = np.random.default_rng(0).uniform(-3, 3, (200, 2))
    assert search(grids_of(reference, np.zeros(2)), points, np.zeros(2), least_score=0.7) is None


def test_an_empty_reference_gives_nothing() -> None:
    grids = grids_of(np.zeros((0, 3)), np.zeros(2))
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
    grids = grids_of(reference, np.zeros(2)).grids
    assert grids[0].max() == 255
    for level in range(1, correlative.LEVELS):
        width = 1 << level
        for x, y in np.ndindex(grids[0].shape):
            assert grids[level, x, y] == grids[0, x : x + width, y : y + width].max()


def test_far_points_are_left_out_of_the_grid() -> None:
    far = np.array([[1e4, 0.0, 0.0], [0.0, -1e4, 0.0]])
    assert int(grids_of(far, np.zeros(2)).grids.max()) == 0
    some = grids_of(np.concatenate([far, [[1.0, 2.0, 0.0]]]), np.zeros(2))
    assert some.grids.size < 10000
    assert int(some.grids.max()) == 255
