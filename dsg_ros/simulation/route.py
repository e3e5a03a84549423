"""Where a robot is when: along a closed way of straight lines and arcs, on ground of varying height."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses

Array = NDArray[np.float64]


class Route:
    """A closed polygon with its corners rounded off; begins behind the first corner.

    ``ground(x)`` is the floor's height [m].  The robot touches it with two axles ``wheelbase`` [m] apart, so that it
    pitches up over half a metre where a ramp begins, and not at once.
    """

    def __init__(
        self, corners: Sequence[tuple[float, float]], radius: float, ground: Callable[[Array], Array], wheelbase: float
    ) -> None:
        self._ground, self._wheelbase = ground, wheelbase
        points = np.array(corners, float)
        sides = np.roll(points, -1, axis=0) - points
        headings = np.arctan2(sides[:, 1], sides[:, 0])
        turns = np.angle(np.exp(1j * (headings - np.roll(headings, 1))))  # at the corner where each side begins
        cut = radius * np.abs(np.tan(turns / 2))
        lengths = np.linalg.norm(sides, axis=1) - cut - np.roll(cut, -1)
        if lengths.min() < 0.0:
            raise ValueError(f"arcs of radius {radius:g} m do not fit between the corners")
        starts = points + cut[:, None] * np.stack([np.cos(headings), np.sin(headings)], axis=1)
        # Side, arc at its end, next side, ...: x, y, heading where each begins, its curvature and its length.
        arcs = np.roll(turns, -1)
        ends = starts + lengths[:, None] * np.stack([np.cos(headings), np.sin(headings)], axis=1)
        self._begin = np.stack([np.column_stack([starts, headings]), np.column_stack([ends, headings])], 1).reshape(
            -1, 3
        )
        self._curvature = np.stack([np.zeros(len(points)), np.sign(arcs) / radius], 1).ravel()
        pieces = np.stack([lengths, radius * np.abs(arcs)], 1).ravel()
        self._until = np.cumsum(pieces)
        self._from = self._until - pieces

    @property
    def length(self) -> float:
        """Metres of one lap, in the plane."""
        return float(self._until[-1])

    def at(self, travelled: Array) -> Array:
        """Poses (n, 7) of the base, in world, after ``travelled`` (n,) metres (in the plane)."""
        along = np.mod(travelled, self.length)
        piece = np.minimum(np.searchsorted(self._until, along, side="right"), len(self._until) - 1)
        x, y, heading = self._begin[piece].T
        curvature, on = self._curvature[piece], along - self._from[piece]
        turned = heading + curvature * on
        # A chord of an arc: twice the radius times the sine of half the angle, in the direction halfway.
        half = 0.5 * curvature * on
        chord = on * np.sinc(half / np.pi)
        x, y = x + chord * np.cos(heading + half), y + chord * np.sin(heading + half)
        reach = 0.5 * self._wheelbase * np.cos(turned)
        front, rear = self._ground(x + reach), self._ground(x - reach)
        pitch = -np.arctan2(front - rear, self._wheelbase)
        zero = np.zeros_like(x)
        level = np.stack([x, y, 0.5 * (front + rear), zero, zero, np.sin(turned / 2), np.cos(turned / 2)], axis=1)
        return poses.compose(level, np.stack([zero, zero, zero, zero, np.sin(pitch / 2), zero, np.cos(pitch / 2)], 1))


class Schedule:
    """From standstill to ``speed`` [m/s], along ``distance`` [m], and to standstill again, at ``acceleration``
    [m/s^2].
    """

    def __init__(self, distance: float, speed: float, acceleration: float) -> None:
        # Where there is no room to reach the speed, the robot brakes halfway.
        self._speed = min(speed, float(np.sqrt(distance * acceleration)))
        self._distance, self._acceleration = distance, acceleration
        self._ramp = self._speed / acceleration
        self.duration = distance / self._speed + self._ramp

    def travelled(self, seconds: Array) -> Array:
        """Metres (n,) at ``seconds`` (n,) after the start; standing before it and at the end."""
        t = np.clip(seconds, 0.0, self.duration)
        begun = np.minimum(t, self._ramp)
        left = np.minimum(self.duration - t, self._ramp)
        slow = 0.5 * self._acceleration * (begun**2 + self._ramp**2 - left**2)
        return slow + self._speed * np.clip(t - self._ramp, 0.0, self.duration - 2 * self._ramp)
