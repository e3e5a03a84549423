"""`~/what_if` and `~/theta` over real DDS, with the small pipeline: who is answered, what, and what is refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
from dds import Graph, NodeProgram, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import LaserScan
from std_srvs.srv import Trigger

from dsg_ros import poses
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert
from dsg_ros.ros.what_if import MOST_WAITING

SECOND = 1_000_000_000
LATCHED = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Asker:
    """Asks a node what if, and hears its answers."""

    def __init__(self, graph: Graph, node: NodeProgram) -> None:
        self.graph, self.node = graph, node
        self.questions = graph.node.create_publisher(KeyValue, "/hero/what_if", 100)
        graph.listen("/hero/what_if_result", DiagnosticArray, LATCHED)
        wait_until(self.questions.get_subscription_count, "a subscription to what_if")
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more

    def answers(self) -> list[DiagnosticStatus]:
        return [status for message in self.graph.messages("/hero/what_if_result") for status in message.status]

    def ask(self, *questions: tuple[str, str]) -> list[DiagnosticStatus]:
        """Publish questions one right behind the other, and wait for as many answers."""
        before = len(self.answers())
        for key, value in questions:
            self.questions.publish(KeyValue(key=key, value=value))
        wait_until(
            lambda: len(self.answers()) >= before + len(questions), "answers", details=lambda: self.node.text[-4000:]
        )
        return self.answers()[before:]


class Robot(Asker):
    """Drives a node with the small pipeline, whose scale grows by 0.01 a scan, and asks it."""

    def __init__(self, graph: Graph, node: NodeProgram) -> None:
        self.count = 0
        self.odom = graph.node.create_publisher(Odometry, "/odom", 100)
        self.scans = graph.node.create_publisher(LaserScan, "/scan", 100)
        wait_until(lambda: self.odom.get_subscription_count() and self.scans.get_subscription_count(), "subscriptions")
        super().__init__(graph, node)

    def scan(self, count: int) -> None:
        """``count`` scans more, and wait until they are processed."""
        for _ in range(count):
            self.count += 1
            header = convert.header((1000 + self.count) * SECOND, "odom")
            odometry = Odometry(header=header, child_frame_id="base_link")
            odometry.pose.pose = convert.pose(poses.from_planar(0.1 * self.count, 0, 0))
            self.odom.publish(odometry)
            header = convert.header((1000 + self.count) * SECOND, "base_link")
            scan = LaserScan(header=header, angle_increment=0.1, range_min=0.1, range_max=50.0)
            scan.ranges = np.full(10, 2.0, np.float32)
            self.scans.publish(scan)
        self.node.wait(lambda s: s["scans"]["processed"] >= self.count, "processed scans")


def figures(status: DiagnosticStatus) -> dict[str, str]:
    return {value.key: value.value for value in status.values}


@pytest.fixture(scope="module")
def robot(graph, node) -> Robot:
    robot = Robot(graph, node)
    robot.scan(3)
    return robot


def test_questions_are_answered_in_their_order(robot):
    first, second = robot.ask(("scale", "0.5"), ("scale", "-0.25"))
    for answer, change in ((first, 0.5), (second, -0.25)):
        assert (answer.level, answer.name, answer.hardware_id) == (DiagnosticStatus.OK, "/hero: what_if", "/hero")
        told = figures(answer)
        assert (told["asked_parameter"], float(told["asked_change"])) == ("scale", change)
        assert float(told["last_pose_m"]) == abs(change)
        assert float(told["last_pose_sigma_m"]) == pytest.approx(0.01)
        assert told["keyframes"] == "3"
    assert first.message.startswith("scale 1 -> 1.5: moves the last pose by 0.500 +- 0.000 m and turns it by ")


def test_a_question_that_makes_no_sense_is_refused_with_the_reason(robot):
    for question, why in (
        (("colour", "1"), "WhatIf refused: parameter 'colour' is not one"),
        (("", ""), "WhatIf refused: parameter '' is not one"),
        (("scale", "red"), "WhatIf refused: 'red' is no change"),
        (("scale", "fail"), "WhatIf failed: a change that nobody foresaw"),
        (("scale" * 1000, "1"), "over 100 characters"),
        (("scale", "1" * 1000), "over 100 characters"),
    ):
        (answer,) = robot.ask(question)
        assert answer.level == DiagnosticStatus.ERROR
        assert why in answer.message
        told = figures(answer)
        assert told.keys() == {"asked_parameter", "asked_change"}
        assert question[0].startswith(told["asked_parameter"])
    assert robot.ask(("scale", "1"))[0].level == DiagnosticStatus.OK, "and the node goes on"
    assert robot.node.status()["worker"]["restarts"] == 0


def test_a_flood_of_questions_is_refused_beyond_some(robot):
    count = 10 * MOST_WAITING
    before = len(robot.answers())
    for _ in range(count):
        robot.questions.publish(KeyValue(key="scale", value="1"))
    time.sleep(3.0)
    answers = robot.answers()[before:]
    # What the middleware dropped behind a full history nobody has seen; all others were answered.
    assert MOST_WAITING <= len(answers) <= count
    assert all(a.level == DiagnosticStatus.OK or "questions are waiting already" in a.message for a in answers)
    assert robot.ask(("scale", "1"))[0].level == DiagnosticStatus.OK


def test_theta_comes_steadily_and_to_those_who_come_late(graph, robot, domain):
    (offered,) = graph.node.get_publishers_info_by_topic("/hero/theta")
    assert offered.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert offered.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    graph.listen("/hero/theta", DiagnosticArray, LATCHED)
    heard = graph.heard["/hero/theta"]
    wait_until(lambda: len(heard) >= 6, "theta six times, with no scan coming in")
    gaps = np.diff([when for when, _ in heard[1:6]])
    assert gaps.max() < 3.0, "every half a second"
    message = heard[-1][1]
    (status,) = message.status
    assert convert.nanoseconds(message.header.stamp) == (1000 + robot.count) * SECOND
    assert (status.name, status.message) == ("odometry.scale", "frozen: for a test")
    assert figures(status) == {
        "value": repr(1.0 + 0.01 * robot.count), "sigma": "0.002", "unit": "ratio", "status": "frozen",
        "reason": "for a test",
    }  # fmt: skip


def test_a_reset_empties_theta_until_the_next_scan(graph, robot):
    graph.listen("/hero/theta", DiagnosticArray, LATCHED)
    assert graph.call("/hero/reset", Trigger, Trigger.Request()).success
    wait_until(lambda: graph.messages("/hero/theta")[-1].status == [], "an empty theta")
    robot.scan(1)

    def told():
        latest = graph.messages("/hero/theta")[-1].status
        return latest and figures(latest[0])["value"] == repr(1.01)

    wait_until(told, "theta from the start again")


def test_a_node_that_is_not_active_answers_nothing(tmp_path, fake_node):
    domain = free_domain()
    graph = Graph(domain)

    def change(transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert graph.call("/hero/change_state", ChangeState, request).success, node.text

    with NodeProgram(fake_node, tmp_path / "out", domain, autostart="false") as node:
        change(Transition.TRANSITION_CONFIGURE)
        node.wait(lambda s: s["state"] == "ready", "ready worker")
        asker = Asker(graph, node)
        asker.questions.publish(KeyValue(key="colour", value="before"))
        time.sleep(1.0)
        change(Transition.TRANSITION_ACTIVATE)
        (answer,) = asker.ask(("colour", "after"))
        assert figures(answer)["asked_change"] == "after"
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
    graph.close()
