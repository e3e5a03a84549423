"""From latitude, longitude and height to metres east, north and up of a place, on the ellipsoid WGS 84."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

SEMI_MAJOR, FLATTENING = 6_378_137.0, 1.0 / 298.257_223_563
"""Defining constants of WGS 84 (NGA.STND.0036, "Department of Defense World Geodetic System 1984", 2014, table 3.1)."""
_ECCENTRICITY_SQUARED = FLATTENING * (2.0 - FLATTENING)


def ecef(geodetic: ArrayLike) -> Array:
    """Earth-centred, earth-fixed positions (..., 3) [m] of ``geodetic`` (..., 3): latitude and longitude [deg], height
    above the ellipsoid [m] (the same standard, section 4.4, a closed form).
    """
    told = np.asarray(geodetic, np.float64)
    latitude, longitude, height = np.radians(told[..., 0]), np.radians(told[..., 1]), told[..., 2]
    # Radius of curvature in the prime vertical.
    normal = SEMI_MAJOR / np.sqrt(1.0 - _ECCENTRICITY_SQUARED * np.sin(latitude) ** 2)
    across = (normal + height) * np.cos(latitude)
    along = (normal * (1.0 - _ECCENTRICITY_SQUARED) + height) * np.sin(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), along], axis=-1)


class LocalFrame:
    """East, north and up [m] of ``origin`` (3,), geodetic as `ecef` takes it: a plane that touches the ellipsoid, from
    which the ground falls off by 8 cm within a kilometre, in height alone.
    """

    def __init__(self, origin: ArrayLike) -> None:
        latitude, longitude, _ = np.radians(np.asarray(origin, np.float64))
        self._centre = ecef(origin)
        sin, cos = np.sin, np.cos
        self._axes = np.array(
            [
                [-sin(longitude), cos(longitude), 0.0],
                [-sin(latitude) * cos(longitude), -sin(latitude) * sin(longitude), cos(latitude)],
                [cos(latitude) * cos(longitude), cos(latitude) * sin(longitude), sin(latitude)],
            ]
        )

    def enu(self, geodetic: ArrayLike) -> Array:
        """Positions (..., 3) [m] east, north and up of the origin of ``geodetic`` (..., 3)."""
        return np.asarray((ecef(geodetic) - self._centre) @ self._axes.T)

    def geodetic(self, enu: ArrayLike) -> Array:
        """Inverse of `enu`: latitude and longitude [deg] and height [m] (..., 3), by fixed-point iteration, which ends
        below a micrometre within 100 km of the ellipsoid (Hofmann-Wellenhof et al., "GNSS", 2008, section 8.2.1).
        """
        x, y, z = np.moveaxis(np.asarray(enu, np.float64) @ self._axes + self._centre, -1, 0)
        across = np.hypot(x, y)
        latitude = np.arctan2(z, across * (1.0 - _ECCENTRICITY_SQUARED))
        for _ in range(8):
            sin = np.sin(latitude)
            normal = SEMI_MAJOR / np.sqrt(1.0 - _ECCENTRICITY_SQUARED * sin**2)
            latitude = np.arctan2(z + _ECCENTRICITY_SQUARED * normal * sin, across)
        sin, cos = np.sin(latitude), np.cos(latitude)
        # A form of the height that divides by nothing, at the poles and at the equator alike.
        height = across * cos + z * sin - SEMI_MAJOR * np.sqrt(1.0 - _ECCENTRICITY_SQUARED * sin**2)
        return np.stack([np.degrees(latitude), np.degrees(np.arctan2(y, x)), height], axis=-1)
