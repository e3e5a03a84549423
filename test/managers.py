"""The side of Nav2's lifecycle manager in a bond, by its protocol."""

from __future__ import annotations

import time
import uuid
from itertools import pairwise

from bond.msg import Status
from dds import Graph, wait_until

HEARTBEAT = 0.1
"""Seconds between the manager's own."""


class Manager:
    """The manager's side as bondcpp has it: formed by the first heartbeat under the node's name, broken by the other's
    word, or by silence of ``timeout`` seconds.
    """

    def __init__(self, graph: Graph, topic: str, name: str, timeout: float) -> None:
        # It has asked for a transition before, so it knows the node: only the topic's two ends have to find each other.
        wait_until(lambda: graph.node.count_publishers(topic), f"publisher of {topic}")
        self.graph, self.name, self.timeout = graph, name, timeout
        self.state = "waiting"
        self.beats: list[float] = []
        self.sister = ""
        self._instance = str(uuid.uuid4())
        self._publisher = graph.node.create_publisher(Status, topic, 5)
        graph.node.create_subscription(Status, topic, self._take, 100)
        graph.node.create_timer(HEARTBEAT, self._tick)

    def wait(self, state: str, timeout: float) -> None:
        wait_until(lambda: self.state == state, f"bond that is {state}", timeout, lambda: self.state)

    def silence(self) -> float:
        """Longest time [s] between two heartbeats, and since the last one."""
        return max(later - earlier for earlier, later in pairwise([*self.beats, time.monotonic()]))

    def close(self) -> None:
        """Say farewell, and no more."""
        self.state = "closed"
        self._say(False)

    def _take(self, message: Status) -> None:
        if message.id != self.name or message.instance_id == self._instance or self.state == "closed":
            return
        self.sister = self.sister or message.instance_id
        assert message.instance_id == self.sister, "more than two share a bond"
        if not message.active:
            self.state = "broken"
        elif self.state in ("waiting", "alive"):
            self.state = "alive"
            self.beats.append(time.monotonic())

    def _tick(self) -> None:
        if self.state == "alive" and time.monotonic() - self.beats[-1] > self.timeout:
            self.state = "lost"
        if self.state in ("waiting", "alive"):
            self._say(True)

    def _say(self, active: bool) -> None:
        self._publisher.publish(Status(id=self.name, instance_id=self._instance, active=active))
