"""`node` and `play` from the outside: bad arguments, and being interrupted at any time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
from dds import Graph, Program, wait_until
from nav_msgs.msg import Odometry
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock

from dsg_ros.processes import free_domain
from dsg_ros.ros import convert


def dsg_ros(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "dsg_ros", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "tf_rat:=30.0"], ["unknown parameter 'tf_rat'", "close: tf_rate"]),
        (["-p", "tf_rate:=1000.0"], ["tf_rate", "outside [1, 200] Hz"]),
        (["-p", "qos.odom.reliability:=sometimes"], ["qos.odom.reliability", "best_effort, reliable"]),
        (["-p", "autostart:=7"], ["autostart", "expected bool"]),
        (["--params-file", "/nowhere/hero.yaml"], ["/nowhere/hero.yaml"]),
    ],
)
def test_the_node_refuses_what_it_does_not_know(arguments, words):
    done = dsg_ros("node", "--ros-args", *arguments)
    assert done.returncode == 2, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("tf_rat: 30.0", ["unknown parameter 'tf_rat'", "close: tf_rate"]),
        ("tf_rate: fast", ["tf_rate", "expected float", "'fast'"]),
        ("tf_rate: [1.0, 2.0]", ["tf_rate", "expected float"]),
        ("tf_rate: .nan", ["tf_rate", "finite"]),
        ("tf_rate: -.inf", ["tf_rate", "finite"]),
        ("queue: 0", ["queue", "outside [1, 10000]"]),
        ("queue: 1.5", ["queue", "expected int"]),
        ("keyframes: {distance: 1.0e+300}", ["keyframes.distance", "outside [0.01, 10] m"]),
        ("keyframes: {distanse: 1.0}", ["unknown parameter 'keyframes.distanse'", "keyframes.distance"]),
        ("keyframes: 3", ["unknown parameter 'keyframes'"]),
        ("sensors: true", ["sensors", "expected str"]),
        ("map_frame: {", ["params.yaml"]),
        ("map_frame: \xff\xfe", ["params.yaml"]),
        ("tf_rat: 30.0\n    queue: 0", ["tf_rat", "queue"]),
    ],
)
def test_the_node_refuses_parameter_files_that_make_no_sense(tmp_path, content, words):
    path = tmp_path / "params.yaml"
    path.write_text(f"/**:\n  ros__parameters:\n    {content}\n", encoding="latin-1")
    done = dsg_ros("node", "--ros-args", "--params-file", path)
    assert done.returncode == 2, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_node_ends_in_order_at_any_time(tmp_path, number):
    for delay in (0.5, 3.0):
        with Program(["-m", "dsg_ros", "node"], tmp_path / "log", free_domain()) as node:
            time.sleep(delay)
            code = node.interrupt(number, timeout=60)
        assert code in (0, 130, -signal.SIGTERM if delay < 1 and number == signal.SIGTERM else 0), node.text
        assert "Traceback" not in node.text


@pytest.mark.parametrize("name", ["main", "simulator"])
def test_ctrl_c_while_an_executable_imports(tmp_path, name):
    program = f"import sys; from dsg_ros.ros.{name} import main; sys.exit(main([]))"
    with Program(["-X", "importtime", "-c", program], tmp_path / "log", free_domain()) as node:
        wait_until(lambda: "rclpy" in node.text, "imports of rclpy")
        assert node.interrupt(timeout=60) in (0, 130), node.text
    assert "Traceback" not in node.text


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Fifty odometry messages, 20 a second."""
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = "nav_msgs/msg/Odometry"
    from rclpy.serialization import serialize_message

    path = tmp_path_factory.mktemp("bag") / "bag"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        odom = writer.add_connection("/odom", kind, typestore=store)
        for i in range(50):
            stamp = 1_000_000_000 + i * 50_000_000
            writer.write(odom, stamp, serialize_message(Odometry(header=convert.header(stamp, "odom"))))
    return path


def test_play_sends_every_message_in_step_with_the_clock(bag, tmp_path):
    domain = free_domain()
    graph = Graph(domain)
    graph.listen("/clock", Clock, 100)
    with Program(["-m", "dsg_ros", "play", str(bag), "--rate", "5", "--json"], tmp_path / "log", domain) as player:
        wait_until(lambda: "waiting for subscribers of /odom" in player.text, "a word about the wait")
        graph.listen("/odom", Odometry, 100)
        assert player.process.wait(60) == 0, player.text
    result = json.loads(player.text.splitlines()[-1])
    assert result["sent"] == {"/odom": 50}
    wait_until(lambda: len(graph.messages("/odom")) == 50, "all messages")
    stamps = [convert.nanoseconds(m.header.stamp) for m in graph.messages("/odom")]
    assert stamps == [1_000_000_000 + i * 50_000_000 for i in range(50)]
    clocks = [convert.nanoseconds(m.clock) for m in graph.messages("/clock")]
    assert clocks == sorted(clocks)
    assert clocks[-1] == stamps[-1]
    assert result["seconds"] >= 49 * 0.05 / 5
    assert len(clocks) <= 100 * result["seconds"] + 2
    graph.close()


def test_play_can_be_interrupted(bag, tmp_path):
    playing = ["-m", "dsg_ros", "play", str(bag), "--wait", "0", "--loop", "--json"]
    with Program(playing, tmp_path / "log", free_domain()) as player:
        wait_until(lambda: "nobody subscribes to /odom" in player.text, "start")
        assert player.interrupt(timeout=60) == 130
    assert "Traceback" not in player.text
    assert json.loads(player.text.splitlines()[-1])["interrupted"] is True


def test_play_refuses_what_it_cannot_play(bag, tmp_path):
    (tmp_path / "notes.txt").write_text("no bag")
    for arguments, word in (
        ([tmp_path / "missing"], "there is no such bag"),
        ([tmp_path / "notes.txt"], "not a bag"),
        ([bag, "--rate", "0"], "--rate 0: a positive factor"),
    ):
        done = dsg_ros("play", *arguments)
        assert done.returncode == 2, done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr
