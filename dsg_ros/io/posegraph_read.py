"""Reading pose graph files: g2o and TORO, in the plane and in space, plain or compressed.

What cannot be meant is refused with file and line: see `read_pose_graph`.  Lines of unknown tags are left out, counted,
and named in the log.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from dsg_ros.errors import UserError
from dsg_ros.io import posegraph_checks as checks
from dsg_ros.io.posegraph import PLANAR_AXES, Floats, Indices, Landmarks, PoseGraph
from dsg_ros.io.posegraph_lines import Lines, Unknown, read_lines
from dsg_ros.io.posegraph_rows import find_rows, unit_poses
from dsg_ros.io.posegraph_tags import Role
from dsg_ros.io.posegraph_vertices import Vertices, find_vertices

_LISTED = 5


def read_pose_graph(path: Path) -> PoseGraph:
    """The graph in a file.

    A file may declare all its vertices or none: then they are those that its edges join, without values.  `UserError`
    says where (file and line) and what: a vertex that is declared twice, or nowhere while others are; an edge from a
    vertex to itself, or between vertices of the wrong kind; a line that is cut short or holds no finite number; a zero
    quaternion; an information matrix that is not symmetric or has a negative eigenvalue; lines in the plane and in
    space in one file; no edge at all; parts that no edge joins (unless FIX lines hold each of them); and FIX lines that
    leave the graph free to turn.  Without FIX lines the first pose is the one to hold (`PoseGraph.held`).
    """
    lines, unknown = read_lines(path)
    planar = _is_planar(path, lines, unknown)
    vertices = find_vertices(path, lines, unknown)
    if not any(each.tag.role in (Role.EDGE, Role.SIGHTING) for each in lines):
        last = max(int(each.line[-1]) for each in lines)
        raise UserError(
            f"{path}:{last}: no edge joins the vertices ({len(vertices)}) up to here: nothing to optimise"
            f"{_left_out(unknown.counts)}"
        )
    fixed, fixed_landmarks = vertices.find_fixed([each for each in lines if each.tag.role is Role.FIX])
    edges = find_rows(path, lines, Role.EDGE, vertices, PLANAR_AXES if planar else range(6), 6)
    graph = PoseGraph(
        planar=planar,
        keys=vertices.poses.keys,
        poses=unit_poses(path, vertices.poses.line, vertices.poses.values),
        known=np.full(len(vertices.poses.keys), vertices.declared),
        fixed=fixed,
        first=edges.first,
        second=edges.second,
        measured=edges.values,
        information=edges.triangles,
        sqrt_info=edges.roots,
        landmarks=_landmarks(path, lines, vertices, fixed_landmarks, planar),
        unknown=unknown.counts,
        unended=unknown.unended,
        source=path,
    )
    _check_held(graph, vertices, lines)
    return graph


def _is_planar(path: Path, lines: list[Lines], unknown: Unknown) -> bool:
    """Whether the file is in the plane; `UserError` where it is both, or neither."""
    firsts = {}
    for planar in (True, False):
        found = [(int(each.line[0]), each.tag.name) for each in lines if each.tag.planar is planar]
        if found:
            firsts[planar] = min(found)
    if not firsts:
        there = [*(int(each.line[0]) for each in lines), *(at[0] for at in unknown.lines.values())]
        raise UserError(
            f"{path}:{min(there, default=1)}: no vertex and no edge of a pose graph is in it{_left_out(unknown.counts)}"
        )
    if len(firsts) == 2:
        (before, name), (line, other) = sorted(firsts.values())
        words = ("in the plane", "in space") if firsts[True][0] == before else ("in space", "in the plane")
        raise UserError(f"{path}:{line}: {other} is of a graph {words[1]}, but {name} in line {before} {words[0]}")
    return True in firsts


def _left_out(unknown: Counter[str]) -> str:
    if not unknown:
        return ""
    listed = ", ".join(f"{tag} {count}" for tag, count in unknown.most_common(_LISTED))
    return f" (lines with unknown tags are left out: {listed}{', ...' if len(unknown) > _LISTED else ''})"


def _landmarks(path: Path, lines: list[Lines], vertices: Vertices, fixed: Indices, planar: bool) -> Landmarks:
    sightings = find_rows(path, lines, Role.SIGHTING, vertices, range(2 if planar else 3), 3)
    sensor_keys, sensors = _sensors(path, [each for each in lines if each.tag.role is Role.SENSOR])
    place = {int(key): k for k, key in enumerate(sensor_keys)}
    offset = np.array([place.get(key, -1) for key in sightings.sensor.tolist()], np.int64)
    missing = np.flatnonzero((offset < 0) & (not planar))  # planar sightings name no sensor
    if len(missing):
        where, key = f"{path}:{sightings.line[missing[0]]}", sightings.sensor[missing[0]]
        raise UserError(f"{where}: sensor {key} is declared nowhere: add its PARAMS_SE3OFFSET line")
    return Landmarks(
        keys=vertices.landmarks.keys,
        positions=vertices.landmarks.values,
        known=np.full(len(vertices.landmarks.keys), vertices.declared),
        fixed=fixed,
        pose=sightings.first,
        landmark=sightings.second,
        points=sightings.values,
        information=sightings.triangles,
        sqrt_info=sightings.roots,
        offset_keys=sensor_keys,
        offsets=sensors,
        offset=offset,
    )


def _sensors(path: Path, lines: list[Lines]) -> tuple[Indices, Floats]:
    """Ids and poses of the sensors."""
    if not lines:
        return np.zeros(0, np.int64), np.zeros((0, 7))
    (each,) = lines  # there is one tag, of one length
    keys = each.ids[:, 0]
    values, first = np.unique(keys, return_index=True)
    if len(values) < len(keys):
        k = np.setdiff1d(np.arange(len(keys)), first)[0]
        raise UserError(f"{path}:{each.line[k]}: PARAMS_SE3OFFSET: sensor {keys[k]} is declared again")
    return keys, unit_poses(path, each.line, each.values)


def _check_held(graph: PoseGraph, vertices: Vertices, lines: list[Lines]) -> None:
    """`UserError` unless the poses and landmarks to hold leave no part of the graph free to move as a whole."""
    count, marks = len(graph.keys), graph.landmarks
    label = checks.components(
        count + len(marks.keys),
        np.concatenate([graph.first, marks.pose]),
        np.concatenate([graph.second, count + marks.landmark]),
    )
    parts, size = np.unique(label, return_counts=True)
    # A part is held by one pose, or by landmarks that span the plane's heading or space's rotation.
    enough = np.bincount(label[count + marks.fixed], minlength=len(label))[parts] >= (2 if graph.planar else 3)
    free = parts[~(np.isin(parts, label[graph.held]) | enough)]
    if not len(free):
        return
    key = np.concatenate([graph.keys, marks.keys])
    line = np.concatenate([vertices.poses.line, vertices.landmarks.line])
    if len(parts) == 1:
        where = f"{graph.source}:{min(int(each.line[0]) for each in lines if each.tag.role is Role.FIX)}"
        names = ", ".join(str(k) for k in marks.keys[marks.fixed])
        raise UserError(f"{where}: no gauge: FIX holds landmarks alone ({names}), too few for the rotation; FIX a pose")
    largest = np.argsort(-size, kind="stable")[:_LISTED]
    listed = ", ".join(
        f"{size[k]} {'vertex' if size[k] == 1 else 'vertices'} with {key[parts[k]]} (line {line[parts[k]]})"
        for k in largest
    )
    more = f", and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
    raise UserError(
        f"{graph.source}:{line[free[0]]}: the graph falls into {len(parts)} parts that no edge joins: {listed}{more}; "
        f"add an edge, or FIX a pose in each part{_left_out(graph.unknown)}"
    )
