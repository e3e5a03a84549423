"""Scans meet odometry: each scan waits until odometry spans it, then leaves as one `Frame`.

NumPy only; the node's callbacks and the offline reader use the same class.  Nothing is lost silently: every scan and
every odometry message that comes in is emitted, waiting, or counted under its cause in ``counts``.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsg_ros import poses
from dsg_ros.config import Input
from dsg_ros.interface import Frame, OdometryTrack
from dsg_ros.stamp_check import StampCheck, Stamped
from dsg_ros.throttle import Say, Throttle, to_log

_SECOND = 1_000_000_000
_HISTORY = 4096  # odometry samples kept: 80 s at 50 Hz, 4 s at 1 kHz
_BEFORE = 300_000_000
"""Odometry before a scan [ns] that goes with it: `OdometryTrack.velocity` is taken over so much of it, a sweep away."""
_UNIT = 1e-3  # a quaternion farther from unit norm is worth a word
_SENSORS = 16
"""Sensors whose latest stamp is kept: those heard last."""
_MOST_STEP = _SECOND
"""From one scan to the next so much counts as time without odometry, at most: where both stopped none has passed."""


@dataclass(frozen=True, slots=True)
class _Scan:
    number: int
    frame: Frame
    start: int
    end: int
    source: str


Sensor = tuple[str, str]
"""Topic and frame: several sensors may share a topic, each with a frame of its own, and stamp alike."""


class Synchroniser:
    """Pairs scans with the odometry around them.

    `add_odometry` and `add_scan` return the frames that became ready, in order of the scans' arrival; only a scan
    stamped ahead of the newest odometry by more than the timeout is overtaken by others that are ready.  A frame's
    track holds the samples within the scan, those of the last `_BEFORE` before it, at least one, and of those after it
    as many as span ``settings.odometry_margin``, at least one; one sample alone where its stamp is that of an
    instantaneous scan.  After the last message, `flush` emits what still waits.

    Where odometry has come before, and then scans for ``settings.odometry_silence`` without any, they leave with the
    last of it, not ``heard``.

    A stamp far from the newest waits for the next to agree (`StampCheck`): one of odometry that is ahead, or of a scan
    that waits for none.  Odometry far behind is a jump of the clock, but for a stamp of zero, which nobody has set.

    ``counts`` by cause: odometry_received, odometry_not_finite, odometry_far_away, odometry_zero_quaternion,
    odometry_huge_quaternion, odometry_unnormalised (used, normalised), odometry_repeated_stamp, odometry_backwards
    (used, put in its place), odometry_too_old, odometry_doubtful_stamp (used, if the next agrees),
    odometry_wrong_stamp (it did not, or is zero);
    scans_received, frames, points_out_of_range, scans_without_points (used: the pose goes on by odometry),
    scans_repeated_stamp, scans_wrong_stamp,
    scans_without_odometry (older than the first sample or, at the end, farther than the timeout from the last one),
    scans_too_old (older than the samples kept), scans_odometry_silent (waited, or still wait, because odometry
    stopped), scans_held_odometry (emitted with the last sample held, by `flush` or in silence), dropped_queue_full (as
    many scans as the queue holds came after it), dropped_clock_jump, clock_jumped_back.
    """

    def __init__(self, settings: Input, report: Say | None = None) -> None:
        self._settings = settings
        self._margin = round(settings.odometry_margin * _SECOND)
        self._throttled = Throttle(report or to_log(__name__))
        self.counts: Counter[str] = Counter()
        self.resets = 0
        """Clock jumps met so far under the policy "reset": whoever owns the map starts a new one when this grows."""
        self._stamps: list[int] = []
        self._poses: list[NDArray[np.float64]] = []
        self._trimmed = False
        self._newest: int | None = None
        apart = round(settings.clock_jump * _SECOND)
        self._doubted: StampCheck[tuple[NDArray[np.float64], str]] = StampCheck(apart, behind=False)
        self._doubted_scan: StampCheck[_Scan] = StampCheck(apart, behind=True)
        self._unheard: Counter[Sensor] = Counter()
        self._pending: deque[_Scan] = deque()
        self._admitted = 0
        self._latest: dict[Sensor, int] = {}

    @property
    def waiting(self) -> int:
        """Scans that wait for odometry, or for another stamp."""
        return len(self._pending) + (self._doubted_scan.held is not None)

    def clear(self) -> None:
        """Forget odometry and waiting scans, keep the counts."""
        self._newest = None
        self._unheard.clear()
        self._stamps.clear()
        self._poses.clear()
        self._pending.clear()
        self._latest.clear()
        self._trimmed = False

    def add_odometry(self, stamp: int, pose: ArrayLike, topic: str = "odom") -> list[Frame]:
        """Take a pose (7,) of the base in the odometry frame at ``stamp`` [ns]; refused ones are counted."""
        self.counts["odometry_received"] += 1
        checked = self._checked(stamp, pose, topic)
        if checked is None:
            return []
        newest = self._stamps[-1] if self._stamps else None
        if stamp == 0 and newest is not None and newest > self._settings.clock_jump * _SECOND:
            self._count("odometry_wrong_stamp", topic, stamp, "ignored: nobody has set it")
            return []
        used, wrong = self._doubted.take(newest, stamp, (checked, topic))
        if wrong is not None:
            text = "ignored: those around it are of another time"
            self._count("odometry_wrong_stamp", wrong.item[1], wrong.stamp, text)
        if not used and newest is not None:
            away = f"{(stamp - newest) / _SECOND:+.1f} s from the one before: it waits for the next to agree"
            self._count("odometry_doubtful_stamp", topic, stamp, away)
        return [frame for each in used for frame in self._use(each)]

    def _use(self, sample: Stamped[tuple[NDArray[np.float64], str]]) -> list[Frame]:
        stamp, (pose, topic) = sample
        if not self._stamps or stamp > self._stamps[-1]:
            self._stamps.append(stamp)
            self._poses.append(pose)
        elif not self._insert(stamp, pose, topic):
            return []
        self._unheard.clear()
        if len(self._stamps) > 2 * _HISTORY:
            del self._stamps[:-_HISTORY], self._poses[:-_HISTORY]
            self._trimmed = True
        return self._ready()

    def add_scan(
        self,
        stamp: int,
        points: NDArray[np.float32],
        times: NDArray[np.float32] | None = None,
        base_from_sensor: ArrayLike = poses.IDENTITY,
        planar: bool = False,
        source: str = "scan",
        sensor_frame: str = "",
    ) -> list[Frame]:
        """Take points (n, 3) [m] in the sensor frame, measured at ``stamp`` [ns] + ``times`` (n,) [s], from topic
        ``source`` and the sensor of the frame called ``sensor_frame``.  Of a robot without odometry it is ready at
        once, with a base that stands at the origin.
        """
        sensor = source, sensor_frame
        before = self._latest.get(sensor)
        scan = self._admit(stamp, points, times, base_from_sensor, planar, sensor)
        if scan is None:
            return []
        if self._settings.odometry == "none":
            return self._alone(scan)
        self._pending.append(scan)
        # Each sensor by itself: of two of which one lags, time would be counted twice.
        before = stamp if before is None else before
        self._unheard[sensor] += min(max(0, stamp - before), _MOST_STEP)
        if self._stamps and scan.start - self._stamps[-1] > self._settings.odometry_timeout * _SECOND:
            behind = (scan.start - self._stamps[-1]) / _SECOND
            self._count(
                "scans_odometry_silent", source, stamp, f"the latest odometry is {behind:.1f} s older; it waits"
            )
        # Counted from the oldest: one that others overtake must not wait for ever because the queue stays short.
        if scan.number - self._pending[0].number >= self._settings.queue:
            oldest = self._pending.popleft()
            why = "odometry does not reach it" if self._stamps else "there is no odometry yet"
            self._count("dropped_queue_full", oldest.source, oldest.start, f"dropped as {why} and the queue is full")
        if self._stamps and 0.0 < self._settings.odometry_silence * _SECOND <= self._unheard[sensor]:
            return self._unheard_frames(min(stamp, before))
        return self._ready()

    def _alone(self, scan: _Scan) -> list[Frame]:
        """The frames of scans that no odometry is waited for; their stamps tell whether the clock jumped back."""
        used, wrong = self._doubted_scan.take(self._newest, scan.frame.stamp, scan)
        if wrong is not None:
            self._wrong_scan(wrong)
        return [self._lone_frame(each) for _, each in used]

    def _wrong_scan(self, wrong: Stamped[_Scan]) -> None:
        text = "dropped: those around it are of another time"
        self._count("scans_wrong_stamp", wrong.item.source, wrong.stamp, text)

    def _lone_frame(self, scan: _Scan) -> Frame:
        stamp = scan.frame.stamp
        if self._newest is not None and (back := (self._newest - stamp) / _SECOND) > self._settings.clock_jump:
            self._jump(stamp, back, scan.source)
        self._newest = stamp if self._newest is None else max(self._newest, stamp)
        self.counts["frames"] += 1
        return _framed(scan, [stamp], [poses.IDENTITY])

    def _unheard_frames(self, reliable: int) -> list[Frame]:
        """What waits for odometry that fell silent, with the last of it; not what is stamped far ahead of a
        ``reliable`` stamp [ns].
        """
        frames, ahead = [], reliable + self._settings.clock_jump * _SECOND
        waiting = [scan for scan in self._pending if scan.frame.stamp > ahead]
        for scan in self._pending:
            if scan.frame.stamp <= ahead and self._reached(scan):
                self._count(
                    "scans_held_odometry", scan.source, scan.start,
                    f"the odometry is silent, the latest is {(scan.start - self._stamps[-1]) / _SECOND:.1f} s older: "
                    "mapped without it, until it comes again (input.odometry_silence)",
                )  # fmt: skip
                self.counts["frames"] += 1
                frames.append(replace(self._bracketed(scan), heard=False))
        self._pending = deque(waiting)
        return frames

    def add_paired(
        self,
        stamp: int,
        pose: ArrayLike,
        points: NDArray[np.float32],
        base_from_sensor: ArrayLike = poses.IDENTITY,
        source: str = "scan",
        sensor_frame: str = "",
    ) -> list[Frame]:
        """Take an instantaneous planar scan with its own odometry pose (7,), whatever the stamps before: for logs in
        file order.
        """
        self.counts["odometry_received"] += 1
        checked = self._checked(stamp, pose, source)
        scan = self._admit(stamp, points, None, base_from_sensor, True, (source, sensor_frame))
        if checked is None or scan is None:
            if scan is not None:
                self._count("scans_without_odometry", source, stamp, "dropped: its own odometry was refused")
            return []
        self.counts["frames"] += 1
        return [_framed(scan, [stamp], [checked])]

    def flush(self) -> list[Frame]:
        """At the end of a log: what still waits, with the last odometry held for up to the timeout."""
        last, alone = self._doubted.clear(), self._doubted_scan.clear()
        frames = self._ready() if last is None else self._use(last)
        if alone is not None and self._newest is not None and alone.stamp > self._newest:
            frames.append(self._lone_frame(alone.item))
        elif alone is not None:
            self._wrong_scan(alone)
        reach = self._settings.odometry_timeout * _SECOND
        while self._pending:
            scan = self._pending.popleft()
            if not self._stamps or scan.start < self._stamps[0] or scan.end - self._stamps[-1] > reach:
                self._count("scans_without_odometry", scan.source, scan.start, "dropped: no odometry reaches it")
                continue
            self.counts["scans_held_odometry"] += scan.end > self._stamps[-1]
            self.counts["frames"] += 1
            frames.append(self._bracketed(scan))
            # What stood behind the scan in the queue may be ready already.
            frames += self._ready()
        return frames

    def _checked(self, stamp: int, pose: ArrayLike, topic: str) -> NDArray[np.float64] | None:
        checked = np.array(pose, np.float64)
        if (flaw := poses.flaw(checked)) is not None:
            self._count(f"odometry_{flaw.cause}", topic, stamp, f"refused: {flaw.text}")
            return None
        norm = math.hypot(*checked[3:])
        if abs(norm - 1.0) > _UNIT:
            self._count("odometry_unnormalised", topic, stamp, f"the quaternion's norm is {norm:.4g}: normalised")
        checked[3:] /= norm
        return checked

    def _insert(self, stamp: int, pose: NDArray[np.float64], topic: str) -> bool:
        """Deal with a stamp that is not the newest; whether the sample was used."""
        back = (self._stamps[-1] - stamp) / _SECOND
        if back > self._settings.clock_jump:
            self._jump(stamp, back, topic)
            self._stamps.append(stamp)
            self._poses.append(pose)
            return True
        place = bisect_left(self._stamps, stamp)
        if self._stamps[place] == stamp:
            self._count("odometry_repeated_stamp", topic, stamp, "ignored: this stamp came before")
            return False
        if place == 0 and self._trimmed:
            self._count("odometry_too_old", topic, stamp, f"ignored: {back:.3f} s older than the newest")
            return False
        self._count("odometry_backwards", topic, stamp, f"{back:.3f} s older than the newest: put in its place")
        self._stamps.insert(place, stamp)
        self._poses.insert(place, pose)
        return True

    def _jump(self, stamp: int, back: float, topic: str) -> None:
        self.counts["dropped_clock_jump"] += len(self._pending)
        policy = self._settings.on_clock_jump
        dropped = f"{len(self._pending)} waiting scans dropped" if self._pending else "no scan was waiting"
        self._count("clock_jumped_back", topic, stamp, f"the clock jumped back by {back:.1f} s: {policy}; {dropped}")
        self.resets += policy == "reset"
        self.clear()

    def _admit(
        self,
        stamp: int,
        points: NDArray[np.float32],
        times: NDArray[np.float32] | None,
        base_from_sensor: ArrayLike,
        planar: bool,
        sensor: Sensor,
    ) -> _Scan | None:
        source = sensor[0]
        self.counts["scans_received"] += 1
        if self._latest.pop(sensor, None) == stamp:
            self._latest[sensor] = stamp
            self._count("scans_repeated_stamp", source, stamp, "dropped: a scan with this stamp came before")
            return None
        self._latest[sensor] = stamp
        if len(self._latest) > _SENSORS:
            forgotten = next(iter(self._latest))
            del self._latest[forgotten], self._unheard[forgotten]
        points = np.asarray(points, np.float32).reshape(-1, 3)
        squared = np.einsum("ij,ij->i", points, points)
        # NaN fails both comparisons.
        inside = (squared >= np.float32(self._settings.min_range**2)) & (
            squared <= np.float32(self._settings.max_range**2)
        )
        kept = int(np.count_nonzero(inside))
        if kept < len(points):
            self.counts["points_out_of_range"] += len(points) - kept
            points = points[inside]
            times = None if times is None else times[inside]
        if not kept:  # the robot moves on, and where it was then is known by its odometry
            why = f"none of its {len(inside)} points is within range" if len(inside) else "it has no point"
            text = f"{why}: nothing is seen in it, it goes on by odometry alone"
            self._count("scans_without_points", source, stamp, text)
            times = None
        start = end = stamp
        if times is not None:
            start, end = stamp + min(0, _nanoseconds(times.min())), stamp + max(0, _nanoseconds(times.max()))
        # The track is filled in when odometry spans the scan.
        track = OdometryTrack(np.empty(0, np.int64), np.empty((0, 7)))
        frame = Frame(stamp, points, track, np.array(base_from_sensor, np.float64), times, planar)
        self._admitted += 1
        return _Scan(self._admitted, frame, start, end, source)

    def _ready(self) -> list[Frame]:
        frames: list[Frame] = []
        far = self._settings.odometry_timeout * _SECOND
        waiting: list[_Scan] = []
        while self._pending and self._stamps:
            scan = self._pending.popleft()
            if scan.end + self._margin > self._stamps[-1]:
                waiting.append(scan)
                if scan.end - self._stamps[-1] > far:
                    continue  # a stamp from the future must not hold up what stands behind it
                break
            if self._reached(scan):
                self.counts["frames"] += 1
                frames.append(self._bracketed(scan))
        self._pending.extendleft(reversed(waiting))
        return frames

    def _reached(self, scan: _Scan) -> bool:
        """Whether odometry reaches back to the beginning of ``scan``; it is dropped where it does not."""
        if scan.start >= self._stamps[0]:
            return True
        cause = "scans_too_old" if self._trimmed else "scans_without_odometry"
        lead = (self._stamps[0] - scan.start) / _SECOND
        self._count(cause, scan.source, scan.start, f"dropped: {lead:.3f} s before the first odometry at hand")
        return False

    def _bracketed(self, scan: _Scan) -> Frame:
        """The scan with the samples around it; there is one before it or at its stamp."""
        at = bisect_left(self._stamps, scan.start)
        if scan.start == scan.end and self._stamps[at : at + 1] == [scan.start]:
            first, last = at, at + 1
        else:
            first = max(0, bisect_right(self._stamps, scan.start - _BEFORE) - 1)
            last = bisect_left(self._stamps, scan.end + self._margin) + 1
        return _framed(scan, self._stamps[first:last], self._poses[first:last])

    def _count(self, cause: str, topic: str, stamp: int, text: str) -> None:
        """Count, and say so: the first time at once, then at most every few seconds a cause."""
        self.counts[cause] += 1
        total = self.counts[cause]
        often = f" ({total} so far)" if total > 1 else ""
        self._throttled("warning", cause, f"{topic} at {stamp / _SECOND:.6f}: {text}{often} [{cause}]")


def _framed(scan: _Scan, stamps: list[int], track: list[NDArray[np.float64]]) -> Frame:
    frame = scan.frame
    odometry = OdometryTrack(np.array(stamps, np.int64), np.array(track))
    return Frame(frame.stamp, frame.points, odometry, frame.base_from_sensor, frame.times, frame.planar)


def _nanoseconds(seconds: float) -> int:
    return round(float(seconds) * _SECOND)


_NOT_DROPS = (
    "points_", "odometry_", "scans_received", "scans_without_points", "scans_odometry_silent", "scans_held", "frames",
    "clock_",
)  # fmt: skip


def dropped_scans(counts: Mapping[str, int]) -> dict[str, int]:
    """Of a `Synchroniser`'s ``counts``, or a log's, those of scans that were not used, by cause."""
    return {cause: n for cause, n in counts.items() if not cause.startswith(_NOT_DROPS)}
