"""What places look like: the same from any heading, others not."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.mapping.looks import LEAST_CELLS, REACH, RINGS, SECTORS, Looks, seen_from

Array = NDArray[np.float64]


def looks_at(walls: Array, x: float, y: float, yaw: float) -> NDArray[np.float32]:
    """All around: the scanner sees half of it, and is turned."""
    here, round_ = poses.from_planar(x, y, yaw), poses.from_planar(0.0, 0.0, np.pi)
    behind = poses.transform(round_, worlds.scan(walls, poses.compose(here, round_), noise=0.01))
    return seen_from(np.vstack([worlds.scan(walls, here, noise=0.01), behind])[:, :2])


def test_points_fall_into_rings_and_sectors() -> None:
    seen = seen_from(np.array([[0.5, 0.01], [0.0, 3.2], [-REACH + 0.1, -0.1], [REACH + 1.0, 0.0]]))
    assert seen.shape == (RINGS, SECTORS)
    assert np.argwhere(seen).tolist() == [[0, 0], [3, SECTORS // 4], [RINGS - 1, SECTORS // 2]]


@pytest.mark.parametrize("turn", [-2.6, -1.2, 0.0, 0.7, 3.0])
def test_a_place_is_found_from_any_heading(turn: float) -> None:
    walls, looks = worlds.cluttered_block(), Looks()
    places = [(-6.0, -4.75), (0.0, -4.75), (6.75, -2.0), (6.75, 3.0), (0.0, 4.75), (-6.75, 0.0)]
    for number, (x, y) in enumerate(places):
        looks.add(10 * number, looks_at(walls, x, y, 0.3 * number))
    for number, (x, y) in enumerate(places):
        found = looks.alike(looks_at(walls, x + 0.1, y - 0.1, 0.3 * number + turn), np.ones(60, bool))
        assert found[0].keyframe == 10 * number
        assert abs(np.angle(np.exp(1j * (found[0].yaw - turn)))) < 2 * np.pi / SECTORS
        assert found[0].distance < 0.3
        assert [each.distance for each in found] == sorted(each.distance for each in found)


def test_only_those_asked_for_are_looked_at() -> None:
    looks, seen = Looks(), looks_at(worlds.room(), 0.0, 0.0, 0.0)
    looks.add(3, seen)
    looks.add(7, seen)
    among = np.arange(9) == 7
    assert [each.keyframe for each in looks.alike(seen, among)] == [7]
    assert looks.alike(seen, np.zeros(9, bool)) == []


def test_what_sees_hardly_anything_has_no_looks() -> None:
    looks, few = Looks(), seen_from(np.column_stack([np.linspace(1, 12, LEAST_CELLS - 1), np.zeros(LEAST_CELLS - 1)]))
    looks.add(0, few)
    assert len(looks.state()["keyframes"]) == 0
    looks.add(1, looks_at(worlds.room(), 0.0, 0.0, 0.0))
    assert looks.alike(few, np.ones(2, bool)) == []
    assert looks.alike(np.zeros((RINGS, SECTORS), np.float32), np.ones(2, bool)) == []


def test_they_are_kept() -> None:
    one, other = Looks(), Looks()
    for keyframe in range(5):
        one.add(keyframe, looks_at(worlds.block(), -6.0 + keyframe, -4.75, 0.0))
    other.restore(one.state())
    seen = looks_at(worlds.block(), -4.0, -4.75, 1.0)
    assert one.alike(seen, np.ones(5, bool)) == other.alike(seen, np.ones(5, bool))
