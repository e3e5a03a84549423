"""Voxel statistics, their merging and shape, and the hash table."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from dsg_ros.mapping import voxel_map

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


@pytest.mark.parametrize("planar", [True, False])
@given(points=clouds)
def test_statistics_agree_with_a_dictionary(points: Array, planar: bool) -> None:
    expected = by_cell(points, planar)
    found = voxel_map.statistics(voxel_map.accumulate(points, SIZE, planar=planar), planar=planar, merge=False)
    assert len(found.keys) == len(expected)
    assert np.all(np.diff(found.keys) > 0)
    for cell, members in expected.items():
        row = int(np.searchsorted(found.keys, voxel_map.pack(np.array(cell))))
        assert found.keys[row] == voxel_map.pack(np.array(cell))
        count, mean, covariance = moments(members)
        assert found.counts[row] == count
        assert_allclose(found.means[row], mean, atol=1e-9)
        assert_allclose(found.anchors[row], mean, atol=1e-9)
        assert_allclose(found.covariances[row], covariance, atol=1e-9)


@pytest.mark.parametrize("planar", [True, False])
@given(points=clouds)
def test_merging_takes_the_neighbours_in(points: Array, planar: bool) -> None:
    alone = by_cell(points, planar)
    found = voxel_map.statistics(voxel_map.accumulate(points, SIZE, planar=planar), planar=planar, merge=True)
    for cell, members in alone.items():
        row = int(np.searchsorted(found.keys, voxel_map.pack(np.array(cell))))
        around = np.concatenate([m for other, m in alone.items() if np.abs(np.subtract(other, cell)).max() <= 1])
        count, mean, covariance = moments(around)
        assert found.counts[row] == count
        assert_allclose(found.means[row], mean, atol=1e-9)
        assert_allclose(found.covariances[row], covariance, atol=1e-9)
        assert_allclose(found.anchors[row], members.mean(axis=0), atol=1e-9)


def test_far_from_the_origin_nothing_is_lost() -> None:
    """Second moments are taken about the cloud's own centroid."""
    points = np.random.default_rng(0).normal(0, 0.01, (500, 3)) + 0.25
    far = np.array([1e5, -2e5, 0.0])
    near, away = (
        voxel_map.statistics(voxel_map.accumulate(p, SIZE, planar=False), planar=False, merge=False)
        for p in (points, points + far)
    )
    assert_allclose(away.covariances, near.covariances, atol=1e-10)


def test_heights_around_zero_do_not_split_a_planar_scan() -> None:
    """A planar scan's heights are zero up to rounding, and zero is the border of two layers."""
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-3, 3, (400, 2)), np.zeros(400)])
    noisy = points + np.column_stack([np.zeros((400, 2)), rng.choice([-1e-12, 1e-12], 400)])
    assert len(np.unique(voxel_map.cells_of(noisy, SIZE)[:, 2])) == 2
    flat, rough = (voxel_map.accumulate(p, SIZE, planar=True) for p in (points, noisy))
    assert_array_equal(flat.keys, rough.keys)
    assert_array_equal(flat.own[:, 0], rough.own[:, 0])


def wall(angle: float, normal_noise: float, seed: int = 0) -> voxel_map.VoxelStatistics:
    """One voxel's statistics of a wall through its middle, in direction ``angle``."""
    rng = np.random.default_rng(seed)
    along, across = rng.uniform(-0.2, 0.2, 200), rng.normal(0, normal_noise, 200)
    c, s = np.cos(angle), np.sin(angle)
    points = np.column_stack([c * along - s * across, s * along + c * across, np.zeros(200)]) + SIZE / 2
    return voxel_map.statistics(voxel_map.accumulate(points, SIZE, planar=True), planar=True, merge=True)


@given(st.floats(-3.1, 3.1), st.sampled_from([0.0, 0.005, 0.02]))
def test_normals_of_a_wall(angle: float, noise: float) -> None:
    shape = voxel_map.surfaces(wall(angle, noise), True, 0.15, 0.02)
    assert shape.flat.tolist() == [True]
    assert abs(shape.normals[0] @ [-np.sin(angle), np.cos(angle), 0]) > 0.99
    along = np.array([np.cos(angle), np.sin(angle), 0])
    assert np.abs(shape.whitening[0] @ along).max() < 0.15 / 0.02  # next to nothing of a metre along the wall
    assert 1 / 0.03 < np.linalg.norm(shape.whitening[0] @ shape.normals[0]) < 1 / 0.019


@given(arrays(np.float64, (8, 2, 2), elements=st.floats(-2, 2)))
def test_planar_shapes_agree_with_an_eigendecomposition(factors: Array) -> None:
    covariances = np.zeros((8, 3, 3))
    covariances[:, :2, :2] = factors @ factors.transpose(0, 2, 1)
    keys, anchors = np.arange(8), np.zeros((8, 3))
    statistics = voxel_map.VoxelStatistics(SIZE, keys, anchors, np.full(8, 10.0), anchors, covariances)
    shape = voxel_map.surfaces(statistics, True, -1.0, 0.02)
    assert not shape.flat.any()
    # Not flat: whitening^T whitening is the inverse of the covariance with noise, in the plane, and nothing in height.
    for voxel, covariance in zip(shape.whitening, covariances, strict=True):
        information = voxel.T @ voxel
        assert_allclose(information[:2, :2] @ (covariance[:2, :2] + 0.02**2 * np.eye(2)), np.eye(2), atol=1e-6)
        assert_allclose(information[2], 0, atol=1e-9)
    assert_allclose(shape.axes @ shape.axes.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (8, 3, 3)), atol=1e-9)


