"""Initial values for a pose graph whose file has none: measurements chained along a tree."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, Indices, PoseGraph


def with_all_values(graph: PoseGraph) -> PoseGraph:
    """``graph``, with values along a spanning tree where it lacks any.  `UserError` where they cannot be made."""
    return graph if graph.known.all() else graph.with_values(*spanning_tree(graph))


def spanning_tree(graph: PoseGraph) -> tuple[Floats, Floats]:
    """Poses (P, 7) and landmarks (L, 3) as the edges of a breadth-first tree from the held pose have them.

    A landmark stands where it was seen first.  `UserError` for a pose that is tied to the others by landmarks only.
    """
    root = int(graph.held[0])
    parent, reached = _breadth_first(graph, root)
    if len(reached) < len(graph.keys):
        lost = np.setdiff1d(np.arange(len(graph.keys)), reached)[0]
        raise UserError(
            f"{graph.source}: no chain of edges leads from pose {graph.keys[root]} to pose {graph.keys[lost]}, "
            "only landmarks: it needs an initial value, in a VERTEX line"
        )
    # Pointer doubling: after k rounds each pose stands in the frame of its ancestor 2^k generations up.  Going down by
    # generations would take thousands of rounds on a robot's track.
    relative, ancestor = _steps(graph, parent, root), parent.copy()
    while (ancestor != root).any():
        relative = poses.compose(relative[ancestor], relative)
        ancestor = ancestor[ancestor]
    values = poses.compose(graph.poses[root], relative)
    marks = graph.landmarks
    landmark, sighting = np.unique(marks.landmark, return_index=True)
    positions = marks.positions.copy()
    sensor = poses.compose(values[marks.pose[sighting]], marks.base_from_sensor[sighting])
    positions[landmark] = poses.transform(sensor, marks.points[sighting])
    return values, positions


def _breadth_first(graph: PoseGraph, root: int) -> tuple[Indices, Indices]:
    """The parent (P,) of every pose, the root's being the root, and the poses reached, in order."""
    count = len(graph.keys)
    joined = coo_array((np.ones(len(graph.first)), (graph.first, graph.second)), shape=(count, count)).tocsr()
    reached, parent = breadth_first_order(joined, root, directed=False)
    parent = parent.astype(np.int64)
    parent[root] = root
    return parent, reached.astype(np.int64)


def _steps(graph: PoseGraph, parent: Indices, root: int) -> Floats:
    """Each pose (P, 7) as the first edge between it and its parent has it, in the frame of the parent."""
    count = len(graph.keys)
    ahead, back = graph.first * count + graph.second, graph.second * count + graph.first
    between = np.concatenate([ahead, back])
    measured = np.concatenate([graph.measured, poses.inverse(graph.measured)])
    order = np.argsort(between, kind="stable")
    wanted = parent * count + np.arange(count)
    found = order[np.minimum(np.searchsorted(between, wanted, sorter=order), len(order) - 1)]
    steps = measured[found]
    steps[root] = poses.IDENTITY
    return steps
