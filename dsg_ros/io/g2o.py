"""g2o files that carry laser scans (the MIT Killian Court run): scans and sequential edges in, published poses apart.

A ``ROBOTLASER1`` line follows the ``VERTEX_SE2`` line it was taken at.  Odometry is the chain of ``EDGE_SE2`` lines
that join consecutive vertices, as listed under ``#SEQUENTIAL EDGES``; the vertices' own values are a published
solution and serve only as a reference to compare with (`read_reference`).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.carmen import SteadyExtrinsic, parse_robotlaser
from dsg_ros.io.records import OdometryRecord, Record, ScanRecord
from dsg_ros.io.textfile import LineErrors, read_bytes
from dsg_ros.io.trajectories import write_tum

_log = logging.getLogger(__name__)

Planar = tuple[float, float, float]  # x [m], y [m], heading [rad]

_VERTEX = (b"VERTEX_SE2", b"VERTEX2")
_EDGE = (b"EDGE_SE2", b"EDGE2")


class G2oLog:
    """Scans in file order, each preceded by its odometry: the sequential edges chained from the identity."""

    paired = True
    tells_odometry = True

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._counts: Counter[str] = Counter()
        self._errors = LineErrors(path, self._counts, _log)
        self._scans: list[tuple[int, ScanRecord]] = []
        edges: dict[tuple[int, int], Planar] = {}
        vertices = self._read(data, edges)
        if not self._scans:
            raise UserError(
                f"{path}: the g2o file holds no ROBOTLASER1 scan after a VERTEX_SE2 line: nothing to map from"
            )
        self._odometry = self._chain(vertices, edges)

    @property
    def name(self) -> str:
        return str(self._path)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def __len__(self) -> int:
        return len(self._scans)

    def __iter__(self) -> Iterator[Record]:
        for vertex, scan in self._scans:
            yield OdometryRecord(scan.stamp, poses.from_planar(*self._odometry[vertex]))
            yield scan

    def _read(self, data: bytes, edges: dict[tuple[int, int], Planar]) -> list[int]:
        """Fill scans and odometry edges; the vertices in file order are returned."""
        vertices: list[int] = []
        sections = b"#SEQUENTIAL EDGES" in data
        section = b""
        steady = SteadyExtrinsic(self._counts)
        for number, line in enumerate(data.split(b"\n"), 1):
            words = line.split()
            if not words:
                continue
            if words[0].startswith(b"#"):
                section = line.strip()
                continue
            try:
                if words[0] in _VERTEX:
                    vertices.append(int(words[1]))
                elif words[0] == b"ROBOTLASER1":
                    if not vertices:
                        raise ValueError("a scan before any vertex")
                    self._scans.append((vertices[-1], steady(parse_robotlaser(words)[1])))
                elif words[0] not in _EDGE:
                    self._counts["ignored_lines"] += 1
                elif sections and section != b"#SEQUENTIAL EDGES":
                    self._counts["ignored_loop_edges"] += 1
                else:
                    edges.setdefault((int(words[1]), int(words[2])), _planar(words[3:6]))
            except (ValueError, IndexError) as error:
                self._errors.add(number, f"{words[0].decode(errors='replace')}: {error}")
        return vertices

    def _chain(self, vertices: list[int], edges: dict[tuple[int, int], Planar]) -> dict[int, Planar]:
        x = y = heading = 0.0
        chain = {vertices[0]: (x, y, heading)}
        for before, after in pairwise(vertices):
            if (before, after) not in edges:
                raise UserError(
                    f"{self._path}: no sequential EDGE_SE2 from vertex {before} to {after}: "
                    "the odometry chain is broken there"
                )
            dx, dy, turn = edges[before, after]
            c, s = math.cos(heading), math.sin(heading)
            x, y, heading = x + c * dx - s * dy, y + s * dx + c * dy, math.remainder(heading + turn, 2 * math.pi)
            chain[after] = (x, y, heading)
        return chain


def read_reference(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The published solution: stamps (n,) of the scans and base poses (n, 7), the values of the vertices they
    follow.
    """
    stamps, rows = [], []
    vertex: Planar | None = None
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        words = line.split()
        try:
            if words and words[0] in _VERTEX:
                vertex = _planar(words[2:5])
            elif words and words[0] == b"ROBOTLASER1" and vertex is not None:
                stamps.append(parse_robotlaser(words)[1].stamp)
                rows.append(vertex)
        except (ValueError, IndexError) as error:
            raise UserError(f"{path}:{number}: {words[0].decode()}: {error}") from error
    if not rows:
        raise UserError(f"{path}: no VERTEX_SE2 followed by a ROBOTLASER1 scan: there is no published trajectory in it")
    return np.array(stamps, np.int64), poses.from_planar(*np.array(rows).T)


def write_reference(path: Path, tum: Path) -> int:
    """Write the published solution as a TUM file at the scans' stamps; the number of poses is returned."""
    stamps, trajectory = read_reference(path)
    write_tum(tum, stamps, trajectory)
    return len(stamps)


def _planar(words: list[bytes]) -> Planar:
    x, y, heading = (float(word) for word in words)
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(heading)):
        raise ValueError(f"x {x:g}, y {y:g}, heading {heading:g} are not all finite")
    return x, y, heading
