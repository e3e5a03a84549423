"""Loop closure: where to look, what to believe.

Where: keyframes closer to the newest one than the drift since they were linked allows, the link being the shortest path
over the chain and the closures so far; where that is more than is searched, also those that look alike.  What: a
correlative search that is exact inside those bounds, a registration without prior, and for corrections that move the
map far, the agreement of several closures over some travel.  Where a scan holds much that is not seen again (outdoors,
in a crowd) true places match poorly too: such matches are believed if nothing else comes near them, and more of them
agree over a longer way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import correlative, scan
from dsg_ros.mapping.closures import Agreement, Closure
from dsg_ros.mapping.local_map import LocalMap, LocalMapper, merged
from dsg_ros.mapping.looks import Looks, seen_from
from dsg_ros.mapping.loop_candidates import Candidate, Ways, by_looks, within_drift
from dsg_ros.mapping.voxel_map import cells_of, pack
from dsg_ros.state import State, nested, packed, part, unpacked

HELD = np.diag([1.0, 1.0, 1.0, 10.0, 10.0, 10.0])
"""Information of the first guess in the final match: a metre, a third of a radian, for what a corridor leaves open."""

REFERENCE_POINTS = 30_000
"""Of the points that make a place as many at most are used: of clouds every second or third, which is dense enough."""


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
        self._far = _Tier(settings.least_score, settings.most_rival, settings.looks_inliers, weak=True)
        self._agreement, self._looks = Agreement(settings), Looks()
        self.counts = {
            "loops_considered": 0,
            "loops_considered_by_looks": 0,
            "loops_refused_score": 0,
            "loops_refused_ambiguous": 0,
            "loops_refused_overlap": 0,
            "loops_waiting": 0,
        }

    @property
    def nbytes(self) -> int:
        """Bytes of what places look like."""
        return self._looks.nbytes

    def state(self) -> State:
        """As `dsg_ros.state` says: the closures that wait, and what places look like."""
        return {"counts": packed(self.counts), **nested(waiting=self._agreement.state(), looks=self._looks.state())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        self._agreement.restore(part(state, "waiting"))
        self._looks.restore(part(state, "looks"))
        self.counts = unpacked(state["counts"])

    def search(
        self,
        trajectory: NDArray[np.float64],
        clouds: Sequence[NDArray[np.float64]],
        travel: NDArray[np.float64],
        loops: ArrayLike,
        torn: NDArray[np.bool_] | None = None,
    ) -> list[Closure]:
        """Closures of the newest keyframe that are believed now.

        ``trajectory`` (k, 7) keyframes in map, ``clouds`` their points (n, 3) in their own frames, ``travel`` (k,)
        metres driven, ``loops`` (l, 2) the closures already in the graph, ``torn`` (k,) keyframes before which the map
        may be.  May return earlier ones that had been waiting for agreement.
        """
        found: list[Closure] = []
        if not len(trajectory):
            return found
        ways, query = Ways.over(travel, loops, torn), self._query(trajectory, clouds)
        near = within_drift(trajectory, ways, self._settings)
        self.counts["loops_considered"] += len(near)
        closures = [self._verify(trajectory, clouds, query, candidate) for candidate in near]
        if self._settings.by_looks:
            closures.append(self._looked_up(trajectory, clouds, query, ways))
        for closure in closures:
            if closure is not None:
                found.extend(self._agreement.believed(closure, trajectory, travel))
        self.counts["loops_waiting"] = len(self._agreement)
        return found

    def _query(self, trajectory: NDArray[np.float64], clouds: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """What of the newest keyframes' points is seen again, (n, 3) in the newest one's frame."""
        s, newest = self._settings, len(trajectory) - 1
        recent = slice(max(0, newest - s.query_keyframes + 1), newest + 1)
        query = _merged(trajectory, clouds, newest, recent)
        return query[_seen_again(query, [len(cloud) for cloud in clouds[recent]], s.support_cell)]

    def _looked_up(
        self,
        trajectory: NDArray[np.float64],
        clouds: Sequence[NDArray[np.float64]],
        query: NDArray[np.float64],
        ways: Ways,
    ) -> Closure | None:
        """The closure of the newest keyframe with a place that looks alike, beyond what drift is searched for.

        Nothing where two such places fit.
        """
        seen = seen_from(correlative.flattened(query, planar=self._mapper.planar))
        candidates = by_looks(self._looks, seen, trajectory, ways, self._settings)
        self._looks.add(len(trajectory) - 1, seen)
        self.counts["loops_considered_by_looks"] += len(candidates)
        verified = [self._verify(trajectory, clouds, query, candidate) for candidate in candidates]
        closures = [closure for closure in verified if closure is not None]
        if len(closures) > 1:
            self.counts["loops_refused_ambiguous"] += 1
            return None
        return closures[0] if closures else None

    def _verify(
        self,
        trajectory: NDArray[np.float64],
        clouds: Sequence[NDArray[np.float64]],
        query: NDArray[np.float64],
        candidate: Candidate,
    ) -> Closure | None:
        """The closure of the newest keyframe, which has seen ``query``, with a candidate, if its surroundings match."""
        s, newest = self._settings, len(trajectory) - 1
        older, guess, drift, turn, far = candidate
        low = max(0, older - s.reference_keyframes)
        high = min(newest - s.query_keyframes, older + s.reference_keyframes + 1)
        reference = _merged(trajectory, clouds, older, slice(low, high))
        if not len(reference) or not len(query):
            return None
        reference = reference[:: -(-len(reference) // REFERENCE_POINTS)]
        query = scan.thin(query, s.query_cell, self._mapper.capacity)
        seen = poses.transform(guess, query)
        grids = self._grids(reference, seen, guess[:2], drift)
        local_map: LocalMap | None = None
        refused = "overlap"
        for tier in (self._far,) if far else self._tiers:
            start = guess
            if grids is not None:
                placed = self._place(grids, seen, guess[:2], drift, turn, tier)
                if placed is None or placed.runner_up > tier.most_rival * placed.score:
                    refused = "score" if placed is None else "ambiguous"
                    continue
                start = _placed(guess, placed)
            local_map = local_map or self._mapper.build_from_points(reference)
            match = self._mapper.register(local_map, query, start[None], start, HELD)
            if match.inliers >= tier.least_inliers:
                estimated = poses.between(trajectory[older], trajectory[newest])
                jump = float(np.linalg.norm(match.pose[:3] - estimated[:3]))
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
        turn: float, tier: _Tier,
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
            angle=turn,
            angle_step=self._settings.search_angle,
            least_score=tier.least_score,
            rival_share=tier.most_rival,
        )


def _placed(guess: NDArray[np.float64], candidate: correlative.Candidate) -> NDArray[np.float64]:
    """``guess`` (7,), turned about where it stands and moved as the search found."""
    pivot = poses.from_planar(guess[0], guess[1], 0.0)
    moved = poses.from_planar(guess[0] + candidate.x, guess[1] + candidate.y, candidate.yaw)
    return poses.compose(poses.compose(moved, poses.inverse(pivot)), guess)


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
