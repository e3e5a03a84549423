"""A pose graph as a file holds it: what `posegraph_read` returns and `posegraph_write` takes.

Conventions are those of `dsg_ros.poses`.  Edge k saw pose ``second[k]`` at ``measured[k]`` in the frame of pose
``first[k]``: its error is ``log(measured^-1 first^-1 second)``, (translation, rotation), and the graph's cost is half
the sum of the squared errors, whitened by ``sqrt_info``.  g2o itself takes a 3D edge's information matrix for
(translation, vector part of the quaternion); here, as in GTSAM and in the literature, it stands for (translation,
rotation vector).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses as se3

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

PLANAR_AXES = (0, 1, 5)
"""Where x, y and heading of a planar graph stand in a tangent vector."""


@dataclass(frozen=True)
class Landmarks:
    """Points and the sightings of them: from pose ``pose[k]`` the sensor saw ``landmark[k]`` at ``points[k]``.

    keys: (L,) vertex ids in the file
    positions: (L, 3) [m]; of planar graphs with z = 0
    known: (L,) whether the file gives the position
    fixed: (F,) indices into keys of landmarks that are held
    pose, landmark: (K,) indices into the graph's poses and into keys
    points: (K, 3) [m] in the sensor frame
    information: (K, 6), planar (K, 3), upper triangles by rows
    sqrt_info: (K, 3, 3) S with S^T S = information; of planar graphs the last row and column are zero
    offset_keys, offsets: (N,) and (N, 7), ids and poses of sensors in the frame of the robot
    offset: (K,) index into offsets; -1 where the robot's frame is the sensor's
    """

    keys: Indices
    positions: Floats
    known: NDArray[np.bool_]
    fixed: Indices
    pose: Indices
    landmark: Indices
    points: Floats
    information: Floats
    sqrt_info: Floats
    offset_keys: Indices
    offsets: Floats
    offset: Indices

    @property
    def base_from_sensor(self) -> Floats:
        """(K, 7) each sighting's sensor in the frame of the robot."""
        return np.concatenate([self.offsets, se3.IDENTITY[None]])[self.offset]

    @staticmethod
    def none(planar: bool) -> Landmarks:
        """No landmark."""
        return Landmarks(
            keys=np.zeros(0, np.int64),
            positions=np.zeros((0, 3)),
            known=np.zeros(0, bool),
            fixed=np.zeros(0, np.int64),
            pose=np.zeros(0, np.int64),
            landmark=np.zeros(0, np.int64),
            points=np.zeros((0, 3)),
            information=np.zeros((0, 3 if planar else 6)),
            sqrt_info=np.zeros((0, 3, 3)),
            offset_keys=np.zeros(0, np.int64),
            offsets=np.zeros((0, 7)),
            offset=np.zeros(0, np.int64),
        )


@dataclass(frozen=True)
class PoseGraph:
    """Poses, edges between them, and landmarks.

    planar: whether poses are (x, y, heading); they are stored as `dsg_ros.poses.from_planar` has them
    keys: (P,) vertex ids in the file, in its order; ascending where the file declares no vertex
    poses: (P, 7); the identity where the file gives no value
    known: (P,) whether the file gives the value: of all vertices, or of none
    fixed: (F,) indices of the poses that FIX lines hold
    first, second: (E,) indices of the poses an edge joins
    measured: (E, 7)
    information: (E, 21), planar (E, 6), upper triangles by rows over (x, y, z, rotation), planar (x, y, heading)
    sqrt_info: (E, 6, 6) S with S^T S = information; of planar graphs zero outside `PLANAR_AXES`
    unknown: lines left out, by tag
    unended: whether the file's last line has no end: its last number may have lost digits
    source: the file
    """

    planar: bool
    keys: Indices
    poses: Floats
    known: NDArray[np.bool_]
    fixed: Indices
    first: Indices
    second: Indices
    measured: Floats
    information: Floats
    sqrt_info: Floats
    landmarks: Landmarks
    unknown: Counter[str] = field(default_factory=Counter)
    unended: bool = False
    source: Path = Path()

    @property
    def factors(self) -> int:
        """Edges and sightings."""
        return len(self.first) + len(self.landmarks.pose)

    @property
    def held(self) -> Indices:
        """(F,) indices of the poses to hold: those of FIX lines; the first pose where no FIX line holds anything.

        Without it the cost does not change when the whole graph moves (the gauge), and any one pose may be held.
        """
        return self.fixed if len(self.fixed) or len(self.landmarks.fixed) else np.zeros(1, np.int64)

    @property
    def places(self) -> Indices:
        """(P,) where each pose comes in the ascending order of keys, which is that of its time."""
        out = np.empty(len(self.keys), np.int64)
        out[np.argsort(self.keys, kind="stable")] = np.arange(len(self.keys))
        return out

    def arrivals(self) -> Iterator[tuple[int, Indices]]:
        """Poses in the order of their keys: each one's index, and the indices of its edges to poses before it."""
        places = self.places
        later = np.maximum(places[self.first], places[self.second])
        edges = np.argsort(later, kind="stable")
        border = np.searchsorted(later[edges], np.arange(len(places) + 1))
        for place, pose in enumerate(np.argsort(places).tolist()):
            yield pose, edges[border[place] : border[place + 1]]

    def with_values(self, poses: Floats, positions: Floats) -> PoseGraph:
        """The same graph with other values of its poses (P, 7) and landmarks (L, 3), all of them known."""
        landmarks = dataclasses.replace(
            self.landmarks, positions=positions, known=np.ones(len(self.landmarks.keys), bool)
        )
        return dataclasses.replace(self, poses=poses, known=np.ones(len(self.keys), bool), landmarks=landmarks)


def cost(graph: PoseGraph) -> float:
    """Half the sum of the squared whitened errors of all edges and sightings, at the graph's values."""
    ends = graph.poses[graph.first], graph.poses[graph.second]
    error = se3.log(se3.between(graph.measured, se3.between(*ends)))
    marks = graph.landmarks
    sensor = se3.compose(graph.poses[marks.pose], marks.base_from_sensor)
    miss = se3.transform(se3.inverse(sensor), marks.positions[marks.landmark]) - marks.points
    whitened = np.einsum("nij,nj->ni", graph.sqrt_info, error), np.einsum("nij,nj->ni", marks.sqrt_info, miss)
    return 0.5 * sum(float(np.vdot(each, each)) for each in whitened)
