"""Poses from elsewhere as teacher: what they say of the motion between two keyframes.

They may come late, stop, jump or contradict themselves: a link waits for those around both its ends, for a while, and
is not learned from where they are not there, or tell a motion that the odometry cannot have taken for what it told.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain, se3
from dsg_ros.interface import ReferencePose
from dsg_ros.learning.block import STANDING, Link, link_columns, links_of_columns
from dsg_ros.state import State, nested, packed, part, unpacked
from dsg_ros.throttle import Throttle, to_log

KEPT = 20_000
"""Newest poses kept: over three minutes at 100 Hz."""
AHEAD = 60.0
"""Seconds after the newest scan beyond which a pose is of another time."""
BEHIND = 1.0
"""Seconds before the newest pose at which poses are taken to begin anew, as when a recording is played again."""
SIGMAS = 4.0
"""Deviations by which reference and calibrated odometry may differ, besides what the calibration may be off by."""
_SMALLEST, _LARGEST = 1e-14, 1e8
"""Variances [m^2, rad^2] outside are none."""


@dataclass(frozen=True)
class Expected:
    """What calibrated odometry makes of a link: ``pose`` (7,), its ``sigmas`` (6,), and how far off [m, rad] it may be
    because the calibration is not known yet.
    """

    pose: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    off: tuple[float, float]


@dataclass(frozen=True)
class _Waiting:
    key: int
    link: Link
    start: int
    end: int
    expected: Expected


class Reference:
    """Reference poses so far, and links that wait for them.

    ``counts`` are counted up: reference_poses, reference_not_used (no pose, not newer than the one before, or of
    another time), and of links reference_missing (poses too far apart, or none in time), reference_disagrees and
    reference_dropped (they lost their place while they waited).
    ``axes`` are those of the tangent that it tells: a planar robot is not asked for height, roll and pitch.
    """

    def __init__(self, settings: config.Learning, counts: dict[str, int]) -> None:
        self._settings = settings
        self.axes: NDArray[np.int64] = np.arange(6)
        self.counts = counts
        of_links = ("reference_missing", "reference_disagrees", "reference_dropped")
        counts |= dict.fromkeys(("reference_poses", "reference_not_used", *of_links), 0)
        self._poses: list[ReferencePose] = []
        self._waiting: deque[_Waiting] = deque()
        self._taught = -(2**62)
        self._throttled = Throttle(to_log(__name__))

    def hear(self, told: Sequence[ReferencePose], now: int) -> None:
        """Take poses over at the time of the newest scan [ns]; those that cannot be used are counted and left out."""
        for pose in told:
            self.counts["reference_poses"] += 1
            why = self._flaw(pose, now)
            if why:
                self.counts["reference_not_used"] += 1
                self._warn(why, f"the pose at {pose.stamp * 1e-9:.6f} s {why}; not used")
                continue
            if self._poses and pose.stamp <= self._poses[-1].stamp:
                self._warn("anew", "its poses begin anew, at an earlier time")
                self._poses.clear()
            self._poses.append(pose)
        if len(self._poses) > 2 * KEPT:
            del self._poses[:-KEPT]

    def expect(self, key: int, link: Link, start: int, end: int, expected: Expected) -> None:
        """Have a link to keyframe ``key`` wait for the poses at its ends [ns]."""
        self._waiting.append(_Waiting(key, link, start, end, expected))

    def taught(self, now: int) -> Iterator[tuple[int, Link]]:
        """Keys and links that need wait no longer at ``now`` [ns], in order, with what the reference says of them: no
        information where that is nothing.
        """
        while self._waiting:
            first = self._waiting[0]
            in_time = 0 <= now - first.end < self._settings.reference_patience * 1e9
            if in_time and not (self._poses and self._poses[-1].stamp >= first.end):
                return
            self._waiting.popleft()
            self._taught = first.end
            yield first.key, self._with_reference(first)

    def give_up(self) -> list[tuple[int, Link]]:
        """Keys and links that wait, for something else to teach them."""
        found = [(each.key, each.link) for each in self._waiting]
        self._waiting.clear()
        return found

    def forget(self) -> None:
        """Links that wait have lost their place."""
        self.counts["reference_dropped"] += len(self._waiting)
        self._waiting.clear()

    def state(self) -> State:
        """As `dsg_ros.state` says: links that wait, and the poses that are needed for these and those to come."""
        since = self._waiting[0].start if self._waiting else self._taught
        told = self._poses[max(0, bisect.bisect_right(self._poses, since, key=lambda each: each.stamp) - 1) :]
        facts = {
            "taught": self._taught, "stamps": [each.stamp for each in told],
            "waiting": [(each.key, each.start, each.end, each.expected.off) for each in self._waiting],
        }  # fmt: skip
        return {
            "facts": packed(facts),
            "poses": np.array([each.pose for each in told]),
            "covariances": np.array([each.covariance for each in told]),
            "expected": np.array([each.expected.pose for each in self._waiting]),
            "sigmas": np.array([each.expected.sigmas for each in self._waiting]),
            **nested(waiting=link_columns([each.link for each in self._waiting])),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; KeyError or ValueError for what is none."""
        facts = unpacked(state["facts"])
        self._taught = facts["taught"]
        told = zip(facts["stamps"], state["poses"], state["covariances"], strict=True)
        self._poses = [ReferencePose(*each) for each in told]
        links = links_of_columns(part(state, "waiting"))
        rows = zip(facts["waiting"], links, state["expected"], state["sigmas"], strict=True)
        self._waiting = deque(
            _Waiting(key, link, start, end, Expected(pose, sigmas, (off[0], off[1])))
            for (key, start, end, off), link, pose, sigmas in rows
        )

    def _flaw(self, told: ReferencePose, now: int) -> str:
        if poses.flaw(told.pose) is not None or not np.isfinite(told.covariance).all():
            return "is none"
        if told.stamp > now + AHEAD * 1e9:
            return "is of a time that has not come"
        newest = self._poses[-1].stamp if self._poses else None
        if newest is not None and newest - BEHIND * 1e9 < told.stamp <= newest:
            return "is not newer than the one before"
        return ""

    def _with_reference(self, waiting: _Waiting) -> Link:
        start, end = self._at(waiting.start), self._at(waiting.end)
        where = f"between {waiting.start * 1e-9:.3f} and {waiting.end * 1e-9:.3f} s"
        if start is None or end is None:
            self.counts["reference_missing"] += 1
            self._warn("missing", f"no poses {where} within {self._settings.reference_gap:.2f} s of each other")
            return waiting.link
        relative = poses.between(start.pose, end.pose)
        covariance = se3.carried(plain(relative), plain(start.covariance)) + end.covariance
        why = self._disagreement(waiting, relative, covariance)
        if why:
            self.counts["reference_disagrees"] += 1
            self._warn("disagrees", f"{where} {why}; not used")
            return waiting.link
        information, told = np.zeros((6, 6)), np.ix_(self.axes, self.axes)
        information[told] = np.linalg.inv(covariance[told])
        return dataclasses.replace(waiting.link, reference=relative, reference_information=information)

    def _disagreement(self, waiting: _Waiting, relative: NDArray[np.float64], covariance: NDArray[np.float64]) -> str:
        """What is wrong with the motion ``relative`` (7,), if something is."""
        expected = waiting.expected
        moves = float(np.abs(poses.log(expected.pose)).max()) > 10 * STANDING
        if moves and not np.abs(poses.log(relative)).max() > 1e-9:
            return "it stands still to the last digit while the odometry moves"
        away = poses.log(poses.between(expected.pose, relative))
        spread = SIGMAS * np.sqrt(expected.sigmas**2 + np.diag(covariance))
        apart, turned = float(np.linalg.norm(away[:3])), float(np.linalg.norm(away[3:]))
        if apart > expected.off[0] + spread[:3].max() or turned > expected.off[1] + spread[3:].max():
            return f"it moves {apart:.2f} m and {np.degrees(turned):.1f} deg otherwise than odometry can have: it jumps"
        return ""

    def _at(self, stamp: int) -> ReferencePose | None:
        """The pose at ``stamp`` [ns], interpolated, with a covariance that can be inverted."""
        after = bisect.bisect_left(self._poses, stamp, key=lambda told: told.stamp)
        if after < len(self._poses) and self._poses[after].stamp == stamp:
            found, covariance = self._poses[after].pose, self._covariance(self._poses[after])
        elif 0 < after < len(self._poses):
            one, other = self._poses[after - 1], self._poses[after]
            if other.stamp - one.stamp > self._settings.reference_gap * 1e9:
                return None
            share = (stamp - one.stamp) / (other.stamp - one.stamp)
            found = poses.interpolate(one.pose, other.pose, share)
            covariance = self._covariance(one if share < 0.5 else other)
        else:
            return None
        unit = np.array(found)
        unit[3:] /= np.linalg.norm(unit[3:])
        return ReferencePose(stamp, unit, covariance)

    def _covariance(self, told: ReferencePose) -> NDArray[np.float64]:
        """The told one; the configured one for axes of which it tells no variance, or where it is no covariance."""
        s = self._settings
        out = np.diag([s.reference_translation**2] * 3 + [s.reference_rotation**2] * 3)
        variances = np.diag(told.covariance)
        axes = np.flatnonzero((variances > _SMALLEST) & (variances < _LARGEST))
        if not len(axes):
            return out
        deviations, part = np.sqrt(variances[axes]), told.covariance[np.ix_(axes, axes)]
        correlations = 0.5 * (part + part.T) / np.outer(deviations, deviations)
        if np.abs(correlations).max() <= 1.0 + 1e-9 and np.linalg.eigvalsh(correlations)[0] >= 1e-9:
            out[np.ix_(axes, axes)] = correlations * np.outer(deviations, deviations)
        return out

    def _warn(self, kind: str, text: str) -> None:
        self._throttled("warning", kind, f"reference: {text}")
