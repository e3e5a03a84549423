"""Mutated messages on every input topic: nothing ends the node, and each one is accounted for.

``pytest test/ros/test_fuzz.py --fuzz 10000`` sends so many to each topic: with any values in whole messages
and as damaged bytes to the callbacks, and as damaged bytes through DDS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mutations
import pytest
import rclpy
import worlds
from dds import Graph, NodeProgram, wait_until
from fake_pipeline import Counting
from fake_pipeline import frame as small_frame
from fuzz_callbacks import SENSORS, Callbacks, Questions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from tf2_msgs.msg import TFMessage

from dsg_ros import config
from dsg_ros.effect import Effect
from dsg_ros.io.map_folder import write_map
from dsg_ros.processes import free_domain
from dsg_ros.ros.output import World
from dsg_ros.voxel_store import VoxelStore

pytestmark = pytest.mark.timeout(3600)  # with --fuzz 10000 a test takes some minutes

DEPTH = 10_000
"""Of both histories: what is told apart here is what the node refuses, not what a short queue loses."""
BATCH, PAUSE = 20, 0.02


@pytest.fixture(scope="module")
def questions() -> Iterator[Questions]:
    context, pipeline = rclpy.Context(), Counting(config.Slam())
    rclpy.init(context=context, domain_id=free_domain())
    node = LifecycleNode("what_if", context=context)

    def ask(parameter: str, change: str) -> Future[Effect]:
        done: Future[Effect] = Future()
        try:
            done.set_result(pipeline.what_if(parameter, change))
        except Exception as error:  # noqa: BLE001 - as the worker tells it
            done.set_exception(error)
        return done

    def nothing(*arguments: Any) -> Any: ...

    pipeline.estimate(small_frame(1))
    world = World("map", VoxelStore(8.0), nothing, lambda: 0, nothing, lambda: 1.0, ask, nothing)
    found = Questions(node, world)
    node.trigger_configure()
    node.trigger_activate()
    yield found
    found.destroy()
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("topic", list(mutations.KINDS))
def test_any_values_in_whole_messages(topic: str, questions: Questions, request: pytest.FixtureRequest) -> None:
    callbacks, number = Callbacks(questions), 0

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
def test_damaged_bytes_that_are_still_a_message(
    topic: str, questions: Questions, request: pytest.FixtureRequest
) -> None:
    callbacks, readable = Callbacks(questions), 0
    for number in range(request.config.getoption("--fuzz")):
        data = mutations.mutated(topic, number)
        if not is_readable(data, mutations.KINDS[topic]):
            continue
        readable += 1
        callbacks.take(topic, deserialize_message(data, mutations.KINDS[topic]))
        callbacks.check()
    assert readable > request.config.getoption("--fuzz") // 10


@pytest.fixture(scope="module")
def attacked(fake_node: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """The node that listens to a topic: one that maps, one that learns from a receiver, one that localises."""
    folder, started = tmp_path_factory.mktemp("fuzz"), dict[str, tuple[Graph, NodeProgram]]()

    def of(topic: str) -> tuple[Graph, NodeProgram]:
        kind = topic if topic in ("fix", "initialpose") else "mapping"
        if kind not in started:
            domain, program, more = free_domain(), fake_node, {"learning.teacher": "both"}
            if kind == "fix":
                more["reference_message"] = "navsat"
            if kind == "initialpose":
                program = ["-m", "dsg_ros", "node"]
                more = {"localisation": "true", "map_folder": str(mapped(folder / "map"))}
            node = stack.enter_context(NodeProgram(program, folder / kind, domain, **EVERYTHING, **more))
            started[kind] = Graph(domain), node
            node.wait(lambda s: s["state"] == "ready", "active node")
        return started[kind]

    with ExitStack() as stack:
        yield of
        for graph, node in started.values():
            assert node.interrupt() == 0
            assert "Traceback" not in node.text
            graph.close()


def mapped(folder: Path) -> Path:
    """A small map."""
    from dsg_ros.pipeline import Slam

    slam, truth = Slam(config.Slam()), worlds.drive([(-2.0, -2.0), (2.0, -2.0)], step=0.2, turn=0.2)
    for frame in worlds.frames(worlds.room(), truth, worlds.biased(truth, scale=1.0)):
        slam.process(frame)
    write_map(folder, slam.saved_map())
    return folder


Attacked = Callable[[str], tuple[Graph, NodeProgram]]
RELIABLE = {"reliability": "reliable", "depth": DEPTH}
OTHERS = {"tf": "/tf", "tf_static": "/tf_static", "what_if": "/hero/what_if", "fix": "/reference"}
EVERYTHING = {f"qos.{topic}.{key}": value for topic in SENSORS for key, value in RELIABLE.items()} | {
    f"qos_overrides.{topic}.subscription.{key}": value
    for topic in (*OTHERS.values(), "/initialpose")
    for key, value in RELIABLE.items()
}


@pytest.mark.parametrize("topic", [*SENSORS, "tf", "tf_static", "reference", "what_if", "fix", "initialpose"])
def test_damaged_bytes_through_dds(topic: str, attacked: Attacked, request: pytest.FixtureRequest) -> None:
    """All that was sent is received or lost on the way, as what no reader can decode is; what is received is used,
    waiting or refused by its cause.
    """
    graph, node = attacked(topic)
    damaged, kind = "tf" if topic == "tf_static" else topic, mutations.KINDS.get(topic, TFMessage)
    durability = DurabilityPolicy.TRANSIENT_LOCAL if topic == "tf_static" else DurabilityPolicy.VOLATILE
    qos = QoSProfile(depth=DEPTH, durability=durability)
    publisher = graph.node.create_publisher(kind, OTHERS.get(topic, f"/{topic}"), qos)
    wait_until(publisher.get_subscription_count, "subscription")
    time.sleep(1.0)
    total = request.config.getoption("--fuzz")
    good = mutations.good(damaged, 10**6 * mutations.SECOND)
    before = received(node.status(), topic)
    publisher.publish(good)  # gaps are seen from the first message that arrives
    node.wait(lambda s: received(s, topic) > before, "the first message")
    readable = 0
    for number in range(total):
        data = mutations.mutated(damaged, number)
        readable += is_readable(data + b"\0" * (-len(data) % 4), kind)  # DDS sends whole words
        publisher.publish(data)
        if number % BATCH == BATCH - 1:
            time.sleep(PAUSE)  # as fast as they are taken: a flood is another test
    publisher.publish(good)
    assert readable > total // 10  # not all of the bytes were nonsense
    if topic in SENSORS:
        node.wait(lambda s: arrived(s, topic) == total + 2, f"{total + 2} messages on {topic}")
        node.wait(lambda s: s["scans"]["received"] == accounted(s["scans"]), "even accounts")
    status = node.wait(lambda s: received(s, topic) - before == readable + 2, f"{readable + 2} messages on {topic}")
    assert not any("unexpected" in cause for cause in refused(status, topic))
    if topic not in SENSORS:
        assert sum(refused(status, topic).values()) <= received(status, topic)
    assert status["worker"]["restarts"] == 0
    graph.node.destroy_publisher(publisher)


def is_readable(data: bytes, kind: type) -> bool:
    """Whether the middleware takes them for a message; over DDS it drops what it does not."""
    try:
        deserialize_message(data, kind)
    except Exception:  # noqa: BLE001 - the middleware's own word
        return False
    return True


def refused(status: dict[str, Any], topic: str) -> dict[str, int]:
    """Messages that were not used, by cause."""
    if topic == "odom":
        return dict(status["odometry"]["refused"])
    if topic in SENSORS:
        return dict(status["scans"]["dropped"])
    return dict(status["other_inputs"][name_of(topic)]["refused"])


def name_of(topic: str) -> str:
    return "reference" if topic == "fix" else topic


def received(status: dict[str, Any], topic: str) -> int:
    """Messages that came."""
    return int(status["inputs" if topic in SENSORS else "other_inputs"][name_of(topic)]["received"])


def arrived(status: dict[str, Any], topic: str) -> int:
    """Messages that came or were lost on the way: the middleware drops what is none of the topic's type."""
    return int(status["inputs"][topic]["received"] + status["inputs"][topic]["lost"])


def accounted(scans: dict[str, Any]) -> int:
    """Scans of whose end is known."""
    return int(scans["processed"] + scans["waiting"] + sum(scans["dropped"].values()))
