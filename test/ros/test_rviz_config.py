"""config/hero.rviz shows what the node publishes, as it publishes it, in a namespace too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from map_msgs.msg import OccupancyGridUpdate
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dsg_ros.ros.grid_output import UPDATES_QOS
from dsg_ros.ros.outputs import OUTPUTS

MESSAGES = {
    "Path": "Path", "Map": "OccupancyGrid", "MarkerArray": "MarkerArray", "PointCloud2": "PointCloud2",
    "PoseWithCovariance": "PoseWithCovarianceStamped",
}  # fmt: skip
"""What rviz's displays of these classes listen to."""
DURABILITY = {"Transient Local": DurabilityPolicy.TRANSIENT_LOCAL, "Volatile": DurabilityPolicy.VOLATILE}
RELIABILITY = {"Reliable": ReliabilityPolicy.RELIABLE, "Best Effort": ReliabilityPolicy.BEST_EFFORT}


def topics(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of the message and settings of every topic of a display."""
    config = yaml.safe_load((root / "config" / "hero.rviz").read_text())
    for display in config["Visualization Manager"]["Displays"]:
        kind = display["Class"].rpartition("/")[2]
        if "Topic" in display:
            yield MESSAGES[kind], display["Topic"]
        if "Update Topic" in display:
            yield OccupancyGridUpdate.__name__, display["Update Topic"]


@pytest.fixture
def published() -> dict[str, tuple[str, QoSProfile]]:
    """By topic, as it is called without a namespace: name of the message, and quality of service."""
    found = {
        output.topic.replace("~", "/hero") if "~" in output.topic else f"/{output.topic}": (
            output.message.__name__,
            QoSProfile(depth=output.qos) if isinstance(output.qos, int) else output.qos,
        )
        for output in OUTPUTS
    }
    return found | {"/map_updates": (OccupancyGridUpdate.__name__, UPDATES_QOS)}


def test_displays_match_what_is_published(root: Path, published: dict[str, tuple[str, QoSProfile]]) -> None:
    shown = list(topics(root))
    assert len(shown) == 7
    for message, topic in shown:
        expected, qos = published[topic["Value"]]
        assert message == expected, topic
        assert DURABILITY[topic["Durability Policy"]] is qos.durability, topic
        assert RELIABILITY[topic["Reliability Policy"]] is qos.reliability, topic
        assert topic["History Policy"] == "Keep Last"
        assert topic["Depth"] >= 1


def test_everything_that_is_drawn_has_a_display(root: Path, published: dict[str, tuple[str, QoSProfile]]) -> None:
    drawn = {topic for topic, (message, _) in published.items() if message != "DiagnosticArray"}
    assert drawn == {topic["Value"] for _, topic in topics(root)}


def test_in_a_namespace_every_display_is_remapped(root: Path) -> None:
    tree = ast.parse((root / "launch" / "hero.launch.py").read_text())
    assigned = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert sorted(ast.literal_eval(assigned["SHOWN"])) == sorted(topic["Value"] for _, topic in topics(root))
