"""The bond to Nav2's lifecycle manager: while the node is active, it says several times a second that it lives.

The manager opens its side when it has activated the node, and takes all that it manages down when it hears of the
node's end, or of nothing for its ``bond_timeout``.  Topic, message and their meaning are those of ROS 2's `bond`.  Why
not its `bondpy`: there a thread of its own speaks, and does so for a node that hangs; and where nobody answers in ten
seconds it falls silent for good, so that a manager that comes later finds nobody.

Nothing is listened to.  From the manager's end a node has nothing to conclude (Nav2's own are told to take no notice),
its farewell needs no answer (it waits 0.1 s for one), and every node with a bond speaks on this topic: 90 messages a
second cost 2 % of a core, and as many wake-ups of the thread that takes scans.
"""

from __future__ import annotations

import uuid

from bond.msg import Status
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.timer import Timer

from dsg_ros.ros.qos import OVERRIDING

TIMEOUT = 4.0
"""Seconds, told for people to compare: by default, the manager waits as long for a heartbeat."""


class Bond:
    """The node's side of the bond; ``period`` in seconds, 0 for none."""

    def __init__(self, node: LifecycleNode, period: float) -> None:
        self._node, self._period = node, period
        self._instance = ""
        self._timer: Timer | None = None
        # It stays when the bond is closed, so that the last word still arrives.
        self._publisher = (
            node.create_publisher(Status, "bond", 5, qos_overriding_options=OVERRIDING) if period else None
        )

    def open(self) -> None:
        """Say from now on that the node lives: on its executor, so that a node that hangs is silent, and in wall time,
        whatever the ROS clock does.
        """
        if self._publisher is None or self._timer is not None:
            return
        self._instance = str(uuid.uuid4())
        self._timer = self._node.create_timer(self._period, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Say that it is over, where the bond is open."""
        if self._timer is None:
            return
        self._node.destroy_timer(self._timer)
        self._timer = None
        self._say(active=False)

    def _beat(self) -> None:
        self._say(active=True)

    def _say(self, active: bool) -> None:
        if self._publisher is None or not self._publisher.get_subscription_count():
            return  # no manager, as with most
        message = Status(id=self._node.get_name(), instance_id=self._instance, active=active)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.heartbeat_timeout, message.heartbeat_period = TIMEOUT, self._period
        self._publisher.publish(message)
