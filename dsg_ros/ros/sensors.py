"""From sensor messages to frames: the callbacks.  They convert, look up where the sensor sits, and hand over."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import LaserScan, PointCloud2
from std_msgs.msg import Header

from dsg_ros import config as cfg
from dsg_ros import poses
from dsg_ros.base_name import base_among
from dsg_ros.interface import Frame
from dsg_ros.io.point_times import PointTimes, SensorTimes
from dsg_ros.io.records import MalformedMessage, PointSet
from dsg_ros.ros import convert, frame_names, tf_others
from dsg_ros.ros.frames import Frames
from dsg_ros.ros.inputs import Input
from dsg_ros.ros.latencies import Latencies
from dsg_ros.synchroniser import Synchroniser
from dsg_ros.throttle import Say, Throttle

_PATIENCE = 5.0
"""Seconds without a first message after which a topic is called silent."""


@dataclass(frozen=True)
class _Held:
    """A scan that waits for the transform of its sensor."""

    source: Input
    stamp: int
    points: PointSet
    frame: str
    planar: bool


@dataclass(frozen=True)
class Silence:
    """``text`` says that odometry is silent; ``blocks``: the scans that come wait for it, or are dropped."""

    text: str = ""
    blocks: bool = False


@dataclass(frozen=True)
class Mounting:
    """Where a sensor's ``frame`` sits in that of the ``base``: ``pose`` (7,)."""

    base: str
    frame: str
    pose: NDArray[np.float64]


