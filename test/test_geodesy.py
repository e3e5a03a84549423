"""From latitude, longitude and height to metres: numbers that are known, and there and back."""

from __future__ import annotations

import numpy as np
import pytest

from dsg_ros.geodesy import FLATTENING, SEMI_MAJOR, LocalFrame, ecef

SEMI_MINOR = 6_356_752.314_245
"""Of WGS 84, as its standard lists it [m]."""
SECOND = 1.0 / 3600.0


def test_poles_and_equator_are_where_the_axes_end() -> None:
    found = ecef([[0.0, 0.0, 0.0], [0.0, 90.0, 10.0], [90.0, 45.0, 0.0], [-90.0, 0.0, 1.0]])
    known = [[SEMI_MAJOR, 0, 0], [0, SEMI_MAJOR + 10, 0], [0, 0, SEMI_MINOR], [0, 0, -SEMI_MINOR - 1]]
    np.testing.assert_allclose(found, known, atol=2e-6)


def test_a_place_between_is_where_others_have_it() -> None:
    """The example of pymap3d's own tests, which hold it to MATLAB's Mapping Toolbox."""
    np.testing.assert_allclose(ecef([42.0, -82.0, 200.0]), [660675.2518247, -4700948.68316, 4245737.66222], atol=1e-4)


@pytest.mark.parametrize("latitude", [-60.0, 0.0, 45.0, 80.0])
def test_a_second_of_arc_is_as_long_as_the_radii_of_curvature_say(latitude: float) -> None:
    squared = FLATTENING * (2 - FLATTENING)
    root = np.sqrt(1 - squared * np.sin(np.radians(latitude)) ** 2)
    north, east = SEMI_MAJOR * (1 - squared) / root**3, SEMI_MAJOR / root * np.cos(np.radians(latitude))
    here = LocalFrame([latitude, 10.0, 0.0])
    np.testing.assert_allclose(
        here.enu([latitude + SECOND, 10.0, 0.0])[:2], [0.0, np.radians(SECOND) * north], atol=2e-4
    )
    np.testing.assert_allclose(
        here.enu([latitude, 10.0 + SECOND, 0.0])[:2], [np.radians(SECOND) * east, 0.0], atol=2e-3
    )
    np.testing.assert_allclose(here.enu([latitude, 10.0, 7.0]), [0.0, 0.0, 7.0], atol=1e-8)


@pytest.mark.parametrize("origin", [[0.0, 0.0, 0.0], [48.0, 11.0, 500.0], [-89.9, 170.0, 3000.0]])
def test_there_and_back(origin: list[float]) -> None:
    here = LocalFrame(origin)
    places = np.random.default_rng(0).uniform(-2000.0, 2000.0, (20, 3))
    np.testing.assert_allclose(here.enu(here.geodetic(places)), places, atol=1e-6)
