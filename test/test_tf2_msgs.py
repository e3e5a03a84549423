"""tf2_msgs as `make venv` builds it, or as ROS 2 brings it: the same checks on both."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

BUILD = Path(__file__).resolve().parents[1] / "tools" / "build_tf2_msgs" / "build.py"

# One transform there and back over DDS, and what the wire says of its type.
ROUND_TRIP = """
    import json, os, time
    import rclpy
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    rclpy.init(domain_id=101 + os.getpid() % 100)
    node = rclpy.create_node("round_trip")
    received = []
    node.create_subscription(TFMessage, "/tf", received.append, 10)
    publisher = node.create_publisher(TFMessage, "/tf", 10)
    sent = TransformStamped(child_frame_id="odom")
    sent.header.frame_id = "map"
    sent.transform.translation.x = 3.5
    message = TFMessage(transforms=[sent, sent])
    end = time.monotonic() + 30
    while not received and time.monotonic() < end:
        publisher.publish(message)
        rclpy.spin_once(node, timeout_sec=0.1)
    (info,) = node.get_publishers_info_by_topic("/tf")
    answer = {"equal": received[:1] == [message], "type": info.topic_type, "hash": str(info.topic_type_hash)}
    node.destroy_node()
    rclpy.shutdown()
    print(json.dumps(answer))
    """


@pytest.fixture(scope="module")
def build() -> dict[str, object]:
    """The names that build.py defines; not run as a program."""
    return runpy.run_path(str(BUILD))


def test_transforms_travel_under_the_type_of_ros(build: dict[str, object]) -> None:
    command = [sys.executable, "-c", dedent(ROUND_TRIP)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "equal": True,
        "type": "tf2_msgs/msg/TFMessage",
        "hash": build["TYPE_HASH"],
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
        build["check_type_hash"](tmp_path)


def test_a_failing_step_tells_its_command_and_output(build) -> None:
    with pytest.raises(build["BuildError"], match=r"(?s)exit code 3.*no such header"):
        build["run"]([sys.executable, "-c", "print('no such header'); raise SystemExit(3)"])
