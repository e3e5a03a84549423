"""A mapping node that is killed, or whose worker is: it goes on in the same map, and says so.

With ``--kills 20 -s`` it is killed so often, and prints what came of each.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import worlds
from dds import Graph, NodeProgram, wait_until
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import LaserScan
from std_srvs.srv import Trigger

from dsg_ros import poses
from dsg_ros.io.checkpoint import MANIFEST
from dsg_ros.io.map_folder import CHECKPOINT, read_map
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert

Array = NDArray[np.float64]
NODE = ["-m", "dsg_ros", "node"]
ROUTE = worlds.drive([*worlds.BLOCK_ROUTE, worlds.BLOCK_ROUTE[0]] * 12, step=0.15, turn=0.2)
START = 1000 * worlds.SECOND
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
INTERVAL = 1.0 + 1.0 + 1.0
"""Between checkpoints, until the next look whether one is due, and to take and write it [s]."""
RELIABLE = {"qos.odom.reliability": "reliable", "qos.scan.reliability": "reliable", "qos.scan.depth": 500}


class Robot:
    """Drives round the block, a scan every 20 ms; its wheels' odometry begins anew when it is told to."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.odom = graph.node.create_publisher(Odometry, "/odom", 500)
        self.scans = graph.node.create_publisher(LaserScan, "/scan", 500)
        graph.listen("/hero/pose", PoseWithCovarianceStamped, 1000)
        graph.listen("/hero/path", PathMessage, LATCHED)
        graph.listen("/diagnostics", DiagnosticArray, 100)
        self.sent, self._zero = 0, 0

    def wait(self) -> None:
        wait_until(lambda: self.odom.get_subscription_count() and self.scans.get_subscription_count(), "subscriptions")
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more

    def begin_anew(self) -> None:
        """The odometry starts at zero where the robot stands."""
        self._zero = self.sent

    def drive(self, scans: int, until: threading.Event | None = None) -> None:
        for _ in range(scans):
            if until is not None and until.is_set():
                return
            pose, stamp = ROUTE[self.sent], START + self.sent * worlds.SECOND // 10
            odometry = Odometry(header=convert.header(stamp, "odom"), child_frame_id="base_link")
            odometry.pose.pose = convert.pose(poses.between(ROUTE[self._zero], pose))
            self.odom.publish(odometry)
            scan = LaserScan(header=convert.header(stamp, "base_link"), range_min=0.1, range_max=50.0)
            scan.angle_min, scan.angle_increment = float(worlds.BEAMS[0]), float(worlds.BEAMS[1] - worlds.BEAMS[0])
            noise = np.random.default_rng(self.sent).normal(0.0, 0.01, len(worlds.BEAMS))
            found = worlds.ranges(worlds.block(), pose[:2], worlds.BEAMS + poses.yaw(pose))
            scan.ranges = (found + noise).astype(np.float32)
            self.scans.publish(scan)
            self.sent += 1
            time.sleep(0.02)

    def error(self) -> float:
        """Of the newest pose that was published, in metres."""
        message = self.graph.messages("/hero/pose")[-1]
        number = (convert.nanoseconds(message.header.stamp) - START) * 10 // worlds.SECOND
        truth = poses.between(ROUTE[0], ROUTE[number])
        return float(np.linalg.norm(np.array(convert.pose_values(message.pose.pose))[:3] - truth[:3]))

    def told(self, subject: str) -> list[str]:
        """What diagnostics said of it, oldest first."""
        messages = self.graph.messages("/diagnostics")
        return [s.message for m in messages for s in m.status if s.name == f"/hero: {subject}"]


def started(folder: Path, number: int, domain: int, **parameters: object) -> NodeProgram:
    given = {"map_folder": folder / "map", "checkpoint_period": 1.0, **RELIABLE, **parameters}
    return NodeProgram(NODE, folder / f"out{number}", domain, **given)


def keyframes(graph: Graph, since: float, until: float) -> int:
    """Of the newest path that was heard in that time."""
    heard = list(graph.heard["/hero/path"])
    return max((len(path.poses) for at, path in heard if since < at < until), default=0)


def killed_while_it_starts(folder: Path, number: int, domain: int, seconds: float) -> None:
    """A node that is to go on, and is killed so many seconds after its start: before it is ready, mostly."""
    with started(folder, number, domain, resume="true") as node:
        time.sleep(seconds)
        node.process.kill()
        print(f"kill {number}, {seconds:.1f} s after a start: {'' if 'worker ready' in node.text else 'not '}ready")


