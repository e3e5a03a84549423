"""Where the simulated robot is when."""

from __future__ import annotations

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.simulation.route import Route, Schedule

SQUARE = ((0.0, 0.0), (10.0, 0.0), (10.0, 6.0), (0.0, 6.0))


def flat(x: np.ndarray) -> np.ndarray:
    return np.zeros_like(x)


def test_a_rounded_rectangle_has_the_length_of_its_sides_and_arcs() -> None:
    route = Route(SQUARE, 1.0, flat, 0.5)
    assert route.length == pytest.approx(2 * (8 + 4) + 2 * np.pi)
    np.testing.assert_allclose(route.at(np.array([0.0])), poses.from_planar([1.0], [0.0], [0.0]), atol=1e-12)
    # Half of the first arc.
    half = poses.from_planar([9 + np.sin(np.pi / 4)], [1 - np.cos(np.pi / 4)], [np.pi / 4])
    np.testing.assert_allclose(route.at(np.array([8 + np.pi / 4])), half, atol=1e-12)


@pytest.mark.parametrize("corners", [SQUARE, SQUARE[::-1], ((0, 0), (8, 1), (3, 3), (9, 7), (-1, 5))])
def test_it_moves_forwards_at_unit_speed_without_jumps(corners: tuple[tuple[float, float], ...]) -> None:
    route, step = Route(corners, 0.6, flat, 0.5), 1e-3
    places = route.at(np.arange(0.0, 2 * route.length, step))
    moved = poses.between(places[:-1], places[1:])
    np.testing.assert_allclose(np.linalg.norm(moved[:, :3], axis=1), step, rtol=1e-6)
    assert np.abs(moved[:, 1]).max() < 1e-6, "never sideways"
    assert np.abs(poses.yaw(moved)).max() < 1.01 * step / 0.6


def test_both_axles_stand_on_the_ground() -> None:
    def ramp(x: np.ndarray) -> np.ndarray:
        return 0.1 * np.clip(x - 3.0, 0.0, 4.0)

    places = Route(SQUARE, 1.0, ramp, 0.5).at(np.linspace(0, 30, 300))
    for axle in (-0.25, 0.25):
        at = poses.transform(places, np.tile([axle, 0.0, 0.0], (300, 1)))
        # Along the slope the wheelbase is a little longer than in the plane.
        np.testing.assert_allclose(at[:, 2], ramp(at[:, 0]), atol=2e-4)


def test_arcs_must_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Route(SQUARE, 4.0, flat, 0.5)


@pytest.mark.parametrize(("distance", "speed"), [(20.0, 1.5), (0.5, 1.5)])
def test_the_schedule_starts_and_ends_standing(distance: float, speed: float) -> None:
    schedule = Schedule(distance, speed, 0.5)
    times = np.linspace(-1.0, schedule.duration + 1.0, 20001)
    travelled = schedule.travelled(times)
    assert (travelled[0], travelled[-1]) == (0.0, pytest.approx(distance))
    rate = np.diff(travelled) / np.diff(times)
    assert rate.min() >= 0.0
    assert rate.max() <= speed * 1.001
    assert np.abs(np.diff(rate)).max() <= 0.5 * (times[1] - times[0]) * 1.01
