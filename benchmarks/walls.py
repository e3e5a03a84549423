"""Are a map's walls straight and single?  Told of scans put where a trajectory has them, without any truth.

A wall is double where a second one stands `APART` from it, one behind the other as seen from the same side: no scanner
sees both, unless a door was moved or one looks in behind a pillar.  Walls of a building of right angles are straight
where all scans, each for itself, see them in the same directions of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dsg_ros import poses

CELL = 0.05
"""Edge [m] of the cells that are counted."""
REACH, FEWEST, FLAT = 0.3, 6, 0.02
"""A point is on a wall where the points of its scan within so many metres, so many of them, have so little of their
spread across it."""
SEEN = 2
"""Keyframes that see a wall cell."""
APART = (0.15, 1.0)
"""Metres between the two faces of a double wall."""
ASIDE, TURN = CELL, np.cos(np.radians(10.0))
"""A second wall stands behind the first: so many metres aside at most, and as parallel as this cosine says."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Walls:
    """``cells`` (n, 2) [m] of walls, which of them are ``double`` (n,); and by scan of ``headings`` (k,) [rad] how far
    its walls are turned from the two main directions of the map, weighed by ``points`` (k,).
    """

    cells: Array
    double: NDArray[np.bool_]
    headings: Array
    points: Array

    @property
    def share(self) -> float:
        """Of cells that are double."""
        return float(self.double.mean())

    @property
    def bend(self) -> float:
        """Degrees that nine tenths of the wall points are within of the main directions."""
        order = np.argsort(np.abs(self.headings))
        reached = np.cumsum(self.points[order]) >= 0.9 * self.points.sum()
        return float(np.degrees(np.abs(self.headings[order][np.argmax(reached)])))


def facing(cloud: Array) -> tuple[Array, Array]:
    """Points (n, 2) of a scan that are on walls, and the walls' normals (n, 2) there, toward the sensor's side."""
    points = np.asarray(cloud[:, :2], float)
    if len(points) < FEWEST:
        return np.zeros((0, 2)), np.zeros((0, 2))
    tree = cKDTree(points)
    pairs = tree.query_pairs(REACH, output_type="ndarray")
    both = np.concatenate([pairs, pairs[:, ::-1], np.repeat(np.arange(len(points))[:, None], 2, axis=1)])
    count = np.bincount(both[:, 0], minlength=len(points))
    off = points[both[:, 1]] - points[both[:, 0]]
    x, y, xx, xy, yy = (
        np.bincount(both[:, 0], values, len(points)) / count
        for values in (off[:, 0], off[:, 1], off[:, 0] ** 2, off[:, 0] * off[:, 1], off[:, 1] ** 2)
    )
    spread = np.stack([np.stack([xx - x * x, xy - x * y], -1), np.stack([xy - x * y, yy - y * y], -1)], -2)
    values, vectors = np.linalg.eigh(spread)
    wall = (count >= FEWEST) & (values[:, 0] < FLAT * values[:, 1])
    normals = vectors[:, :, 0]
    normals *= np.where((normals * points).sum(axis=1) > 0, -1.0, 1.0)[:, None]
    return points[wall], normals[wall]


def walls(trajectory: Array, clouds: Sequence[NDArray[np.floating]]) -> Walls:
    """Of the ``clouds`` of keyframes, points (n, 3) in the base frame, at ``trajectory`` (k, 7)."""
    places, normals, keyframes = [], [], []
    for number, (pose, cloud) in enumerate(zip(trajectory, clouds, strict=True)):
        points, facings = facing(np.asarray(cloud, float))
        turn = poses.yaw(pose)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        places.append(points @ rotation.T + pose[:2])
        normals.append(facings @ rotation.T)
        keyframes.append(np.full(len(points), number))
    at, facing_to, keyframe = np.concatenate(places), np.concatenate(normals), np.concatenate(keyframes)
    headings, weights = _headings(facing_to, keyframe, len(trajectory))
    cells, normal = _cells(at, facing_to, keyframe)
    return Walls(cells, _double(cells, normal), headings, weights)


def _headings(normals: Array, keyframe: NDArray[np.int64], count: int) -> tuple[Array, Array]:
    """By scan how its walls are turned from the main directions, of which there are two, and how many points it has."""
    fourfold = np.exp(4j * np.arctan2(normals[:, 1], normals[:, 0]))
    scans = np.bincount(keyframe, fourfold.real, count) + 1j * np.bincount(keyframe, fourfold.imag, count)
    weights = np.abs(scans)
    main = np.angle(scans.sum())
    return np.angle(scans * np.exp(-1j * main)) / 4.0, weights


def _cells(places: Array, normals: Array, keyframe: NDArray[np.int64]) -> tuple[Array, Array]:
    """Means and normals (n, 2) of the cells that `SEEN` keyframes see from one side, one of eight directions."""
    sector = np.round(np.arctan2(normals[:, 1], normals[:, 0]) / (np.pi / 4)).astype(np.int64) % 8
    keys = np.column_stack([np.floor(places / CELL).astype(np.int64), sector])
    _, number = np.unique(keys, axis=0, return_inverse=True)
    number = number.ravel()
    seen = np.bincount(np.unique(np.column_stack([number, keyframe]), axis=0)[:, 0])
    sums = [np.bincount(number, column) for column in (*places.T, *normals.T)]
    mean = np.stack(sums[:2], axis=1) / np.bincount(number)[:, None]
    normal: Array = np.stack(sums[2:], axis=1) / np.hypot(sums[2], sums[3])[:, None]
    kept = seen >= SEEN
    return mean[kept], normal[kept]


def _double(cells: Array, normals: Array) -> NDArray[np.bool_]:
    pairs = cKDTree(cells).query_pairs(np.hypot(APART[1], ASIDE), output_type="ndarray")
    one, other = pairs.T
    between = cells[other] - cells[one]
    along = (between * normals[one]).sum(axis=1)
    aside = between[:, 0] * normals[one][:, 1] - between[:, 1] * normals[one][:, 0]
    parallel = (normals[one] * normals[other]).sum(axis=1) > TURN
    behind = (np.abs(along) >= APART[0]) & (np.abs(along) <= APART[1]) & (np.abs(aside) <= ASIDE) & parallel
    found = np.zeros(len(cells), bool)
    found[one[behind]] = True
    found[other[behind]] = True
    return found
