"""Voxel statistics, their merging and shape, and the hash table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from dsg_ros.core.native import cells
from dsg_ros.mapping import voxel_kernels, voxel_map

Array = NDArray[np.float64]
clouds = arrays(np.float64, st.tuples(st.integers(1, 60), st.just(3)), elements=st.floats(-3, 3, width=32))
SIZE = 0.5


def cell_of(point: Array, planar: bool) -> tuple[int, int, int]:
    x, y, z = (int(np.floor(c / SIZE)) for c in point)
    return x, y, 0 if planar else z


def by_cell(points: Array, planar: bool) -> dict[tuple[int, int, int], Array]:
    """The naive way: a dictionary of lists."""
    found: dict[tuple[int, int, int], list[Array]] = {}
    for point in points:
        found.setdefault(cell_of(point, planar), []).append(point)
    return {cell: np.array(members) for cell, members in found.items()}


def moments(members: Array) -> tuple[int, Array, Array]:
    mean = members.mean(axis=0)
    return len(members), mean, (members - mean).T @ (members - mean) / len(members)


def table(points: Array, planar: bool) -> voxel_map.VoxelTable:
    return voxel_map.build(points, SIZE, planar=planar, flatness=0.15, noise=0.02)


def rows_of(found: voxel_map.VoxelTable, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of voxels by key as kernels look them up; -1 for those that are not there."""
    slots = np.array([cells.slot_of(found.slot_keys, key) for key in keys])
    return np.where(found.slot_keys[slots] == keys, found.slot_rows[slots], -1)


def assert_moments(found: Array, origin: Array, members: Array) -> None:
    """Count, sum and sum of products about ``origin`` of ``members`` (n, 3)."""
    local = members - origin
    products = (local.T @ local)[np.triu_indices(3)]
    assert_allclose(found, np.concatenate([[len(members)], local.sum(axis=0), products]), atol=1e-9)


@pytest.mark.parametrize("planar", [True, False])
@given(points=clouds)
def test_moments_agree_with_a_dictionary(points: Array, planar: bool) -> None:
    expected = by_cell(points, planar)
    found = table(points, planar)
    assert len(found.keys) == len(expected)
    rows = rows_of(found, voxel_map.pack(np.array(list(expected))))
    assert sorted(rows) == list(range(len(expected)))
    for row, (cell, members) in zip(rows, expected.items(), strict=True):
        assert found.keys[row] == voxel_map.pack(np.array(cell))
        assert_moments(found.moments[row], found.origin, members)
        assert_allclose(found.anchors[row], members.mean(axis=0), atol=1e-9)
        around = np.concatenate([m for other, m in expected.items() if np.abs(np.subtract(other, cell)).max() <= 1])
        assert_moments(found.merged[row], found.origin, around)
        assert_allclose(found.shapes.means[row], around.mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("planar", [True, False])
def test_cells_that_are_not_there_have_no_row(planar: bool) -> None:
    found = table(np.random.default_rng(0).uniform(-3, 3, (50, 3)), planar)
    away = voxel_map.pack(np.random.default_rng(1).integers(100, 2**19, (500, 3)))
    assert np.all(rows_of(found, away) == -1)
    assert len(table(np.zeros((0, 3)), planar).keys) == 0


def test_far_from_the_origin_nothing_is_lost() -> None:
    """Second moments are taken about the cloud's own centroid."""
    points = np.random.default_rng(0).normal(0, 0.01, (500, 3)) + 0.25
    far = np.array([1e5, -2e5, 0.0])
    near, away = (table(p, planar=False).shapes for p in (points, points + far))
    assert_allclose(away.deviations, near.deviations, atol=1e-8)


def test_heights_around_zero_do_not_split_a_planar_scan() -> None:
    """A planar scan's heights are zero up to rounding, and zero is the border of two layers."""
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-3, 3, (400, 2)), np.zeros(400)])
    noisy = points + np.column_stack([np.zeros((400, 2)), rng.choice([-1e-12, 1e-12], 400)])
    assert len(np.unique(voxel_map.cells_of(noisy, SIZE)[:, 2])) == 2
    flat, rough = (table(p, planar=True) for p in (points, noisy))
    assert_array_equal(flat.keys, rough.keys)
    assert_array_equal(flat.moments[:, 0], rough.moments[:, 0])


