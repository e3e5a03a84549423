"""Correlative search for the pose of one set of points in another's map, exact inside its bounds.

Branch and bound over (angle, x, y) with max-pooled occupancy grids (Olson, "Real-time correlative scan matching", 2009;
Hess et al., "Real-time loop closure in 2D lidar SLAM", 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import plain
from dsg_ros.mapping import correlative_kernel as kernel
from dsg_ros.mapping.correlative_kernel import LEVELS, MARGIN
from dsg_ros.mapping.voxel_kernels import in_columns

POINTS = 256
"""Of the points to be placed, as many at most are scored."""

COLUMN, LAYERS = 0.3, 3
"""In space, walls are what fills so many layers of a column of this edge [m]; floors and ceilings fill two."""

__all__ = ["LEVELS", "Candidate", "Pyramid", "flattened", "pyramid", "search"]


class Pyramid(NamedTuple):
    """``grids`` (LEVELS, w, h): smeared occupancy and its maxima over 2^l x 2^l cells.

    Cell (0, 0) begins at ``corner`` (2,) [m]; cells have the edge ``resolution`` [m].
    """

    grids: NDArray[np.uint8]
    corner: NDArray[np.float64]
    resolution: float

    def cells(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        """Cells (..., 2) of points (..., 2) [m]."""
        return np.floor((points - self.corner) / self.resolution).astype(np.int64)


@dataclass(frozen=True)
class Candidate:
    """A pose found: offset ``x``, ``y`` [m] and ``yaw`` [rad] on top of the first guess, and its score in [0, 1].

    ``runner_up``: the best score anywhere else (farther than the exclusion radius or angle), 0 if none reached the
    bound.
    """

    x: float
    y: float
    yaw: float
    score: float
    runner_up: float


def flattened(points: NDArray[np.float64], *, planar: bool) -> NDArray[np.float64]:
    """What of ``points`` (n, 3) can be told apart from above: all of a planar scan, the walls of a cloud; (m, 2)."""
    if planar or not len(points):
        return points[:, :2]
    return points[in_columns(plain(points), COLUMN, LAYERS), :2]


def pyramid(points: NDArray[np.float64], centre: NDArray[np.float64], extent: float, *, resolution: float) -> Pyramid:
    """Grids of the ``points`` (n, 2) that lie within ``extent`` [m] of ``centre`` (2,) in x and in y."""
    points = points[np.all(np.abs(points - centre) <= extent, axis=1)]
    if not len(points):
        return Pyramid(np.zeros((LEVELS, 1, 1), np.uint8), centre, resolution)
    corner = (np.floor(points.min(axis=0) / resolution) - MARGIN) * resolution
    out = Pyramid(np.zeros((LEVELS, 1, 1), np.uint8), corner, resolution)
    cells = out.cells(points)
    width, height = cells.max(axis=0) + MARGIN
    return out._replace(grids=kernel.pyramid(cells, int(width), int(height)))


def search(
    reference: Pyramid,
    points: NDArray[np.float64],
    *,
    pivot: NDArray[np.float64],
    radius: float,
    angle: float,
    angle_step: float,
    least_score: float,
    rival_share: float,
    exclusion: tuple[float, float] = (0.8, 0.15),
) -> Candidate | None:
    """The best placement of ``points`` (n, 2), already at their first guess in the map, or None if all score too low.

    It lies within ``radius`` [m] and ``angle`` [rad]; ``pivot`` (2,) is the point about which the angle turns.  Every
    placement scoring at least ``rival_share`` of the best is found too, so ``runner_up`` is exact above that.
    """
    if len(points) > POINTS:
        points = points[np.linspace(0, len(points) - 1, POINTS).astype(int)]
    half = int(np.ceil(angle / angle_step))
    angles = np.arange(-half, half + 1) * angle_step
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    dx, dy = (points - pivot).T
    turned = np.stack([cos * dx - sin * dy, sin * dx + cos * dy], axis=-1) + pivot
    reach = int(np.ceil(radius / reference.resolution))
    nodes, scores = kernel.search(reference.grids, reference.cells(turned), reach, least_score, rival_share)
    if not len(nodes):
        return None
    best = int(np.argmax(scores))
    if scores[best] < least_score:
        return None
    away = np.hypot(*(nodes[:, 1:] - nodes[best, 1:]).T) * reference.resolution > exclusion[0]
    away |= np.abs(angles[nodes[:, 0]] - angles[nodes[best, 0]]) > exclusion[1]
    runner_up = float(scores[away].max()) if away.any() else 0.0
    x, y = nodes[best, 1:] * reference.resolution
    return Candidate(float(x), float(y), float(angles[nodes[best, 0]]), float(scores[best]), runner_up)
