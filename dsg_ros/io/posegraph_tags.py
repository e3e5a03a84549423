"""The lines of pose graph files: what stands after each tag, in g2o and in TORO files.

g2o: https://github.com/RainerKuemmerle/g2o/wiki/File-Format.  TORO (Grisetti et al., 2007): VERTEX2, EDGE2, VERTEX3,
EDGE3; angles are roll, pitch, yaw, and the matrix of EDGE3 is over (x, y, z, roll, pitch, yaw).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from dsg_ros import poses
from dsg_ros.io.posegraph import Floats

TORO_TO_ROWS = [0, 1, 4, 2, 5, 3]
"""EDGE2 lists its matrix as 11 12 22 33 13 23: where the upper triangle's numbers by rows stand in that list."""


class Role(Enum):
    """What a line is about."""

    POSE = "pose"
    LANDMARK = "landmark"
    EDGE = "edge"
    SIGHTING = "sighting"
    SENSOR = "sensor"
    FIX = "fix"


@dataclass(frozen=True)
class Tag:
    """A kind of line: its tag, ``ids`` integers, ``values`` numbers, and an information matrix of size ``matrix``."""

    name: str
    role: Role
    planar: bool | None
    ids: int
    values: int
    matrix: int = 0
    toro: bool = False

    @property
    def triangle(self) -> int:
        """Numbers of the information matrix's upper triangle."""
        return self.matrix * (self.matrix + 1) // 2

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many words such a line has, tag included: with the triangle, as in the formats, or the full matrix."""
        bare = 1 + self.ids + self.values
        return (bare + self.triangle, bare + self.matrix**2) if self.matrix else (bare,)

    def decoded(self, values: Floats) -> Floats:
        """The line's values (n, `values`) as poses (n, 7), or as points (n, 3)."""
        return _DECODE[self.role in _POINTS, self.values](values)


_POINTS = (Role.LANDMARK, Role.SIGHTING)

TAGS = {
    tag.name.encode(): tag
    for tag in (
        Tag("VERTEX_SE2", Role.POSE, True, 1, 3),
        Tag("VERTEX2", Role.POSE, True, 1, 3, toro=True),
        Tag("VERTEX_SE3:QUAT", Role.POSE, False, 1, 7),
        Tag("VERTEX3", Role.POSE, False, 1, 6, toro=True),
        Tag("VERTEX_XY", Role.LANDMARK, True, 1, 2),
        Tag("VERTEX_TRACKXYZ", Role.LANDMARK, False, 1, 3),
        Tag("VERTEX_POINT_XYZ", Role.LANDMARK, False, 1, 3),
        Tag("EDGE_SE2", Role.EDGE, True, 2, 3, 3),
        Tag("EDGE2", Role.EDGE, True, 2, 3, 3, toro=True),
        Tag("EDGE_SE3:QUAT", Role.EDGE, False, 2, 7, 6),
        Tag("EDGE3", Role.EDGE, False, 2, 6, 6, toro=True),
        Tag("EDGE_SE2_XY", Role.SIGHTING, True, 2, 2, 2),
        Tag("EDGE_SE3_TRACKXYZ", Role.SIGHTING, False, 3, 3, 3),  # the third id is the sensor's
        Tag("PARAMS_SE3OFFSET", Role.SENSOR, False, 1, 7),
        Tag("FIX", Role.FIX, None, 1, 0),  # and any number of further ids
    )
}


def from_euler(values: Floats) -> Floats:
    """Poses (n, 7) from (n, 6) x y z roll pitch yaw: turned about x, then y, then z, all of them fixed axes."""
    half, zero = 0.5 * values[:, 3:].T, np.zeros(len(values))
    about = [[*_placed(axis, np.sin(angle), zero), np.cos(angle)] for axis, angle in enumerate(half)]
    roll, pitch, yaw = (np.stack(parts, axis=1) for parts in about)
    return np.concatenate([values[:, :3], poses.multiply(yaw, poses.multiply(pitch, roll))], axis=1)


def to_euler(pose: Floats) -> Floats:
    """The inverse of `from_euler`; at a pitch of 90 degrees roll is zero."""
    frame = poses.matrix(pose)
    cosine = np.hypot(frame[:, 0, 0], frame[:, 1, 0])
    upright = cosine > 1e-8
    roll = np.where(upright, np.arctan2(frame[:, 2, 1], frame[:, 2, 2]), 0.0)
    yaw = np.where(upright, np.arctan2(frame[:, 1, 0], frame[:, 0, 0]), np.arctan2(-frame[:, 0, 1], frame[:, 1, 1]))
    return np.column_stack([pose[:, :3], roll, np.arctan2(-frame[:, 2, 0], cosine), yaw])


def heading(pose: Floats) -> Floats:
    """(n,) [rad] of planar poses (n, 7): a number that `poses.from_planar` turns into exactly these quaternions, where
    there is one (as there is for what was read from a file, within a turn), else one in [-pi, pi].
    """
    z, w = pose[:, 5], pose[:, 6]
    angle = 2.0 * np.arctan2(z, w)
    candidates = [angle]  # and, as rounding is to be undone, its nearest numbers
    for direction in (-np.inf, np.inf):
        near = angle
        for _ in range(4):
            near = np.nextafter(near, direction)
            candidates.append(near)
    out = np.remainder(angle + np.pi, 2 * np.pi) - np.pi
    for near in reversed(candidates):
        exact = (np.sin(near / 2) == z) & (np.cos(near / 2) == w)
        out[exact] = near[exact]
    return out


def _placed(axis: int, value: Floats, zero: Floats) -> list[Floats]:
    return [value if axis == i else zero for i in range(3)]


def _planar(values: Floats) -> Floats:
    return poses.from_planar(*values.T)


def _planar_points(values: Floats) -> Floats:
    return np.column_stack([values, np.zeros(len(values))])


def _same(values: Floats) -> Floats:
    return values


_DECODE: dict[tuple[bool, int], Callable[[Floats], Floats]] = {
    (False, 3): _planar,
    (False, 6): from_euler,
    (False, 7): _same,
    (True, 2): _planar_points,
    (True, 3): _same,
}
