"""To which voxel each sighting belongs when the map has moved: merged, split, retired, evicted."""

from __future__ import annotations

import numpy as np
import pytest
from mapped import Mapped
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors import VoxelSensorObs
from dsg_ros.core.world import WorldModel
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.sightings import MARGIN, Sightings

Array = NDArray[np.float64]


@pytest.fixture
def mapped(mapper: LocalMapper, settings: config.Slam) -> Mapped:
    return Mapped(mapper, settings)


def block(x: float, y: float, count: int = 12) -> Array:
    """Points close together, in the middle of a cell where ``x`` and ``y`` are whole."""
    return np.array([x, y, 0.0]) + np.random.default_rng(0).uniform(-0.02, 0.02, (count, 3)) * [1, 1, 0]


def at(mapped: Mapped, *cells: tuple[float, float]) -> Array:
    """A cloud with a few points in the middle of each cell."""
    return np.concatenate([block((x + 0.5) * mapped.size, (y + 0.5) * mapped.size) for x, y in cells])


def test_what_a_closure_lays_over_one_another_is_merged_into_the_oldest(mapped: Mapped) -> None:
    cells = at(mapped, (2, 0), (4, 1), (6, -2))
    first = mapped.see(poses.IDENTITY, cells)
    drifted = poses.from_planar(10 * mapped.size, 0.0, 0.0)
    again = mapped.see(drifted, cells)
    assert again.new.all()
    assert mapped.told() == ({0, 1, 2, 3, 4, 5}, set())
    mapped.move([1], poses.inverse(drifted))
    mapped.regroup()
    assert mapped.sightings.counts == {
        "voxels_merged": 3, "voxels_split": 0, "voxels_evicted": 0, "voxels_retired": 0,
    }  # fmt: skip
    pose, voxel, _ = mapped.rows()
    assert_array_equal(voxel, np.tile(first.voxels, 2))
    assert_array_equal(pose, np.repeat([0, 1], 3))
    assert mapped.told() == ({0, 1, 2}, {3, 4, 5})
    assert mapped.told() == (set(), set())
    assert mapped.voxels.living == 3
    assert_array_equal(mapped.voxels.counts.values, [24, 24, 24, 0, 0, 0])
    assert_array_equal(mapped.voxels.last_seen.values[:3], 1001)
    # What is seen next is known, under the numbers that are left.
    assert_array_equal(np.sort(mapped.see(poses.IDENTITY, cells).voxels), np.sort(first.voxels))


def test_sightings_that_a_correction_pulls_apart_are_split(mapped: Mapped) -> None:
    cells = at(mapped, (2, 0), (4, 1))
    first = mapped.see(poses.IDENTITY, cells)
    second = mapped.see(poses.IDENTITY, cells)
    assert_array_equal(first.voxels, second.voxels)
    mapped.move([1], poses.from_planar(0.0, 7 * mapped.size, 0.0))
    mapped.regroup()
    assert mapped.sightings.counts["voxels_split"] == 2
    pose, voxel, points = mapped.rows()
    assert len(np.unique(voxel)) == 4
    assert_allclose(mapped.world.get_voxels(voxel), points, atol=1e-12)
    assert_array_equal(mapped.sightings.first_seen.values[voxel], pose)
    assert_array_equal(mapped.voxels.counts.values[voxel], 12)
    # They come together again where they were, under the oldest numbers.
    mapped.move([1], poses.from_planar(0.0, -7 * mapped.size, 0.0))
    mapped.regroup()
    _, voxel, _ = mapped.rows()
    assert_array_equal(np.unique(voxel), np.unique(first.voxels))
    assert mapped.voxels.living == 2


@pytest.mark.parametrize(("over", "split"), [(MARGIN - 0.02, 0), (MARGIN + 0.02, 1)])
def test_a_little_over_the_border_is_no_other_voxel(mapped: Mapped, over: float, split: int) -> None:
    for _ in range(4):
        mapped.see(poses.IDENTITY, at(mapped, (2, 0)))
    mean = mapped.rows()[2].mean(axis=0)
    mapped.move([3], poses.from_planar(3 * mapped.size + over * mapped.size - mean[0], 0.0, 0.0))
    mapped.regroup()
    assert mapped.sightings.counts["voxels_split"] == split
    assert mapped.voxels.living == 1 + split


def test_after_a_move_voxels_are_found_where_they_are_now(mapped: Mapped) -> None:
    cells, move = at(mapped, (2, 0), (4, 1)), poses.from_planar(20 * mapped.size, -10 * mapped.size, 0.0)
    first = mapped.see(poses.IDENTITY, cells)
    mapped.move([0], move)
    mapped.regroup()
    assert_array_equal(mapped.see(move, cells).voxels, first.voxels)
    assert mapped.see(poses.IDENTITY, cells).new.all()  # nothing is left at the old place