def test_shapes_in_space() -> None:
    rng = np.random.default_rng(2)
    floor = np.column_stack([rng.uniform(0.01, 0.49, (300, 2)), rng.normal(0.25, 0.005, 300)])
    blob = rng.uniform(0.01, 0.49, (300, 3)) + np.array([2.0, 0, 0])
    pair = np.array([[4.1, 0.1, 0.1], [4.2, 0.1, 0.1]])
    points = np.concatenate([floor, blob, pair])
    sums = voxel_map.accumulate(points, SIZE, planar=False)
    shape = voxel_map.surfaces(voxel_map.statistics(sums, planar=False, merge=True), False, 0.15, 0.02)
    assert shape.flat.tolist() == [True, False, False]
    assert abs(shape.normals[0, 2]) > 0.999
    assert np.linalg.norm(shape.whitening[2], axis=1).max() < 1 / (0.25 * SIZE) + 1e-9  # of two points little is known


def lookup(slot_keys: Array, slot_rows: Array, key: int) -> int:
    """The row found for ``key``, or -1: a linear probe as the kernel does it."""
    start = int(voxel_map.hash_of(np.array([key]))[0]) & (len(slot_keys) - 1)
    for probe in range(voxel_map.PROBES):
        slot = (start + probe) & (len(slot_keys) - 1)
        if slot_keys[slot] == key:
            return int(slot_rows[slot])
    return -1


@given(st.integers(0, 2**32), st.sampled_from([16, 100, 250]))
def test_hash_table_finds_a_key_or_misses_it_but_is_never_wrong(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    keys = np.unique(voxel_map.pack(rng.integers(-200, 200, (count, 3))))
    slot_keys, slot_rows = voxel_map.hash_slots(keys, 1024)
    rows = [lookup(slot_keys, slot_rows, key) for key in keys]
    assert all(row in (-1, number) for number, row in enumerate(rows))
    assert rows.count(-1) <= 0.03 * len(keys)
    absent = np.setdiff1d(voxel_map.pack(rng.integers(-200, 200, (50, 3))), keys)
    assert all(lookup(slot_keys, slot_rows, key) == -1 for key in absent)


def test_hash_table_of_a_real_floor_plan_misses_next_to_nothing() -> None:
    """Neighbouring cells, as walls have them: the hash must scatter those."""
    line = np.arange(-250, 250)
    cells = np.concatenate([np.stack([line, np.full_like(line, y), 0 * line], axis=1) for y in (-20, -19, 0, 31)])
    keys = np.unique(voxel_map.pack(cells))
    slot_keys, slot_rows = voxel_map.hash_slots(keys, 4 * 2048)
    missed = sum(lookup(slot_keys, slot_rows, key) != row for row, key in enumerate(keys))
    assert missed <= 0.01 * len(keys)


def test_hash_is_the_same_on_the_device() -> None:
    keys = voxel_map.pack(np.random.default_rng(0).integers(-1000, 1000, (100, 3)))
    assert_array_equal(np.asarray(voxel_map.hash_of(jnp.asarray(keys))), voxel_map.hash_of(keys))
    assert np.all(voxel_map.hash_of(keys) >= 0)


@given(arrays(np.int64, (20, 3), elements=st.integers(-(2**20) + 1, 2**20 - 2)))
def test_packed_cells_are_distinct_and_neighbours_are_offsets(cells: NDArray[np.int64]) -> None:
    keys = voxel_map.pack(cells)
    assert len(np.unique(keys)) == len(np.unique(cells, axis=0))
    assert np.all(keys >= 0)
    for planar, count in ((True, 9), (False, 27)):
        offsets = voxel_map.neighbour_offsets(planar)
        assert len(np.unique(offsets)) == count
        neighbours = keys[:, None] + offsets
        expected = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in ((0,) if planar else (-1, 0, 1))]
        assert_array_equal(np.sort(neighbours), np.sort(voxel_map.pack(cells[:, None] + np.array(expected))))


def test_a_table_keeps_the_fullest_voxels_when_there_are_too_many() -> None:
    rng = np.random.default_rng(3)
    columns = np.repeat(np.arange(400), 1 + np.arange(400) % 7)  # voxel v holds 1 + v % 7 points
    points = np.column_stack([2 * SIZE * columns + 0.1, rng.uniform(0, 0.4, len(columns)), np.zeros(len(columns))])
    statistics = voxel_map.statistics(voxel_map.accumulate(points, SIZE, planar=True), planar=True, merge=True)
    table = voxel_map.table(statistics, True, 256, 0.15, 0.02)
    assert table.anchors.shape == (256, 3)
    kept = np.asarray(table.slot_rows)[np.asarray(table.slot_keys) >= 0]
    assert 250 <= len(kept) <= 255
    fullest = np.sort(statistics.counts)[-255]
    rows = np.searchsorted(statistics.keys, np.asarray(table.slot_keys)[np.asarray(table.slot_keys) >= 0])
    assert statistics.counts[rows].min() >= fullest


def test_padding_of_a_table_is_harmless() -> None:
    table = voxel_map.table(wall(0.3, 0.005), True, 256, 0.15, 0.02)
    assert np.count_nonzero(np.asarray(table.slot_keys) >= 0) == 1
    means, whitening, projector = (np.asarray(part) for part in table.shape_at(jnp.arange(256)))
    assert np.all(np.isfinite(means))
    assert np.all(np.isfinite(whitening))
    assert np.all(whitening[1:] == 0)
    assert np.all(projector[1:] == 0)
    assert np.linalg.norm(whitening[0]) > 1 / 0.03
    assert np.linalg.norm(projector[0] @ np.array([0, 0, 1.0])) == 0
