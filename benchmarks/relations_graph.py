"""A run against a graph of verified relations that has no stamps: its trajectories, and the closures that it made.

    python -m benchmarks.relations_graph OUT LOG GRAPH

OUT is a folder of `python -m dsg_ros run LOG`.  GRAPH joins neighbours by odometry of the same drive and places that
were seen twice by relations; its poses are those of its optimum.  Which scan each of its poses is of, is told in two
ways: by the way until there, as the odometry measures it, or by aligning (`aligned`) the motions between neighbours
with the odometry's, which the way alone misses by up to 4.4 m.  Of each trajectory are told the root mean square of the
positions at the graph's poses, fitted rigidly in the plane [m], by way and aligned, and the errors of the relations.
A closure is held to the relation nearest to it, carried over by the odometry of the metres between.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.commands._solve_graph import solve_graph
from dsg_ros.interface import SavedMap
from dsg_ros.io.logs import open_log
from dsg_ros.io.map_folder import IN_RUN, read_map
from dsg_ros.io.posegraph import PoseGraph
from dsg_ros.io.posegraph_read import read_pose_graph
from dsg_ros.io.records import OdometryRecord
from dsg_ros.io.trajectories import read_tum
from dsg_ros.report.evaluation import Track, score

APART = 10
"""Poses of the graph that are so many or more apart are joined by relations; nearer ones by odometry."""
FALSE_DISTANCE, FALSE_TURN = 1.5, np.radians(10.0)
"""A closure farther than this [m, rad] from its relation is false: what the scans' places and the odometry over some
metres leave open comes to 1.0 m and 5.3 deg at most."""
STEPS, AROUND = 40, 40.0
"""In an alignment: scans from one pose of the graph to the next, and metres of way between a pose and its scan."""
LENGTH_SIGMA, TURN_SIGMA, WORST = 0.05, 0.02, 16.0
"""Deviations of a motion [m, rad] between neighbours; more than so many squared deviations count as these."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class Off(NamedTuple):
    """How far motions (m,) are from what is known of them: [m], [rad]."""

    metres: Array
    radians: Array

    @staticmethod
    def of(known: Array, found: Array) -> Off:
        """From poses (m, 7)."""
        error = poses.log(poses.between(known, found))
        return Off(np.linalg.norm(error[:, :3], axis=1), np.linalg.norm(error[:, 3:], axis=1))


@dataclass(frozen=True)
class Drive:
    """The graph's optimum ``places`` (P, 7) in their order, at the ``along`` (P,) [m] that was driven until each; the
    log's ``odometry`` (n, 7) at ``stamps`` (n,) [ns], in the order of the log, with the ``way`` (n,) [m] until then.

    ``scans`` (P,) are the places' numbers in the log; ``relations`` (r, 7) are between the places ``ends`` (r, 2).
    """

    places: Array
    along: Array
    stamps: Indices
    odometry: Array
    way: Array
    scans: Indices
    ends: Indices
    relations: Array

    @staticmethod
    def of(log: Path, graph: Path) -> Drive:
        """That of a log and its graph."""
        told = read_pose_graph(graph)
        solved = solve_graph(told)
        assert solved.converged, f"{graph} has an optimum"
        records = [record for record in open_log(log) if isinstance(record, OdometryRecord)]
        odometry = np.array([record.pose for record in records])
        way, along = travelled(odometry[:, :2]), told_way(told)
        way *= along[-1] / way[-1]
        ends = told.places[np.column_stack([told.first, told.second])]
        far = np.abs(ends[:, 1] - ends[:, 0]) >= APART
        return Drive(
            places=solved.poses[np.argsort(told.places)],
            along=along,
            stamps=np.array([record.stamp for record in records]),
            odometry=odometry,
            way=way,
            scans=aligned(neighbours(told), along, odometry, way),
            ends=ends[far],
            relations=told.measured[far],
        )

    def by_way(self, track: Array) -> float:
        """Root mean square [m] of the positions of ``track`` (n, 7), a pose for each of the odometry's, at the graph's
        poses, fitted rigidly; scans are told by the way.
        """
        x, y = (np.interp(self.along, self.way, column) for column in track[:, :2].T)
        return self._rms(poses.from_planar(x, y, np.zeros_like(x)))

    def by_scans(self, track: Array) -> float:
        """`by_way`, but that scans are told by alignment."""
        return self._rms(track[self.scans])

    def _rms(self, found: Array) -> float:
        counted = np.arange(len(self.places))
        return score(Track(counted, found), Track(counted, self.places)).ate_rmse

    def off(self, track: Array) -> Off:
        """How far the motions of ``track`` (n, 7) are from the relations."""
        first, second = track[self.scans[self.ends]].swapaxes(0, 1)
        return Off.of(self.relations, poses.between(first, second))

    def closures(self, saved: SavedMap) -> Off:
        """How far the closures of a run's map, as they were measured, are each from the relation nearest to it."""
        rows, number = saved.rows["Loop"], {stamp: n for n, stamp in enumerate(self.stamps.tolist())}
        keyframes = np.array([number[stamp] for stamp in saved.stamps.tolist()])
        ends = np.concatenate([self.ends, self.ends[:, ::-1]])
        relations = np.concatenate([self.relations, poses.inverse(self.relations)])
        closed = keyframes[np.column_stack([rows["first"], rows["second"]])]
        apart = np.abs(self.way[closed][:, None] - self.way[self.scans[ends]]).sum(axis=2)
        chosen = apart.argmin(axis=1)
        told, near = self.odometry[closed], self.odometry[self.scans[ends[chosen]]]
        there = poses.compose(poses.between(told[:, 0], near[:, 0]), relations[chosen])
        known = poses.compose(there, poses.between(near[:, 1], told[:, 1]))
        return Off.of(known, rows["measured"])


