"""The vertices of a pose graph file: those it declares, or, where it declares none, those that its edges join."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, Indices
from dsg_ros.io.posegraph_lines import Lines, Unknown
from dsg_ros.io.posegraph_tags import Role


@dataclass(frozen=True)
class Kind:
    """All poses, or all landmarks: ids (n,), the lines (n,) that name them first, and values (n, 7) or (n, 3)."""

    keys: Indices
    line: Indices
    values: Floats

    def index(self, ids: Indices) -> Indices:
        """Positions (n,) in keys, -1 for an id that is not there."""
        if not len(self.keys):
            return np.full(len(ids), -1, np.int64)
        order = np.argsort(self.keys)
        near = order[np.minimum(np.searchsorted(self.keys, ids, sorter=order), len(order) - 1)]
        return np.where(self.keys[near] == ids, near, -1)


@dataclass(frozen=True)
class Vertices:
    """``declared`` tells whether the values are the file's; ``unknown`` are the lines left out of it."""

    path: Path
    declared: bool
    poses: Kind
    landmarks: Kind
    unknown: Unknown

    def __len__(self) -> int:
        return len(self.poses.keys) + len(self.landmarks.keys)

    def find(self, lines: Lines, column: int, role: Role) -> Indices:
        """Indices (n,) of the poses, or landmarks, that the ids in ``column`` name; `UserError` for one that is not."""
        ids = lines.ids[:, column]
        wanted, other = (self.poses, self.landmarks) if role is Role.POSE else (self.landmarks, self.poses)
        found = wanted.index(ids)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            k = missing[0]
            where = f"{self.path}:{lines.line[k]}: {lines.tag.name}"
            if other.index(ids[k : k + 1])[0] >= 0:
                what = "a landmark" if role is Role.POSE else "a pose"
                raise UserError(f"{where}: vertex {ids[k]} is {what}, expected a {role.value}")
            raise self.undeclared(where, int(ids[k]))
        return found

    def find_fixed(self, lines: list[Lines]) -> tuple[Indices, Indices]:
        """Indices of the poses and of the landmarks that FIX lines name, each ascending and without repetition.

        `UserError` for a vertex that is not there, and for one to be held at a value that the file does not give: only
        a single pose may be, at the origin.
        """
        ids = np.concatenate([np.zeros(0, np.int64), *(each.ids[:, 0] for each in lines)])
        line = np.concatenate([np.zeros(0, np.int64), *(each.line for each in lines)])
        pose, landmark = self.poses.index(ids), self.landmarks.index(ids)
        missing = np.flatnonzero((pose < 0) & (landmark < 0))
        if len(missing):
            raise self.undeclared(f"{self.path}:{line[missing[0]]}: FIX", int(ids[missing[0]]))
        if not self.declared and (len(np.unique(ids)) > 1 or (landmark >= 0).any()):
            k = np.flatnonzero((ids != ids[0]) | (landmark >= 0))[0]
            raise UserError(f"{self.path}:{line[k]}: FIX: where is vertex {ids[k]}? Give its value in a VERTEX line")
        return np.unique(pose[pose >= 0]), np.unique(landmark[landmark >= 0])

    def undeclared(self, where: str, key: int) -> UserError:
        """The error for a vertex that is not in the file, or in a line that was left out."""
        if key in self.unknown.vertices:
            line, tag = self.unknown.vertices[key]
            return UserError(
                f"{where}: vertex {key} is declared in line {line} as {tag}, which this program does not know: "
                "remove both lines"
            )
        if self.declared:
            return UserError(f"{where}: vertex {key} is declared nowhere: add its VERTEX line, or remove this line")
        return UserError(f"{where}: no edge joins vertex {key}")


def find_vertices(path: Path, lines: list[Lines], unknown: Unknown) -> Vertices:
    """The file's vertices; `UserError` for one that is declared twice, or seen both as a pose and as a landmark."""
    declared = [each for each in lines if each.tag.role in (Role.POSE, Role.LANDMARK)]
    if not declared:
        return _joined_vertices(path, lines, unknown)
    ids = np.concatenate([each.ids[:, 0] for each in declared])
    line = np.concatenate([each.line for each in declared])
    order = np.lexsort((line, ids))
    again = order[1:][ids[order[1:]] == ids[order[:-1]]]
    if len(again):
        k = again[np.argmin(line[again])]
        first = line[ids == ids[k]].min()
        raise UserError(f"{path}:{line[k]}: vertex {ids[k]} is declared again, after line {first}")
    of_poses, of_landmarks = (
        _declared([each for each in declared if each.tag.role is role]) for role in (Role.POSE, Role.LANDMARK)
    )
    return Vertices(path, True, of_poses, of_landmarks, unknown)


def _declared(lines: list[Lines]) -> Kind:
    if not lines:
        return Kind(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)))
    line = np.concatenate([each.line for each in lines])
    order = np.argsort(line, kind="stable")
    ids = np.concatenate([each.ids[:, 0] for each in lines])
    return Kind(ids[order], line[order], np.concatenate([each.values for each in lines])[order])


def _joined_vertices(path: Path, lines: list[Lines], unknown: Unknown) -> Vertices:
    """Every vertex that an edge or a sighting names, by ascending id."""
    ends: dict[Role, list[tuple[Indices, Indices]]] = {Role.POSE: [], Role.LANDMARK: []}
    for each in lines:
        if each.tag.role in (Role.EDGE, Role.SIGHTING):
            ends[Role.POSE].append((each.ids[:, 0], each.line))
            ends[Role.POSE if each.tag.role is Role.EDGE else Role.LANDMARK].append((each.ids[:, 1], each.line))
    found = {}
    for role, value in ((Role.POSE, poses.IDENTITY), (Role.LANDMARK, np.zeros(3))):
        ids = np.concatenate([np.zeros(0, np.int64), *(i for i, _ in ends[role])])
        line = np.concatenate([np.zeros(0, np.int64), *(at for _, at in ends[role])])
        keys, inverse = np.unique(ids, return_inverse=True)
        first = np.full(len(keys), np.iinfo(np.int64).max)
        np.minimum.at(first, inverse, line)
        found[role] = Kind(keys, first, np.tile(value, (len(keys), 1)))
    both, at, other = np.intersect1d(found[Role.LANDMARK].keys, found[Role.POSE].keys, return_indices=True)
    if len(both):
        lines_of = found[Role.LANDMARK].line[at[0]], found[Role.POSE].line[other[0]]
        raise UserError(
            f"{path}:{lines_of[0]}: vertex {both[0]} is seen as a landmark, but in line {lines_of[1]} it is a pose"
        )
    return Vertices(path, False, found[Role.POSE], found[Role.LANDMARK], unknown)
