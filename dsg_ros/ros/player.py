"""A bag's messages over DDS as they were recorded: same bytes, same quality of service, in step with the wall clock."""

from __future__ import annotations

import importlib
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from rosgraph_msgs.msg import Clock

from dsg_ros.errors import UserError
from dsg_ros.io.rawbag import RawBag, Topic
from dsg_ros.progress import progress
from dsg_ros.ros import convert
from dsg_ros.ros.signals import on_signals

log = logging.getLogger(__name__)

CLOCK_PERIOD = 0.01
"""Wall seconds between two messages on /clock: more often only costs its readers time."""
HEARTBEAT = 3.0
"""Seconds between the requests for acknowledgement of Fast DDS; what is older than two of them has arrived or never
will.
"""
_ACK = Duration(seconds=5.0)
_DEPTH = 1000
_DEPTH_OF_CLOUDS = 50
"""Messages kept for readers that missed one: some seconds of a fast replay, without a recording's clouds filling
memory.
"""
_LATE = 0.1
"""Seconds behind schedule from which the schedule is moved instead of the messages being sent in a burst."""


@dataclass
class Report:
    """What was played."""

    sent: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    unacknowledged: Counter[str] = field(default_factory=Counter)
    clocks: int = 0
    seconds: float = 0.0
    recorded_seconds: float = 0.0
    interrupted: bool = False
    damage: str = ""


def play(path: Path, rate: float, patience: float, loop: bool) -> Report:
    """Play the bag at ``path`` until its end, or with ``loop`` until SIGINT or SIGTERM."""
    interrupted = threading.Event()
    on_signals(lambda number: interrupted.set())
    with RawBag(path) as bag:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = rclpy.create_node("player")
            player = Player(node, bag, rate)
            player.wait_for_subscribers(patience, interrupted.is_set)
            again = True
            while again and not interrupted.is_set():
                with progress("playing", 1.0) as advance:
                    player.play(interrupted.is_set, advance)
                again = loop
            node.destroy_node()
        finally:
            try_shutdown()
        player.report.interrupted, player.report.damage = interrupted.is_set(), bag.damage
        return player.report


