"""The calibrated odometry of a single increment, for every scan, on the host: JAX's calls cost more than the work.

The linear map itself is that of `dsg_ros.core.factors.odometry`, evaluated once for each theta; a test compares the
two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors.odometry import linear_map
from dsg_ros.core.native import plain, se3
from dsg_ros.core.theta import Theta
from dsg_ros.interface import OdometryTrack

Vector = NDArray[np.float64]


class Moment(NamedTuple):
    """Raw ``odometry`` (7,) at the moment of a scan and the ``velocity`` (6,) there, taken ``offset`` [s] later than
    the scan is stamped.
    """

    odometry: Vector
    velocity: Vector
    offset: float


class IncrementModel:
    """Calibrated increment and its standard deviations under one theta."""

    def __init__(self, theta: Theta, noises: config.Odometry) -> None:
        rows = np.asarray(linear_map(theta))
        self._map = np.ascontiguousarray(rows[:6].T)
        self._bias = rows[6].copy()
        self._offset = float(theta.time_offset)
        self._neutral = not self._offset and bool((rows == np.eye(7, 6)).all())
        growth = np.exp(np.asarray(theta.odometry_noise)).tolist()
        self._translation = tuple(a * b for a, b in zip(noises.translation, growth[:3], strict=True))
        self._rotation = tuple(a * b for a, b in zip(noises.rotation, growth[3:], strict=True))

    def there(self, track: OdometryTrack, stamp: int, odometry: Vector) -> Vector:
        """Raw odometry (7,) at the moment of a scan stamped ``stamp`` [ns], which has it as ``odometry`` (7,) there."""
        return plain(track.beyond(self._shifted(stamp))) if self._offset else odometry

    def moment(self, track: OdometryTrack, stamp: int, there: Vector, sweep: int = 0) -> Moment:
        """The same with its velocity, for a scan from which increments begin and end: ``there`` (7,) is from `there`.

        The velocity is of samples that are a ``sweep`` [ns] away at least: by those within it the scan was
        straightened, and what their noise makes of the scan's pose would go with the velocity.  In simulation that
        took 2 ms from the time offset, whatever it was, with sweeps of 0.2 s.
        """
        return Moment(there, track.velocity(self._shifted(stamp), sweep), self._offset)

    def _shifted(self, stamp: int) -> int:
        return stamp + round(1e9 * self._offset)

    def corrected(self, track: OdometryTrack, stamp: int) -> OdometryTrack:
        """How the base really moved around the moment of a scan that is stamped ``stamp`` [ns]."""
        if len(track.stamps) == 1 or self._neutral:
            return track
        shift = round(1e9 * self._offset)
        origin = track.beyond(stamp + shift)
        # The time offset takes as much from one end of the track as it adds at the other.
        reach = abs(shift) + 1
        stamps = np.concatenate([[track.stamps[0] - reach], track.stamps, [track.stamps[-1] + reach]])
        told = np.stack([track.beyond(int(stamps[0])), *track.poses, track.beyond(int(stamps[-1]))])
        moved = poses.log(poses.between(origin, told)) @ self._map.T
        moved += self._bias * ((stamps - shift - stamp)[:, None] * 1e-9)
        return OdometryTrack(stamps - shift, poses.compose(origin, poses.exp(moved)))

    def predict(self, increment: Vector, seconds: float) -> tuple[Vector, Vector]:
        """Calibrated increment (7,) of a measured one (7,) over ``seconds``, and its deviations (6,) [m, rad]."""
        tangent = se3.log(plain(increment))
        x, y, z, *turned = tangent.tolist()
        distance, turn = math.hypot(x, y, z), math.hypot(*turned)
        t, r = self._translation, self._rotation
        translation = t[0] + t[1] * distance + t[2] * turn
        rotation = r[0] + r[1] * turn + r[2] * distance
        sigmas = np.array([translation, translation, translation, rotation, rotation, rotation])
        return se3.exp(self._map @ tangent + self._bias * seconds), sigmas


def widened(sigmas: Vector, increment: Vector, seconds: float, unsure: Vector) -> Vector:
    """Deviations (6,) that the noise of a measured ``increment`` (7,) makes, and what theta is not sure of:
    ``unsure`` (K, 7, 6) is by how much `linear_map` changes with each of its numbers, by one deviation of that.
    """
    measured = np.empty(7)
    measured[:6], measured[6] = se3.log(plain(increment)), seconds
    by_number = measured @ unsure
    found: Vector = np.sqrt(sigmas**2 + np.einsum("ki,ki->i", by_number, by_number))
    return found


def increment(before: Moment, after: Moment) -> tuple[Vector, Vector]:
    """Raw increment (7,) between two moments, and its rate (6,): what its tangent gains a second when odometry is taken
    later at both ends.

    The increment is that of no offset, to first order around the one the moments were taken with: what theta makes of
    it with that offset is exact.
    """
    # An offset that was learned in between counts for both.
    first = se3.compose(before.odometry, se3.exp((after.offset - before.offset) * before.velocity))
    taken = se3.between(first, after.odometry)
    gained = rate(taken, before.velocity, after.velocity)
    if not after.offset or not gained.any():
        return taken, gained
    return se3.exp(se3.log(taken) - after.offset * gained), gained


def rate(increment: Vector, before: Vector, after: Vector) -> Vector:
    """What the tangent of ``increment`` (7,) gains a second when both its ends are taken later, where the base moves at
    velocities ``before`` and ``after`` (6,): central differences over a hundredth of a second.
    """
    if not (before.any() or after.any()):
        return np.zeros(6)
    step = 0.005
    later, earlier = (
        se3.log(se3.compose(se3.compose(se3.exp(-h * before), increment), se3.exp(h * after))) for h in (step, -step)
    )
    return (later - earlier) / (2 * step)