def test_a_map_at_random_is_put_in_order(mapped: Mapped) -> None:
    rng = np.random.default_rng(1)
    for _ in range(12):
        cells = rng.integers(-6, 6, (20, 2)).tolist()
        mapped.see(poses.from_planar(*rng.uniform(-3, 3, 3)), at(mapped, *map(tuple, cells)))
    for _ in range(5):
        mapped.world.set_poses(range(12), poses.from_planar(*rng.uniform(-3, 3, (3, 12))))
        count = mapped.voxels.counts.values.sum()
        mapped.regroup()
        pose, voxel, points = mapped.rows()
        assert mapped.voxels.counts.values.sum() == count  # no point is lost
        assert len(np.unique(np.stack([pose, voxel]), axis=1).T) == len(pose)
        living = np.unique(voxel)
        assert mapped.voxels.living == len(living)
        v = mapped.voxels
        for number in living:
            own = voxel == number
            assert_allclose(mapped.world.voxels[number], points[own].mean(axis=0), atol=1e-12)
            assert v.anchor.values[number] == pose[own].max()
            assert v.last_seen.values[number] == 1000 + pose[own].max()
            assert mapped.sightings.first_seen.values[number] == pose[own].min()
            # All within a cell and its margins on either side.
            assert np.ptp(points[own, :2], axis=0).max() < (1 + 2 * MARGIN) * mapped.size + 1e-9
        # A little later nothing has to be put right that stays in its place.
        before = dict(mapped.sightings.counts)
        mapped.regroup()
        assert mapped.sightings.counts["voxels_split"] - before["voxels_split"] <= 2


def test_what_is_known_of_voxels_is_the_same_counted_anew(mapped: Mapped) -> None:
    rng = np.random.default_rng(2)
    y = np.arange(-1.0, 1.0, 0.02)
    wall = np.column_stack([np.full_like(y, 2.05), y, np.zeros_like(y)])
    for _ in range(6):
        pose = poses.from_planar(*rng.uniform(-0.5, 0.5, 3))
        mapped.see(pose, poses.transform(poses.inverse(pose), wall))
    v = mapped.voxels
    before = {name: getattr(v, name).values.copy() for name in ("counts", "last_seen", "anchor", "information")}
    normals = v.normal.values.copy()
    assert (np.linalg.norm(normals, axis=1) > 0.9).any()
    mapped.regroup()
    assert sum(mapped.sightings.counts.values()) == 0
    for name, values in before.items():
        assert_allclose(getattr(v, name).values, values, rtol=1e-6, err_msg=name)
    assert_allclose(v.normal.values, normals, atol=1e-6)


def forget_the_oldest(mapped: Mapped, count: int, before: int) -> Array:
    gone = mapped.voxels.seen_longest_ago(count, before)
    mapped.forget(gone, "evicted")
    return gone


def test_those_seen_longest_ago_are_forgotten(mapped: Mapped) -> None:
    for key in range(6):
        mapped.see(poses.IDENTITY, at(mapped, *[(x, 20 * key + y) for x in range(20) for y in range(10)]))
    mapped.see(poses.IDENTITY, at(mapped, (3, 3)))  # of the first keyframe's, and so one of the newest
    assert mapped.voxels.living == 1200
    mapped.told()
    known = next(iter(mapped.see(poses.IDENTITY, at(mapped, (3, 3))).voxels))
    gone = forget_the_oldest(mapped, 300, 4)
    assert len(gone) == 300
    assert known not in gone
    assert mapped.voxels.living == 900
    assert mapped.sightings.counts["voxels_evicted"] == 300
    pose, voxel, _ = mapped.rows()
    assert not np.isin(voxel, gone).any()
    assert np.count_nonzero(pose == 0) == 1
    assert mapped.told() == ({known}, set(gone.tolist()))
    assert len(forget_the_oldest(mapped, 1000, 2)) == 99  # no newer ones, whatever is asked for
    mapped.regroup()
    assert mapped.voxels.living == 801
    # A place that was forgotten is seen like a new one.
    assert mapped.see(poses.IDENTITY, at(mapped, (5, 5))).new.all()


def test_the_window_goes_on_with_rows_of_the_voxels_that_are_left(mapped: Mapped) -> None:
    cells = at(mapped, (2, 0), (4, 1))
    mapped.see(poses.IDENTITY, cells)
    drifted = poses.from_planar(10 * mapped.size, 0.0, 0.0)
    mapped.see(drifted, cells)
    mapped.move([1], poses.inverse(drifted))
    mapped.regroup()
    assert_array_equal(window_rows(mapped.sightings).voxel, [0, 1, 0, 1])
    forget_the_oldest(mapped, 1, 2)
    assert_array_equal(window_rows(mapped.sightings).voxel, [1, 1])


