"""Poses from elsewhere as teacher: what they say of the motion between two keyframes.

They may come late, stop, jump or contradict themselves: a link waits for those around both its ends, for a while, and
is not learned from where they are not there, or tell a motion that the odometry cannot have taken for what it told.
"""

from __future__ import annotations

import bisect
import dataclasses
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import ReferencePose
from dsg_ros.learning.block import Link

KEPT = 20_000
"""Newest poses kept: over three minutes at 100 Hz."""
_APART, _TURNED, _SHARE = 0.3, 0.3, 0.5
"""Motion that reference and odometry may tell differently [m, rad], or that share of what odometry tells."""
_SMALLEST, _LARGEST = 1e-14, 1e8
"""Variances [m^2, rad^2] outside are none."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Waiting:
    key: int
    link: Link
    start: int
    end: int


class Reference:
    """Reference poses so far, and links that wait for them.

    ``counts`` are counted up: reference_poses, reference_not_used (no pose, or not newer than the one before), and of
    links reference_missing (poses too far apart, or none in time) and reference_disagrees.
    """

    def __init__(self, settings: config.Learning, counts: dict[str, int]) -> None:
        self._settings = settings
        self.counts = counts
        self._stamps: list[int] = []
        self._poses: list[ReferencePose] = []
        self._waiting: deque[_Waiting] = deque()
        counts |= dict.fromkeys(
            ("reference_poses", "reference_not_used", "reference_missing", "reference_disagrees"), 0
        )

    def hear(self, told: Sequence[ReferencePose]) -> None:
        """Take poses over; those that are none, or that go back in time, are counted and left out."""
        for pose in told:
            self.counts["reference_poses"] += 1
            backwards = bool(self._stamps) and pose.stamp <= self._stamps[-1]
            if backwards or poses.flaw(pose.pose) is not None or not np.isfinite(pose.covariance).all():
                self.counts["reference_not_used"] += 1
                why = "is not newer than the one before" if backwards else "is none"
                _log.warning("reference: the pose at %.6f s %s; not used", pose.stamp * 1e-9, why)
                continue
            self._stamps.append(pose.stamp)
            self._poses.append(pose)
        if len(self._stamps) > 2 * KEPT:
            del self._stamps[:-KEPT], self._poses[:-KEPT]

    def expect(self, key: int, link: Link, start: int, end: int) -> None:
        """Have a link to keyframe ``key`` wait for the poses at its ends [ns]."""
        self._waiting.append(_Waiting(key, link, start, end))

    def taught(self, now: int) -> Iterator[tuple[int, Link, bool]]:
        """Keys and links that need wait no longer at ``now`` [ns], in order, and whether the reference says something
        of them: that is in the link then.
        """
        while self._waiting:
            first = self._waiting[0]
            late = now - first.end >= self._settings.reference_patience * 1e9
            if not late and not (self._stamps and self._stamps[-1] >= first.end):
                return
            self._waiting.popleft()
            heard = self._with_reference(first)
            yield first.key, heard or first.link, heard is not None

    def forget(self) -> None:
        """Links that wait have lost their place."""
        self._waiting.clear()

    def _with_reference(self, waiting: _Waiting) -> Link | None:
        start, end = self._at(waiting.start), self._at(waiting.end)
        where = f"between {waiting.start * 1e-9:.3f} and {waiting.end * 1e-9:.3f} s"
        if start is None or end is None:
            self.counts["reference_missing"] += 1
            _log.warning("reference: no poses %s within %.2f s of each other", where, self._settings.reference_gap)
            return None
        relative = poses.between(start.pose, end.pose)
        away, told = poses.log(poses.between(waiting.link.measured, relative)), poses.log(waiting.link.measured)
        apart, turned = float(np.linalg.norm(away[:3])), float(np.linalg.norm(away[3:]))
        motion, turn = float(np.linalg.norm(told[:3])), float(np.linalg.norm(told[3:]))
        if apart > max(_APART, _SHARE * motion) or turned > max(_TURNED, _SHARE * turn):
            self.counts["reference_disagrees"] += 1
            _log.warning(
                "reference: %s it moves %.2f m and %.1f deg otherwise than odometry tells: it jumps; not used",
                where, apart, np.degrees(turned),
            )  # fmt: skip
            return None
        back = poses.adjoint(poses.inverse(relative))
        information = np.asarray(np.linalg.inv(back @ start.covariance @ back.T + end.covariance), np.float64)
        return dataclasses.replace(waiting.link, reference=relative, reference_information=information)

    def _at(self, stamp: int) -> ReferencePose | None:
        """The pose at ``stamp`` [ns], interpolated, with a covariance that can be inverted: where the told one cannot,
        the configured one.
        """
        after = bisect.bisect_left(self._stamps, stamp)
        if after < len(self._stamps) and self._stamps[after] == stamp:
            found, covariance = self._poses[after].pose, self._covariance(self._poses[after])
        elif 0 < after < len(self._stamps):
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
        s = self._settings
        own = np.diag([s.reference_translation**2] * 3 + [s.reference_rotation**2] * 3)
        variances = np.diag(told.covariance)
        if not ((variances > _SMALLEST) & (variances < _LARGEST)).all():
            return own
        deviations = np.sqrt(variances)
        correlations = 0.5 * (told.covariance + told.covariance.T) / np.outer(deviations, deviations)
        if np.abs(correlations).max() > 1.0 + 1e-9 or np.linalg.eigvalsh(correlations)[0] < 1e-9:
            return own
        covariance: NDArray[np.float64] = correlations * np.outer(deviations, deviations)
        return covariance