def wall(angle: float, normal_noise: float) -> voxel_map.Shapes:
    """Shape of one voxel of a wall through its middle, in direction ``angle``."""
    rng = np.random.default_rng(0)
    along, across = rng.uniform(-0.2, 0.2, 200), rng.normal(0, normal_noise, 200)
    c, s = np.cos(angle), np.sin(angle)
    points = np.column_stack([c * along - s * across, s * along + c * across, np.zeros(200)]) + SIZE / 2
    return table(points, planar=True).shapes


@given(st.floats(-3.1, 3.1), st.sampled_from([0.0, 0.005, 0.02]))
def test_normals_of_a_wall(angle: float, noise: float) -> None:
    shape = wall(angle, noise)
    assert shape.flat.tolist() == [True]
    assert abs(shape.axes[0, 0] @ [-np.sin(angle), np.cos(angle), 0]) > 0.99
    assert 0.019 < shape.deviations[0, 0] < 0.03
    assert np.all(shape.deviations[0, 1:] == np.inf)


def shapes_of(covariances: Array, planar: bool) -> voxel_map.Shapes:
    """Shapes of voxels of ten points with mean zero and ``covariances`` (v, 3, 3); none counts as flat."""
    moments = np.zeros((len(covariances), 10))
    moments[:, 0] = 10.0
    moments[:, 4:] = 10.0 * covariances[:, *np.triu_indices(3)]
    return voxel_map.Shapes(*voxel_kernels.shapes(moments, SIZE, planar, -1.0, 0.02))


@pytest.mark.parametrize("planar", [True, False])
@given(factors=arrays(np.float64, (8, 3, 3), elements=st.floats(-2, 2)))
def test_shapes_agree_with_an_eigendecomposition(factors: Array, planar: bool) -> None:
    covariances = factors @ factors.transpose(0, 2, 1)
    dimensions = 2 if planar else 3
    shape = shapes_of(covariances, planar)
    assert not shape.flat.any()
    assert_allclose(shape.axes @ shape.axes.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (8, 3, 3)), atol=1e-9)
    used = slice(0, dimensions)
    expected = covariances[:, used, used] + 0.02**2 * np.eye(dimensions)
    axes, variances = shape.axes[:, used, used], shape.deviations[:, used] ** 2
    assert np.all(np.diff(variances, axis=1) >= 0)
    assert_allclose(np.einsum("vki,vk,vkj->vij", axes, variances, axes), expected, atol=1e-9)
    if planar:  # nothing is known of the height
        assert np.all(shape.deviations[:, 2] == np.inf)


def test_shapes_in_space() -> None:
    rng = np.random.default_rng(2)
    floor = np.column_stack([rng.uniform(0.01, 0.49, (300, 2)), rng.normal(0.25, 0.005, 300)])
    blob = rng.uniform(0.01, 0.49, (300, 3)) + np.array([2.0, 0, 0])
    pair = np.array([[4.1, 0.1, 0.1], [4.2, 0.1, 0.1]])
    shape = table(np.concatenate([floor, blob, pair]), planar=False).shapes
    assert shape.flat.tolist() == [True, False, False]
    assert abs(shape.axes[0, 0, 2]) > 0.999
    assert shape.deviations[2].min() > 0.25 * SIZE - 1e-9  # of two points little is known


@given(arrays(np.int64, (20, 3), elements=st.integers(-(2**20) + 1, 2**20 - 3)))
def test_packed_cells_are_distinct_and_steps_between_them_are_differences(cells: NDArray[np.int64]) -> None:
    keys = voxel_map.pack(cells)
    assert len(np.unique(keys)) == len(np.unique(cells, axis=0))
    assert np.all(keys >= 0)
    step = np.array([1, -1, 2])
    assert_array_equal(voxel_map.pack(cells + step) - keys, (1 << 42) - (1 << 21) + 2)
