"""What comes in, topic by topic: received, refused by cause, lost, and how long the callback took."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.event_handler import QoSMessageLostInfo, QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from dsg_ros import config as cfg
from dsg_ros.io.records import MalformedMessage
from dsg_ros.ros import convert, qos
from dsg_ros.ros.latencies import Latencies
from dsg_ros.throttle import Say, Throttle

LONGEST_FRAME_ID = 256
"""Characters; a longer one is noise, and would be sent on with every transform and said in every warning."""
_SENSORS = 16
"""On one topic, whose frames are remembered."""


class Refused(Exception):
    """A message that is not used, counted under its ``cause``."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class Account:
    """A callback with its accounts, ``received == used + sum(refused.values())``; whatever a message holds, it goes on.

    ``handle`` raises `MalformedMessage` for what makes no sense, and `Refused` for what does not now.
    """

    def __init__(self, topic: str, handle: Callable[[Any], None], say: Say) -> None:
        self.topic = topic
        self._handle, self._throttled = handle, Throttle(say)
        self.received = 0
        self.refused: Counter[str] = Counter()

    def __call__(self, message: Any) -> None:
        self.received += 1
        try:
            self._handle(message)
        except Refused as error:
            self.refused[error.cause] += 1
            self._throttled("warning", error.cause, f"{self.topic}: refused: {error}")
        except MalformedMessage as error:
            self.refused["malformed"] += 1
            self._throttled("warning", "malformed", f"{self.topic}: refused: {error}")
        except Exception as error:  # noqa: BLE001 - one message, whatever is wrong with it, must not end the node
            self.refused["unexpected"] += 1
            trace = "".join(traceback.format_exception(error))
            self._throttled("error", "unexpected", f"{self.topic}: refused, unexpectedly:\n{trace}")

    def figures(self) -> dict[str, Any]:
        """For diagnostics."""
        return {"received": self.received, "refused": dict(self.refused)}


class Input:
    """One subscription with its accounts: ``received == used + sum(refused.values())``.

    ``lost`` counts messages that were sent and never taken: those the middleware reports, and gaps in the publisher's
    sequence numbers, which also show what a full history overwrote without a report (Fast DDS does).
    """

    def __init__(self, name: str, handle: Callable[[Any], None], latencies: Latencies, say: Say) -> None:
        self.name = name
        self._handle, self._latencies, self._say = handle, latencies, say
        self._throttled = Throttle(say)
        self.received = 0
        self.refused: Counter[str] = Counter()
        self.reported_lost = 0
        self.gaps = 0
        self.frame_changes = 0
        """How often frame_id or child_frame_id of odometry were others than in the message before; of scans, that take
        turns where several sensors share a topic, how often one came that was not among the latest `_SENSORS`.
        """
        self._frames: dict[str, str] = {}
        self._sensors: dict[str, None] = {}
        self.topic = name
        self.latest: float | None = None
        """When the latest message came, of `time.monotonic`; None before the first."""
        self._sequence = 0
        self._window: tuple[float, int] = (time.monotonic(), 0)
        self._subscription: Subscription | None = None

    @property
    def lost(self) -> int:
        return max(self.reported_lost, self.gaps)

    @property
    def publishers(self) -> int:
        return self._subscription.get_publisher_count() if self._subscription else 0

    def subscribe(self, node: Node, message: type, settings: cfg.Qos) -> None:
        """Listen to the relative topic of this name."""
        reliable = settings.reliability == "reliable"
        profile = QoSProfile(
            depth=settings.depth,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        self.topic = node.resolve_topic_name(self.name)
        events = SubscriptionEventCallbacks(
            message_lost=self._lost, incompatible_qos=partial(self._incompatible, node, profile)
        )
        self._sequence = 0
        self._subscription = node.create_subscription(
            message,
            self.name,
            self._take,  # type: ignore[arg-type]  # a callback may also take the message's info
            profile,
            event_callbacks=events,
            qos_overriding_options=qos.OVERRIDING,
        )

    def unsubscribe(self, node: Node) -> None:
        if self._subscription is not None:
            node.destroy_subscription(self._subscription)
            self._subscription = None

    def measured_rate(self) -> float:
        """Messages received a second since the last call."""
        now, (since, count) = time.monotonic(), self._window
        self._window = now, self.received
        return (self.received - count) / max(now - since, 1e-3)

    def unexpected(self, stamp: int, error: Exception) -> None:
        """Count the message of ``stamp`` [ns] as refused for ``error``, which nobody foresaw, and say where."""
        self.refused["unexpected"] += 1
        trace = "".join(traceback.format_exception(error))
        self._throttled("error", "unexpected", f"{self.topic} at {stamp / 1e9:.6f}: refused, unexpectedly:\n{trace}")

    def _take(self, message: Any, info: dict[str, Any]) -> None:
        began, self.latest = time.perf_counter(), time.monotonic()
        self.received += 1
        self._follow(info.get("publication_sequence_number"))
        try:
            self._check_frames(message)
            self._handle(message)
        except MalformedMessage as error:
            self.refused["malformed"] += 1
            stamp = convert.nanoseconds(message.header.stamp) / 1e9
            self._throttled("warning", "malformed", f"{self.topic} at {stamp:.6f}: refused: {error}")
        except Exception as error:  # noqa: BLE001 - one message, whatever is wrong with it, must not end the node
            self.unexpected(convert.nanoseconds(message.header.stamp), error)
        self._latencies.add(time.perf_counter() - began)

    def _follow(self, sequence: int | None) -> None:
        """Count gaps; numbers start anew, or interleave, where there is another publisher: then nothing can be told."""
        if not sequence:
            return
        missing = sequence - self._sequence - 1
        if self._sequence and missing > 0 and self.publishers == 1:
            self.gaps += missing
            self._throttled("warning", "gap", f"{self.topic}: {missing} messages were sent and never arrived here")
        self._sequence = sequence

    def _check_frames(self, message: Any) -> None:
        frames = {"frame_id": message.header.frame_id}
        if one_robot := isinstance(message, Odometry):
            frames["child_frame_id"] = message.child_frame_id
        for field, frame in frames.items():
            if len(frame) > LONGEST_FRAME_ID:
                raise MalformedMessage(
                    f"{field} has {len(frame)} characters, at most {LONGEST_FRAME_ID} are believed: {frame[:20]!r}..."
                )
            before = self._frames.get(field)
            if before and frame != before and (one_robot or frame not in self._sensors):
                self.frame_changes += 1
                stamp = convert.nanoseconds(message.header.stamp) / 1e9
                text = f"{self.topic} at {stamp:.6f}: {field} changed from {before!r} to {frame!r}"
                self._throttled("warning", field, text)
        self._frames = frames
        if not one_robot:
            sensor = frames["frame_id"]
            self._sensors.pop(sensor, None)
            self._sensors[sensor] = None
            if len(self._sensors) > _SENSORS:
                del self._sensors[next(iter(self._sensors))]

    def _lost(self, info: QoSMessageLostInfo) -> None:
        self.reported_lost += info.total_count_change
        self._throttled("warning", "lost", f"{self.topic}: the middleware lost {info.total_count_change} messages")

    def _incompatible(self, node: Node, profile: QoSProfile, info: QoSRequestedIncompatibleQoSInfo) -> None:
        def tell() -> None:
            said = qos.incompatible(node, self.topic, profile, info.last_policy_kind, subscribed=True)
            if info.last_policy_kind == QoSPolicyKind.RELIABILITY:
                said += f" (qos.{self.name}.reliability is the same)"
            self._say("error", said)

        qos.later(node, tell)
