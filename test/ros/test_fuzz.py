"""Mutated messages on every input topic: nothing ends the node, and each one is accounted for.

``pytest test/ros/test_fuzz.py --fuzz 10000`` sends so many to each topic: with any values in whole messages
and as damaged bytes to the callbacks, and as damaged bytes through DDS.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import mutations
import numpy as np
import pytest
from callbacks import Robot
from dds import Graph, NodeProgram, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

from dsg_ros import config
from dsg_ros.interface import ReferencePosition
from dsg_ros.processes import free_domain
from dsg_ros.ros.frames import TransformTree
from dsg_ros.ros.initial_pose import InitialPose
from dsg_ros.ros.inputs import Account
from dsg_ros.ros.reference_input import ReferenceInput

pytestmark = pytest.mark.timeout(3600)  # with --fuzz 10000 a test takes some minutes

TAUGHT = config.replace(config.Node(), {"learning.teacher": "reference"})
SATELLITES = config.replace(TAUGHT, {"reference_message": "navsat"})
SENSORS = ("odom", "scan", "points")
DEPTH = 10_000
"""Of both histories: what is told apart here is what the node refuses, not what a short queue loses."""
BATCH, PAUSE = 20, 0.02


class Callbacks:
    """The callbacks of all input topics that need no node, with what they hand on."""

    def __init__(self) -> None:
        self.robot = Robot()
        self.robot.sensors._frames = tree = TransformTree()
        self.hints: list[Any] = []

        def say(level: str, text: str) -> None:
            self.robot.said.append((level, text))

        pose = InitialPose("map", self.hinted, say)
        self.reference = ReferenceInput(lambda: TAUGHT, tree, lambda: mutations.BASE, say)
        self.receiver = ReferenceInput(lambda: SATELLITES, tree, lambda: mutations.BASE, say)
        self.accounts = {
            "tf": Account("tf", tree.take, say),
            "initialpose": pose.account,
            "reference": self.reference.account,
            "fix": self.receiver.account,
        }
        self.tree = tree

    def hinted(self, hint: Any) -> Future[None]:
        """The worker's part, which is done at once."""
        self.hints.append(hint)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def take(self, topic: str, message: Any) -> None:
        if topic in SENSORS:
            self.robot.take(topic, message)
        else:
            self.accounts[topic](message)

    def check(self) -> None:
        sensors, counts = self.robot.sensors, self.robot.sensors.synchroniser.counts
        assert not any("unexpected" in i.refused for i in sensors.inputs.values()), self.robot.text()
        assert all("unexpected" not in account.refused for account in self.accounts.values()), self.robot.text()
        odom, scans = sensors.inputs["odom"], [sensors.inputs["scan"], sensors.inputs["points"]]
        assert odom.received == counts["odometry_received"] + sum(odom.refused.values())
        ends = "scans_without_points scans_repeated_stamp scans_without_odometry scans_too_old"
        dropped = sum(counts[cause] for cause in (*ends.split(), "dropped_queue_full", "dropped_clock_jump"))
        refused = sum(sum(each.refused.values()) for each in scans)
        received = sum(each.received for each in scans)
        assert received == len(self.robot.frames) + sensors.waiting + dropped + refused
        for frame in self.robot.frames[-3:]:
            check_frame(self.reference.attached(frame))
            check_frame(self.receiver.attached(frame))
        assert all(mutations.poses.LEAST_NORM < abs(pose[3:]).max() <= 1.0 for _, pose in self.tree._parents.values())


def check_frame(frame: Any) -> None:
    """What the pipeline may rely on."""
    assert frame.points.dtype == np.float32
    assert np.isfinite(frame.points).all()
    assert np.isfinite(frame.base_from_sensor).all()
    assert np.isfinite(frame.odometry.poses).all()
    assert (np.diff(frame.odometry.stamps) > 0).all()
    for told in frame.reference:
        if isinstance(told, ReferencePosition):
            assert all(np.isfinite(part).all() for part in (told.position, told.covariance, told.antenna))
            continue
        assert np.isfinite(told.pose).all()
        assert np.isfinite(told.covariance).all()
        assert np.linalg.norm(told.pose[3:]) == pytest.approx(1.0)
    assert frame.times is None or (len(frame.times) == len(frame.points) and np.isfinite(frame.times).all())


