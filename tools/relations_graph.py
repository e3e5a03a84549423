"""A run's trajectories against a graph of verified relations that has no stamps, matched by the way the odometry tells.

    python tools/relations_graph.py OUT LOG GRAPH

OUT is a folder of `python -m dsg_ros run LOG`.  GRAPH joins neighbours by odometry of the same drive and places that
were seen twice by relations; its poses are those that `python -m dsg_ros optimize GRAPH` finds.  Told of each
trajectory is the root mean square of the positions at the graph's poses, aligned rigidly in the plane [m].
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.commands import optimize
from dsg_ros.io.logs import open_log
from dsg_ros.io.posegraph import PoseGraph
from dsg_ros.io.posegraph_read import read_pose_graph
from dsg_ros.io.records import OdometryRecord
from dsg_ros.io.trajectories import read_tum
from dsg_ros.report.evaluation import Track, score

Array = NDArray[np.float64]


def travelled(positions: Array) -> Array:
    """Way (n,) until each of ``positions`` (n, 2)."""
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def told_way(graph: PoseGraph) -> Array:
    """Way (P,) until each pose of the graph, in the order of their keys, by the edges between neighbours."""
    neighbours = graph.places[graph.second] == graph.places[graph.first] + 1
    steps = np.zeros(len(graph.keys) - 1)
    steps[graph.places[graph.first[neighbours]]] = np.linalg.norm(graph.measured[neighbours, :2], axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def main() -> None:
    """Print a line for each trajectory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("graph", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        solved = Path(folder) / "graph.toro"
        optimize.main(optimize.Options(graph=options.graph, out=solved))
        graph, wanted = read_pose_graph(options.graph), read_pose_graph(solved)
    odometry = np.array([record.pose for record in open_log(options.log) if isinstance(record, OdometryRecord)])
    way, along = travelled(odometry[:, :2]), told_way(graph)
    way *= along[-1] / way[-1]
    stamps = np.arange(len(along))
    places = Track(stamps, wanted.poses[np.argsort(graph.places)])
    for name in ("trajectory", "trajectory_causal", "trajectory_live"):
        _, track = read_tum(options.out / f"{name}.tum")
        x, y = (np.interp(along, way, column) for column in track[:, :2].T)
        found = Track(stamps, poses.from_planar(x, y, np.zeros_like(x)))
        print(f"{name}: positions {score(found, places).ate_rmse:.2f} m rms")


if __name__ == "__main__":
    main()
