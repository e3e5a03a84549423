"""tf2_msgs, map_msgs and bond as `make venv` builds them, or as ROS 2 brings them: the same checks on both."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

BUILD = Path(__file__).resolve().parents[1] / "tools" / "build_messages" / "build.py"

TRANSFORMS = """
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage as Message

    sent = TransformStamped(child_frame_id="odom")
    sent.header.frame_id = "map"
    sent.transform.translation.x = 3.5
    message = Message(transforms=[sent, sent])
    """
UPDATE = """
    from map_msgs.msg import OccupancyGridUpdate as Message

    message = Message(x=-3, y=2, width=2, height=1, data=[-1, 100])
    message.header.frame_id = "map"
    """

STATUS = """
    from bond.msg import Status as Message

    message = Message(id="hero", instance_id="1", active=True, heartbeat_timeout=4.0, heartbeat_period=0.25)
    """

# One message there and back over DDS, and what the wire says of its type.
ROUND_TRIP = """
    import json, os, time
    import rclpy

    rclpy.init(domain_id=101 + os.getpid() % 100)
    node = rclpy.create_node("round_trip")
    received = []
    node.create_subscription(Message, "/topic", received.append, 10)
    publisher = node.create_publisher(Message, "/topic", 10)
    end = time.monotonic() + 30
    while not received and time.monotonic() < end:
        publisher.publish(message)
        rclpy.spin_once(node, timeout_sec=0.1)
    (info,) = node.get_publishers_info_by_topic("/topic")
    answer = {"equal": received[:1] == [message], "type": info.topic_type, "hash": str(info.topic_type_hash)}
    node.destroy_node()
    rclpy.shutdown()
    print(json.dumps(answer))
    """


@pytest.fixture(scope="module")
def build() -> dict[str, Any]:
    """The names that build.py defines; not run as a program."""
    return runpy.run_path(str(BUILD))


@pytest.mark.parametrize(
    ("number", "made"), [(0, TRANSFORMS), (1, UPDATE), (2, STATUS)], ids=["tf2_msgs", "map_msgs", "bond"]
)
def test_messages_travel_under_the_type_of_ros(build: dict[str, Any], number: int, made: str) -> None:
    package = build["PACKAGES"][number]
    command = [sys.executable, "-c", dedent(made) + dedent(ROUND_TRIP)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "equal": True,
        "type": package.type_name,
        "hash": package.type_hash,
    }


def test_what_is_there_is_not_built_again() -> None:
    done = subprocess.run([sys.executable, str(BUILD)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_description_of_another_type_is_refused(build, tmp_path: Path) -> None:
    folder = tmp_path / "share/tf2_msgs/msg"
    folder.mkdir(parents=True)
    entry = {"type_name": "tf2_msgs/msg/TFMessage", "hash_string": "RIHS01_00"}
    (folder / "TFMessage.json").write_text(json.dumps({"type_hashes": [entry]}))
    with pytest.raises(build["BuildError"], match="RIHS01_00"):
        build["check_type_hash"](build["PACKAGES"][0], tmp_path)


def test_a_failing_step_tells_its_command_and_output(build) -> None:
    with pytest.raises(build["BuildError"], match=r"(?s)exit code 3.*no such header"):
        build["run"]([sys.executable, "-c", "print('no such header'); raise SystemExit(3)"])


def test_hashes_are_those_of_the_definitions(build) -> None:
    """By another implementation of REP-2016 than the one that generates the code."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for package in build["PACKAGES"]:
        text = (BUILD.parent / f"packages/{package.name}/msg/{package.message}.msg").read_text()
        if package.type_name not in store.types:
            store.register(get_types_from_msg(text, package.type_name))
        assert store.hash_rihs01(package.type_name) == package.type_hash
