"""What a sensor_msgs/NavSatFix says, checked, and as metres east, north and up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dsg_ros.geodesy import LocalFrame
from dsg_ros.interface import ReferencePosition
from dsg_ros.io.records import MalformedMessage

Vector = NDArray[np.float64]

NAVSAT = "sensor_msgs/msg/NavSatFix"
UNKNOWN = 0
"""COVARIANCE_TYPE_UNKNOWN."""


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


def antenna_fix(stamp: int, message: NavSatFix) -> AntennaFix | None:
    """What a ``message`` stamped ``stamp`` [ns] tells; None where it says itself that it has no fix.

    `MalformedMessage` for a latitude or longitude that is none.  A height that is not told is taken as zero: 1 km of it
    is 0.02 % of a distance in the plane.
    """
    if message.status.status < 0:
        return None
    latitude, longitude, height = float(message.latitude), float(message.longitude), float(message.altitude)
    if not (abs(latitude) <= 90.0 and abs(longitude) <= 360.0):
        raise MalformedMessage(f"latitude {latitude!r}, longitude {longitude!r}: expected degrees, up to 90 and 360")
    told = np.asarray(message.position_covariance, float).reshape(3, 3)
    if message.position_covariance_type == UNKNOWN or not np.isfinite(told).all():
        told = np.zeros((3, 3))
    height = height if abs(height) < 1e5 else 0.0
    return AntennaFix(stamp, np.array([latitude, longitude, height]), told)


def local(fix: AntennaFix, around: LocalFrame, antenna: Vector) -> ReferencePosition:
    """The fix as a position in the frame ``around`` its first one; ``antenna`` (3,) is in the base."""
    return ReferencePosition(fix.stamp, around.enu(fix.geodetic), fix.covariance, np.asarray(antenna, float))
