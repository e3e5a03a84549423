"""Distances along rays, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.simulation.building import CEILING, building, ground, way
from dsg_ros.simulation.scene import box, ranges, scene, turned_box

RNG = np.random.default_rng(0)


def directions(count: int) -> np.ndarray:
    drawn = RNG.standard_normal((count, 3))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_a_room_is_seen_from_within() -> None:
    size = np.array([6.0, 4.0, 2.6])
    origin, rays = np.array([0.7, -0.4, 1.1]), directions(2000)
    # The wall that a ray meets first is the nearest of those it heads for, one in x, one in y, one in z.
    wanted = ((np.where(rays > 0, size / 2, -size / 2) - (origin - [0, 0, 1.3])) / rays).min(axis=1)
    found = ranges(scene([box((-3, -2, 0), (3, 2, 2.6))]), np.tile(origin, (len(rays), 1)), rays)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_turned_box_is_the_box_seen_from_the_other_side() -> None:
    pose = poses.compose(poses.from_planar(4.0, 1.0, 0.6), poses.exp(np.array([0, 0, 0, 0.3, -0.2, 0.0])))
    origins = RNG.uniform(-1, 1, (500, 3))
    targets = poses.transform(pose, RNG.uniform(-0.6, 0.6, (500, 3)))
    rays = targets - origins
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    back = poses.inverse(pose)
    upright = scene([box((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))])
    wanted = ranges(upright, poses.transform(back, origins), poses.rotate(np.tile(back[3:], (500, 1)), rays))
    found = ranges(scene([turned_box(pose, (1, 1, 1))]), origins, rays)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert 0 < np.isinf(wanted).sum() < 500, "some miss it, some do not"


def test_a_pillar_is_round_and_ends() -> None:
    pillars = scene([], [(3.0, 0.0, 0.5, 0.0, 2.0)])
    origins = np.tile([0.0, 0.0, 1.0], (5, 1))
    slope = np.array([[1, 0, 0], [1, 0, 0.3], [1, 0, 0.5], [np.cos(0.1), np.sin(0.1), 0], [0.0, 0, 1]])
    rays = slope / np.linalg.norm(slope, axis=1, keepdims=True)
    chord = 3 * np.cos(0.1) - np.sqrt(0.25 - (3 * np.sin(0.1)) ** 2)
    # Straight on; higher up, still on it; over its top; beside its middle; upwards.
    np.testing.assert_allclose(ranges(pillars, origins, rays), [2.5, 2.5 * np.hypot(1, 0.3), np.inf, chord, np.inf])


def test_the_nearest_counts_and_what_is_behind_does_not() -> None:
    solids = scene([box((2, -1, -1), (3, 1, 1)), box((5, -1, -1), (6, 1, 1))], [(-2.0, 0.0, 0.5, -1.0, 1.0)])
    rays = np.array([[1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0]])
    np.testing.assert_allclose(ranges(solids, np.zeros((3, 3)), rays), [2.0, 1.5, np.inf])


def test_the_building_is_closed_and_its_way_is_free() -> None:
    """From everywhere on the way something is seen in every direction, the floor where it is, nothing too close."""
    solids = building(3)
    places = way().at(np.linspace(0.0, way().length, 400, endpoint=False))
    eyes = places[:, :3] + [0.0, 0.0, 0.7]
    rays = directions(400 * 50)
    found = ranges(solids, np.repeat(eyes, 50, axis=0), rays)
    assert np.isfinite(found).all()
    assert found.min() > 0.3
    down = ranges(solids, eyes, np.tile([0.0, 0.0, -1.0], (400, 1)))
    # The axles stand on the floor; between them, where it bends, a centimetre of air is allowed.
    np.testing.assert_allclose(eyes[:, 2] - down, ground(eyes[:, 0]), atol=1e-9)
    assert np.abs(down - 0.7).max() < 0.01
    up = ranges(solids, eyes, np.tile([0.0, 0.0, 1.0], (400, 1)))
    np.testing.assert_allclose((eyes[:, 2] + up)[eyes[:, 0] > 16.5], CEILING)


def test_furniture_is_drawn_by_seed() -> None:
    one, same, other = building(1), building(1), building(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert len(one.centres) != len(other.centres) or not np.array_equal(one.centres, other.centres)


@pytest.mark.parametrize("count", [0, 3])
def test_rays_may_be_few_and_solids_none(count: int) -> None:
    assert ranges(scene([]), np.zeros((count, 3)), directions(count)).tolist() == [np.inf] * count