def travelled(positions: Array) -> Array:
    """Way (n,) until each of ``positions`` (n, 2)."""
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def neighbours(graph: PoseGraph) -> Array:
    """Motions (P - 1, 7) from each pose of the graph to the next, in the order of their keys."""
    joined = graph.places[graph.second] == graph.places[graph.first] + 1
    steps = np.repeat(poses.IDENTITY[None], len(graph.keys) - 1, axis=0)
    steps[graph.places[graph.first[joined]]] = graph.measured[joined]
    return steps


def told_way(graph: PoseGraph) -> Array:
    """Way (P,) until each pose of the graph, in the order of their keys, by the edges between neighbours."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(neighbours(graph)[:, :2], axis=1))])


def aligned(steps: Array, along: Array, odometry: Array, way: Array) -> Indices:
    """Which of the ``odometry``'s poses (n, 7), at ``way`` (n,) [m], those of a graph are: (P,), in ascending order.

    ``steps`` (P - 1, 7) are the motions from each pose of the graph to the next, ``along`` (P,) [m] the way until
    each.  Found are the poses between which length and turn of the odometry depart least from the steps', by dynamic
    programming; where the two differ sideways, as they do in a skidding turn, tells nothing.
    """
    count = len(odometry)
    lengths, turns = np.full((2, STEPS, count), np.nan)
    for back in range(1, STEPS + 1):
        motion = poses.between(odometry[:-back], odometry[back:])
        lengths[back - 1, back:] = np.linalg.norm(motion[:, :2], axis=1)
        turns[back - 1, back:] = poses.yaw(motion)
    cost = np.where(way <= way[0] + 2.0, 0.0, np.inf)
    came = np.zeros((len(steps), count), np.int64)
    wanted, turned = np.linalg.norm(steps[:, :2], axis=1), poses.yaw(steps)
    for k in range(len(steps)):
        some = np.arange(*np.searchsorted(way, [along[k + 1] - AROUND, along[k + 1] + AROUND]))
        before = some - np.arange(1, STEPS + 1)[:, None]
        turn = (turns[:, some] - turned[k] + np.pi) % (2 * np.pi) - np.pi
        off = ((lengths[:, some] - wanted[k]) / LENGTH_SIGMA) ** 2 + (turn / TURN_SIGMA) ** 2
        total = np.where(before >= 0, cost[np.maximum(before, 0)] + np.fmin(off, WORST), np.inf)
        best = total.argmin(axis=0)
        cost = np.full(count, np.inf)
        cost[some], came[k, some] = total[best, np.arange(len(some))], best + 1
    found = [int(cost.argmin())]
    for k in reversed(range(len(steps))):
        found.append(found[-1] - int(came[k, found[-1]]))
    return np.array(found[::-1])


def main() -> None:
    """Print a line for each trajectory, and one of the closures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("graph", type=Path)
    options = parser.parse_args()
    drive = Drive.of(options.log, options.graph)
    for name in ("odometry", "trajectory_live", "trajectory_causal", "trajectory"):
        _, track = read_tum(options.out / f"{name}.tum")
        metres, radians = drive.off(track)
        print(
            f"{name}: positions {drive.by_way(track):.2f} m rms by way, {drive.by_scans(track):.2f} m aligned; "
            f"{len(metres)} relations {metres.mean():.3f} m (median {np.median(metres):.3f}), "
            f"{np.degrees(radians.mean()):.2f} deg"
        )
    found = drive.closures(read_map(options.out / IN_RUN))
    false = (found.metres > FALSE_DISTANCE) | (found.radians > FALSE_TURN)
    print(
        f"{len(false)} closures, {false.sum()} false; from the nearest relation median {np.median(found.metres):.2f} "
        f"m, {np.degrees(np.median(found.radians)):.1f} deg, at most {found.metres.max():.2f} m, "
        f"{np.degrees(found.radians.max()):.1f} deg"
    )


if __name__ == "__main__":
    main()
