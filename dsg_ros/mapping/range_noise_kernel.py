"""The compiled loop of `dsg_ros.mapping.range_noise`: how far beams of a planar scan depart from walls."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Floats = NDArray[np.float64]


@compiled
def departures(points: Floats) -> Floats:
    """Of the ``points`` (n, 3) of a scan in the sensor's frame, beam after beam, how far (m,) [m] each departs along
    its beam from the line through its neighbours, as a share of what noise of the three makes of a deviation of one
    metre; of those whose neighbours are the next beams.
    """
    count = len(points)
    distance, turn = np.empty(count), np.empty(max(count - 1, 0))
    for i in range(count):
        distance[i] = math.hypot(points[i, 0], points[i, 1])
    for i in range(count - 1):
        a, b = points[i], points[i + 1]
        turn[i] = math.atan2(a[0] * b[1] - a[1] * b[0], a[0] * b[0] + a[1] * b[1])
    found, known = np.empty(count), 0
    step = np.median(np.abs(turn)) if count > 1 else 0.0
    for i in range(1, count - 1):
        before, after = turn[i - 1], turn[i]
        if before * after <= 0.0 or max(abs(before), abs(after)) > 1.5 * step or abs(before + after) > 0.5 * math.pi:
            continue
        # Of a line, seen under an angle, the inverse of the distance is a sinusoid: no step is too wide for it.
        left, right = math.sin(after) / math.sin(before + after), math.sin(before) / math.sin(before + after)
        there = 1.0 / (left / distance[i - 1] + right / distance[i + 1])
        by_left, by_right = left * (there / distance[i - 1]) ** 2, right * (there / distance[i + 1]) ** 2
        found[known] = abs(distance[i] - there) / math.sqrt(1.0 + by_left**2 + by_right**2)
        known += 1
    return found[:known]
