"""Solids to look at: oriented boxes and upright cylinders, and the distance to the first of them along rays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.native import plain
from dsg_ros.simulation import ray_kernel

Array = NDArray[np.float64]


class Scene(NamedTuple):
    """Boxes with ``centres`` (b, 3), half edges ``halves`` (b, 3) and ``axes`` (b, 3, 3), their directions as rows.

    ``cylinders`` (c, 5) are upright, without caps: x, y, radius, bottom, top.  All in metres, in the frame world.
    """

    centres: Array
    halves: Array
    axes: Array
    cylinders: Array


Box = tuple[Array, Array, Array]
"""Centre (3,), half edges (3,), axes (3, 3)."""


def box(low: Sequence[float], high: Sequence[float]) -> Box:
    """The box between two corners, its edges along the axes of the world."""
    corners = np.array([low, high], float)
    return corners.mean(axis=0), 0.5 * (corners[1] - corners[0]), np.eye(3)


def turned_box(pose: Array, size: Sequence[float]) -> Box:
    """A box of edges ``size`` (3,), its middle at ``pose`` (7,), which also turns it."""
    return pose[:3], 0.5 * np.array(size, float), poses.matrix(pose)[:3, :3].T


def scene(boxes: Sequence[Box], cylinders: Sequence[Sequence[float]] = ()) -> Scene:
    """Gather ``boxes`` and ``cylinders`` (x, y, radius, bottom, top)."""
    centres, halves, axes = (np.array([item[part] for item in boxes], float) for part in range(3))
    shaped = centres.reshape(-1, 3), halves.reshape(-1, 3), axes.reshape(-1, 3, 3)
    return Scene(*shaped, np.array(cylinders, float).reshape(-1, 5))


def ranges(solids: Scene, origins: Array, directions: Array) -> Array:
    """Distance (n,) from ``origins`` (n, 3) along unit ``directions`` (n, 3) to the first surface; inf if there is
    none.

    From inside a box its walls are seen: a room is a box, too.
    """
    return ray_kernel.ranges(*solids, plain(origins), plain(directions))
