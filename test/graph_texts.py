"""Pose graph files for tests: texts of small graphs, read from and written to a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from dsg_ros.io.posegraph import PoseGraph
from dsg_ros.io.posegraph_read import read_pose_graph
from dsg_ros.io.posegraph_write import write_pose_graph

I2 = "500 0 0 500 0 5000"
I3 = "1 0 0 0 0 0 1 0 0 0 0 1 0 0 0 4 0 0 4 0 4"
VERTICES, EDGE = "VERTEX_SE2 0 0 0 0\nVERTEX_SE2 1 1 0 0.5\n", f"EDGE_SE2 0 1 1 0 0.5 {I2}\n"
PLANE = VERTICES + EDGE
SPACE = (
    f"VERTEX_SE3:QUAT 0 0 0 0 0 0 0 1\nVERTEX_SE3:QUAT 1 1 0 0 0 0 0.6 0.8\nEDGE_SE3:QUAT 0 1 1 0 0 0 0 0.6 0.8 {I3}\n"
)
SIGHT2 = "VERTEX_XY 7 1 1\nEDGE_SE2_XY 0 7 1 1 10 1 20\n"
SIGHT3 = "PARAMS_SE3OFFSET 4 1 2 3 0 0 1 0\nVERTEX_TRACKXYZ 7 0 1 3\nEDGE_SE3_TRACKXYZ 0 7 4 1 1 0 10 1 2 20 3 30\n"


def read(folder: Path, text: str) -> PoseGraph:
    path = folder / "graph.g2o"
    path.write_text(text)
    return read_pose_graph(path)


def same(a: PoseGraph, b: PoseGraph) -> None:
    """Every number of two graphs is the same bit for bit."""
    for one, other in ((a, b), (a.landmarks, b.landmarks)):
        for field in dataclasses.fields(one):
            if isinstance(getattr(one, field.name), np.ndarray):
                np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)
    assert a.planar == b.planar


def written_and_read(folder: Path, graph: PoseGraph, name: str = "written.g2o") -> PoseGraph:
    write_pose_graph(folder / name, graph)
    return read_pose_graph(folder / name)
