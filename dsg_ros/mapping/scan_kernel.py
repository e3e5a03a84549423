"""The compiled loop of `dsg_ros.mapping.scan`: points moved from when they were measured to the stamp of their scan."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled, se3

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def _interval(stamp: int, stamps: Ints) -> tuple[int, float]:
    """Between which of ``stamps`` (k,), k > 1, a stamp lies, and how far along, 0 to 1; held at the ends."""
    held = min(max(stamp, stamps[0]), stamps[-1])
    after = 1
    while after < len(stamps) - 1 and stamps[after] < held:
        after += 1
    return after - 1, (held - stamps[after - 1]) / (stamps[after] - stamps[after - 1])


@compiled
def _turned(rotation: Floats, turn: Floats, share: float, out: Floats) -> None:
    """``rotation exp(share turn)`` (3, 3), for a rotation vector ``turn`` (3,): Rodrigues' formula."""
    x, y, z = share * turn[0], share * turn[1], share * turn[2]
    squared = x * x + y * y + z * z
    angle = math.sqrt(squared)
    if angle < 1e-4:
        a, b = 1.0 - squared / 6.0, 0.5 - squared / 24.0
    else:
        a, b = math.sin(angle) / angle, (1.0 - math.cos(angle)) / squared
    for i in range(3):
        r0, r1, r2 = rotation[i, 0], rotation[i, 1], rotation[i, 2]
        out[i, 0] = r0 * (1.0 - b * (y * y + z * z)) + r1 * (b * x * y + a * z) + r2 * (b * x * z - a * y)
        out[i, 1] = r0 * (b * x * y - a * z) + r1 * (1.0 - b * (x * x + z * z)) + r2 * (b * y * z + a * x)
        out[i, 2] = r0 * (b * x * z + a * y) + r1 * (b * y * z - a * x) + r2 * (1.0 - b * (x * x + y * y))


@compiled
def deskewed(points: Floats, offsets: Ints, stamp: int, stamps: Ints, track: Floats) -> Floats:
    """Points (n, 3) in the base frame at ``stamp`` [ns], measured ``offsets`` (n,) [ns] later in the base frame then.

    The base moves along ``track`` (k, 7), poses at ``stamps`` (k,), k > 1, interpolated as
    `dsg_ros.interface.OdometryTrack.at` does.
    """
    # The base at the stamp, then the track as seen from there, with the turn of each of its intervals.
    first, share = _interval(stamp, stamps)
    turn = np.zeros(6)
    turn[3:] = share * se3.log(se3.between(track[first], track[first + 1]))[3:]
    origin = se3.compose(track[first], se3.exp(turn))
    origin[:3] = track[first, :3] + share * (track[first + 1, :3] - track[first, :3])
    seen, turns = np.empty((len(stamps), 7)), np.zeros((len(stamps), 3))
    rotations = np.empty((len(stamps), 3, 3))
    for k in range(len(stamps)):
        seen[k] = se3.between(origin, track[k])
        rotations[k] = se3.rotation_matrix(seen[k])
        if k > 0:
            turns[k - 1] = se3.log(se3.between(track[k - 1], track[k]))[3:]
    out, moved, rotation = np.empty((len(points), 3)), np.empty(3), np.empty((3, 3))
    for i in range(len(points)):
        if i == 0 or offsets[i] != offsets[i - 1]:  # the points of a column share their time
            at, share = _interval(stamp + offsets[i], stamps)
            _turned(rotations[at], turns[at], share, rotation)
            for k in range(3):
                moved[k] = seen[at, k] + share * (seen[at + 1, k] - seen[at, k])
        p = points[i]
        for k in range(3):
            out[i, k] = rotation[k, 0] * p[0] + rotation[k, 1] * p[1] + rotation[k, 2] * p[2] + moved[k]
    return out
