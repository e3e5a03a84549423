"""What a sensor_msgs/NavSatFix says, checked, and as metres east, north and up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dsg_ros.geodesy import LocalFrame, ecef
from dsg_ros.interface import ReferencePosition
from dsg_ros.io.records import MalformedMessage
from dsg_ros.throttle import Say

Vector = NDArray[np.float64]

NAVSAT = "sensor_msgs/msg/NavSatFix"
UNKNOWN = 0
"""COVARIANCE_TYPE_UNKNOWN."""
FARTHEST, IN_A_ROW = 10_000.0, 5
"""Metres from its origin at which a frame ends, and fixes beyond that are believed."""


class NavSatStatus(Protocol):
    """sensor_msgs/NavSatStatus, of rclpy or of the bag library."""

    status: int


class NavSatFix(Protocol):
    """sensor_msgs/NavSatFix, likewise."""

    status: NavSatStatus
    latitude: float
    longitude: float
    altitude: float
    position_covariance: Sequence[float] | NDArray[np.float64]
    position_covariance_type: int


class AntennaFix(NamedTuple):
    """``geodetic`` (3,): latitude, longitude [deg] and height [m]; ``covariance`` (3, 3) of east, north and up [m^2],
    all zero where it is not known.
    """

    stamp: int
    geodetic: Vector
    covariance: Vector


class NoPosition(ValueError):
    """A fix that tells no place to learn from, counted under its ``cause``: no_fix, no_position or far."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


def antenna_fix(stamp: int, message: NavSatFix) -> AntennaFix:
    """What a ``message`` stamped ``stamp`` [ns] tells.

    `NoPosition` where it says itself that it has no fix, and for latitude and longitude zero, which is what drivers
    send that have none and do not say so; `MalformedMessage` for a latitude or longitude that is none.  A height that
    is not told is taken as zero: 1 km of it is 0.02 % of a distance in the plane.
    """
    if message.status.status < 0:
        raise NoPosition("no_fix", "the receiver has no fix")
    latitude, longitude, height = float(message.latitude), float(message.longitude), float(message.altitude)
    if not (abs(latitude) <= 90.0 and abs(longitude) <= 360.0):
        raise MalformedMessage(f"latitude {latitude!r}, longitude {longitude!r}: expected degrees, up to 90 and 360")
    if latitude == longitude == 0.0:
        raise NoPosition("no_position", "latitude and longitude are exactly zero: the receiver has no position")
    told = np.asarray(message.position_covariance, float).reshape(3, 3)
    if message.position_covariance_type == UNKNOWN or not np.isfinite(told).all():
        told = np.zeros((3, 3))
    height = height if abs(height) < 1e5 else 0.0
    return AntennaFix(stamp, np.array([latitude, longitude, height]), told)


class Anchor:
    """The frame of fixes: metres east, north and up of the first one.

    The first may be wrong, and a plane fits the earth around its origin alone: once `IN_A_ROW` fixes are farther away
    than `FARTHEST`, all near each other, the newest of them is the origin.  Positions before are then of another frame.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._around: LocalFrame | None = None
        self._origin: tuple[float, ...] = ()
        self._far: list[Vector] = []

    def position(self, fix: AntennaFix, antenna: Vector) -> ReferencePosition:
        """The fix as a position; ``antenna`` (3,) is in the base.  `NoPosition` where it is far, not yet believed."""
        around = self._around or self._anchored(fix.geodetic)
        enu = around.enu(fix.geodetic)
        away = float(np.linalg.norm(enu))
        if away <= FARTHEST:
            self._far.clear()
        else:
            enu = self._anew(fix.geodetic, away).enu(fix.geodetic)
        return ReferencePosition(fix.stamp, enu, fix.covariance, np.asarray(antenna, float), self._origin)

    def _anew(self, geodetic: Vector, away: float) -> LocalFrame:
        if self._far and np.linalg.norm(ecef(geodetic) - ecef(self._far[0])) > FARTHEST:
            self._far.clear()
        self._far.append(geodetic)
        if len(self._far) < IN_A_ROW:
            raise NoPosition(
                "far", f"it is {away / 1e3:.0f} km from where fixes began; believed are {IN_A_ROW} in a row"
            )
        self._say("warning", f"reference: fixes are {away / 1e3:.0f} km from where they began: their frame begins anew")
        return self._anchored(geodetic)

    def _anchored(self, geodetic: Vector) -> LocalFrame:
        self._around, self._origin = LocalFrame(geodetic), tuple(geodetic.tolist())
        self._far.clear()
        return self._around
