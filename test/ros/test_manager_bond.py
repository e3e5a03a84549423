"""The bond to Nav2's lifecycle manager, over DDS; the manager's side is played by its protocol."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
import rclpy
from bond.msg import Status
from dds import Graph, NodeProgram, wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from managers import Manager
from rclpy.lifecycle import LifecycleNode

from dsg_ros.processes import free_domain
from dsg_ros.ros.manager_bond import Bond


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph(free_domain())
    yield graph
    graph.close()


def change(graph: Graph, node: NodeProgram, *transitions: int) -> None:
    for transition in transitions:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert graph.call("/robot/hero/change_state", ChangeState, request).success, node.text


def test_it_forms_with_each_activation_and_ends_with_the_nodes_word(graph, tmp_path, fake_node):
    """In a namespace, and with a ROS clock that stands still."""
    domain = graph.context.get_domain_id()
    program = [*fake_node, "--ros-args", "-r", "__ns:=/robot"]
    parameters = {"autostart": "false", "use_sim_time": "true", "bond_heartbeat_period": 0.05}
    graph.listen("/robot/bond", Status, 100)
    with NodeProgram(program, tmp_path / "out", domain, **parameters) as node:
        change(graph, node, Transition.TRANSITION_CONFIGURE)
        sisters = []
        for last in ("deactivate", "shut down"):
            time.sleep(0.3)
            assert not any(m.active for m in graph.messages("/robot/bond") if m.id == "hero")
            change(graph, node, Transition.TRANSITION_ACTIVATE)
            manager = Manager(graph, "/robot/bond", "hero", timeout=4.0)
            manager.wait("alive", 2.0)  # half its timeout: as long as Nav2's waits
            wait_until(lambda m=manager: len(m.beats) > 5, "heartbeats", 5.0)
            if last == "deactivate":
                change(graph, node, Transition.TRANSITION_DEACTIVATE)
            else:
                change(graph, node, Transition.TRANSITION_ACTIVE_SHUTDOWN)
            manager.wait("broken", 1.0)
            sisters.append(manager.sister)
            manager.close()
            graph.heard["/robot/bond"].clear()
        assert sisters[0] != sisters[1]
        assert "Traceback" not in node.text


@pytest.mark.parametrize(("number", "end"), [(signal.SIGINT, "broken"), (signal.SIGKILL, "lost")])
def test_the_manager_learns_of_the_process_end(graph, tmp_path, fake_node, number, end):
    with NodeProgram(fake_node, tmp_path / "out", graph.context.get_domain_id()) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        manager = Manager(graph, "/bond", "hero", timeout=1.0)
        manager.wait("alive", 2.0)
        time.sleep(1.0)
        assert manager.silence() < 0.8
        assert node.interrupt(number) == (0 if number == signal.SIGINT else -number)
        manager.wait(end, 1.5)


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
