"""Positions alone as teacher, as of a satellite receiver: what was told while each link was driven, and legs of them.

A position says nothing of a single link.  Links and what was told along them are gathered until the leg is long enough
for its bends to be told by the positions better than by odometry.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain, se3
from dsg_ros.interface import OdometryTrack, ReferencePosition
from dsg_ros.learning.block import STANDING, Link, link_columns, links_of_columns
from dsg_ros.learning.growing_leg import GrowingLeg
from dsg_ros.learning.increments import rate
from dsg_ros.learning.leg import Fix, Leg, make_leg
from dsg_ros.learning.odometry_history import OdometryHistory
from dsg_ros.learning.reference import AHEAD, BEHIND, KEPT
from dsg_ros.state import State, nested, packed, part, unpacked
from dsg_ros.throttle import Throttle, to_log

Vector = NDArray[np.float64]
Predict = Callable[[Vector, float], tuple[Vector, Vector]]

FEWEST, MOST = 10, 400
"""Fixes of a leg: fewer teach nothing that is told apart from their noise, more take too long in one piece."""
MOST_LINKS = 2000
SURER = 2.0
"""How many times better than odometry positions are to tell a leg's bend."""
_SMALLEST, _LARGEST = 1e-8, 1e6
"""Variances [m^2] outside are none."""


_OF_TOLD = ("position", "covariance", "antenna")


class _Waiting(NamedTuple):
    key: int
    link: Link
    start: int
    end: int