def test_a_node_that_is_killed_goes_on_in_the_same_map(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """At random instants, while it maps, keeps its state or starts; the odometry goes on or begins anew, in turns.  No
    more is lost than came in the last interval.
    """
    kills, domain, rng = request.config.getoption("--kills"), free_domain(), np.random.default_rng(0)
    graph = Graph(domain)
    robot = Robot(graph)
    kept = mapped = owed = 0
    lap = int(np.argmax(np.cumsum(np.linalg.norm(np.diff(ROUTE[:, :3], axis=0), axis=1)) > 46.0))
    for number in range(kills + 1):
        if number:
            killed_while_it_starts(tmp_path, number, domain, rng.uniform(0.2, 2.0))
        with started(tmp_path, number, domain, resume="true") as node:
            node.wait(lambda s: s["state"] == "ready", "ready node")
            assert ("no checkpoint" in node.text) == (not number)
            ready = time.monotonic()
            if number:
                resumed = int(re.findall(r"going on from the checkpoint in .*: (\d+) keyframes", node.text)[-1])
                assert resumed >= owed
            robot.wait()
            before = robot.sent
            # The first lap is mapped in one life: a robot whose odometry begins anew is found on known ground alone.
            robot.drive(25 if number else lap)
            for _ in range(5):  # a corridor may look like another one for some metres
                status = node.wait(lambda s, n=robot.sent - before: s["scans"]["processed"] >= n, "every scan")
                if status["localisation"] == "":
                    break
                robot.drive(25)
            assert status["compilations_after_warm_up"] == 0
            if number:
                assert status["localisation"] == ""
                assert status["counts"]["resumed"] >= 1
                assert kept <= status["keyframes"] - 1
                assert robot.error() < 0.15
                words = next(line for line in node.text.splitlines() if "is found again" in line)
                how, off = words.split("again ")[1], robot.error()
                print(f"kill {number}: {mapped} keyframes, {owed} owed, {resumed} kept; {how}; {off:.3f} m off")
            if number == kills:
                break
            node.wait(lambda s: s["checkpoint"].get("written", 0) >= 1, "a checkpoint")
            ended = threading.Event()
            thread = threading.Thread(target=robot.drive, args=(200, ended))
            thread.start()
            time.sleep(rng.uniform(1.0, 3.5))
            status = node.status()
            mapped, kept = status["keyframes"], status["checkpoint"]["keyframes"]
            node.process.kill()
            owed = keyframes(graph, ready, time.monotonic() - INTERVAL)
            ended.set()
            thread.join()
            assert "Traceback" not in node.text
        if number % 2:
            robot.begin_anew()
    graph.close()


def test_a_map_of_two_lives_is_saved_as_one(tmp_path: Path) -> None:
    domain = free_domain()
    graph = Graph(domain)
    robot = Robot(graph)
    with started(tmp_path, 0, domain) as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        robot.wait()
        robot.drive(60)
        node.wait(lambda s: s["checkpoint"].get("keyframes", 0) > 20, "a checkpoint")
        node.process.kill()
    with started(tmp_path, 1, domain, resume="true") as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        robot.wait()
        robot.drive(60)
        status = node.wait(lambda s: s["scans"]["processed"] >= 60, "every scan")
        wait_until(lambda: len(graph.messages("/hero/path")[-1].poses) == status["keyframes"], "the whole path")
        assert node.interrupt() == 0
    saved = read_map(tmp_path / "map")
    numbers = (saved.stamps - START) * 10 // worlds.SECOND
    assert (numbers < 60).sum() > 20
    assert (numbers >= 60).sum() > 20
    errors = np.linalg.norm(saved.poses[:, :3] - poses.between(ROUTE[0], ROUTE[numbers])[:, :3], axis=1)
    assert errors.max() < 0.1
    graph.close()


def test_a_worker_that_dies_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    domain = free_domain()
    graph = Graph(domain)
    robot = Robot(graph)
    with started(tmp_path, 0, domain) as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        robot.wait()
        robot.drive(60)
        status = node.wait(lambda s: s["checkpoint"].get("keyframes", 0) > 20, "a checkpoint")
        children = Path(f"/proc/{node.process.pid}/task").glob("*/children")
        worker = next(int(child) for listed in children for child in listed.read_text().split())
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: "from the checkpoint in" in node.text, "the word of it", details=lambda: node.text)
        before = len(graph.messages("/hero/path"))
        robot.drive(40)
        again = node.wait(lambda s: s["worker"]["restarts"] == 1 and s["keyframes"] > status["keyframes"], "more map")
        assert "with an empty map" not in node.text
        assert again["counts"].get("resumed", 0) == 0  # the odometry went on: nothing had to be found again
        assert robot.error() < 0.15
        wait_until(lambda: len(graph.messages("/hero/path")) > before, "the path")
        assert len(graph.messages("/hero/path")[-1].poses) > status["checkpoint"]["keyframes"]
        # A map that is forgotten is not gone on with, whoever dies.
        assert graph.call("/hero/reset", Trigger, Trigger.Request()).success
        assert not (tmp_path / "map" / CHECKPOINT / MANIFEST).exists()
        assert node.interrupt() == 0
    graph.close()


