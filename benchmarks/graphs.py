"""The graphs that are compared on: those of the literature, where they are at hand, and simulated cities.

Both sides get the same graph: the same initial values, the same first pose to hold, the same information matrices.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import city
from dsg_ros import poses as se3
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, Indices, PoseGraph
from dsg_ros.io.posegraph_read import read_pose_graph

VARIABLE = "DSG_ROS_GRAPHS"
"""Environment variable that names the folder of the graph files."""
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "pose_graphs"
ENDINGS = (".g2o", ".g2o.xz", ".g2o.gz", ".g2o.bz2", ".txt", ".txt.xz")

SPATIAL = ("sphere2500", "torus3D", "parking-garage", "smallGrid3D")
PLANAR = ("manhattan", "city10000", "intel", "CSAIL")
LITERATURE = (*SPATIAL, *PLANAR)
SIMULATED = ("city-1k", "city-3k", "city-10k")


def folder() -> Path:
    """Where graph files are looked for."""
    return Path(os.environ[VARIABLE]).expanduser() if os.environ.get(VARIABLE) else BESIDE


def load(name: str) -> PoseGraph:
    """A graph by name, poses in the order of their keys, with initial values; `UserError` where its file is missing.

    ``city-10k`` and the like are simulated: that many thousand poses.
    """
    if name.startswith("city-"):
        return city.simulate(_thousands(name))
    where = folder()
    path = next((path for ending in ENDINGS if (path := where / f"{name}{ending}").is_file()), None)
    if path is None:
        raise UserError(f"{where}: no {name}.g2o, plain or compressed; set {VARIABLE} to the folder of the graph files")
    return with_values(in_order(read_pose_graph(path)))


def _thousands(name: str) -> int:
    digits = name.removeprefix("city-").removesuffix("k")
    if not digits.isdigit() or not name.endswith("k") or int(digits) == 0:
        raise UserError(f"{name}: a simulated city is named by its thousands of poses, like city-10k")
    return 1000 * int(digits)


def in_order(graph: PoseGraph) -> PoseGraph:
    """The same graph with its poses in ascending order of their keys, which is that of their time."""
    place = graph.places
    order = np.argsort(place)
    return dataclasses.replace(
        graph,
        keys=graph.keys[order],
        poses=graph.poses[order],
        known=graph.known[order],
        fixed=place[graph.fixed],
        first=place[graph.first],
        second=place[graph.second],
    )


def with_values(graph: PoseGraph) -> PoseGraph:
    """The graph, with values chained along its edges where its file gives none (as GTSAM's reader does)."""
    if graph.known.all():
        return graph
    values = np.repeat(se3.IDENTITY[None], len(graph.keys), axis=0)
    for arrival in arrivals(graph):
        values[arrival.pose] = arrival.initial(values)
    return graph.with_values(values, graph.landmarks.positions)


@dataclass(frozen=True)
class Edges:
    """Edges (n,) that a new pose brings: as in `PoseGraph`, each between it and an earlier pose."""

    first: Indices
    second: Indices
    measured: Floats
    sqrt_info: Floats
    information: Floats

    @staticmethod
    def of(graph: PoseGraph, chosen: Indices) -> Edges:
        """Edges of a graph by index."""
        return Edges(
            graph.first[chosen],
            graph.second[chosen],
            graph.measured[chosen],
            graph.sqrt_info[chosen],
            graph.information[chosen],
        )

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Arrival:
    """Pose ``pose`` arrives with ``edges`` to earlier ones; its initial value comes from that to the pose before."""

    pose: int
    edges: Edges

    def initial(self, values: Floats) -> Floats:
        """Its initial value (7,) from the values (P, 7) of earlier poses; the first pose keeps its own."""
        if not len(self.edges):
            return np.asarray(values[self.pose])
        other = np.where(self.edges.second == self.pose, self.edges.first, self.edges.second)
        k = int(np.argmax(other))
        step = self.edges.measured[k]
        if self.edges.first[k] == self.pose:
            step = se3.inverse(step)
        return se3.compose(values[other[k]], step)


def arrivals(graph: PoseGraph) -> Iterator[Arrival]:
    """The poses of a graph in order, each with all its edges to earlier ones.

    `UserError` where one has none: nothing would tell where it is until a later one comes.
    """
    for pose, chosen in graph.arrivals():
        if pose and not len(chosen):
            raise UserError(f"{graph.source}: no edge joins vertex {graph.keys[pose]} to one before it")
        yield Arrival(pose, Edges.of(graph, chosen))


def errors(graph: PoseGraph, values: Floats) -> Floats:
    """(E,) squared whitened errors ``|S log(measured^-1 first^-1 second)|^2`` at poses (P, 7).

    In the plane the logarithm of SE(3) has SE(2)'s x, y and heading in its components 0, 1 and 5.
    """
    relative = se3.between(values[graph.first], values[graph.second])
    whitened = np.einsum("eij,ej->ei", graph.sqrt_info, se3.log(se3.between(graph.measured, relative)))
    return np.asarray(np.einsum("ei,ei->e", whitened, whitened))


def cost(graph: PoseGraph, values: Floats) -> float:
    """Half the sum of `errors`: the one judge of both sides' answers."""
    return 0.5 * float(errors(graph, values).sum())


def digest(graph: PoseGraph) -> str:
    """Sixteen hexadecimal digits of all that a solver is given: equal only for the same graph and initial values."""
    found = hashlib.sha256(b"planar" if graph.planar else b"space")
    for part in (graph.keys, graph.poses, graph.fixed, graph.first, graph.second, graph.measured, graph.information):
        found.update(str(part.shape).encode())
        found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


def neighbours(graph: PoseGraph) -> NDArray[np.bool_]:
    """(E,) whether an edge joins consecutive poses: odometry, not a loop closure."""
    return np.abs(graph.first - graph.second) == 1