class Positions:
    """Positions so far, links that wait for them, and the leg begun.

    ``counts`` are counted up: reference_positions, reference_anchored_anew (they are of another frame than those
    before), reference_not_used (no position, not newer than the one before, of
    another time, repeated to the last digit while the robot drove, or odometry is missing around it), of links
    reference_missing (none came in time), links_refused (not finite, or not next to each other) and reference_dropped
    (their leg lost its place before it was long enough), and of legs legs_refused.
    """

    def __init__(self, settings: config.Slam, counts: dict[str, int]) -> None:
        self._settings, self._learning = settings, settings.learning
        self._scans = settings.learning.teacher == "both"
        self.planar = True
        self.counts = counts
        of_links = ("reference_missing", "links_refused", "reference_dropped")
        for name in ("reference_positions", "reference_anchored_anew", "reference_not_used", "legs_refused", *of_links):
            counts.setdefault(name, 0)
        self._history = OdometryHistory()
        self._told: list[ReferencePosition] = []
        self._gathered = -(2**62)
        self._last_used: Vector | None = None
        self._waiting: deque[_Waiting] = deque()
        self._last_key: int | None = None
        self._growing = GrowingLeg()
        self._done: deque[Leg] = deque()
        self._throttled = Throttle(to_log(__name__))

    def follow(self, track: OdometryTrack) -> None:
        """Raw odometry around a scan."""
        self._history.hear(track)

    def hear(self, told: Sequence[ReferencePosition], now: int) -> None:
        """Take positions over at the time of the newest scan [ns]; what cannot be used is counted and left out."""
        for position in told:
            self.counts["reference_positions"] += 1
            why = self._flaw(position, now)
            if why:
                self._leave_out(position, why)
                continue
            if self._told and position.stamp <= self._told[-1].stamp:
                self._throttled("warning", "anew", "reference: its positions begin anew, at an earlier time")
                self._told.clear()
                self._gathered = -(2**62)
                self._give_up()
            self.counts["reference_anchored_anew"] += bool(self._told) and position.origin != self._told[-1].origin
            self._told.append(position)
        if len(self._told) > 2 * KEPT:
            del self._told[:-KEPT]

    def expect(self, key: int, link: Link, start: int, end: int) -> None:
        """Have a link to keyframe ``key`` wait for the positions between its ends [ns]."""
        self._waiting.append(_Waiting(key, link, start, end))

    def gather(self, now: int, predict: Predict) -> None:
        """Take links that need wait no longer at ``now`` [ns] to the leg."""
        while self._waiting:
            first = self._waiting[0]
            in_time = 0 <= now - first.end < self._learning.reference_patience * 1e9
            come = bool(self._told) and self._told[-1].stamp >= first.end
            if in_time and not come:
                return
            self._waiting.popleft()
            self.counts["reference_missing"] += not come
            self._take(first, predict)

    def leg(self) -> Leg | None:
        """The oldest leg that is complete, which is handed out once."""
        return self._done.popleft() if self._done else None

    def forget(self) -> None:
        """Links that wait, and the leg begun, have lost their place."""
        self.counts["reference_dropped"] += len(self._waiting)
        self._waiting.clear()
        self._give_up()
        self._last_key = None

    def state(self) -> State:
        """As `dsg_ros.state` says: legs, links that wait, and what is needed for these and those to come."""
        since = self._waiting[0].start if self._waiting else self._gathered
        told = self._told[max(0, self._after(since) - 1) :]
        facts = {
            "gathered": self._gathered, "last_key": self._last_key, "legs": len(self._done),
            "stamps": [each.stamp for each in told], "origins": [each.origin for each in told],
            "waiting": [(each.key, each.start, each.end) for each in self._waiting],
        }  # fmt: skip
        found: State = {name: np.array([getattr(each, name) for each in told]) for name in _OF_TOLD}
        if self._last_used is not None:
            found["last_used"] = self._last_used.copy()
        legs = nested(**{f"leg.{i}": leg.state() for i, leg in enumerate(self._done)})
        waiting = link_columns([each.link for each in self._waiting])
        history = self._history.state(since)
        parts = nested(waiting=waiting, history=history, growing=self._growing.state())
        return found | {"facts": packed(facts)} | parts | legs

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; KeyError or ValueError for what is none."""
        facts = unpacked(state["facts"])
        self._gathered, self._last_key = facts["gathered"], facts["last_key"]
        columns = zip(facts["stamps"], *(state[name] for name in _OF_TOLD), map(tuple, facts["origins"]), strict=True)
        self._told = [ReferencePosition(*each) for each in columns]
        self._last_used = np.array(state["last_used"]) if "last_used" in state else None
        links = links_of_columns(part(state, "waiting"))
        told = zip(facts["waiting"], links, strict=True)
        self._waiting = deque(_Waiting(key, link, start, end) for (key, start, end), link in told)
        self._history.restore(part(state, "history"))
        self._growing = GrowingLeg.of(part(state, "growing"))
        self._done = deque(Leg.of(part(state, f"leg.{i}")) for i in range(facts["legs"]))

    def _after(self, stamp: int) -> int:
        """How many were told up to ``stamp`` [ns]."""
        return bisect.bisect_right(self._told, stamp, key=lambda told: told.stamp)

    def _flaw(self, told: ReferencePosition, now: int) -> str:
        if not all(np.isfinite(part).all() for part in (told.position, told.covariance, told.antenna)):
            return "is none"
        if told.stamp > now + AHEAD * 1e9:
            return "is of a time that has not come"
        newest = self._told[-1].stamp if self._told else None
        if newest is not None and newest - BEHIND * 1e9 < told.stamp <= newest:
            return "is not newer than the one before"
        if newest is not None and newest < told.stamp <= self._gathered:
            return "comes too late"
        return ""

    def _leave_out(self, told: ReferencePosition, why: str) -> None:
        self.counts["reference_not_used"] += 1
        text = f"reference: the position at {told.stamp * 1e-9:.6f} s {why}; not used"
        self._throttled("warning", why, text)

    def _take(self, next_: _Waiting, predict: Predict) -> None:
        link, self._gathered = next_.link, next_.end
        follows = self._last_key is None or next_.key == self._last_key + 1
        self._last_key = next_.key
        if not (follows and link.valid):
            if not self._scans:  # else it is counted where these teach
                self.counts["links_refused"] += 1
            why = "does not follow the one before" if link.valid else "has invalid numbers"
            self._throttled("warning", "link", f"reference: keyframe {next_.key} {why}: the leg ends there")
            self._give_up()
        if not self.planar:
            text = "reference: positions alone teach robots in the plane; a robot in 3D: not built"
            self._throttled("warning", "3d", text)
        if not (link.valid and self.planar):
            return
        fixes, leg = self._fixes(next_), self._growing
        if not (leg.links or fixes):
            return  # a leg begins where something is told
        leg.add(link, fixes, float(predict(link.measured, link.seconds)[1][5]))
        self._end_if_long_enough()

    def _end_if_long_enough(self) -> None:
        leg = self._growing
        full = len(leg.told) >= MOST or len(leg.links) >= MOST_LINKS or leg.way >= self._learning.leg_length
        if not full and (len(leg.told) < FEWEST or SURER * leg.bend() > math.sqrt(leg.turned)):
            return
        if len(leg.told) < FEWEST:
            self.counts["legs_refused"] += 1
            text = f"a leg of {leg.way:.1f} m tells {len(leg.told)} positions only, not {FEWEST}; not learned from"
            self._throttled("warning", "leg", f"reference: {text}")
            self._growing = GrowingLeg()
            return
        memory = self._learning.position_memory
        self._done.append(make_leg(leg.links, leg.told, self._settings.odometry, self._scans, memory))
        self._growing = GrowingLeg()

    def _give_up(self) -> None:
        """The leg begun has lost its place."""
        self.counts["reference_dropped"] += len(self._growing.links)
        self._growing = GrowingLeg()

    def _fixes(self, of: _Waiting) -> list[Fix]:
        """What was told after the link's beginning, and not after its end; of a robot that stands once: what a receiver
        errs hardly changes meanwhile.
        """
        first, last = self._after(of.start), self._after(of.end)
        gap, found = self._learning.reference_gap, list[Fix]()
        begun = self._history.at(of.start, gap) if last > first else None
        for number in range(first, last):
            told, there = self._told[number], self._history.at(self._told[number].stamp, gap)
            if begun is None or there is None:
                self._leave_out(told, "has no odometry around it")
                continue
            if self._last_used is not None and not _moved(self._last_used, there[0]):
                continue
            self._last_used = there[0]
            if number and np.array_equal(self._told[number - 1].position, told.position):
                self._leave_out(told, "is that before to the last digit, while the odometry moves")
                continue
            if told.origin != self._growing.origin:
                self._anchored_anew(len(found))
                found, self._growing.origin = [], told.origin
            way = se3.between(plain(begun[0]), plain(there[0]))
            gained, seconds = rate(way, begun[1], there[1]), (told.stamp - of.start) * 1e-9
            place, antenna = told.position[:2].copy(), told.antenna[:2].copy()
            found.append(Fix(place, self._covariance(told), antenna, se3.log(way), gained, seconds, told.stamp * 1e-9))
        return found

    def _anchored_anew(self, fixes: int) -> None:
        """Positions are of another frame from here on; ``fixes`` were found in the link before."""
        if self._growing.links or fixes:
            self._throttled("warning", "frame", "reference: its positions are of another frame: the leg ends there")
            self._give_up()

    def _covariance(self, told: ReferencePosition) -> Vector:
        """The told one (2, 2), where it is one; else the configured."""
        found = 0.5 * (told.covariance + told.covariance.T)[:2, :2]
        values = np.linalg.eigvalsh(found)
        if values[0] > _SMALLEST and values[1] < _LARGEST:
            return np.asarray(found)
        return np.asarray(self._learning.reference_position**2 * np.eye(2))


def _moved(one: Vector, other: Vector) -> bool:
    """Whether odometry tells a motion from one pose (7,) to another."""
    return bool(np.abs(poses.log(poses.between(one, other))).max() > 10 * STANDING)