@pytest.mark.parametrize("topic", ["odom", "scan", "points", "tf", "initialpose", "reference", "fix"])
def test_any_values_in_whole_messages(topic: str, request: pytest.FixtureRequest) -> None:
    callbacks, number = Callbacks(), 0

    @settings(max_examples=request.config.getoption("--fuzz"), database=None, suppress_health_check=list(HealthCheck))
    @given(message=mutations.whole(topic), then=st.sampled_from(["odom", "scan", "points", "tf", "nothing"]))
    def take(message: Any, then: str) -> None:
        nonlocal number
        number += 1
        callbacks.take(topic, message)
        if then != "nothing":  # what came before may do harm only now
            callbacks.take(then, mutations.good(then, 1000 * mutations.SECOND + number * 20_000_000))
        callbacks.check()

    take()


@pytest.mark.parametrize("topic", list(mutations.KINDS))
def test_damaged_bytes_that_are_still_a_message(topic: str, request: pytest.FixtureRequest) -> None:
    callbacks, readable = Callbacks(), 0
    for number in range(request.config.getoption("--fuzz")):
        data = mutations.mutated(topic, number)
        try:
            message = deserialize_message(data, mutations.KINDS[topic])
        except Exception:  # noqa: BLE001 - the middleware's own word for what is none; over DDS it drops it
            continue
        readable += 1
        if topic != "what_if":
            callbacks.take(topic, message)
            callbacks.check()
    assert readable > request.config.getoption("--fuzz") // 10


@pytest.fixture(scope="module")
def attacked(fake_node: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Graph, NodeProgram]]:
    domain = free_domain()
    graph = Graph(domain)
    reliable = {f"qos.{topic}.{key}": value for topic in SENSORS for key, value in RELIABLE.items()}
    reliable |= {"learning.teacher": "both"}
    with NodeProgram(fake_node, tmp_path_factory.mktemp("fuzz") / "out", domain, **reliable) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        yield graph, node
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
    graph.close()


RELIABLE = {"reliability": "reliable", "depth": DEPTH}


@pytest.mark.parametrize("topic", ["odom", "scan", "points", "tf", "reference", "what_if"])
def test_damaged_bytes_through_dds(
    topic: str, attacked: tuple[Graph, NodeProgram], request: pytest.FixtureRequest
) -> None:
    """All that was sent is received or lost on the way, as what no reader can decode is; what is received is used,
    waiting or refused by its cause.
    """
    graph, node = attacked
    name = {"tf": "/tf", "what_if": "/hero/what_if"}.get(topic, f"/{topic}")
    publisher = graph.node.create_publisher(mutations.KINDS[topic], name, QoSProfile(depth=DEPTH))
    wait_until(publisher.get_subscription_count, "subscription")
    time.sleep(1.0)
    total = request.config.getoption("--fuzz")
    good = mutations.good(topic, 10**6 * mutations.SECOND)
    before = received(node.status(), topic)
    publisher.publish(good)  # gaps are seen from the first message that arrives
    node.wait(lambda s: received(s, topic) > before, "the first message")
    for number in range(total):
        publisher.publish(mutations.mutated(topic, number))
        if number % BATCH == BATCH - 1:
            time.sleep(PAUSE)  # as fast as they are taken: a flood is another test
    publisher.publish(good)
    if topic in SENSORS:
        inputs = node.wait(lambda s: arrived(s, topic) == total + 2, f"{total + 2} messages on {topic}")["inputs"]
        assert inputs[topic]["received"] > total // 10  # not all of the bytes were nonsense
        node.wait(lambda s: s["scans"]["received"] == accounted(s["scans"]), "even accounts")
    else:
        node.wait(lambda s: received(s, topic) >= before + 2, "the good messages")
    assert node.status()["worker"]["restarts"] == 0
    graph.node.destroy_publisher(publisher)


def received(status: dict[str, Any], topic: str) -> int:
    """Messages that came."""
    return int(status["inputs" if topic in SENSORS else "other_inputs"][topic]["received"])


def arrived(status: dict[str, Any], topic: str) -> int:
    """Messages that came or were lost on the way: the middleware drops what is none of the topic's type."""
    return int(status["inputs"][topic]["received"] + status["inputs"][topic]["lost"])


def accounted(scans: dict[str, Any]) -> int:
    """Scans of whose end is known."""
    return int(scans["processed"] + scans["waiting"] + sum(scans["dropped"].values()))