def test_what_cannot_be_written_is_told_and_mapping_goes_on(tmp_path: Path) -> None:
    """A file in the way, as permissions say nothing to a test that runs as root."""
    domain = free_domain()
    graph = Graph(domain)
    robot = Robot(graph)
    (tmp_path / "map").mkdir()
    in_the_way = tmp_path / "map" / CHECKPOINT
    in_the_way.write_text("no folder")
    with started(tmp_path, 0, domain) as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        robot.wait()
        robot.drive(30)
        node.wait(lambda s: "cannot be written" in s["checkpoint"]["error"], "the reason in the status")
        assert "no checkpoint, mapping goes on" in node.text
        wait_until(lambda: "cannot be written" in robot.told("checkpoint")[-1], "the reason in diagnostics")
        in_the_way.unlink()
        robot.drive(30)
        status = node.wait(lambda s: s["checkpoint"]["written"] >= 1, "a checkpoint")
        assert status["checkpoint"]["error"] == ""
        node.wait(lambda s: s["scans"]["processed"] == robot.sent, "every scan")
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
    # What somebody changed is not gone on with, nor replaced.
    manifest = tmp_path / "map" / CHECKPOINT / MANIFEST
    manifest.write_text(manifest.read_text().replace('"keyframes.distance": 0.25', '"keyframes.distance": 0.26'))
    with started(tmp_path, 1, domain, resume="true") as node:
        wait_until(lambda: "not configured" in node.text, "the reason", details=lambda: node.text)
        assert "was changed after it was written" in node.text
        assert node.interrupt() == 0
    with started(tmp_path, 2, domain, resume="true", localisation="true") as node:
        wait_until(lambda: "resume and localisation are both on" in node.text, "the reason", details=lambda: node.text)
        assert node.interrupt() == 0
    graph.close()


def test_a_full_output_folder_costs_neither_checkpoints_nor_the_map(tmp_path: Path) -> None:
    """A file in the way of ``output_folder``, and another one later: what is refused there is all that is lost."""
    domain = free_domain()
    graph = Graph(domain)
    robot = Robot(graph)
    in_the_way = tmp_path / "in_the_way"
    in_the_way.write_text("no folder")
    with started(tmp_path, 0, domain, output_folder=in_the_way) as node:
        wait_until(lambda: "active: listening" in node.text, "active node", details=lambda: node.text)
        robot.wait()
        robot.drive(30)
        wait_until(lambda: (tmp_path / "map" / CHECKPOINT / MANIFEST).exists(), "a checkpoint")
        wait_until(lambda: str(in_the_way) in robot.told("status_file")[-1], "the reason in diagnostics")
        wait_until(lambda: len(robot.told("status_file")) > 8, "eight reports")
        assert node.text.count("status.json is not written") == 1
        request = SetParameters.Request(parameters=[Parameter("output_folder", value=str(tmp_path)).to_parameter_msg()])
        assert graph.call("/hero/set_parameters", SetParameters, request).results[0].successful
        wait_until(lambda: robot.told("status_file")[-1] == "", "a file that can be written")
        request.parameters[0].value.string_value = str(in_the_way)
        assert graph.call("/hero/set_parameters", SetParameters, request).results[0].successful
        assert node.interrupt() == 0
        assert "not saved: Save refused" in node.text
        assert f"saved to {tmp_path / 'map'} alone" in node.text
        assert "Traceback" not in node.text
    assert len(read_map(tmp_path / "map").stamps) > 5
    graph.close()
