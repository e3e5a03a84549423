"""Loop closure: where to look, what to believe.

Where: keyframes closer to the newest one than the drift since they were linked allows, the link being the shortest path
over the chain and the closures so far.  What: a correlative search that is exact inside those bounds, a registration
without prior, and for corrections that move the map far, the agreement of several closures over some travel.  Where a
scan holds much that is not seen again (outdoors, in a crowd) true places match poorly too: such matches are believed if
nothing else comes near them, and more of them agree over a longer way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import correlative, scan
from dsg_ros.mapping.local_map import LocalMap, LocalMapper, merged
from dsg_ros.mapping.path_kernel import path_lengths
from dsg_ros.mapping.voxel_map import cells_of, pack
from dsg_ros.state import State, packed, unpacked

HELD = np.diag([1.0, 1.0, 1.0, 10.0, 10.0, 10.0])
"""Information of the first guess in the final match: a metre, a third of a radian, for what a corridor leaves open."""

REFERENCE_POINTS = 30_000
"""Of the points that make a place as many at most are used: of clouds every second or third, which is dense enough."""

BRIDGE = 0.05
"""Metres that a closure counts for on a path over the graph."""


@dataclass(frozen=True)
class Closure:
    """``relative`` (7,) is keyframe ``newer`` seen from ``older``, ``information`` (6, 6) is in its tangent.

    ``jump`` [m] is how far the closure moves the newer end.  A ``weak`` one matches too poorly to be believed without
    others.
    """

    older: int
    newer: int
    relative: NDArray[np.float64]
    information: NDArray[np.float64]
    jump: float
    weak: bool = False


class _Tier(NamedTuple):
    """What a match must reach: score of the search, share of it for the second best place, inliers."""

    least_score: float
    most_rival: float
    least_inliers: float
    weak: bool


class LoopCloser:
    """Proposes and verifies closures between keyframes; holds back large corrections until several agree."""

    def __init__(self, settings: config.LoopClosure, mapper: LocalMapper) -> None:
        self._settings = settings
        self._mapper = mapper
        self._tiers = (
            _Tier(settings.least_score, settings.most_rival, settings.least_inliers, weak=False),
            _Tier(settings.weak_score, settings.weak_rival, settings.weak_inliers, weak=True),
        )
        self._waiting: list[Closure] = []
        self.counts = {
            "loops_considered": 0,
            "loops_refused_score": 0,
            "loops_refused_ambiguous": 0,
            "loops_refused_overlap": 0,
            "loops_waiting": 0,
        }

    def state(self) -> State:
        """As `dsg_ros.state` says: the closures that wait."""
        w = self._waiting
        return {
            "older": np.array([c.older for c in w], np.int64),
            "newer": np.array([c.newer for c in w], np.int64),
            "relative": np.array([c.relative for c in w]).reshape(-1, 7),
            "information": np.array([c.information for c in w]).reshape(-1, 6, 6),
            "jump": np.array([c.jump for c in w]),
            "weak": np.array([c.weak for c in w], bool),
            "counts": packed(self.counts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        columns = (state[name] for name in ("older", "newer", "relative", "information", "jump", "weak"))
        self._waiting = [
            Closure(int(older), int(newer), relative, information, float(jump), bool(weak))
            for older, newer, relative, information, jump, weak in zip(*columns, strict=True)
        ]
        self.counts = unpacked(state["counts"])

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
            if closure.jump <= self._settings.trusted_jump and not closure.weak:
                found.append(closure)
            else:
                found.extend(self._agreeing(closure, trajectory, travel))
        self.counts["loops_waiting"] = len(self._waiting)
        return found

    def _candidates(
        self, trajectory: NDArray[np.float64], travel: NDArray[np.float64], loops: Sequence[tuple[int, int]]
    ) -> list[tuple[int, float]]:
        """Older keyframes worth trying, with the drift [m] to allow for.

        They are the nearest of each stretch of trajectory, nearest first, and one `_further` along, as a rule another
        than the last time.
        """
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
        stretches.sort(key=lambda stretch: float(cost[stretch].min()))
        best = [int(near[stretch[np.argmin(cost[stretch])]]) for stretch in stretches]
        chosen = best[: s.most_candidates]
        further = [
            older
            for stretch, centre in zip(stretches, best, strict=True)
            for older in _further(near[stretch], centre, s.reference_keyframes)
        ]
        if further:
            chosen.append(further[newest // s.every_keyframes % len(further)])
        return [(older, float(drift[older])) for older in chosen]

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
        recent = slice(max(0, newest - s.query_keyframes + 1), newest + 1)
        query = _merged(trajectory, clouds, newest, recent)
        query = query[_seen_again(query, [len(cloud) for cloud in clouds[recent]], s.support_cell)]
        if not len(reference) or not len(query):
            return None
        reference = reference[:: -(-len(reference) // REFERENCE_POINTS)]
        query = scan.thin(query, s.query_cell, self._mapper.capacity)
        guess = poses.between(trajectory[older], trajectory[newest])
        seen = poses.transform(guess, query)
        grids = self._grids(reference, seen, guess[:2], drift)
        local_map: LocalMap | None = None
        refused = "overlap"
        for tier in self._tiers:
            start = guess
            if grids is not None:
                placed = self._place(grids, seen, guess[:2], drift, tier)
                if placed is None or placed.runner_up > tier.most_rival * placed.score:
                    refused = "score" if placed is None else "ambiguous"
                    continue
                start = _placed(guess, placed)
            local_map = local_map or self._mapper.build_from_points(reference)
            match = self._mapper.register(local_map, query, start[None], start, HELD)
            if match.inliers >= tier.least_inliers:
                jump = float(np.linalg.norm(match.pose[:3] - guess[:3]))
                floors = s.floor_translation, s.floor_rotation
                information = self._mapper.factor_information(match.information, match.inliers, *floors)
                return Closure(older, newest, match.pose, information, jump, tier.weak)
            refused = "overlap"
        self.counts[f"loops_refused_{refused}"] += 1
        return None

    def _grids(
        self, reference: NDArray[np.float64], points: NDArray[np.float64], pivot: NDArray[np.float64], drift: float
    ) -> correlative.Pyramid | None:
        """What `_place` searches; None where the ``drift`` is so small that the first guess will do."""
        if drift <= self._settings.search_beyond:
            return None
        flat, around = (correlative.flattened(each, planar=self._mapper.planar) for each in (points, reference))
        extent = drift + float(np.abs(flat - pivot).max(initial=0.0)) * np.sqrt(2.0)
        return correlative.pyramid(around, pivot, extent, resolution=self._settings.search_resolution)

    def _place(
        self, grids: correlative.Pyramid, points: NDArray[np.float64], pivot: NDArray[np.float64], drift: float,
        tier: _Tier,
    ) -> correlative.Candidate | None:  # fmt: skip
        """Where ``points`` (n, 3) fit into ``grids``, both in the older keyframe; turns are about ``pivot``.

        Of clouds the walls are looked at: floors and ceilings fit anywhere.
        """
        flat = correlative.flattened(points, planar=self._mapper.planar)
        if not len(flat):
            return None
        return correlative.search(
            grids,
            flat,
            pivot=pivot,
            radius=drift,
            angle=min(self._settings.most_turn, 0.1 + 0.06 * drift),
            angle_step=self._settings.search_angle,
            least_score=tier.least_score,
            rival_share=tier.most_rival,
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
        sure = [a for a in agree if not a.weak]
        if not (
            _enough(sure, travel, s.agreement_count, s.agreement_travel)
            or _enough(agree, travel, s.weak_agreement_count, s.weak_agreement_travel)
        ):
            return []
        self._waiting = [w for w in self._waiting if w not in agree]
        return agree


def _further(stretch: NDArray[np.int64], centre: int, reach: int) -> list[int]:
    """Keyframes of a ``stretch`` whose surroundings, ``reach`` keyframes either way, are not those of ``centre``.

    After a long drive it may be there that the robot is, not where its own estimate is nearest to.
    """
    places = np.round((stretch - centre) / (2.0 * reach)).astype(int)
    found = []
    for place in np.unique(places[places != 0]):
        there = stretch[places == place]
        found.append(int(there[np.argmin(np.abs(there - (centre + 2 * reach * place)))]))
    return found


def _enough(closures: Sequence[Closure], travel: NDArray[np.float64], count: int, span: float) -> bool:
    """Whether there are ``count`` of them, over ``span`` metres of travel."""
    if len(closures) < count:
        return False
    ends = travel[[closure.newer for closure in closures]]
    return bool(ends.max() - ends.min() >= span)


def _placed(guess: NDArray[np.float64], candidate: correlative.Candidate) -> NDArray[np.float64]:
    """``guess`` (7,), turned about where it stands and moved as the search found."""
    pivot = poses.from_planar(guess[0], guess[1], 0.0)
    moved = poses.from_planar(guess[0] + candidate.x, guess[1] + candidate.y, candidate.yaw)
    return poses.compose(poses.compose(moved, poses.inverse(pivot)), guess)


def _moved(closure: Closure, trajectory: NDArray[np.float64], keyframe: int) -> NDArray[np.float64]:
    """Where ``keyframe`` would lie in the map if ``closure`` were true and the chain from its newer end rigid."""
    newer = poses.compose(trajectory[closure.older], closure.relative)
    return poses.compose(newer, poses.between(trajectory[closure.newer], trajectory[keyframe]))


def _merged(
    trajectory: NDArray[np.float64], clouds: Sequence[NDArray[np.float64]], frame: int, which: slice
) -> NDArray[np.float64]:
    """Points (n, 3) of the keyframes ``which`` in the frame of keyframe ``frame``."""
    return merged(poses.between(trajectory[frame], trajectory[which]), clouds[which])


def _seen_again(points: NDArray[np.float64], counts: Sequence[int], cell: float) -> NDArray[np.bool_]:
    """Which ``points`` (n, 3), so many of each keyframe one after the other, have company from another keyframe in
    their cell of edge ``cell`` [m]; all, if there is one keyframe only.

    What moves, and what was never there, is rarely seen twice in a place.  Averaged over cells it weighs more than its
    share of the beams: with a fifth of them at random, more than half of the cells were false, and no loop was closed.
    """
    if len(counts) < 2:
        return np.ones(len(points), bool)
    keyframe = np.repeat(np.arange(len(counts)), counts)
    _, place = np.unique(pack(cells_of(points, cell)), return_inverse=True)
    first = np.full(place.max(initial=-1) + 1, len(counts))
    last = np.full_like(first, -1)
    np.minimum.at(first, place, keyframe)
    np.maximum.at(last, place, keyframe)
    return np.asarray((first < last)[place])


def _graph_distance(travel: NDArray[np.float64], loops: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Metres (k,) from the newest keyframe to every other along the shortest path over the chain and the closures."""
    ends = np.array(loops, np.int64).reshape(-1, 2)
    return path_lengths(np.diff(travel), ends, BRIDGE)
