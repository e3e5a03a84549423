"""Loop closure: where to look, what to believe.

Where: keyframes closer to the newest one than the drift since they were linked allows, the link being the shortest path
over the chain and the closures so far.  What: a correlative search that is exact inside those bounds, a registration
without prior, and for corrections that move the map far, the agreement of several closures over some travel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import correlative, scan
from dsg_ros.mapping.local_map import LocalMapper, merged
from dsg_ros.mapping.path_kernel import path_lengths

HELD = np.diag([1.0, 1.0, 1.0, 10.0, 10.0, 10.0])
"""Information of the first guess in the final match: a metre, a third of a radian, for what a corridor leaves open."""

REFERENCE_POINTS = 30_000
"""Of the points that make a place as many at most are used: of clouds every second or third, which is dense enough."""

BRIDGE = 0.05
"""Metres that a closure counts for on a path over the graph."""


@dataclass(frozen=True)
class Closure:
    """``relative`` (7,) is keyframe ``newer`` seen from ``older``, ``information`` (6, 6) is in its tangent.

    ``jump`` [m] is how far the closure moves the newer end.
    """

    older: int
    newer: int
    relative: NDArray[np.float64]
    information: NDArray[np.float64]
    jump: float


class LoopCloser:
    """Proposes and verifies closures between keyframes; holds back large corrections until several agree."""

    def __init__(self, settings: config.LoopClosure, mapper: LocalMapper) -> None:
        self._settings = settings
        self._mapper = mapper
        self._waiting: list[Closure] = []
        self.counts = {
            "loops_considered": 0,
            "loops_refused_score": 0,
            "loops_refused_ambiguous": 0,
            "loops_refused_overlap": 0,
            "loops_waiting": 0,
        }

    def search(
        self,
        trajectory: NDArray[np.float64],
        clouds: Sequence[NDArray[np.float64]],
        travel: NDArray[np.float64],
        loops: Sequence[tuple[int, int]],
    ) -> list[Closure]:
        """Closures of the newest keyframe that are believed now.

        ``trajectory`` (k, 7) keyframes in map, ``clouds`` their points (n, 3) in their own frames, ``travel`` (k,)
        metres driven, ``loops`` the closures already in the graph.  May return earlier ones that had been waiting for
        agreement.
        """
        newest = len(trajectory) - 1
        found: list[Closure] = []
        for older, drift in self._candidates(trajectory, travel, loops):
            self.counts["loops_considered"] += 1
            closure = self._verify(trajectory, clouds, older, newest, drift)
            if closure is None:
                continue
            if closure.jump <= self._settings.trusted_jump:
                found.append(closure)
            else:
                found.extend(self._agreeing(closure, trajectory, travel))
        self.counts["loops_waiting"] = len(self._waiting)
        return found

    def _candidates(
        self, trajectory: NDArray[np.float64], travel: NDArray[np.float64], loops: Sequence[tuple[int, int]]
    ) -> list[tuple[int, float]]:
        """Older keyframes worth trying, one a stretch of trajectory, with the drift [m] to allow for; nearest first."""
        s, newest = self._settings, len(trajectory) - 1
        apart = travel[newest] - travel > s.least_travel
        distance = np.linalg.norm(trajectory[:, :3] - trajectory[newest, :3], axis=1)
        near = np.nonzero(apart & (distance < s.most_drift))[0]
        if not len(near):
            return []
        drift = np.minimum(s.most_drift, s.drift_start + s.drift_rate * _graph_distance(travel, loops))
        near = near[distance[near] < drift[near]]
        if not len(near):
            return []
        turn = np.abs(np.angle(np.exp(1j * (poses.yaw(trajectory[near]) - poses.yaw(trajectory[newest])))))
        cost = distance[near] + 0.5 * turn
        stretches = np.split(np.arange(len(near)), np.nonzero(np.diff(near) > s.reference_keyframes)[0] + 1)
        best = sorted((min(cost[stretch]), int(near[stretch[np.argmin(cost[stretch])]])) for stretch in stretches)
        return [(older, float(drift[older])) for _, older in best[: s.most_candidates]]

    def _verify(
        self,
        trajectory: NDArray[np.float64],
        clouds: Sequence[NDArray[np.float64]],
        older: int,
        newest: int,
        drift: float,
    ) -> Closure | None:
        """The closure between ``older`` and ``newest``, if their surroundings match within the ``drift`` [m]."""
        s = self._settings
        low = max(0, older - s.reference_keyframes)
        high = min(newest - s.query_keyframes, older + s.reference_keyframes + 1)
        reference = _merged(trajectory, clouds, older, slice(low, high))
        query = _merged(trajectory, clouds, newest, slice(max(0, newest - s.query_keyframes + 1), newest + 1))
        if not len(reference) or not len(query):
            return None
        reference = reference[:: -(-len(reference) // REFERENCE_POINTS)]
        query = scan.thin(query, s.query_cell, self._mapper.capacity)
        guess = start = poses.between(trajectory[older], trajectory[newest])
        if drift > s.search_beyond:
            placed = self._place(reference, poses.transform(guess, query), guess[:2], drift)
            if placed is None:
                self.counts["loops_refused_score"] += 1
                return None
            if placed.runner_up > s.most_rival * placed.score:
                self.counts["loops_refused_ambiguous"] += 1
                return None
            pivot = poses.from_planar(guess[0], guess[1], 0.0)
            moved = poses.from_planar(guess[0] + placed.x, guess[1] + placed.y, placed.yaw)
            start = poses.compose(poses.compose(moved, poses.inverse(pivot)), guess)
        local_map = self._mapper.build_from_points(reference)
        match = self._mapper.register(local_map, query, start[None], start, HELD)
        if match.inliers < s.least_inliers:
            self.counts["loops_refused_overlap"] += 1
            return None
        jump = float(np.linalg.norm(match.pose[:3] - guess[:3]))
        information = self._mapper.factor_information(match.information, s.floor_translation, s.floor_rotation)
        return Closure(older, newest, match.pose, information, jump)

    def _place(
        self, reference: NDArray[np.float64], points: NDArray[np.float64], pivot: NDArray[np.float64], drift: float
    ) -> correlative.Candidate | None:
        """Where ``points`` (n, 3) fit ``reference`` (m, 3), both in the older keyframe; turns are about ``pivot``.

        Of clouds the walls are looked at: floors and ceilings fit anywhere.
        """
        s = self._settings
        flat = correlative.flattened(points, planar=self._mapper.planar)
        if not len(flat):
            return None
        extent = drift + float(np.abs(flat - pivot).max()) * np.sqrt(2.0)
        around = correlative.flattened(reference, planar=self._mapper.planar)
        grids = correlative.pyramid(around, pivot, extent, resolution=s.search_resolution)
        return correlative.search(
            grids,
            flat,
            pivot=pivot,
            radius=drift,
            angle=min(s.most_turn, 0.1 + 0.06 * drift),
            angle_step=s.search_angle,
            least_score=s.least_score,
            rival_share=s.most_rival,
        )

    def _agreeing(
        self, closure: Closure, trajectory: NDArray[np.float64], travel: NDArray[np.float64]
    ) -> list[Closure]:
        """``closure`` and the waiting ones that ask for the same correction, once enough and far enough apart."""
        s = self._settings
        recent = travel[closure.newer] - s.patience
        self._waiting = [w for w in self._waiting if travel[w.newer] >= recent] + [closure]
        wanted = _moved(closure, trajectory, closure.newer)
        agree = []
        for other in self._waiting:
            apart = poses.log(poses.between(wanted, _moved(other, trajectory, closure.newer)))
            if np.linalg.norm(apart[:3]) < s.agreement_distance and np.linalg.norm(apart[3:]) < s.agreement_angle:
                agree.append(other)
        span = travel[closure.newer] - min(travel[a.newer] for a in agree)
        if len(agree) < s.agreement_count or span < s.agreement_travel:
            return []
        self._waiting = [w for w in self._waiting if w not in agree]
        return agree


def _moved(closure: Closure, trajectory: NDArray[np.float64], keyframe: int) -> NDArray[np.float64]:
    """Where ``keyframe`` would lie in the map if ``closure`` were true and the chain from its newer end rigid."""
    newer = poses.compose(trajectory[closure.older], closure.relative)
    return poses.compose(newer, poses.between(trajectory[closure.newer], trajectory[keyframe]))


def _merged(
    trajectory: NDArray[np.float64], clouds: Sequence[NDArray[np.float64]], frame: int, which: slice
) -> NDArray[np.float64]:
    """Points (n, 3) of the keyframes ``which`` in the frame of keyframe ``frame``."""
    return merged(poses.between(trajectory[frame], trajectory[which]), clouds[which])


def _graph_distance(travel: NDArray[np.float64], loops: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Metres (k,) from the newest keyframe to every other along the shortest path over the chain and the closures."""
    ends = np.array(loops, np.int64).reshape(-1, 2)
    return path_lengths(np.diff(travel), ends, BRIDGE)
