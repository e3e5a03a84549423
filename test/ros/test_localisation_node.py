"""A node makes a map over DDS and saves it; another one finds itself in it: the round trip that users make."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import worlds
from dds import Graph, NodeProgram, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from managers import Manager
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from numpy.typing import NDArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import serialize_message
from security_policy import allowed, used
from sensor_msgs.msg import LaserScan
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.io.map_folder import MANIFEST, describe, read_map
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert

Array = NDArray[np.float64]
WALLS = worlds.polygon((0, 0), (9, 0), (9, 4), (5, 4), (5, 7), (2, 7), (2, 5), (0, 5))
MAPPED = worlds.drive([(1.5, 1.5), (7.5, 2.0), (3.5, 2.5), (3.5, 6.0), (3.5, 3.0), (1.0, 3.0)], step=0.2, turn=0.2)
AGAIN = worlds.drive([(3.0, 6.3), (3.2, 2.5), (7.0, 1.5)], step=0.2, turn=0.2)
START = 1000 * worlds.SECOND
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = {"qos.odom.reliability": "reliable", "qos.scan.reliability": "reliable", "qos.scan.depth": 100}
NODE = ["-m", "dsg_ros", "node"]


class Robot:
    """Publishes odometry and scans as a robot in `WALLS` would, its odometry begun anew."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.odom = graph.node.create_publisher(Odometry, "/odom", 200)
        self.scans = graph.node.create_publisher(LaserScan, "/scan", 200)
        self.sent = 0

    def wait(self) -> None:
        wait_until(lambda: self.odom.get_subscription_count() and self.scans.get_subscription_count(), "subscriptions")
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more

    def drive(self, truth: Array, track: Array, walls: Array = WALLS) -> None:
        for pose, wheels in zip(truth, track, strict=True):
            stamp = START + self.sent * worlds.SECOND // 10
            odometry = Odometry(header=convert.header(stamp, "odom"), child_frame_id="base_link")
            odometry.pose.pose = convert.pose(wheels)
            self.odom.publish(odometry)
            scan = LaserScan(header=convert.header(stamp, "base_link"), range_min=0.1, range_max=50.0)
            scan.angle_min, scan.angle_increment = float(worlds.BEAMS[0]), float(worlds.BEAMS[1] - worlds.BEAMS[0])
            noise = np.random.default_rng(self.sent).normal(0.0, 0.01, len(worlds.BEAMS))
            found = worlds.ranges(walls, pose[:2], worlds.BEAMS + poses.yaw(pose))
            scan.ranges = (found + noise).astype(np.float32)
            self.scans.publish(scan)
            self.sent += 1
            time.sleep(0.01)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a map that a node made and `~/save` wrote."""
    folder, domain = tmp_path_factory.mktemp("made"), free_domain()
    graph = Graph(domain)
    robot = Robot(graph)
    with NodeProgram(NODE, folder / "out", domain, map_folder=folder / "map", **RELIABLE) as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        robot.wait()
        manager = Manager(graph, "/bond", "hero", timeout=4.0)
        robot.drive(MAPPED, worlds.biased(MAPPED))
        status = node.wait(lambda s: s["scans"]["processed"] >= robot.sent, "every scan processed")
        assert status["localisation"] == ""
        assert graph.call("/hero/optimize", Trigger, Trigger.Request()).success
        assert "was solved" in node.served("optimize")
        refused = graph.call("/hero/load", Trigger, Trigger.Request())
        assert not refused.success
        assert "localisation:=true" in refused.message
        saved = graph.call("/hero/save", Trigger, Trigger.Request())
        assert saved.success, saved.message
        assert str(folder / "map") in saved.message
        assert node.served("save").startswith("saved to")
        live = read_map(folder / "map")
        assert len(live.stamps) == status["keyframes"]
        assert (folder / "out" / "trajectory.tum").exists()
        written = (folder / "map" / MANIFEST).stat().st_mtime_ns
        assert manager.state == "alive"
        assert manager.silence() < 1.0  # while it mapped, solved the whole graph and saved
        assert node.interrupt() == 0
        manager.wait("broken", 2.0)
        assert "Traceback" not in node.text
    graph.close()
    assert (folder / "map" / MANIFEST).stat().st_mtime_ns > written  # at the end it is saved once more, refined
    assert len(read_map(folder / "map").stamps) == len(live.stamps)
    return folder / "map"


@pytest.fixture(scope="module")
def found(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Graph, NodeProgram, Robot]]:
    """A node that localises in the map, and a robot driven through it once."""
    folder, domain = tmp_path_factory.mktemp("found"), free_domain()
    graph = Graph(domain)
    graph.listen("/tf", TFMessage, 1000)
    graph.listen("/diagnostics", DiagnosticArray, 100)
    graph.listen("/hero/pose", PoseWithCovarianceStamped, 1000)
    graph.listen("/hero/path", PathMessage, LATCHED)
    robot = Robot(graph)
    parameters = {"map_folder": kept, "localisation": "true", "transform_tolerance": 0.0, **RELIABLE}
    with NodeProgram(NODE, folder / "out", domain, **parameters) as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        robot.wait()
        time.sleep(1.0)
        assert graph.messages("/tf") == []  # nothing is said of a place that is not known
        robot.drive(AGAIN, worlds.biased(AGAIN))
        node.wait(lambda s: s["scans"]["processed"] >= robot.sent, "every scan processed")
        yield graph, node, robot
    graph.close()


def told(graph: Graph) -> list[str]:
    """What diagnostics said of localisation, oldest first."""
    return [s.message for m in graph.messages("/diagnostics") for s in m.status if s.name == "/hero: localisation"]


def test_the_robot_is_found_in_the_map_of_another_session(found: tuple[Graph, NodeProgram, Robot]) -> None:
    graph, node, _ = found
    status = node.wait(lambda s: s["localisation"] == "localised", "a localised robot")
    assert status["counts"]["relocalised"] == 1
    assert status["compilations_after_warm_up"] == 0
    wait_until(lambda: graph.messages("/hero/pose"), "poses")
    by_stamp = {convert.nanoseconds(m.header.stamp): m for m in graph.messages("/hero/pose")}
    assert len(by_stamp) >= status["counts"]["scans_localised"] - 2
    truth = poses.between(MAPPED[0], AGAIN)
    for number, pose in enumerate(truth):
        message = by_stamp.get(START + number * worlds.SECOND // 10)
        if message is not None:
            values = np.array(convert.pose_values(message.pose.pose))
            assert np.linalg.norm(values[:3] - pose[:3]) < 0.1
    last = wait_until(lambda: [t for m in graph.messages("/tf") for t in m.transforms], "map->odom")[-1]
    assert (last.header.frame_id, last.child_frame_id) == ("map", "odom")
    # The odometry began anew: map->odom is where it did.
    offset = poses.between(truth[0], convert.transform_pose(last))
    assert np.linalg.norm(offset[:3]) < 0.1
    wait_until(lambda: told(graph)[-1:] == ["localised"], "the word of diagnostics", details=lambda: str(told(graph)))


def test_the_security_policy_lets_it_listen(found: tuple[Graph, NodeProgram, Robot]) -> None:
    graph, _, _ = found
    heard = used(graph)["subscribe"]
    assert "/initialpose" in heard
    assert heard <= allowed()["subscribe"]


def test_a_what_if_about_a_finished_map_is_refused(found: tuple[Graph, NodeProgram, Robot]) -> None:
    graph, node, _ = found
    graph.listen("/hero/what_if_result", DiagnosticArray, LATCHED)
    ask = graph.node.create_publisher(KeyValue, "/hero/what_if", 10)
    wait_until(ask.get_subscription_count, "a subscription to what_if")
    time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more
    ask.publish(KeyValue(key="scale", value="1 %"))
    (answer,) = wait_until(lambda: graph.messages("/hero/what_if_result"), "an answer", details=lambda: node.text)
    assert answer.status[0].level == DiagnosticStatus.ERROR
    assert "the map is finished, and no parameter moves it here" in answer.status[0].message


def test_the_stored_map_is_shown(found: tuple[Graph, NodeProgram, Robot], kept: Path) -> None:
    graph, _, _ = found
    paths = wait_until(lambda: graph.messages("/hero/path"), "the path of the map")
    assert len(paths[-1].poses) == describe(kept)["counts"]["keyframes"]


def test_a_kidnapped_robot_is_lost_and_an_initial_pose_helps(found: tuple[Graph, NodeProgram, Robot]) -> None:
    """Carried out of the map, and back to where somebody points at it in rviz."""
    graph, node, robot = found
    here = worlds.biased(AGAIN)[-1]
    place = poses.from_planar(1.2, 4.2, -1.3)
    elsewhere = poses.from_planar(-2.0, 0.5, 0.4)
    robot.drive(np.repeat(elsewhere[None], 15, axis=0), np.repeat(here[None], 15, axis=0), worlds.room())
    node.wait(lambda s: s["localisation"] == "lost" and s["counts"]["lost"] == 1, "a lost robot")
    wait_until(lambda: told(graph)[-1:] == ["lost"], "the word of diagnostics", 20.0, lambda: str(told(graph)))
    publisher = graph.node.create_publisher(PoseWithCovarianceStamped, "/initialpose", 10)
    wait_until(publisher.get_subscription_count, "a listener of initialpose")
    time.sleep(0.5)
    wrong = convert.pose_with_covariance("odom", START, place, np.eye(6))
    publisher.publish(wrong)
    wait_until(lambda: "initialpose: refused: it is in the frame 'odom'" in node.text, "a refusal")
    near = poses.compose(poses.between(MAPPED[0], place), poses.from_planar(0.2, 0.1, 0.1))
    publisher.publish(convert.pose_with_covariance("map", START, near, np.diag([0.1, 0.1, 0, 0, 0, 0.05])))
    wait_until(lambda: "initialpose: looking" in node.text, "a hint taken")
    robot.drive(np.repeat(place[None], 3, axis=0), np.repeat(here[None], 3, axis=0))
    status = node.wait(lambda s: s["localisation"] == "localised" and s["counts"]["hints"] == 1, "a robot found again")
    assert status["counts"]["relocalised"] == 2
    pose = np.array(convert.pose_values(graph.messages("/hero/pose")[-1].pose.pose))
    assert np.linalg.norm(pose[:3] - poses.between(MAPPED[0], place)[:3]) < 0.1


def test_a_flood_of_initial_poses(found: tuple[Graph, NodeProgram, Robot]) -> None:
    """Of those that the worker has no time for the newest is kept; the others are counted, and map->odom goes on."""
    graph, node, _ = found
    qos = QoSProfile(depth=1000)
    publisher = graph.node.create_publisher(PoseWithCovarianceStamped, "/initialpose", qos)
    wait_until(publisher.get_subscription_count, "a listener of initialpose")
    time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more
    place = poses.between(MAPPED[0], poses.from_planar(1.2, 4.2, -1.3))
    hint = serialize_message(convert.pose_with_covariance("map", START, place, np.diag([0.1, 0.1, 0, 0, 0, 0.05])))
    before = node.status()["other_inputs"]["initialpose"]
    heard, began = len(graph.messages("/tf")), time.monotonic()
    for number in range(20_000):
        publisher.publish(hint)
        if number % 20 == 19:
            time.sleep(0.002)
    seconds = time.monotonic() - began

    def accounts(status: dict) -> dict:
        return status["other_inputs"]["initialpose"]

    status = node.wait(lambda s: accounts(s)["received"] > before["received"] + 1000, "many of them")
    refused = accounts(status)["refused"]
    assert set(refused) <= {"malformed", "replaced"}
    assert refused.get("replaced", 0) > 0
    corrections = [t for m in graph.messages("/tf")[heard:] for t in m.transforms if t.header.frame_id == "map"]
    assert len(corrections) > 5 * seconds
    assert status["memory_bytes"]["node"] < 1e9
    assert node.text.count("initialpose: looking") < seconds + 10


def test_load_begins_anew_and_a_broken_map_changes_nothing(found: tuple[Graph, NodeProgram, Robot], kept: Path) -> None:
    graph, node, _ = found
    manifest = (kept / MANIFEST).read_bytes()
    (kept / MANIFEST).write_bytes(manifest[:200])
    graph.call("/hero/load", Trigger, Trigger.Request())  # refused, or accepted by a node whose worker is busy
    assert "cut short" in node.served("load")
    assert node.status()["localisation"] == "localised"
    (kept / MANIFEST).write_bytes(manifest)
    answer = graph.call("/hero/load", Trigger, Trigger.Request())
    assert answer.success, answer.message
    assert node.served("load", 2).startswith("loaded")
    node.wait(lambda s: s["localisation"] == "localising", "a node that looks for the robot again")
    saved = graph.call("/hero/save", Trigger, Trigger.Request())
    assert saved.success, saved.message
    assert node.served("save").startswith("saved to")
    assert (kept / MANIFEST).read_bytes() == manifest  # a map that is only localised in is not written
    assert node.interrupt() == 0
    assert "Traceback" not in node.text


def test_a_node_without_a_whole_map_does_not_configure(tmp_path: Path, kept: Path) -> None:
    domain = free_domain()
    graph = Graph(domain)
    broken = tmp_path / "map"
    broken.mkdir()
    for path in filter(Path.is_file, kept.iterdir()):
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[:-1] if path.name.startswith("keyframes") else data)
    parameters = {"map_folder": broken, "localisation": "true", "autostart": "false"}
    with NodeProgram(NODE, tmp_path / "out", domain, **parameters) as node:
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        assert not graph.call("/hero/change_state", ChangeState, request).success
        wait_until(lambda: "not configured" in node.text, "the reason", details=lambda: node.text)
        assert "cut short or overwritten" in node.text
        assert "Traceback" not in node.text
        graph.close()
        assert node.interrupt() == 0
