"""The flat worlds: what can be learned in them, and what cannot."""

from __future__ import annotations

import numpy as np
import pytest

from dsg_ros import config
from dsg_ros.errors import UserError
from dsg_ros.simulation import corridor, office
from dsg_ros.simulation.scene import ranges
from dsg_ros.simulation.worlds import USUAL_LAPS, World, world

LEVEL = np.linspace(-np.pi, np.pi, 72, endpoint=False)


def around(solids, places: np.ndarray, height: float) -> np.ndarray:
    """Distances (n, 72) in all level directions from ``places`` (n, 7)."""
    rays = np.stack([np.cos(LEVEL), np.sin(LEVEL), 0 * LEVEL], axis=1)
    eyes = np.repeat(places[:, :3] + [0.0, 0.0, height], len(LEVEL), axis=0)
    return ranges(solids, eyes, np.tile(rays, (len(places), 1))).reshape(len(places), -1)


@pytest.mark.parametrize("seed", range(5))
def test_the_office_is_closed_and_its_way_is_free(seed: int) -> None:
    way, solids = office.way(), office.office(seed)
    places = way.at(np.linspace(0.0, way.length, 500, endpoint=False))
    for height in (0.2, 0.7, 1.5):
        found = around(solids, places, height)
        assert np.isfinite(found).all()
        assert found.min() > 0.35
    down = ranges(solids, places[:, :3] + [0, 0, 1.0], np.tile([0.0, 0.0, -1.0], (500, 1)))
    np.testing.assert_allclose(down, 1.0)


def test_the_office_turns_both_ways_everywhere() -> None:
    way = office.way()
    assert way.length > 50.0
    travelled = np.linspace(0.0, way.length, 20001)
    turn = way.curvature(0.5 * (travelled[:-1] + travelled[1:])) * np.diff(travelled)
    left, right = turn[turn > 0].sum(), -turn[turn < 0].sum()
    assert min(left, right) > 15.0
    assert left == pytest.approx(right, rel=0.02)
    # Within any 20 m there is some of both.
    for part in np.array_split(turn, int(way.length / 20)):
        assert min(part[part > 0].sum(), -part[part < 0].sum()) > 0.5


def test_the_corridor_looks_the_same_all_along() -> None:
    way, solids = corridor.way(), corridor.corridor()
    found = around(solids, way.at(np.linspace(0.0, way.length, 20)), 0.7)
    reach = config.SimulatedScanner().max_range
    np.testing.assert_array_equal(found > reach, np.broadcast_to(found[0] > reach, found.shape))
    near = found[0] < reach
    np.testing.assert_allclose(found[:, near], found[:1, near].repeat(20, axis=0), atol=1e-9)


@pytest.mark.parametrize(("name", "sensor"), [("building", "lidar"), ("office", "scanner"), ("corridor", "scanner")])
def test_worlds_are_found_by_name_and_furnished_by_seed(name: str, sensor: str) -> None:
    places = [world(config.replace(config.Simulation(), {"world": name, "seed": seed})) for seed in (0, 0, 1)]
    assert places[0].sensor == sensor
    one, same, other = (place.scene for place in places)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert (name == "corridor") == all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_drive_is_as_long_as_told_where_the_way_is() -> None:
    around, along = (world(config.replace(config.Simulation(), {"world": name})) for name in ("office", "corridor"))
    assert (around.metres(200.0), along.metres(20.0)) == (200.0, 20.0)
    assert around.metres(0.0) == USUAL_LAPS * around.way.length
    assert along.metres(0.0) == 60.0
    with pytest.raises(UserError, match=r"drive\.metres: 61 m.*after 60 m"):
        along.metres(61.0)
    assert isinstance(around, World)
