"""Which voxel a keyframe's points belong to, and what an observation says."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import scan, voxel_map
from dsg_ros.mapping.association import Observations, WorldVoxels
from dsg_ros.mapping.cell_index import CellIndex
from dsg_ros.mapping.local_map import LocalMapper

Array = NDArray[np.float64]
SIZE = 0.3


class Mapped:
    """World voxels and their positions, fed as the pipeline feeds them."""

    def __init__(self, mapper: LocalMapper, settings: config.Voxels) -> None:
        self.mapper = mapper
        self.voxels = WorldVoxels(settings, size=SIZE, planar=mapper.planar)
        self.means = np.zeros((0, 3))
        self.trajectory = np.zeros((0, 7))

    def see(self, pose: Array, cloud: Array, sensor: Array | None = None, doubt: float = 0.0) -> Observations:
        key = len(self.trajectory)
        self.trajectory = np.concatenate([self.trajectory, pose[None]])
        surroundings = self.mapper.build(pose[None], [cloud]).coarse
        sensor = np.zeros(3) if sensor is None else sensor
        seen = self.voxels.observe(key, 1000 + key, pose, cloud, surroundings, sensor, doubt)
        self.means = np.concatenate([self.means, seen.means[seen.new]])
        assert len(self.means) == len(self.voxels)
        return seen


@pytest.fixture
def mapped(mapper: LocalMapper, settings: config.Slam) -> Mapped:
    return Mapped(mapper, settings.voxels)


def cloud_at(pose: Array, mapper: LocalMapper) -> Array:
    return scan.thin(worlds.scan(worlds.room(), pose, noise=0.01), 0.05, mapper.capacity)


def test_points_of_one_cell_are_one_voxel(mapped: Mapped) -> None:
    """Numbers follow cells, from whatever pose they are seen."""
    first, second = poses.from_planar(0, 0, 0), poses.from_planar(-0.5, 0.3, 0.8)
    a = mapped.see(first, cloud_at(first, mapped.mapper))
    b = mapped.see(second, cloud_at(second, mapped.mapper))
    assert a.new.all()
    assert not b.new.all()
    assert len(np.unique(a.voxels)) == len(a.voxels)
    np.testing.assert_array_equal(b.voxels[b.new], len(a.voxels) + np.arange(np.count_nonzero(b.new)))
    cells = {}
    for seen in (a, b):
        for voxel, mean in zip(seen.voxels, seen.means, strict=True):
            cell = tuple(np.floor(mean[:2] / SIZE).astype(int))
            assert cells.setdefault(cell, voxel) == voxel
    np.testing.assert_allclose(a.means, poses.transform(first, a.points), atol=1e-12)
    np.testing.assert_allclose(b.means, poses.transform(second, b.points), atol=1e-12)


def test_lone_points_make_no_voxel(mapped: Mapped, settings: config.Slam) -> None:
    lone = np.array([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.05, 1.05, 0.0]])
    seen = mapped.see(poses.IDENTITY, lone)
    assert settings.voxels.least_points == 2
    np.testing.assert_allclose(seen.points, [[2.025, 1.025, 0.0]])
    assert seen.counts.tolist() == [2]


def test_an_empty_cloud_sees_nothing(mapped: Mapped) -> None:
    pose = poses.IDENTITY
    surroundings = mapped.mapper.build(pose[None], [cloud_at(pose, mapped.mapper)]).coarse
    seen = mapped.voxels.observe(0, 0, pose, np.zeros((0, 3)), surroundings, np.zeros(3))
    assert seen.points.shape == (0, 3)
    assert seen.sqrt_info.shape == (0, 3, 3)
    assert len(mapped.voxels) == 0


def test_information_of_observations_is_regular(mapped: Mapped, settings: config.Slam) -> None:
    pose = poses.from_planar(0.3, -0.2, 0.5)
    seen = mapped.see(pose, cloud_at(pose, mapped.mapper))
    singular = np.linalg.svd(seen.sqrt_info, compute_uv=False)
    assert singular.min() > 0.99 / SIZE  # a voxel's block can always be inverted
    assert singular.max() < 1 / settings.voxels.roughness + 1e-9
    assert np.count_nonzero(singular[:, 0] > 10 / SIZE) > 10  # and walls are sharp


def test_a_wall_is_observed_along_its_normal(mapped: Mapped) -> None:
    pose = poses.from_planar(0.0, 0.0, 0.7)
    y = np.arange(-1.0, 1.0, 0.02)
    wall = np.column_stack([np.full_like(y, 2.05), y, np.zeros_like(y)])
    seen = mapped.see(pose, poses.transform(poses.inverse(pose), wall))
    normal = poses.matrix(pose)[:3, :3].T @ [1.0, 0.0, 0.0]  # in the base frame
    inner = np.abs(seen.means[:, 1]) < 0.7
    information = np.einsum("nki,nkj->nij", seen.sqrt_info, seen.sqrt_info)[inner]
    assert np.einsum("i,nij,j->n", normal, information, normal).min() > 100 / SIZE**2
    along = poses.matrix(pose)[:3, :3].T @ [0.0, 1.0, 0.0]
    np.testing.assert_allclose(np.einsum("i,nij,j->n", along, information, along), 1 / SIZE**2, rtol=0.05)


def test_updates_tell_what_changed_and_only_that(mapped: Mapped, settings: config.Slam) -> None:
    dense = np.column_stack([np.arange(0.01, 0.29, 0.02), np.full(14, 0.1), np.zeros(14)])
    mapped.see(poses.IDENTITY, np.concatenate([dense, dense + np.array([3 * SIZE, 0, 0])]))
    first = mapped.voxels.update(mapped.means, mapped.trajectory)
    assert first.ids.tolist() == [0, 1]
    assert first.counts.tolist() == [14, 14]
    assert first.size == SIZE
    assert len(mapped.voxels.update(mapped.means, mapped.trajectory).ids) == 0
    mapped.see(poses.IDENTITY, dense + np.array([3 * SIZE, 0, 0]))
    second = mapped.voxels.update(mapped.means, mapped.trajectory)
    assert second.ids.tolist() == [1]
    assert second.counts.tolist() == [28]
    assert second.last_seen.tolist() == [1001]
    assert mapped.voxels.update(mapped.means, mapped.trajectory, whole=True).ids.tolist() == [0, 1]


def test_thin_voxels_are_not_shown_until_they_have_points_enough(mapped: Mapped, settings: config.Slam) -> None:
    assert settings.voxels.least_count == 4
    pair = np.array([[0.1, 0.1, 0.0], [0.12, 0.1, 0.0]])
    mapped.see(poses.IDENTITY, pair)
    assert len(mapped.voxels.update(mapped.means, mapped.trajectory).ids) == 0
    mapped.see(poses.IDENTITY, pair)
    assert mapped.voxels.update(mapped.means, mapped.trajectory).counts.tolist() == [4]


def test_normals_turn_with_the_keyframe_they_hang_on(mapped: Mapped) -> None:
    y = np.arange(-1.0, 1.0, 0.02)
    mapped.see(poses.IDENTITY, np.column_stack([np.full_like(y, 2.05), y, np.zeros_like(y)]))
    mapped.trajectory = poses.from_planar(0.0, 0.0, np.array([0.5]))
    normals = mapped.voxels.update(mapped.means, mapped.trajectory).normals
    walls = np.linalg.norm(normals, axis=1) > 0.5
    assert walls.any()
    np.testing.assert_allclose(np.abs(normals[walls] @ [np.cos(0.5), np.sin(0.5), 0]), 1.0, atol=1e-3)


def test_cells_are_found_as_in_a_dictionary() -> None:
    """Whatever is added, dropped and added again, over several sizes of the table."""
    rng, index, known = np.random.default_rng(0), CellIndex(), {}
    for number in range(60):
        keys = voxel_map.pack(np.unique(rng.integers(-40, 40, (300, 3)), axis=0))
        new = np.array([key for key in keys.tolist() if key not in known], np.int64)
        index.add(new, 1000 * number + np.arange(len(new)))
        known |= {key: 1000 * number + at for at, key in enumerate(new.tolist())}
        gone = rng.permutation(list(known))[: 40 * (number % 7)].astype(np.int64)
        index.drop(gone)
        for key in gone.tolist():
            del known[key]
        assert len(index) == len(known)
        asked = np.concatenate([keys, gone])
        np.testing.assert_array_equal(index.find(asked), [known.get(key, -1) for key in asked.tolist()])


def test_normals_face_the_sensor_wherever_the_base_is(mapped: Mapped) -> None:
    # A wall 5 cm before the base's origin, which the sensor, 20 cm further on, looks back at.
    wall = np.column_stack([np.full(60, 0.05), np.linspace(-0.9, 0.9, 60), np.zeros(60)])
    ahead = mapped.see(poses.IDENTITY, wall, sensor=np.array([0.25, 0.0, 0.0]))
    behind = mapped.see(poses.IDENTITY, wall, sensor=np.array([-0.25, 0.0, 0.0]))
    sharp = np.linalg.norm(ahead.sqrt_info[:, 0], axis=1) > 10 / SIZE
    assert sharp.sum() > 3
    assert (ahead.sqrt_info[sharp, 0, 0] > 0).all()
    assert (behind.sqrt_info[sharp, 0, 0] < 0).all()
    products = [np.einsum("nki,nkj->nij", seen.sqrt_info, seen.sqrt_info) for seen in (ahead, behind)]
    np.testing.assert_allclose(*products)


def test_what_a_match_in_doubt_saw_is_as_unsure_as_the_match(mapped: Mapped) -> None:
    cloud = cloud_at(poses.IDENTITY, mapped.mapper)
    sure, unsure = mapped.see(poses.IDENTITY, cloud), mapped.see(poses.IDENTITY, cloud, doubt=3.0)
    np.testing.assert_allclose(unsure.sqrt_info, sure.sqrt_info / 2)
