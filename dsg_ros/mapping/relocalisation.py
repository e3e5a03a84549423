"""Where in a finished map is the robot?  Without a first guess, and rather no answer than a wrong one.

Every place and heading within the reach of the mapped path is looked at, by branch and bound, so the search misses
nothing that scores high enough; the best of each neighbourhood are registered to the map without a prior.  One is
believed if enough of the scan fits there, of a cloud its walls too, the scan holds it in all directions, and no other
place comes close.  A scan that fits several places is no failure: with the scans to come, joined by odometry, fewer
fit.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import Hint
from dsg_ros.mapping import relocalisation_kernel as kernel
from dsg_ros.mapping.correlative import flattened
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.loop_closure import HELD
from dsg_ros.mapping.reference import Reference, Region
from dsg_ros.mapping.registration import Match

POINTS = 256
"""Of the points of a query, as many at most are scored."""

RIVAL_WALLS = 0.9
"""A place where less than this share of the walls that fit at the best one do is no rival: floors fit anywhere."""

SAME_DISTANCE, SAME_TURN = 0.8, 0.15
"""Placements closer than this [m, rad] are one place: registration pulls them together."""


class Verdict(enum.StrEnum):
    """What came of a search; its value is the name of its count."""

    ACCEPTED = "accepted"
    SCORE = "score"
    """No placement scores high enough."""
    OVERLAP = "overlap"
    """Too little of the scan fits at the best place."""
    WALLS = "walls"
    """A cloud fits, but its walls do not: it lies on the floor of another place."""
    LOOSE = "loose"
    """The scan leaves a direction open there, as in a corridor."""
    AMBIGUOUS = "ambiguous"
    """It fits another place nearly as well."""


@dataclass(frozen=True)
class Found:
    """The best place found and how sure it is: ``match`` where one was registered, ``rival`` the second's inlier
    share.
    """

    verdict: Verdict
    match: Match | None = None
    rival: float = 0.0
    places: int = 0


class Relocaliser:
    """Finds scans in ``reference``."""

    def __init__(self, settings: config.Relocalisation, mapper: LocalMapper, reference: Reference) -> None:
        self._settings = settings
        self._mapper = mapper
        self._reference = reference

    def search(self, points: NDArray[np.float64], hint: Hint | None = None) -> Found:
        """Where ``points`` (n, 3), in the base frame, were seen from; with a ``hint`` only near it."""
        s = self._settings
        flat = flattened(points, planar=self._mapper.planar)
        if len(flat) < s.least_points:
            return Found(Verdict.SCORE)
        places = self._places(flat, hint)
        if not places:
            return Found(Verdict.SCORE)
        matches = [self._register(points, place) for place in places[: s.most_places]]
        if hint is not None:  # whole tiles were searched
            matches = [match for match in matches if _within(match.pose, hint)]
        if not matches:
            return Found(Verdict.SCORE, places=len(places))
        walls = [self._walls(flat, match) for match in matches]
        # Floors fit anywhere: the best is one whose walls fit, if there is one.
        at = max(range(len(matches)), key=lambda i: (walls[i] >= s.least_walls, matches[i].inliers))
        best = matches[at]
        others = [
            match.inliers
            for match, fit in zip(matches, walls, strict=True)
            if not _same(match.pose, best.pose) and fit >= RIVAL_WALLS * walls[at]
        ]
        # Places beyond the most that are registered are unknown: each may be as good.
        rival = 1.0 if len(places) > s.most_places else max(others, default=0.0)
        return Found(self._judge(best, walls[at], rival), best, rival, len(places))

    def needed(self, pose: NDArray[np.float64]) -> float:
        """Inlier share of a match at ``pose`` (7,), at least: of clouds by what is typical there."""
        if self._mapper.planar:
            return self._settings.least_inliers
        return self._settings.least_typical * self._reference.typical(pose)

    def _walls(self, flat: NDArray[np.float64], match: Match) -> float:
        """Share of the walls of a cloud that fit; all of a planar scan's, whose inliers say the same."""
        return 1.0 if self._mapper.planar else self._reference.walls(flat, match.pose)

    def _judge(self, best: Match, walls: float, rival: float) -> Verdict:
        s = self._settings
        if best.inliers < self.needed(best.pose):
            return Verdict.OVERLAP
        if walls < s.least_walls:
            return Verdict.WALLS
        if rival > s.most_rival * best.inliers:
            return Verdict.AMBIGUOUS
        return Verdict.ACCEPTED if self.deviation(best) <= s.most_sigma else Verdict.LOOSE

    def deviation(self, match: Match) -> float:
        """The largest standard deviation [m] of the position of ``match`` in any direction, by the scan alone."""
        axes = np.ix_(self._mapper.axes, self._mapper.axes)
        information = match.information[axes]
        values, vectors = np.linalg.eigh(information)
        if values[0] <= 1e-9 * values[-1]:
            return float("inf")
        covariance = (vectors / values) @ vectors.T
        count = sum(axis < 3 for axis in self._mapper.axes)
        return float(np.sqrt(np.linalg.eigvalsh(covariance[:count, :count])[-1]))

    def _register(self, points: NDArray[np.float64], place: NDArray[np.float64]) -> Match:
        return self._mapper.register(self._reference.local_map(place), points, place[None], place, HELD)

    def _places(self, flat: NDArray[np.float64], hint: Hint | None) -> list[NDArray[np.float64]]:
        """Poses (7,), one a neighbourhood, whose scores come within the share of the best; the best first."""
        s = self._settings
        if len(flat) > POINTS:
            flat = flat[np.linspace(0, len(flat) - 1, POINTS).astype(int)]
        # In no order: then a few points tell most placements to be hopeless.
        flat = flat[np.random.default_rng(0).permutation(len(flat))]
        angles = self._angles(hint)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        x, y = flat.T
        turned = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
        cells = np.floor(turned / s.resolution).astype(np.int32)
        around = (None, 0.0) if hint is None else (hint.pose[:2], hint.radius)
        nodes, scores, least = [], [], s.least_score
        for region in self._reference.regions(*around):
            placed, marks = kernel.search(region.grids, cells, region.tiles, least, s.rival_share)
            least = max(least, float(marks.max(initial=0.0)))
            nodes.append(self._located(region, placed, angles))
            scores.append(marks)
        if not scores:
            return []
        rows, marks = np.concatenate(nodes), np.concatenate(scores)
        if marks.max(initial=0.0) < s.least_score:
            return []
        rows = rows[np.argsort(-marks, kind="stable")[: np.count_nonzero(marks >= s.rival_share * marks.max())]]
        return [self._reference.lifted(*row) for row in _apart(rows).tolist()]

    def _angles(self, hint: Hint | None) -> NDArray[np.float64]:
        step = self._settings.angle_step
        if hint is None or hint.turn >= np.pi - step:
            return np.arange(int(np.ceil(2 * np.pi / step)), dtype=np.float64) * step
        half = int(np.ceil(hint.turn / step))
        return float(poses.yaw(hint.pose)) + np.arange(-half, half + 1, dtype=np.float64) * step

    def _located(self, region: Region, nodes: NDArray[np.int64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
        """x, y [m] and yaw [rad] (m, 3) of placements (angle, x, y) in cells."""
        return np.column_stack([region.corner + nodes[:, 1:] * self._settings.resolution, angles[nodes[:, 0]]])


def _apart(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of placements (m, 3) x, y, yaw, the best first, those that are not the same place as a better one."""
    kept: list[int] = []
    left = np.arange(len(rows))
    while len(left):
        best = rows[left[0]]
        kept.append(int(left[0]))
        turn = np.abs(np.angle(np.exp(1j * (rows[left, 2] - best[2]))))
        near = (np.hypot(*(rows[left, :2] - best[:2]).T) < SAME_DISTANCE) & (turn < SAME_TURN)
        left = left[~near]
    return rows[kept]


def _same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether two matches are one: registered, they lie closer together than placements of one place."""
    apart = poses.log(poses.between(a, b))
    return bool(np.linalg.norm(apart[:3]) < SAME_DISTANCE / 4 and np.linalg.norm(apart[3:]) < SAME_TURN / 4)


def _within(pose: NDArray[np.float64], hint: Hint) -> bool:
    apart = poses.between(hint.pose, pose)
    return bool(np.linalg.norm(apart[:2]) <= hint.radius and abs(poses.yaw(apart)) <= hint.turn)
