"""The edges of a pose graph file, and the sightings of landmarks, in file order and with their information checked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dsg_ros.errors import UserError
from dsg_ros.io import posegraph_checks as checks
from dsg_ros.io.posegraph import Floats, Indices
from dsg_ros.io.posegraph_lines import Lines
from dsg_ros.io.posegraph_tags import TORO_TO_ROWS, Role
from dsg_ros.io.posegraph_vertices import Vertices

_log = logging.getLogger(__name__)
_Number = TypeVar("_Number", np.int64, np.float64)

_UNIT = 1e-14
"""Quaternions this close to unit norm stay as they are, so that what was written here comes back bit for bit."""
_ROUNDED = 1e-3
"""Farther from unit norm than this, a quaternion is more than rounded: it is normalised, and that is told."""


@dataclass(frozen=True)
class Rows:
    """Edges, or sightings.

    line: (n,)
    first, second: (n,) indices of the vertices they join
    sensor: (n,) third ids, -1 where there is none
    values: (n, 7) relative poses, or (n, 3) points
    triangles: (n, d (d + 1) / 2) information matrices, upper triangles by rows
    roots: (n, size, size) S with S^T S = information, zero outside the matrix's axes
    """

    line: Indices
    first: Indices
    second: Indices
    sensor: Indices
    values: Floats
    triangles: Floats
    roots: Floats


def find_rows(
    path: Path, lines: Iterable[Lines], role: Role, vertices: Vertices, axes: Sequence[int], size: int
) -> Rows:
    """All lines of a role, their information matrices over ``axes`` of ``size``.

    `UserError` names file and line of one that joins what is no vertex, or one of the wrong kind, or a vertex to
    itself; of a zero quaternion; and of an indefinite information matrix.
    """
    chosen = [each for each in lines if each.tag.role is role]
    order = np.argsort(_joined([each.line for each in chosen], np.zeros(0, np.int64)), kind="stable")
    integers, width = np.zeros(0, np.int64), len(axes) * (len(axes) + 1) // 2

    line = _joined([each.line for each in chosen], integers)[order]
    seen = Role.LANDMARK if role is Role.SIGHTING else Role.POSE
    first = _joined([vertices.find(each, 0, Role.POSE) for each in chosen], integers)[order]
    second = _joined([vertices.find(each, 1, seen) for each in chosen], integers)[order]
    sensors = [each.ids[:, 2] if each.tag.ids > 2 else np.full(len(each.line), -1, np.int64) for each in chosen]
    values = _joined([each.values for each in chosen], np.zeros((0, 7 if role is Role.EDGE else 3)))[order]
    triangles = _joined([each.triangles for each in chosen], np.zeros((0, width)))[order]
    if role is Role.EDGE:
        same = np.flatnonzero(first == second)
        if len(same):
            key = vertices.poses.keys[first[same[0]]]
            raise UserError(f"{path}:{line[same[0]]}: an edge joins vertex {key} to itself: remove it")
        values = unit_poses(path, line, values)
    roots = np.zeros((len(line), size, size))
    roots[:, np.array(axes)[:, None], np.array(axes)] = _roots(path, chosen, line, triangles)
    return Rows(line, first, second, _joined(sensors, integers)[order], values, triangles, roots)


def unit_poses(path: Path, line: Indices, values: Floats) -> Floats:
    """Poses (n, 7) with unit quaternions; `UserError` for a zero quaternion."""
    largest = np.abs(values[:, 3:]).max(axis=1)
    zero = np.flatnonzero(largest < 1e-6)
    if len(zero):
        raise UserError(f"{path}:{line[zero[0]]}: the quaternion is zero: it tells no rotation")
    scaled = values[:, 3:] / largest[:, None]  # so that no square overflows
    length = np.linalg.norm(scaled, axis=1)
    far = np.flatnonzero(np.abs(largest * length - 1) > _ROUNDED)
    if len(far):
        norm = largest[far[0]] * length[far[0]]
        _log.warning("%s:%d: a quaternion of norm %g is normalised, one of %d", path, line[far[0]], norm, len(far))
    out = values.copy()
    uneven = np.abs(largest * length - 1) > _UNIT
    out[uneven, 3:] = scaled[uneven] / length[uneven, None]
    return out


def _roots(path: Path, lines: list[Lines], line: Indices, triangles: Floats) -> Floats:
    roots, indefinite, singular = checks.square_roots(checks.matrices(triangles))
    if len(indefinite):
        k = int(indefinite[0])
        raise UserError(f"{path}:{line[k]}: {_negative(lines, int(line[k]), triangles[k])}")
    if len(singular):
        k, count = int(singular[0]), len(singular)
        _log.info(
            "%s:%d: the information matrix is singular, one of %d: it knows some directions only", path, line[k], count
        )
    return roots


def _negative(lines: list[Lines], line: int, triangle: Floats) -> str:
    tag = next(each.tag for each in lines if line in each.line)
    eigenvalue = np.linalg.eigvalsh(checks.matrices(triangle[None])[0])[0]
    text = f"{tag.name}: the information matrix is indefinite (its smallest eigenvalue is {eigenvalue:.3g})"
    if tag.toro and tag.planar:
        listed = np.empty(6)
        listed[TORO_TO_ROWS] = triangle
        if not len(checks.square_roots(checks.matrices(listed[None]))[1]):
            text += "; as an EDGE_SE2 line, which lists the matrix in another order, it would not be"
    return text


def _joined(parts: list[NDArray[_Number]], empty: NDArray[_Number]) -> NDArray[_Number]:
    return np.concatenate([empty, *parts])
