"""What a log holds, whatever its format: plain records in SI units, stamps in int nanoseconds, poses as
`dsg_ros.poses`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class MalformedMessage(ValueError):
    """A sensor message contradicts itself; the text says which field and what was expected."""


@dataclass(frozen=True, slots=True)
class OdometryRecord:
    """Pose (7,) of ``child_frame`` in ``frame``; ``twist`` (6,) [linear, angular] in ``child_frame``; ``covariance``
    (6, 6) of the pose in the axes of ``frame``, as nav_msgs/Odometry has it.  None where the log does not say.
    """

    stamp: int
    pose: NDArray[np.float64]
    frame: str = "odom"
    child_frame: str = "base_link"
    twist: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    topic: str = ""


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """One planar scan: ``ranges`` (n,) float32 [m], beam i at ``angle_min + i * angle_increment`` [rad].

    No return is +inf (REP-117).  ``base_from_sensor`` (7,) is None where the log does not say it.
    """

    stamp: int
    ranges: NDArray[np.float32]
    angle_min: float
    angle_increment: float
    range_min: float
    range_max: float
    time_increment: float = 0.0
    frame: str = "laser"
    base_from_sensor: NDArray[np.float64] | None = None
    topic: str = ""


@dataclass(frozen=True, slots=True)
class CloudRecord:
    """One point cloud: ``points`` (n, 3) float32 [m] in ``frame``, ``times`` (n,) float32 [s] after ``stamp`` or None.

    ``dropped`` counts the points left out by cause.
    """

    stamp: int
    points: NDArray[np.float32]
    times: NDArray[np.float32] | None = None
    frame: str = "lidar"
    base_from_sensor: NDArray[np.float64] | None = None
    topic: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FixRecord:
    """A satellite receiver's fix: ``geodetic`` (3,) latitude, longitude [deg] and height [m] of its antenna, which is
    at ``base_from_antenna`` (7,), with ``deviations`` (3,) [m] east, north and up.
    """

    stamp: int
    geodetic: NDArray[np.float64]
    deviations: NDArray[np.float64]
    base_from_antenna: NDArray[np.float64]
    frame: str = "gps"


Record = OdometryRecord | ScanRecord | CloudRecord


@dataclass(frozen=True, slots=True)
class PointSet:
    """Points (n, 3) float32 of one message, ``times`` (n,) float32 [s] after its stamp or None, and what was left
    out.
    """

    points: NDArray[np.float32]
    times: NDArray[np.float32] | None
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Topics:
    """Which topics of a bag to read; "" is the first of its type.

    Naming scan or points leaves out the other one; so does ``one_kind`` where neither is named: a map is of scans or of
    clouds, and where there are both it is of scans.  ``base_frame`` is the base's where no odometry names it; "" what
    is called one above the sensor (`dsg_ros.base_name`).
    """

    odom: str = ""
    scan: str = ""
    points: str = ""
    one_kind: bool = False
    base_frame: str = ""


class Contents(NamedTuple):
    """What a log holds: whether all its scans are ``clouds`` of points, and whether it tells any ``odometry``."""

    clouds: bool
    odometry: bool


class Log(Protocol):
    """A recorded run.  Iterating yields its records, in file order for text logs, in bag-time order for bags.

    ``len`` is the number of scans and clouds that iterating is going to yield, for progress (an upper bound where
    lines or messages are damaged).  ``counts`` says what the latest iteration met: ignored, malformed, unreadable.
    ``paired``: each scan directly follows its own odometry record of the same stamp, and stamps may run backwards.
    ``tells_odometry``: it has any at all.
    """

    @property
    def name(self) -> str: ...

    @property
    def paired(self) -> bool: ...

    @property
    def tells_odometry(self) -> bool: ...

    @property
    def counts(self) -> dict[str, int]: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Record]: ...
