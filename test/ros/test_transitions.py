"""Transitions that fail, and ends from every state: nothing is left running, and the node can begin anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from dds import Graph, NodeProgram, wait_until
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from standing import RELIABLE, Robot

from dsg_ros.processes import free_domain


def state(graph: Graph) -> int:
    return int(graph.call("/hero/get_state", GetState, GetState.Request()).current_state.id)


def change(graph: Graph, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(graph.call("/hero/change_state", ChangeState, request).success)


def children(node: NodeProgram) -> list[int]:
    """Processes that it has started."""
    tasks = Path(f"/proc/{node.process.pid}/task").glob("*/children")
    return [int(child) for listed in tasks for child in listed.read_text().split()]


def test_a_transition_that_raises_leaves_a_node_that_can_begin_anew(tmp_path: Path) -> None:
    domain = free_domain()
    graph = Graph(domain)
    program = [str(Path(__file__).parent / "faulty_node.py")]
    with NodeProgram(program, tmp_path / "out", domain, autostart="false", **RELIABLE) as node:
        robot = Robot(graph, node)
        assert change(graph, Transition.TRANSITION_CONFIGURE)
        node.wait(lambda s: s["state"] == "ready", "ready worker")
        workers = children(node)
        assert workers
        assert not change(graph, Transition.TRANSITION_ACTIVATE)
        assert "on_activate failed" in node.text
        assert "no activation today" in node.text
        assert state(graph) == State.PRIMARY_STATE_UNCONFIGURED
        wait_until(lambda: not set(children(node)) & set(workers), "the worker's end")
        wait_until(lambda: not robot.odom.get_subscription_count(), "the end of its subscriptions")
        assert robot.ask("save")[0].message == "the node is not configured"

        (tmp_path / "out" / "status.json").unlink()
        assert change(graph, Transition.TRANSITION_CONFIGURE)
        node.wait(lambda s: s["state"] == "ready", "ready worker")
        assert change(graph, Transition.TRANSITION_ACTIVATE)
        robot.wait()
        robot.scan()
        node.wait(lambda s: s["scans"]["processed"] == 1, "a scan in the map")
        wait_until(lambda: graph.messages("/tf"), "map->odom")
        assert node.interrupt() == 0
        assert node.text.count("Traceback") == 1
    graph.close()


def test_what_a_state_does_not_have_is_refused_and_the_node_goes_on(tmp_path: Path, fake_node: list[str]) -> None:
    domain = free_domain()
    graph = Graph(domain)
    with NodeProgram(fake_node, tmp_path / "out", domain, **RELIABLE) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        robot = Robot(graph, node)
        for wish in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP, 77, 255):
            assert not change(graph, wish)
        request = ChangeState.Request(transition=Transition(label="nonsense"))
        assert not graph.call("/hero/change_state", ChangeState, request).success
        assert state(graph) == State.PRIMARY_STATE_ACTIVE
        assert node.text.count("refused while active: possible are deactivate") == 4
        robot.wait()
        robot.scan()
        node.wait(lambda s: s["scans"]["processed"] == 1, "a scan in the map")
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
    graph.close()


@pytest.mark.parametrize("configured", [False, True])
def test_shutdown_of_a_node_that_is_not_active(tmp_path: Path, fake_node: list[str], configured: bool) -> None:
    domain = free_domain()
    graph = Graph(domain)
    with NodeProgram(fake_node, tmp_path / "out", domain, autostart="false") as node:
        transition = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN
        if configured:
            assert change(graph, Transition.TRANSITION_CONFIGURE)
            node.wait(lambda s: s["state"] == "ready", "ready worker")
            transition = Transition.TRANSITION_INACTIVE_SHUTDOWN
        assert change(graph, transition)
        assert state(graph) == State.PRIMARY_STATE_FINALIZED
        wait_until(lambda: not children(node) or not configured, "the worker's end")
        assert not change(graph, Transition.TRANSITION_CONFIGURE)
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
    graph.close()