def window_rows(sightings: Sightings) -> VoxelSensorObs:
    (rows,) = sightings.window.stacks_of(np.ones(len(sightings.window.place), bool))
    return rows


def test_a_keyframe_sees_a_voxel_once(mapped: Mapped) -> None:
    """Two cells' points of one keyframe that come to lie in one are one sighting, of the mean of all points."""
    edge = mapped.size
    mapped.see(poses.IDENTITY, at(mapped, (2, 0)))
    mapped.see(poses.from_planar(0.0, 5 * edge, 0.0), np.concatenate([
        block(2.9 * edge, 0.5 * edge, 30), block(3.1 * edge, 0.5 * edge, 10),
    ]))  # fmt: skip
    assert len(mapped.rows()[0]) == 3
    mapped.world.set_poses([1], poses.from_planar(-0.35 * edge, 0.0, 0.0)[None])
    mapped.regroup()
    pose, voxel, points = mapped.rows()
    assert_array_equal(pose, [0, 1])
    assert_array_equal(voxel, [0, 0])
    assert points[1, 0] == pytest.approx((2.95 - 0.35) * edge, abs=0.005)
    assert mapped.voxels.counts.values[0] == 12 + 40
    assert len(window_rows(mapped.sightings).voxel) == 2


def test_in_space_layers_are_cells_of_their_own(spatial: LocalMapper, settings: config.Slam) -> None:
    mapped = Mapped(spatial, settings)
    cloud = np.concatenate(
        [block(0.5 * mapped.size, 0.5 * mapped.size, 20) + np.array([0, 0, z * mapped.size]) for z in (0.5, 1.5)]
    )
    mapped.see(poses.IDENTITY, cloud)
    mapped.see(poses.IDENTITY, cloud)
    mapped.move([1], poses.exp(np.array([0.0, 0.0, mapped.size, 0.0, 0.0, 0.0])))
    mapped.regroup()
    _, voxel, _ = mapped.rows()
    assert_array_equal(voxel, [0, 1, 1, 2])


def test_state_is_all_there_is(mapped: Mapped) -> None:
    rng = np.random.default_rng(3)
    for _ in range(8):
        cells = rng.integers(-6, 6, (20, 2)).tolist()
        mapped.see(poses.from_planar(*rng.uniform(-3, 3, 3)), at(mapped, *map(tuple, cells)))
    mapped.move([3, 4, 5], poses.from_planar(0.4, 0.2, 0.1))
    mapped.regroup()
    forget_the_oldest(mapped, 20, 4)
    mapped.see(poses.IDENTITY, at(mapped, (2, 0), (7, 1)))  # in the place of rows that were removed
    whole = mapped.world.state()
    world = WorldModel()
    world.restore(whole)
    kept = {name: np.array(value) for name, value in mapped.sightings.state().items()}
    state = mapped.sightings.state()
    other = Sightings(mapped.settings, world, planar=True)
    other.restore(state)
    assert other.counts == mapped.sightings.counts
    for name in ("pose", "voxel", "point"):
        assert_array_equal(getattr(window_rows(other), name), getattr(window_rows(mapped.sightings), name))
    mapped.move([6], poses.from_planar(1.0, 0.0, 0.0))
    world.set_poses([6], mapped.world.get_poses([6]))
    for one, another in zip(mapped.sightings.regroup(), other.regroup(), strict=True):
        assert_array_equal(one, another)
    forget_the_oldest(mapped, 20, 6)
    for name, value in kept.items():
        assert_array_equal(state[name], value)  # a thread writes it while mapping goes on
    other._world.restore(whole)
    with pytest.raises(ValueError, match="another graph"):
        other.restore(state | {"points": np.zeros(1, np.int32)})
    with pytest.raises(ValueError, match="another graph"):
        other.restore(state | {"rows": np.repeat(state["rows"][:1], len(state["rows"]))})
    with pytest.raises(KeyError, match="no row has the id"):
        other.restore(state | {"rows": np.arange(4) + 10**6})


def test_who_is_told_everything_takes_no_news_from_the_others(mapped: Mapped) -> None:
    cells, drifted = at(mapped, (2, 0), (4, 1)), poses.from_planar(10 * mapped.size, 0.0, 0.0)
    mapped.see(poses.IDENTITY, cells)
    mapped.see(drifted, cells)
    mapped.told()
    mapped.move([1], poses.inverse(drifted))
    mapped.regroup()
    whole = mapped.voxels.update(mapped.world.voxels, mapped.world.poses, whole=True)
    assert whole.ids.tolist() == [0, 1]
    assert not len(whole.removed)
    assert mapped.told() == ({0, 1}, {2, 3})


def test_a_map_without_voxels(mapped: Mapped) -> None:
    mapped.world.add_pose(poses.IDENTITY)
    mapped.regroup()
    assert mapped.voxels.living == 0