class Sensors:
    """Subscriptions to odom, scan and points, joined to frames by the `Synchroniser`.

    ``submit`` gets each frame; ``on_odometry`` every usable odometry pose with its stamp, newer than those before,
    its quaternion normalised (for odom->base on /tf); ``on_jump`` is called when the clock jumped back, with whether
    the policy is to start anew.
    """

    def __init__(
        self,
        config: Callable[[], cfg.Node],
        frames: Frames,
        submit: Callable[[Frame], None],
        on_odometry: Callable[[int, NDArray[np.float64]], None],
        on_jump: Callable[[bool], object],
        say: Say,
    ) -> None:
        self._config, self._frames, self._submit = config, frames, submit
        self._on_odometry, self._on_jump = on_odometry, on_jump
        self._say, self._throttled = say, Throttle(say)
        self.synchroniser = Synchroniser(config().input, say)
        self.latencies = Latencies()
        self._times = PointTimes(config().input.point_time_unit, say)
        self.points: Counter[str] = Counter()
        self._alone = config().input.odometry == "none"
        self._prefix = config().frame_prefix
        self.base_frame = frame_names.given(self._prefix, config().base_frame)
        odom_frame = frame_names.given(self._prefix, config().odom_frame)
        self.odom_frame = self.base_frame if self._alone else odom_frame
        """Of a robot without odometry that of its base: the map is its parent."""
        self.above = tf_others.Above(frames.others, say)
        """Of that frame: a frame should have one parent."""
        self._held: deque[_Held] = deque()
        self._since = time.monotonic()
        self.mounting: Mounting | None = None
        """Of the sensor whose scan came last, as told."""
        self.paused = False
        """Scans that come are dropped and counted as paused; odometry is followed, so that the way is not lost."""
        self.halted = False
        """The clock jumped back and the policy is to stop: as paused, until somebody says how to go on."""
        handlers = {"odom": self._odometry, "scan": self._scan, "points": self._cloud}
        unused = [{"auto": "", "scan": "points", "points": "scan"}[config().sensors], "odom" if self._alone else ""]
        self.inputs = {
            name: Input(name, handle, self.latencies, say) for name, handle in handlers.items() if name not in unused
        }
        self.odometry = self.inputs.get("odom")
        """None for a robot without."""
        self.scans = [source for name, source in self.inputs.items() if name != "odom"]

    @property
    def heard(self) -> bool:
        """Whether what moves the robot on has come: its odometry, or of one without any a scan."""
        return any(source.received for source in (self.scans if self.odometry is None else [self.odometry]))

    @property
    def waiting(self) -> int:
        """Scans that wait for a transform or for odometry."""
        return len(self._held) + self.synchroniser.waiting

    def subscribe(self, node: Node) -> None:
        """Begin to listen."""
        qos = self._config().qos
        types = {"odom": (Odometry, qos.odom), "scan": (LaserScan, qos.scan), "points": (PointCloud2, qos.points)}
        self._since = time.monotonic()
        self.above.publishers = lambda: tf_others.publishers(node)
        for name, source in self.inputs.items():
            source.subscribe(node, *types[name])

    def unsubscribe(self, node: Node) -> None:
        """Stop listening; what waits stays."""
        for source in self.inputs.values():
            source.unsubscribe(node)

    def flush(self) -> None:
        """Hand over what still waits for odometry, with the last odometry held."""
        self._emit(self.synchroniser.flush())

    def complain(self) -> None:
        """Say which topic is silent, and whether anybody publishes it, and what is wrong on /tf; to be called now and
        then.
        """
        self.above.look(self.odom_frame, frame_names.map_frame(self._config()), self._alone)
        if time.monotonic() - self._since < _PATIENCE:
            return
        any_scan = any(source.received for source in self.scans)
        odometry = [] if self.odometry is None or any_scan else [self.odometry]
        for source in odometry + ([] if any_scan else self.scans):
            if not source.received:
                text = f"waiting for the first message on {source.topic}: {_publishers(source)}"
                self._throttled("warning", source.name, text)
        if silence := self.silence.text:
            self._throttled("error" if self.silence.blocks else "warning", "silence", silence)

    @property
    def silence(self) -> Silence:
        """Whether scans come and odometry, which is wanted, has not for seconds; where both stop it is not silent."""
        source, scan = self.odometry, max((source.latest or 0.0 for source in self.scans), default=0.0)
        if source is None or self.paused or self.halted:
            return Silence()
        seconds = scan - (self._since if source.latest is None else max(self._since, source.latest))
        if seconds < _PATIENCE:
            return Silence()
        said = f"no odometry on {source.topic} for {seconds:.0f} s while scans come: {_publishers(source)}; "
        none = "remap odom to the robot's, or set input.odometry:=none for a robot without"
        if not source.received:
            return Silence(f"{said}scans wait for it: {none}", blocks=True)
        if not (longest := self._config().input.odometry_silence):
            return Silence(f"{said}scans wait for it (input.odometry_silence is 0)", blocks=True)
        return Silence(f"{said}after {longest:g} s they are mapped alone, until it comes (input.odometry_silence)")

    def _odometry(self, message: Odometry) -> None:
        stamp, pose = convert.nanoseconds(message.header.stamp), convert.odometry_pose(message)
        config, prefix = self._config(), self._prefix
        odom_frame, base_frame = message.header.frame_id or "odom", message.child_frame_id or "base_link"
        self.odom_frame = frame_names.given(prefix, config.odom_frame) or frame_names.told(prefix, odom_frame)
        self.base_frame = frame_names.given(prefix, config.base_frame) or frame_names.told(prefix, base_frame)
        counts = self.synchroniser.counts
        unfit = sum(counts[cause] for cause in _NOT_FOR_TF)
        before = counts["clock_jumped_back"], self.synchroniser.resets
        assert self.odometry is not None, "it is listened to"
        ready = self.synchroniser.add_odometry(stamp, pose, self.odometry.topic)
        if self._jumped(*before):
            self._count_held("dropped_clock_jump")
        self._emit(ready)
        self._release()
        if sum(counts[cause] for cause in _NOT_FOR_TF) == unfit:
            checked = np.array(pose)
            checked[3:] /= np.linalg.norm(checked[3:])
            self._on_odometry(stamp, checked)

    def _jumped(self, jumps: int, resets: int) -> bool:
        """Tell where the clock has jumped back since there were so many ``jumps`` and ``resets``; whether it has."""
        if self.synchroniser.counts["clock_jumped_back"] == jumps:
            return False
        if self._config().input.on_clock_jump == "stop":
            self.halted = True
            text = "the clock jumped back: no scan is used until ~/resume, in this map, or ~/reset, in a new one"
            self._throttled("error", "halted", text)
        self._on_jump(self.synchroniser.resets != resets)
        return True

    def _scan(self, message: LaserScan) -> None:
        points = convert.scan_points(message, self._times_of("scan", message.header))
        self._take(self.inputs["scan"], message.header, points, planar=True)

    def _cloud(self, message: PointCloud2) -> None:
        points = convert.cloud_points(message, self._times_of("points", message.header))
        self._take(self.inputs["points"], message.header, points, planar=False)

    def _times_of(self, source: str, header: Header) -> SensorTimes:
        return self._times.of(self.inputs[source].topic, header.frame_id, convert.nanoseconds(header.stamp))

    def _take(self, source: Input, header: Header, points: PointSet, planar: bool) -> None:
        if self.paused or self.halted:
            source.refused["paused"] += 1
            return
        frame = frame_names.told(self._prefix, header.frame_id)
        if self._alone and not self.base_frame:
            self._name_base(source, frame)
        for cause, count in points.dropped.items():
            self.points[f"points_{cause}"] += count
        self._held.append(_Held(source, convert.nanoseconds(header.stamp), points, frame, planar))
        self._release()
        if len(self._held) > self._config().input.queue:
            self._drop_oldest_held()

    def _name_base(self, source: Input, frame: str) -> None:
        """Nothing names the base: it is what /tf has above the ``frame`` of a scan and is called one, or that frame."""
        if not frame:
            raise MalformedMessage(
                "its header.frame_id is empty, and so is base_frame: nothing says where it was taken"
            )
        above = [name.removeprefix(self._prefix) for name in self._frames.above(frame)]
        self.odom_frame = self.base_frame = frame_names.told(self._prefix, base_among(above)) or frame
        why = "the frame of the scans" if self.base_frame == frame else f"above {frame!r} on /tf"
        self._say("info", f"{source.topic}: the base is {self.base_frame!r}, {why}; base_frame names another")

    def _drop_oldest_held(self) -> None:
        oldest = self._held.popleft()
        cause = "no_transform" if self.base_frame else "no_odometry"
        missing = "the transform of its sensor" if self.base_frame else "the first odometry, which names the base frame"
        oldest.source.refused[cause] += 1
        where = f"{oldest.source.topic} at {oldest.stamp / 1e9:.6f}"
        text = f"{where}: dropped: it waited for {missing} and {self._config().input.queue} newer scans came [{cause}]"
        self._throttled("warning", cause, text)

    def _release(self) -> None:
        """Pass on the scans whose sensor's place is known, in order."""
        while self._held:
            scan = self._held[0]
            try:
                extrinsic = self._extrinsic(scan)
                if extrinsic is None:
                    return
                self._hand_over(scan, extrinsic)
            except Exception as error:  # noqa: BLE001 - this scan is at fault, not the message that set it free
                scan.source.unexpected(scan.stamp, error)
            self._held.popleft()

    def _hand_over(self, scan: _Held, extrinsic: NDArray[np.float64]) -> None:
        if self.halted:  # since one that was held with this one
            scan.source.refused["paused"] += 1
            return
        points = scan.points
        self.mounting = Mounting(self.base_frame, scan.frame, extrinsic)
        before = self.synchroniser.counts["clock_jumped_back"], self.synchroniser.resets
        ready = self.synchroniser.add_scan(
            scan.stamp, points.points, points.times, extrinsic, scan.planar, scan.source.topic, scan.frame
        )
        if self._jumped(*before) and self.halted:
            self.synchroniser.counts["dropped_clock_jump"] += len(ready)
            return
        self._emit(ready)

    def _extrinsic(self, scan: _Held) -> NDArray[np.float64] | None:
        """``base_from_sensor``, or None, with a message, while it is not known."""
        base = self.base_frame
        if not base:
            return None  # neither configured nor told by an odometry message yet
        if scan.frame == base:
            return poses.IDENTITY
        found = self._frames.lookup(base, scan.frame)
        if found is not None:
            return found
        why = self._frames.explain(base, scan.frame)
        if self._config().identity_extrinsic:
            text = f"{scan.source.topic}: {why}; taken as identity (identity_extrinsic)"
            self._throttled("warning", "identity", text)
            return poses.IDENTITY
        text = f"{scan.source.topic}: waiting for the transform from {base!r} to {scan.frame!r}: {why}"
        self._throttled("warning", "transform", text)
        return None

    def _emit(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._submit(frame)

    def _count_held(self, cause: str) -> None:
        while self._held:
            self._held.popleft().source.refused[cause] += 1


def _publishers(source: Input) -> str:
    count = source.publishers
    return f"publishers: {count}; check their QoS" if count else "nobody publishes it"


_NOT_FOR_TF = (
    "odometry_not_finite",
    "odometry_far_away",
    "odometry_zero_quaternion",
    "odometry_huge_quaternion",
    "odometry_repeated_stamp",
    "odometry_backwards",
    "odometry_too_old",
    "odometry_doubtful_stamp",
    "odometry_wrong_stamp",
)
"""Odometry that is no pose, that may be of another time, or older than what tf2 was told already."""
