"""Where to look for places seen before: near the estimate, as far as it may have drifted; and beyond by their looks.

Where scans fitted nowhere and odometry alone tied the next keyframe to the map, the map may be torn: by as much as
odometry fails at once, a wheel that slipped in a turn.  Across such a tear, as long as no closure leads around it, more
is allowed for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsg_ros import config, poses
from dsg_ros.mapping.looks import Looks
from dsg_ros.mapping.path_kernel import path_lengths

BRIDGE = 0.05
"""Metres that a closure counts for on a path over the graph."""

TEAR, TORN = 1e6, 1.5
"""Metres that a tear counts for on a path over the graph, more than any has without one, and what it adds to the drift.
"""

LOOKS_RADIUS, LOOKS_ANGLE = 2.0, 0.2
"""Places look alike within so many metres, and their looks tell the turn so well [rad]."""


class Candidate(NamedTuple):
    """A keyframe ``older`` than the newest one, which may be at ``guess`` (7,) in its frame, or up to ``drift`` [m]
    off and ``turn`` [rad].  One that is ``far`` was found by its looks.
    """

    older: int
    guess: NDArray[np.float64]
    drift: float
    turn: float
    far: bool = False


class Ways(NamedTuple):
    """Of every keyframe, what the newest one has come since: ``travel`` [m], and along the shortest path over the chain
    and the closures ``distance`` [m], and whether that path is ``torn``; (k,) all.
    """

    travel: NDArray[np.float64]
    distance: NDArray[np.float64]
    torn: NDArray[np.bool_]

    @classmethod
    def over(cls, travel: NDArray[np.float64], loops: ArrayLike, torn: NDArray[np.bool_] | None = None) -> Ways:
        """For ``travel`` (k,) driven until every keyframe, the closures ``loops`` (l, 2), and tears before the
        keyframes ``torn`` (k,), none by default.
        """
        ends = np.array(loops, np.int64).reshape(-1, 2)
        steps = np.diff(travel if torn is None else lengthened(travel, torn))
        tears, distance = np.divmod(path_lengths(steps, ends, BRIDGE), TEAR)
        return cls(travel[-1] - travel, distance, tears > 0)


def lengthened(travel: NDArray[np.float64], torn: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``travel`` (k,), with `TEAR` for each tear on the way: before the keyframes ``torn`` (k,)."""
    return travel + TEAR * np.cumsum(torn)


def within_drift(trajectory: NDArray[np.float64], ways: Ways, settings: config.LoopClosure) -> list[Candidate]:
    """Older keyframes of ``trajectory`` (k, 7) closer to the newest than the estimate may have drifted.

    They are the nearest of each stretch of trajectory, nearest first, and one `_further` along, as a rule another than
    the last time.
    """
    s, newest = settings, len(trajectory) - 1
    distance = np.linalg.norm(trajectory[:, :3] - trajectory[newest, :3], axis=1)
    near = np.nonzero((ways.travel > s.least_travel) & (distance < s.most_drift))[0]
    drift = np.minimum(s.most_drift, _drift(ways, s))
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
    return [_candidate(older, trajectory, float(drift[older]), bool(ways.torn[older]), s) for older in chosen]


def by_looks(
    looks: Looks,
    newest: NDArray[np.float32],
    trajectory: NDArray[np.float64],
    ways: Ways,
    settings: config.LoopClosure,
) -> list[Candidate]:
    """Keyframes of ``trajectory`` (k, 7) that look like the ``newest`` (`looks.seen_from`), the most alike first, where
    the estimate may have drifted farther than is searched, but not farther than it can have; of keyframes that see each
    other's surroundings one.
    """
    s, drift = settings, _drift(ways, settings)
    distance = np.linalg.norm(trajectory[:, :3] - trajectory[-1, :3], axis=1)
    beyond = (ways.travel > s.least_travel) & (drift > s.most_drift) & (distance < drift + LOOKS_RADIUS)
    if not beyond.any():
        return []
    chosen: list[Candidate] = []
    for alike in looks.alike(newest, beyond):
        if alike.distance > s.most_unlike or len(chosen) == s.most_candidates:
            break
        estimated = poses.between(trajectory[alike.keyframe], trajectory[-1])
        turned = abs(np.angle(np.exp(1j * (alike.yaw - poses.yaw(estimated)))))
        searched = distance[alike.keyframe] < s.most_drift and turned < s.most_turn
        near = any(abs(alike.keyframe - other.older) <= s.reference_keyframes for other in chosen)
        if not (searched or near) and turned < most_turn(drift[alike.keyframe]) + LOOKS_ANGLE:
            guess = poses.from_planar(0.0, 0.0, alike.yaw)
            chosen.append(
                Candidate(alike.keyframe, guess, LOOKS_RADIUS, min(s.most_turn, most_turn(LOOKS_RADIUS)), far=True)
            )
    return chosen


def most_turn(drift: float) -> float:
    """How far [rad] an estimate may have turned that may have drifted so far [m]."""
    return 0.1 + 0.06 * drift


def _candidate(
    older: int, trajectory: NDArray[np.float64], drift: float, torn: bool, settings: config.LoopClosure
) -> Candidate:
    turn = settings.most_turn if torn else min(settings.most_turn, most_turn(drift))
    return Candidate(older, poses.between(trajectory[older], trajectory[-1]), drift, turn)


def _drift(ways: Ways, settings: config.LoopClosure) -> NDArray[np.float64]:
    return settings.drift_start + settings.drift_rate * ways.distance + TORN * ways.torn


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
