"""What later keyframes look through is retired, and nothing else: people go, walls stay."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from mapped import Mapped
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import scan
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.retirement import Retirement

Array = NDArray[np.float64]
ONCE, AGAIN, MOST = config.Retirement().once, config.Retirement().again, config.Retirement().most


@pytest.fixture
def mapped(mapper: LocalMapper, settings: config.Slam) -> Mapped:
    return Mapped(mapper, settings)


def post(x: float, y: float, z: float = 0.0) -> Array:
    """Points close about a place."""
    spread = np.random.default_rng(0).uniform(-0.02, 0.02, (12, 3))
    return np.array([x, y, z]) + spread * [1, 1, 1 if z else 0]


POST = post(3.15, 0.15)
THROUGH = np.array([[6.3, 0.3, 0.0]])
"""Where a beam ends that has passed the middle of `POST`."""


def looks(mapped: Mapped, cloud: Array, times: int = 1, **further: object) -> list[int]:
    """What is retired when so many keyframes more, at the origin, see ``cloud`` and nothing new."""
    gone: list[int] = []
    for _ in range(times):
        mapped.world.add_pose(poses.IDENTITY)
        gone += mapped.look(cloud, **further).tolist()  # type: ignore[arg-type]
    return gone


def test_what_is_looked_through_is_retired_and_its_place_is_free_again(mapped: Mapped) -> None:
    mapped.see(poses.IDENTITY, np.concatenate([POST, post(3.15, 3.15)]))
    assert mapped.told()[0] == {0, 1}
    assert looks(mapped, THROUGH, ONCE - 1) == []
    assert looks(mapped, THROUGH) == [0]
    assert looks(mapped, THROUGH, 10) == []
    assert mapped.sightings.counts["voxels_retired"] == 1
    assert mapped.voxels.living == 1
    assert_array_equal(mapped.rows()[1], [1])
    assert mapped.told() == (set(), {0})
    mapped.regroup()
    assert mapped.voxels.living == 1
    again = mapped.see(poses.IDENTITY, POST)  # a door that is shut again
    assert again.new.all()
    assert again.voxels.tolist() == [2]
    assert 2 in mapped.told()[0]


@pytest.mark.parametrize(
    "ends",
    [
        [],
        [(3.15, 0.15)],
        [(2.9, 0.14)],
        [(3.5, 0.17)],
        [(6.3, 0.5)],
        [(6.3, 0.3), (2.5, 0.25)],
        [(6.3, 0.3), (3.3, 0.3)],
        [(-6.3, -0.3)],
    ],
    ids=["no returns", "in it", "before it", "just beyond", "beside its mean", "half hidden", "half hit", "behind"],
)
def test_what_a_keyframe_does_not_look_through(mapped: Mapped, ends: list[tuple[float, float]]) -> None:
    mapped.see(poses.IDENTITY, POST)
    cloud = np.array([(x, y, 0.0) for x, y in ends]).reshape(-1, 3)
    assert looks(mapped, cloud, 3 * MOST) == []
    assert mapped.retirement.credit.values[0] >= ONCE


def test_what_was_seen_more_often_takes_longer_up_to_a_bound(mapped: Mapped) -> None:
    mapped.see(poses.IDENTITY, POST)
    looks(mapped, POST, 2)
    assert looks(mapped, THROUGH, ONCE + 2 * AGAIN - 1) == []
    looks(mapped, POST[:1])  # one return in it is no sighting, and tells that it is there
    assert looks(mapped, THROUGH, AGAIN) == []
    looks(mapped, POST, 100)
    assert looks(mapped, THROUGH, MOST - 1) == []
    assert looks(mapped, THROUGH) == [0]


def test_where_the_map_may_have_drifted_nothing_is_looked_through(mapped: Mapped) -> None:
    mapped.see(poses.IDENTITY, POST)
    for key in range(3 * MOST):
        assert looks(mapped, THROUGH, near=np.arange(key + 2) > 0) == []
    assert mapped.retirement.credit.values[0] == ONCE


def along_a_wall(mapper: LocalMapper, across: float) -> Mapped:
    """After a keyframe whose beam runs within the voxels of a wall, and leaves it in the middle of one."""
    settings = config.replace(config.Slam(), {"retirement.across": across})
    mapped, x = Mapped(mapper, settings), np.arange(1.0, 5.0, 0.02)
    mapped.see(poses.IDENTITY, np.column_stack([x, np.full_like(x, 0.15), np.zeros_like(x)]))
    assert (np.linalg.norm(mapped.voxels.normal.values, axis=1) > 0.9).mean() > 0.8
    looks(mapped, np.array([[7.0, 0.413, 0.0]]))
    return mapped


def test_beams_along_a_wall_do_not_wear_it_away(mapper: LocalMapper) -> None:
    known = along_a_wall(mapper, config.Retirement().across)
    flat = np.linalg.norm(known.voxels.normal.values, axis=1) > 0.9
    assert_array_equal(known.retirement.credit.values[flat], ONCE)
    assert along_a_wall(mapper, 0.0).retirement.credit.values[flat].min() < ONCE


def test_a_wall_that_is_driven_past_is_not_looked_through(mapped: Mapped) -> None:
    """In a corridor with pillars, by scans with noise from poses that are off by a few centimetres."""
    rng = np.random.default_rng(1)
    for x in np.arange(-6.0, 6.0, 0.25):
        truth = poses.from_planar(x, 0.3, 0.02)
        cloud = scan.thin(
            worlds.scan(worlds.pillared_corridor(4.0), truth, noise=0.01, seed=int(40 * x) + 1000), 0.05, 256
        )
        mapped.see(poses.compose(truth, poses.from_planar(*rng.normal(0.0, [0.02, 0.02, 0.003]))), cloud)
        assert not len(mapped.look(cloud))
    assert mapped.voxels.living > 100
    assert mapped.retirement.credit.values.min() >= ONCE - 1


def test_a_person_goes_and_the_room_stays(mapped: Mapped) -> None:
    """Who walks through a room is forgotten behind them, and a box that is taken away; of the room nothing is."""
    lap = worlds.drive([(-2.0, 1.5), (-1.0, -2.0), (2.5, -1.0), (0.5, 1.5)] * 2, step=0.25, turn=0.25)
    box, from_wall = np.array([0.3, 0.0]), {}
    for number, pose in enumerate(lap):
        walker = np.array([-2.8 + 0.06 * number, -0.6 + 0.5 * np.sin(0.15 * number)])
        things = [worlds.box(*walker, 0.3, 0.25), *([worlds.box(*box, 0.5, 0.5)] if number < len(lap) // 2 else [])]
        cloud = scan.thin(worlds.scan(np.vstack([worlds.room(), *things]), pose, noise=0.01, seed=number), 0.05, 256)
        seen = mapped.see(pose, cloud)
        from_wall |= dict(zip(seen.voxels.tolist(), to_walls(seen.means), strict=True))
        for voxel in mapped.look(cloud, window=4).tolist():
            assert from_wall[voxel] > mapped.size, (number, voxel)
    moved = {voxel for voxel, distance in from_wall.items() if distance > mapped.size}
    left = set(np.flatnonzero(mapped.voxels.counts.values).tolist())
    assert len(moved) > 20
    assert len(moved & left) < 0.15 * len(moved)
    assert len(left - moved) > 150
    assert mapped.sightings.counts["voxels_retired"] == len(moved - left)


def to_walls(points: Array) -> list[float]:
    """Distances (n,) from ``points`` (n, 3) to the nearest wall of the room."""
    walls = worlds.room()
    start, along = walls[:, :2], walls[:, 2:] - walls[:, :2]
    apart = points[:, None, :2] - start
    share = np.clip((apart * along).sum(axis=2) / (along**2).sum(axis=1), 0.0, 1.0)
    distances: list[float] = np.linalg.norm(apart - share[..., None] * along, axis=2).min(axis=1).tolist()
    return distances


def test_in_space(spatial: LocalMapper, settings: config.Slam) -> None:
    """A beam through it, and not over it; and a floor is not worn away by those that skim it."""
    mapped = Mapped(spatial, settings)
    mapped.see(poses.IDENTITY, post(3.15, 0.15, 0.45))
    over = np.array([[6.3, 0.3, 1.5]])
    assert looks(mapped, over, MOST) == []
    assert mapped.retirement.credit.values[0] == ONCE
    assert looks(mapped, np.array([[6.3, 0.3, 0.9]]), ONCE) == [0]
    x, y = (each.ravel() for each in np.meshgrid(np.arange(1.5, 6.0, 0.05), np.arange(-0.6, 0.6, 0.05)))
    floor = mapped.see(poses.IDENTITY, np.column_stack([x, y, np.full_like(x, -0.45)])).voxels
    skimming = np.array([[20.0, y, -1.5] for y in np.arange(-2.0, 2.0, 0.1)])
    looks(mapped, skimming)
    flat = np.linalg.norm(mapped.voxels.normal.values[floor], axis=1) > 0.9
    assert flat.sum() > 20
    assert_array_equal(mapped.retirement.credit.values[floor[flat]], ONCE)


def test_what_the_window_has_waits_until_it_is_out_of_it(mapped: Mapped) -> None:
    mapped.see(poses.IDENTITY, POST)
    mapped.see(poses.IDENTITY, post(3.15, 3.15))
    for key in range(2, 10):
        assert looks(mapped, THROUGH, window=10) == [], key
    assert looks(mapped, np.zeros((0, 3)), window=10) == [0]  # by a keyframe that looks elsewhere


def test_what_is_seen_again_while_it_waits_stays(mapped: Mapped) -> None:
    mapped.see(poses.IDENTITY, POST)
    looks(mapped, THROUGH, ONCE, window=20)
    assert mapped.retirement.credit.values[0] == 0
    looks(mapped, POST, 2, window=20)
    assert looks(mapped, np.zeros((0, 3)), 20, window=20) == []
    assert mapped.voxels.living == 1


def test_voxels_that_are_merged_have_the_best_credit_of_all(mapped: Mapped) -> None:
    drifted = poses.from_planar(10 * mapped.size, 0.0, 0.0)
    mapped.see(poses.IDENTITY, POST)
    looks(mapped, THROUGH, ONCE - 1)
    mapped.world.add_pose(drifted)
    key = len(mapped.world.poses)
    mapped.see(drifted, POST)
    mapped.look(POST)
    assert mapped.retirement.credit.values.tolist() == [1, ONCE + AGAIN]
    mapped.move([key], poses.inverse(drifted))
    mapped.regroup()
    assert mapped.voxels.living == 1
    assert mapped.retirement.credit.values[0] == ONCE + AGAIN
    # And what is split off begins anew where nobody had credit.
    mapped.move([key], drifted)
    mapped.regroup()
    assert mapped.voxels.living == 2
    assert mapped.retirement.credit.values[-1] >= ONCE


def test_state_is_all_there_is(mapped: Mapped) -> None:
    mapped.see(poses.IDENTITY, np.concatenate([POST, post(3.15, 3.15)]))
    looks(mapped, THROUGH, ONCE, window=20)
    state = mapped.retirement.state()
    other = Retirement(mapped.settings.retirement, mapped.voxels)
    other.restore(state)
    mapped.world.add_pose(poses.IDENTITY)
    around = mapped.world.voxel_view, mapped.world.poses, np.ones(ONCE + 2, np.bool_), ONCE + 1
    gone = [one.look(THROUGH, np.zeros(3), *around).tolist() for one in (mapped.retirement, other)]
    assert gone == [[0], [0]]
    assert_array_equal(other.credit.values, mapped.retirement.credit.values)
    for wrong in ({"credit": state["credit"][:1]}, {"waiting": np.array([7])}, {"waiting": np.array([-1])}):
        with pytest.raises(ValueError, match="other voxels"):
            Retirement(mapped.settings.retirement, mapped.voxels).restore(state | wrong)


def test_a_state_is_whole_where_nobody_has_looked_yet(mapped: Mapped) -> None:
    mapped.see(poses.IDENTITY, POST)
    other = Retirement(mapped.settings.retirement, mapped.voxels)
    other.restore(mapped.retirement.state())
    assert_array_equal(other.credit.values, mapped.settings.retirement.once)
