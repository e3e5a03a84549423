"""The bond to Nav2's lifecycle manager, over DDS; the manager's side is played by its protocol."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from itertools import count

import pytest
import rclpy
from bond.msg import Status
from dds import Graph, NodeProgram, wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from managers import Manager
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher

from dsg_ros import poses
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert
from dsg_ros.ros.manager_bond import Bond

SECOND = 1_000_000_000


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph(free_domain())
    yield graph
    graph.close()


def change(graph: Graph, node: NodeProgram, *transitions: int) -> None:
    for transition in transitions:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert graph.call("/robot/hero/change_state", ChangeState, request).success, node.text


def load(graph: Graph) -> Publisher:
    """Odometry at 500 Hz, from now on."""
    odom = graph.node.create_publisher(Odometry, "/robot/odom", 10)
    numbers = count()

    def drive() -> None:
        number = next(numbers)
        pose = poses.from_planar(0.001 * number, 0.0, 0.0)
        odom.publish(convert.odometry("odom", "base_link", SECOND * 1000 + number * SECOND // 500, pose))

    graph.node.create_timer(0.002, drive)
    return odom


def test_it_forms_with_each_activation_and_ends_with_the_nodes_word(graph, tmp_path, fake_node):
    """In a namespace, under load, and with a ROS clock that stands still."""
    program = [*fake_node, "--ros-args", "-r", "__ns:=/robot"]
    parameters = {"autostart": "false", "use_sim_time": "true", "bond_heartbeat_period": 0.05}
    graph.listen("/robot/bond", Status, 100)
    odom = load(graph)
    with NodeProgram(program, tmp_path / "out", graph.context.get_domain_id(), **parameters) as node:
        sisters = set()
        for before, end in PASSES:
            graph.heard["/robot/bond"].clear()
            change(graph, node, *before)
            assert not [m for m in graph.messages("/robot/bond") if m.id == "hero" and m.active]
            change(graph, node, Transition.TRANSITION_ACTIVATE)
            manager = Manager(graph, "/robot/bond", "hero", timeout=4.0)
            manager.wait("alive", 2.0)  # half its timeout: as long as Nav2's waits
            wait_until(odom.get_subscription_count, "subscription", 5.0)
            wait_until(lambda m=manager: len(m.beats) > 5, "heartbeats", 5.0)
            change(graph, node, end)
            manager.wait("broken", 1.0)
            sisters.add(manager.sister)
            manager.close()
        assert len(sisters) == len(PASSES)
        assert "Traceback" not in node.text


PASSES = (
    ([Transition.TRANSITION_CONFIGURE], Transition.TRANSITION_DEACTIVATE),
    ([], Transition.TRANSITION_DEACTIVATE),
    # Nav2's reset of all nodes when one of them is lost, and its start when that is there again.
    ([Transition.TRANSITION_CLEANUP, Transition.TRANSITION_CONFIGURE], Transition.TRANSITION_ACTIVE_SHUTDOWN),
)


def test_the_manager_notices_that_the_process_is_gone(graph, tmp_path, fake_node):
    with NodeProgram(fake_node, tmp_path / "out", graph.context.get_domain_id()) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        manager = Manager(graph, "/bond", "hero", timeout=1.0)
        manager.wait("alive", 2.0)
        wait_until(lambda: len(manager.beats) > 3, "heartbeats", 5.0)
        assert manager.silence() < 0.8
        node.interrupt(signal.SIGKILL)
        manager.wait("lost", 1.5)


def test_a_node_that_hangs_is_silent(graph):
    node = LifecycleNode("hanging", context=graph.context)
    bond, manager = Bond(node, 0.05), Manager(graph, "/bond", "hanging", timeout=1.0)
    executor = rclpy.executors.SingleThreadedExecutor(context=graph.context)
    executor.add_node(node)
    bond.open()
    bond.open()  # no second one
    end = time.monotonic() + 10.0
    while len(manager.beats) < 10 and time.monotonic() < end:
        executor.spin_once(0.1)
    assert manager.state == "alive"
    manager.wait("lost", 2.0)
    bond.close()
    bond.close()
    manager.wait("broken", 1.0)
    executor.shutdown()
    node.destroy_node()


def test_a_period_of_zero_is_no_bond(graph):
    node = LifecycleNode("unbound", context=graph.context)
    bond = Bond(node, 0.0)
    bond.open()
    assert (node.count_publishers("/bond"), list(node.timers)) == (0, [])
    bond.close()
    node.destroy_node()
