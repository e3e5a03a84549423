"""The compiled loop of `dsg_ros.simulation.scene`: rays against boxes and cylinders."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Floats = NDArray[np.float64]


@compiled
def _to_box(centre: Floats, half: Floats, axes: Floats, origin: Floats, direction: Floats) -> float:
    """Distance to a box by slabs (Kay and Kajiya, "Ray tracing complex scenes", 1986); inf where it is missed."""
    enter, leave = -np.inf, np.inf
    for k in range(3):
        start, along = 0.0, 0.0
        for j in range(3):
            start += axes[k, j] * (origin[j] - centre[j])
            along += axes[k, j] * direction[j]
        if along == 0.0:  # beside the slab for ever, or within it for ever
            if abs(start) > half[k]:
                return np.inf
            continue
        one, other = (-half[k] - start) / along, (half[k] - start) / along
        enter, leave = max(enter, min(one, other)), min(leave, max(one, other))
    if enter > leave or leave <= 0.0:
        return np.inf
    return enter if enter > 0.0 else leave


@compiled
def _to_cylinder(cylinder: Floats, origin: Floats, direction: Floats) -> float:
    """Distance to the side of an upright cylinder; inf where it is missed."""
    x, y = origin[0] - cylinder[0], origin[1] - cylinder[1]
    a = direction[0] ** 2 + direction[1] ** 2
    b = x * direction[0] + y * direction[1]
    under = b**2 - a * (x**2 + y**2 - cylinder[2] ** 2)
    if a == 0.0 or under < 0.0:
        return np.inf
    root = math.sqrt(under)
    for t in ((-b - root) / a, (-b + root) / a):
        if t > 0.0 and cylinder[3] <= origin[2] + t * direction[2] <= cylinder[4]:
            return t
    return np.inf


@compiled
def ranges(
    centres: Floats, halves: Floats, axes: Floats, cylinders: Floats, origins: Floats, directions: Floats
) -> Floats:
    """Distances (n,): see `scene.ranges`."""
    radii = np.sqrt((halves**2).sum(axis=1))
    out = np.full(len(origins), np.inf)
    for i in range(len(origins)):
        o, d = origins[i], directions[i]
        nearest = np.inf
        for b in range(len(centres)):
            # Most boxes are small and far: their bounding spheres are missed, behind, or farther than what was met.
            x, y, z = centres[b, 0] - o[0], centres[b, 1] - o[1], centres[b, 2] - o[2]
            along = x * d[0] + y * d[1] + z * d[2]
            if along + radii[b] < 0.0 or along - radii[b] > nearest:
                continue
            if x * x + y * y + z * z - along**2 > radii[b] ** 2:
                continue
            nearest = min(nearest, _to_box(centres[b], halves[b], axes[b], o, d))
        for c in range(len(cylinders)):
            nearest = min(nearest, _to_cylinder(cylinders[c], o, d))
        out[i] = nearest
    return out