class Player:
    """Publishes ``bag`` ``rate`` times as fast as it was recorded, with /clock.

    Topics of types that are not installed, or that a publisher cannot be made for, are named once and counted as
    skipped.
    """

    def __init__(self, node: Node, bag: RawBag, rate: float) -> None:
        self._node, self._bag, self._rate = node, bag, rate
        self.report = Report()
        self._clock = node.create_publisher(Clock, "/clock", QoSProfile(depth=1))
        self._publishers: dict[Topic, Publisher] = {}
        self._batches: dict[Topic, float] = {}
        for topic in bag.topics:
            publisher = self._advertise(topic) if topic.count and topic.name != "/clock" else None
            if publisher is not None:
                self._publishers[topic] = publisher
        if not self._publishers:
            raise UserError(f"{bag.path}: no topic of this bag can be published; it has {_names(bag.topics)}")

    def wait_for_subscribers(self, patience: float, stopped: Callable[[], bool]) -> bool:
        """Wait until every sensor topic of the bag has a subscriber, saying which has none; False when none came.

        After ``patience`` seconds it goes on with those there are: the bag may hold topics nobody wants.
        """
        wanted = {t: p for t, p in self._publishers.items() if t.msgtype in _SENSORS} or self._publishers
        deadline, said = time.monotonic() + patience, -math.inf
        while not stopped():
            missing = [topic.name for topic, publisher in wanted.items() if not publisher.get_subscription_count()]
            if not missing:
                return True
            if time.monotonic() >= deadline:
                log.warning("nobody subscribes to %s; playing all the same", ", ".join(missing))
                return len(missing) < len(wanted)
            if time.monotonic() - said > 2.0:
                said = time.monotonic()
                log.info("waiting for subscribers of %s", ", ".join(missing))
            time.sleep(0.02)
        return False

    def play(self, stopped: Callable[[], bool], progress: Callable[[float], None] = lambda share: None) -> None:
        """Publish everything once, until ``stopped()``; ``progress`` hears the share of messages sent."""
        began, total = time.monotonic(), sum(topic.count for topic in self._publishers) or 1
        schedule: _Schedule | None = None
        stamp = 0
        for done, (topic, stamp, data) in enumerate(self._messages()):
            if schedule is None:
                schedule = _Schedule(stamp, self._rate)
                first = stamp
            if not self._wait(schedule, stamp, stopped):
                break
            self._send(topic, data)
            progress((done + 1) / total)
        if schedule is not None:
            self._tell_time(stamp)
            self.report.recorded_seconds += (stamp - first) / 1e9
        self._settle()
        self.report.seconds += time.monotonic() - began

    def _messages(self) -> Iterator[tuple[Topic, int, bytes]]:
        for topic, stamp, data in self._bag.messages(self._publishers):
            if not self._bag.ros1:
                yield topic, stamp, bytes(data)
                continue
            yield topic, stamp, bytes(self._bag.typestore.ros1_to_cdr(data, topic.msgtype))

    def _wait(self, schedule: _Schedule, stamp: int, stopped: Callable[[], bool]) -> bool:
        """Let wall time pass until ``stamp`` is due, telling the time on /clock meanwhile; False when stopped."""
        while not stopped():
            remaining = schedule.remaining(stamp)
            now = min(schedule.now(), stamp)
            if schedule.clock_due():
                self._tell_time(now)
            if remaining <= 0.0:
                return True
            time.sleep(min(remaining, CLOCK_PERIOD))
        return False

    def _tell_time(self, stamp: int) -> None:
        self._clock.publish(Clock(clock=convert.time(stamp)))
        self.report.clocks += 1

    def _send(self, topic: Topic, data: bytes) -> None:
        publisher = self._publishers[topic]
        publisher.publish(data)
        self.report.sent[topic.name] += 1
        # Half a history sent within two heartbeats may not have arrived: wait, or the rest would push it out unread.
        if self.report.sent[topic.name] % (publisher.qos_profile.depth // 2):
            return
        now = time.monotonic()
        if now - self._batches.get(topic, -math.inf) < 2 * HEARTBEAT and not publisher.wait_for_all_acked(_ACK):
            self.report.unacknowledged[topic.name] += 1
            log.warning("%s: a subscriber has not taken its messages for 5 s; going on", topic.name)
        self._batches[topic] = time.monotonic()

    def _settle(self) -> None:
        for topic, publisher in self._publishers.items():
            if not publisher.wait_for_all_acked(_ACK):
                self.report.unacknowledged[topic.name] += 1

    def _advertise(self, topic: Topic) -> Publisher | None:
        try:
            package, _, name = topic.msgtype.split("/")
            message = getattr(importlib.import_module(f"{package}.msg"), name)
        except (ImportError, AttributeError, ValueError):
            self.report.skipped[topic.name] += topic.count
            log.warning("%s is left out: the message type %s is not installed here", topic.name, topic.msgtype)
            return None
        return self._node.create_publisher(message, topic.name, quality(topic))


class _Schedule:
    """When a bag's time is due on the wall clock."""

    def __init__(self, first: int, rate: float) -> None:
        self._first, self._rate = first, rate
        self._began = time.monotonic()
        self._clock_told = -math.inf

    def remaining(self, stamp: int) -> float:
        """Wall seconds until ``stamp``; a player that fell behind moves the schedule and never sends a burst."""
        remaining = self._began + (stamp - self._first) / 1e9 / self._rate - time.monotonic()
        if remaining < -_LATE:
            self._began -= remaining
            return 0.0
        return remaining

    def now(self) -> int:
        """The bag's time at this moment [ns]."""
        return self._first + int((time.monotonic() - self._began) * self._rate * 1e9)

    def clock_due(self) -> bool:
        """Whether /clock should speak again."""
        now = time.monotonic()
        if now - self._clock_told < CLOCK_PERIOD:
            return False
        self._clock_told = now
        return True


def quality(topic: Topic) -> QoSProfile:
    """What the recording says was offered; reliable, and latched where it was, when it says nothing.

    History is kept to a bounded depth: with "keep all" one stuck reader would stop the player for good.
    """
    depth = _DEPTH_OF_CLOUDS if topic.msgtype in _LARGE else _DEPTH
    profile = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)
    static = topic.name.endswith("tf_static")
    if topic.latched or static:
        profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    for offered in topic.qos[:1]:
        if offered.reliability.name == "BEST_EFFORT":
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        if offered.durability.name == "TRANSIENT_LOCAL":
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


def _names(topics: list[Topic]) -> str:
    return ", ".join(f"{topic.name} ({topic.msgtype}, {topic.count})" for topic in topics) or "none"


_LARGE = frozenset({"sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"})
_SENSORS = frozenset({"nav_msgs/msg/Odometry", "sensor_msgs/msg/LaserScan", "sensor_msgs/msg/PointCloud2"})
