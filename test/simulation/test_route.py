"""Where the simulated robot is when."""

from __future__ import annotations

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.simulation.route import Route, Schedule, level

SQUARE = ((0.0, 0.0), (10.0, 0.0), (10.0, 6.0), (0.0, 6.0))


def test_a_rounded_rectangle_has_the_length_of_its_sides_and_arcs() -> None:
    route = Route(SQUARE, 1.0, level, 0.5)
    assert route.length == pytest.approx(2 * (8 + 4) + 2 * np.pi)
    np.testing.assert_allclose(route.at(np.array([0.0])), poses.from_planar([1.0], [0.0], [0.0]), atol=1e-12)
    # Half of the first arc.
    half = poses.from_planar([9 + np.sin(np.pi / 4)], [1 - np.cos(np.pi / 4)], [np.pi / 4])
    np.testing.assert_allclose(route.at(np.array([8 + np.pi / 4])), half, atol=1e-12)


@pytest.mark.parametrize("corners", [SQUARE, SQUARE[::-1], ((0, 0), (8, 1), (3, 3), (9, 7), (-1, 5))])
def test_it_moves_forwards_at_unit_speed_without_jumps(corners: tuple[tuple[float, float], ...]) -> None:
    route, step = Route(corners, 0.6, level, 0.5), 1e-3
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
        Route(SQUARE, 4.0, level, 0.5)


def test_an_open_way_leads_from_its_first_corner_to_its_last() -> None:
    route = Route(((0, 0), (4, 0), (4, 3)), 1.0, closed=False)
    assert route.length == pytest.approx(3 + 0.5 * np.pi + 2)
    ends = route.at(np.array([-1.0, 0.0, route.length, route.length + 5]))
    np.testing.assert_allclose(ends[:2], [poses.IDENTITY] * 2, atol=1e-12)
    np.testing.assert_allclose(ends[2:], [poses.from_planar(4, 3, np.pi / 2)] * 2, atol=1e-12)
    straight = Route(((0, 0), (5, 0)), 1.0, closed=False)
    assert straight.length == 5.0
    assert not straight.curvature(np.linspace(0, 5, 9)).any()


def test_curvature_is_the_turn_of_a_metre() -> None:
    route = Route(((0, 0), (8, 1), (3, 3), (9, 7), (-1, 5)), 0.6)
    travelled = np.linspace(0.0, route.length, 5001)
    places = route.at(travelled)
    turned = poses.yaw(poses.between(places[:-1], places[1:])) / np.diff(travelled)
    told = route.curvature(0.5 * (travelled[:-1] + travelled[1:]))
    assert np.median(np.abs(turned - told)) < 1e-9
    assert (np.abs(turned - told) > 1e-6).sum() <= 20, "only where an arc begins or ends"


@pytest.mark.parametrize(("distance", "speed"), [(20.0, 1.5), (0.5, 1.5), (0.003, 1.5)])
def test_the_schedule_starts_and_ends_standing(distance: float, speed: float) -> None:
    straight = Route(((0, 0), (100, 0)), 1.0, closed=False)
    schedule = Schedule(straight, distance, speed, 1.0, 0.5)
    times = np.linspace(-1.0, schedule.duration + 1.0, 20001)
    travelled = schedule.travelled(times)
    assert (travelled[0], travelled[-1]) == (0.0, pytest.approx(distance))
    rate = np.diff(travelled) / np.diff(times)
    assert rate.min() >= 0.0
    assert rate.max() <= speed * 1.001
    assert np.abs(np.diff(rate)).max() <= 0.5 * (times[1] - times[0]) * 1.01
    # As fast as that allows: up to the speed, or braking halfway.
    top = min(speed, np.sqrt(0.5 * distance))
    assert schedule.duration == pytest.approx(distance / top + top / 0.5, rel=0.02)


def test_it_slows_down_before_it_turns_and_speeds_up_behind() -> None:
    route = Route(SQUARE, 0.5)
    schedule = Schedule(route, route.length, 1.0, 0.8, 0.5)
    times = np.linspace(0.0, schedule.duration, 20001)
    travelled = schedule.travelled(times)
    rate = np.diff(travelled) / np.diff(times)
    turning = route.curvature(travelled[1:]) > 0
    assert rate[turning].max() == pytest.approx(0.4, rel=0.05)
    assert rate.max() == pytest.approx(1.0, rel=1e-3)
    assert np.abs(np.diff(rate)).max() / (times[1] - times[0]) < 0.51
