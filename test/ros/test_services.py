"""What a user can ask of a running node, over DDS: answers in time, and one state that all agree on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dds import Graph, NodeProgram, wait_until
from fake_pipeline import Counting
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile
from standing import RELIABLE, Robot
from std_srvs.srv import SetBool, Trigger

from dsg_ros.processes import free_domain
from dsg_ros.worker.process import MOST_COMMANDS

AT_ONCE = ("pause", "resume", "learning", "reset")


@pytest.fixture(scope="module")
def robot(fake_node: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    folder, domain = tmp_path_factory.mktemp("services"), free_domain()
    graph = Graph(domain)
    with NodeProgram(fake_node, folder / "out", domain, autostart="false", **RELIABLE) as node:
        yield Robot(graph, node)
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
    graph.close()


def test_what_makes_no_sense_in_a_state_is_refused_with_the_reason(robot: Robot) -> None:
    for service in ("save", "load", "reset", "pause", "resume", "optimize"):
        answer, _ = robot.ask(service)
        assert (answer.success, answer.message) == (False, "the node is not configured"), service
    robot.change(Transition.TRANSITION_CONFIGURE)
    robot.node.wait(lambda s: s["state"] == "ready", "ready worker")
    assert "not active" in robot.ask("pause")[0].message
    robot.change(Transition.TRANSITION_ACTIVATE)
    assert robot.ask("resume")[0].message == "it is not paused"
    answer, _ = robot.ask("optimize")
    assert not answer.success
    assert "no map yet" in answer.message


def test_a_paused_node_counts_what_comes_and_broadcasts_on(robot: Robot) -> None:
    robot.wait()
    robot.scan()
    robot.node.wait(lambda s: s["scans"]["processed"] == 1, "a processed scan")
    assert robot.ask("pause")[0].success
    assert robot.ask("pause")[0].message == "it is paused already"
    for _ in range(3):
        robot.scan()
    status = robot.node.wait(lambda s: s["scans"]["dropped"].get("scan_paused") == 3, "counted scans")
    assert (status["state"], status["scans"]["processed"], status["scans"]["received"]) == ("paused", 1, 4)
    assert status["odometry"]["received"] == 4
    wait_until(lambda: robot.told("state")[-1] == "paused", "the word of diagnostics")
    heard = len(robot.graph.messages("/tf"))
    wait_until(lambda: len(robot.graph.messages("/tf")) > heard + 20, "map->odom of a paused node", 5.0)
    assert robot.ask("optimize")[0].success
    assert robot.ask("resume")[0].success
    robot.scan()
    status = robot.node.wait(lambda s: s["scans"]["processed"] == 2, "a scan after the pause")
    assert status["state"] == "running"


def test_learning_is_a_parameter_that_the_service_sets(robot: Robot) -> None:
    assert robot.learning()
    for on in (False, True, False):
        answer = robot.graph.call("/hero/learning", SetBool, SetBool.Request(data=on))
        assert (answer.success, answer.message) == (True, f"learning is {'on' if on else 'off'}")
        assert robot.learning() is on
        robot.scan()
        robot.node.wait(lambda s, on=on: s["counts"].get("learning") == int(on), "the pipeline's word")
    # A new map learns no more than the old one.
    assert robot.ask("reset")[0].success
    robot.scan()
    robot.node.wait(lambda s: s["counts"].get("scans") == 1 and s["counts"].get("learning") == 0, "a new map")


def test_a_busy_worker_keeps_nobody_waiting_who_need_not(robot: Robot) -> None:
    robot.node.wait(lambda s: s["scans"]["waiting"] == 0, "an idle worker")
    stamp = robot.stamp
    robot.scan(Counting.DAWDLE)  # the clock jumps back as well: a reset, and four seconds of work
    time.sleep(0.5)
    before = robot.node.status()["services"]
    words = {"pause": "counted", "resume": "used again"}
    for service in ("pause", "resume", "reset", "save", "optimize"):
        answer, seconds = robot.ask(service)
        assert answer.success, (service, answer.message)
        assert words.get(service, "accepted: ") in answer.message
        assert seconds < 1.0, service
    for service, said in (("save", "saved to"), ("optimize", "failed: Optimize refused: there is no map yet")):
        told = before.get(service, {"done": 0, "failed": 0})
        assert robot.node.served(service, told["done"] + told["failed"] + 1).startswith(said)
    assert "~/save: saved to" in robot.node.text
    assert "~/optimize failed: Optimize refused" in robot.node.text
    wait_until(lambda: "~/optimize failed: " in robot.told("services")[-1], "the word of diagnostics")
    robot.stamp = stamp


def test_eight_callers_at_once_are_all_answered_and_agree(robot: Robot) -> None:
    """While scans come at 100 Hz."""
    status = robot.node.wait(lambda s: s["scans"]["waiting"] == 0, "an idle worker")
    saves = status["services"].get("save", {"asked": 0})["asked"]
    graph = robot.graph
    kinds = {name: SetBool if name == "learning" else Trigger for name in (*AT_ONCE, "save", "optimize")}
    clients = [
        {name: graph.node.create_client(kind, f"/hero/{name}") for name, kind in kinds.items()} for _ in range(8)
    ]
    for client in clients:
        assert all(each.wait_for_service(30.0) for each in client.values())

    def call(number: int) -> list[tuple[str, Any, float]]:
        """Each calls everything in an order of its own; saving, which draws figures, is for one of them."""
        rng, answers = np.random.default_rng(number), []
        names = rng.permutation([*AT_ONCE, *AT_ONCE, "optimize", "save" if number == 0 else "pause"])
        for name in names.tolist():
            request = SetBool.Request(data=bool(rng.integers(2))) if name == "learning" else Trigger.Request()
            began = time.monotonic()
            future = clients[number][name].call_async(request)
            wait_until(future.done, f"answer of {name}")
            answers.append((name, future.result(), time.monotonic() - began))
        return answers

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, number) for number in range(8)]
        while not all(each.done() for each in calls):
            robot.scan()
            time.sleep(0.01)
        answers = [answer for each in calls for answer in each.result()]
    assert len(answers) == 8 * 10
    assert {name for name, *_ in answers} == set(kinds)
    assert all(response.message for _, response, _ in answers)
    for name in (*AT_ONCE, "optimize"):
        # Nearly all: the machine may have been busy with something else for one of them.
        assert np.quantile([seconds for told, _, seconds in answers if told == name], 0.9) < 1.0, name
    pauses = [sum(r.success for n, r, _ in answers if n == name) for name in ("pause", "resume")]
    paused = pauses[0] - pauses[1]
    assert paused in (0, 1)  # no pause was given twice
    robot.scan()
    total = robot.sent
    status = robot.node.wait(lambda s: s["scans"]["received"] == total and not s["scans"]["waiting"], "every scan")
    assert status["state"] == ("paused" if paused else "running")
    assert status["scans"]["processed"] + sum(status["scans"]["dropped"].values()) == total
    assert status["worker"]["restarts"] == 0
    if paused:
        assert robot.ask("resume")[0].success
    robot.scan()
    robot.node.wait(lambda s: s["counts"].get("learning") == int(robot.learning()), "one opinion on learning")
    saved = robot.ask("save")[0]
    assert saved.success, saved.message
    assert robot.node.served("save", saves + 2).startswith("saved to")
    report = json.loads((Path(robot.node.folder) / "report.json").read_text())
    scans = robot.node.status()["scans"]
    dropped = {f"scans_dropped_{cause}": n for cause, n in scans["dropped"].items() if n}
    assert dropped["scans_dropped_scan_paused"] >= 3
    assert {name: n for name, n in report["counts"].items() if name.startswith("scans_dropped_")} == dropped
    assert report["counts"]["scans_received"] == scans["received"]
    assert "scans dropped scan paused" in (Path(robot.node.folder) / "report.html").read_text()


def tell(asked: list[Any]) -> str:
    """Of calls, how many have an answer."""
    return f"{sum(each.done() for each in asked)} of {len(asked)}"


def test_a_flood_of_saves_is_answered_and_most_of_it_refused(fake_node: list[str], tmp_path: Path) -> None:
    domain, calls = free_domain(), 300
    graph = Graph(domain)
    with NodeProgram(fake_node, tmp_path / "out", domain, **RELIABLE) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        robot = Robot(graph, node)
        robot.wait()
        robot.scan(Counting.DAWDLE)
        client = graph.node.create_client(Trigger, "/hero/save", qos_profile=QoSProfile(depth=calls))
        assert client.wait_for_service(30.0)
        asked = []
        for _ in range(calls):
            asked.append(client.call_async(Trigger.Request()))
            time.sleep(0.002)
        wait_until(lambda: sum(each.done() for each in asked) == calls, "every answer", 30.0, lambda: tell(asked))
        answers = [each.result() for each in asked]
        refused = [answer for answer in answers if not answer.success]
        assert len(answers) - len(refused) <= MOST_COMMANDS + 5  # some were answered, and made room
        assert all("requests wait for the worker already; ask again later" in answer.message for answer in refused)
        status = node.wait(
            lambda s: s["services"].get("save", {}).get("asked") == calls - len(refused), "the account of them"
        )
        assert status["worker"] == {"state": "ready", "restarts": 0}
        assert "Traceback" not in node.text
    graph.close()
