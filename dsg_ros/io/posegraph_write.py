"""Writing pose graph files, whole or not at all, with 17 significant digits: what is read back is the same number.

g2o unless the name says TORO (.toro, .graph); compressed where it ends in .gz, .bz2, .xz or .zip.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros.errors import UserError
from dsg_ros.io.atomic import destination, write_bytes
from dsg_ros.io.posegraph import Floats, Indices, PoseGraph
from dsg_ros.io.posegraph_tags import TORO_TO_ROWS, heading, to_euler

_TORO = (".toro", ".graph")


def check_destination(path: Path, graph: PoseGraph) -> None:
    """`UserError` where `write_pose_graph` could not but fail: told before the work starts."""
    destination(path)
    if _is_toro(path) and len(graph.landmarks.keys):
        raise UserError(f"{path}: TORO files hold no landmarks: write the graph as .g2o")


def write_pose_graph(path: Path, graph: PoseGraph) -> None:
    """Write a graph: sensors, vertices (those with values), FIX lines, edges, sightings.

    `UserError` as `check_destination` has it, and where writing fails.  In g2o every number comes back bit for bit; in
    TORO, which writes rotations in space as three angles, these do but for rounding.
    """
    check_destination(path, graph)
    text = "".join(_toro(graph) if _is_toro(path) else _g2o(graph)).encode()
    compress = _COMPRESS.get(path.suffix.lower())
    write_bytes(path, text if compress is None else compress(text, path))


def _is_toro(path: Path) -> bool:
    name = path.name.lower()
    return name.removesuffix(path.suffix.lower() if path.suffix.lower() in _COMPRESS else "").endswith(_TORO)


def _g2o(graph: PoseGraph) -> Iterator[str]:
    marks = graph.landmarks
    yield from _lines("PARAMS_SE3OFFSET", [marks.offset_keys], marks.offsets)
    tag = "SE2" if graph.planar else "SE3:QUAT"
    yield from _lines(f"VERTEX_{tag}", [graph.keys[graph.known]], _flat(graph, graph.poses[graph.known]))
    points = slice(2 if graph.planar else 3)
    landmark = "VERTEX_XY" if graph.planar else "VERTEX_TRACKXYZ"
    yield from _lines(landmark, [marks.keys[marks.known]], marks.positions[marks.known, points])
    yield from _fix(graph)
    joined = [graph.keys[graph.first], graph.keys[graph.second]]
    yield from _lines(f"EDGE_{tag}", joined, np.hstack([_flat(graph, graph.measured), graph.information]))
    joined = [graph.keys[marks.pose], marks.keys[marks.landmark]]
    if not graph.planar:
        joined.append(marks.offset_keys[marks.offset])
    sighting = "EDGE_SE2_XY" if graph.planar else "EDGE_SE3_TRACKXYZ"
    yield from _lines(sighting, joined, np.hstack([marks.points[:, points], marks.information]))


def _toro(graph: PoseGraph) -> Iterator[str]:
    tag = "2" if graph.planar else "3"
    information = graph.information
    if graph.planar:
        information = np.empty_like(graph.information)
        information[:, TORO_TO_ROWS] = graph.information
    angles = _heading_rows if graph.planar else to_euler
    yield from _lines(f"VERTEX{tag}", [graph.keys[graph.known]], angles(graph.poses[graph.known]))
    yield from _fix(graph)
    joined = [graph.keys[graph.first], graph.keys[graph.second]]
    yield from _lines(f"EDGE{tag}", joined, np.hstack([angles(graph.measured), information]))


def _fix(graph: PoseGraph) -> Iterator[str]:
    marks = graph.landmarks
    yield from _lines("FIX", [np.concatenate([graph.keys[graph.fixed], marks.keys[marks.fixed]])])


def _heading_rows(pose: Floats) -> Floats:
    """(n, 3) x, y, heading of planar poses (n, 7)."""
    return np.column_stack([pose[:, :2], heading(pose)])


def _flat(graph: PoseGraph, pose: Floats) -> Floats:
    return _heading_rows(pose) if graph.planar else pose


def _lines(tag: str, ids: list[Indices], values: Floats | None = None) -> Iterator[str]:
    rows: list[NDArray] = ids if values is None else [*ids, *values.T]
    pattern = " ".join([tag, *["%d"] * len(ids), *["%.17g"] * (len(rows) - len(ids))]) + "\n"
    # Columns as lists: Python formats its own numbers several times faster than NumPy's.
    return (pattern % row for row in zip(*(column.tolist() for column in rows), strict=True))


def _zip(text: bytes, path: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed date: the same graph gives the same bytes.
        archive.writestr(zipfile.ZipInfo(path.stem), text, zipfile.ZIP_DEFLATED)
    return file.getvalue()


_COMPRESS: dict[str, Callable[[bytes, Path], bytes]] = {
    ".gz": lambda text, path: gzip.compress(text, mtime=0),
    ".bz2": lambda text, path: bz2.compress(text),
    ".xz": lambda text, path: lzma.compress(text),
    ".zip": _zip,
}
