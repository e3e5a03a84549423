"""Where a robot is when: along a way of straight lines and arcs, on ground of varying height."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses

Array = NDArray[np.float64]

GRID = 0.01
"""Metres between the places at which a schedule knows the speed; of a short drive there are `LEAST`."""
LEAST = 16


def level(x: Array) -> Array:
    """The floor's height at ``x`` (...) where there are no ramps."""
    return np.zeros_like(x)


class Route:
    """A polygon with its corners rounded off; a ``closed`` one begins behind the first corner and is driven lap after
    lap, an open one leads from the first corner to the last.

    ``ground(x)`` is the floor's height [m].  The robot touches it with two axles ``wheelbase`` [m] apart, so that it
    pitches up over half a metre where a ramp begins, and not at once.
    """

    def __init__(
        self,
        corners: Sequence[tuple[float, float]],
        radius: float,
        ground: Callable[[Array], Array] = level,
        wheelbase: float = 0.5,
        *,
        closed: bool = True,
    ) -> None:
        self._ground, self._wheelbase, self.closed = ground, wheelbase, closed
        points = np.array(corners, float)
        sides = np.roll(points, -1, axis=0) - points
        if not closed:
            points, sides = points[:-1], sides[:-1]
        headings = np.arctan2(sides[:, 1], sides[:, 0])
        turns = np.angle(np.exp(1j * (headings - np.roll(headings, 1))))  # at the corner where each side begins
        if not closed:
            turns[0] = 0.0
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
        """Metres of one lap, or of an open way, in the plane."""
        return float(self._until[-1])

    def curvature(self, travelled: Array) -> Array:
        """Turn per metre (n,) [rad/m] after ``travelled`` (n,) metres, positive to the left."""
        return self._curvature[self._piece(self._along(travelled))]

    def at(self, travelled: Array) -> Array:
        """Poses (n, 7) of the base, in world, after ``travelled`` (n,) metres (in the plane)."""
        along = self._along(travelled)
        piece = self._piece(along)
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
        upright = np.stack([x, y, 0.5 * (front + rear), zero, zero, np.sin(turned / 2), np.cos(turned / 2)], axis=1)
        return poses.compose(upright, np.stack([zero, zero, zero, zero, np.sin(pitch / 2), zero, np.cos(pitch / 2)], 1))

    def _along(self, travelled: Array) -> Array:
        return np.mod(travelled, self.length) if self.closed else np.clip(travelled, 0.0, self.length)

    def _piece(self, along: Array) -> NDArray[np.intp]:
        return np.minimum(np.searchsorted(self._until, along, side="right"), len(self._until) - 1)


class Schedule:
    """From standstill along ``distance`` [m] of a route to standstill again, at ``acceleration`` [m/s^2] at most.

    It is as fast as ``speed`` [m/s] and, where the route turns, ``turn_rate`` [rad/s] allow.
    """

    def __init__(self, route: Route, distance: float, speed: float, turn_rate: float, acceleration: float) -> None:
        places = np.linspace(0.0, distance, max(LEAST, int(np.ceil(distance / GRID))) + 1)
        curvature = np.abs(route.curvature(0.5 * (places[:-1] + places[1:])))
        allowed = turn_rate / np.maximum(curvature, turn_rate / speed)
        squared = np.concatenate([[0.0], np.minimum(allowed[:-1], allowed[1:]) ** 2, [0.0]])
        # Reached from every place before, and slow enough for every place behind: v^2 grows by 2 a for each metre.
        gained = 2.0 * acceleration * places
        squared = np.minimum.accumulate(squared - gained) + gained
        squared = np.minimum.accumulate((squared + gained)[::-1])[::-1] - gained
        velocity = np.sqrt(np.maximum(squared, 0.0))
        self._places, self._velocity = places, velocity
        # Between two places the acceleration is constant, and the mean speed that of the ends.
        self._acceleration = np.diff(velocity**2) / (2.0 * np.diff(places))
        took = np.diff(places) / (0.5 * (velocity[:-1] + velocity[1:]))
        self._times = np.concatenate([[0.0], np.cumsum(took)])

    @property
    def duration(self) -> float:
        """Seconds from standstill to standstill."""
        return float(self._times[-1])

    def travelled(self, seconds: Array) -> Array:
        """Metres (n,) at ``seconds`` (n,) after the start; standing before it and at the end."""
        t = np.clip(seconds, 0.0, self.duration)
        k = np.clip(np.searchsorted(self._times, t, side="right") - 1, 0, len(self._acceleration) - 1)
        since = t - self._times[k]
        return np.minimum(
            self._places[k] + self._velocity[k] * since + 0.5 * self._acceleration[k] * since**2, self._places[-1]
        )
