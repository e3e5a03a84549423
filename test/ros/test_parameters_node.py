"""Parameters of a running node: it has those of the file it was given, and each that can change has its effect."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dds import Graph, NodeProgram, wait_until
from diagnostic_msgs.msg import DiagnosticArray
from map_msgs.msg import OccupancyGridUpdate
from nav_msgs.msg import OccupancyGrid
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile
from standing import RELIABLE, Robot
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from dsg_ros import config as cfg
from dsg_ros import parameter_file
from dsg_ros.io.checkpoint import MANIFEST
from dsg_ros.io.map_folder import CHECKPOINT
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert, parameters

LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
OF_RCLPY = ("use_sim_time", "start_type_description_service", "qos_overrides.")


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """Before a node that would keep its state every hour."""
    folder, domain = tmp_path_factory.mktemp("parameters"), free_domain()
    graph = Graph(domain)
    program = [str(Path(__file__).parent / "levered_node.py")]
    more = {"map_folder": folder / "map", "checkpoint_period": 3600.0, "map_rate": 5.0}
    with NodeProgram(program, folder / "out", domain, **RELIABLE, **more) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        robot = Robot(graph, node)
        graph.listen("/tf_static", TFMessage, LATCHED)
        graph.listen("/hero/theta", DiagnosticArray, LATCHED)
        graph.listen("/hero/voxels", MarkerArray, LATCHED)
        graph.listen("/map", OccupancyGrid, LATCHED)
        graph.listen("/map_updates", OccupancyGridUpdate, 100)
        robot.wait()
        scanned(robot)
        yield robot
        node.process.kill()
        assert "Traceback" not in node.text
    graph.close()


def set_to(robot: Robot, name: str, value: Any) -> None:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    (result,) = robot.graph.call("/hero/set_parameters", SetParameters, request).results
    assert result.successful, result.reason


def scanned(robot: Robot) -> None:
    """One scan more is in the map."""
    robot.scan()
    robot.node.wait(lambda s: s["scans"]["processed"] + sum(s["scans"]["dropped"].values()) == robot.sent, "the scan")


def broadcast(robot: Robot) -> list[tuple[str, float]]:
    """Child of each transform on /tf, and how far its stamp is ahead of when it came [s]."""
    now = time.time() - time.monotonic()
    heard = list(robot.graph.heard["/tf"])
    return [
        (t.child_frame_id, convert.nanoseconds(t.header.stamp) * 1e-9 - at - now)
        for at, m in heard
        for t in m.transforms
    ]


def seconds_for(messages: Callable[[], int], number: int, meanwhile: Callable[[], object] = lambda: None) -> float:
    """How long it takes until so many more have come."""
    before, began = messages(), time.monotonic()
    while messages() < before + number:
        meanwhile()
        time.sleep(0.02)
        assert time.monotonic() < began + 60.0
    return time.monotonic() - began


def faster(robot: Robot, name: str, value: float, messages: Callable[[], int], meanwhile: Callable[[], object]) -> None:
    """Ten times the rate takes at most half the time, whatever the machine does besides."""
    before = seconds_for(messages, 4, meanwhile)
    set_to(robot, name, value)
    assert seconds_for(messages, 4, meanwhile) < 0.5 * before


def heard(robot: Robot, *topics: str) -> Callable[[], int]:
    return lambda: sum(len(robot.graph.messages(topic)) for topic in topics)


def tf_rate(robot: Robot) -> None:
    set_to(robot, "tf_rate", 5.0)
    robot.node.wait(lambda s: 2.0 < s["map_to_odom"]["rate_hz"] < 10.0, "five transforms a second")


def transform_tolerance(robot: Robot) -> None:
    set_to(robot, "transform_tolerance", 4.0)
    wait_until(lambda: broadcast(robot)[-1][1] > 3.0, "a transform dated four seconds ahead")


def publish_odom_tf(robot: Robot) -> None:
    assert {child for child, _ in broadcast(robot)} == {"odom"}
    set_to(robot, "publish_odom_tf", True)
    scanned(robot)
    wait_until(lambda: "base_link" in {child for child, _ in broadcast(robot)}, "odom->base")


def publish_extrinsic_tf(robot: Robot) -> None:
    assert robot.graph.messages("/tf_static") == []
    set_to(robot, "publish_extrinsic_tf", True)
    scanned(robot)
    (message, *_) = wait_until(lambda: robot.graph.messages("/tf_static"), "base->SENSOR_learned")
    assert message.transforms[0].child_frame_id == "base_link_learned"


def map_rate(robot: Robot) -> None:
    set_to(robot, "map_rate", 1.0)
    faster(robot, "map_rate", 20.0, heard(robot, "/hero/theta"), lambda: None)


def voxel_colour(robot: Robot) -> None:
    def colours() -> list[Any]:
        markers = [m for message in robot.graph.messages("/hero/voxels")[-1:] for m in message.markers]
        return [(c.r, c.g, c.b) for m in markers for c in m.colors]

    before = wait_until(colours, "voxels")
    set_to(robot, "voxel_colour", "deviation")
    wait_until(lambda: colours() != before, "other colours")


def grid_rate(robot: Robot) -> None:
    set_to(robot, "map_rate", 50.0)
    set_to(robot, "grid_rate", 1.0)
    faster(robot, "grid_rate", 10.0, heard(robot, "/map", "/map_updates"), robot.scan)


def identity_extrinsic(robot: Robot) -> None:
    robot.laser = "nowhere"
    robot.scan()
    robot.node.wait(lambda s: s["scans"]["waiting"] == 1, "a scan without a transform")
    set_to(robot, "identity_extrinsic", True)
    scanned(robot)
    robot.node.wait(lambda s: s["scans"]["waiting"] == 0, "its end")
    assert "taken as identity" in robot.node.text
    robot.laser = "base_link"


def checkpoint_period(robot: Robot) -> None:
    manifest = robot.node.folder.parent / "map" / CHECKPOINT / MANIFEST
    assert not manifest.exists()
    set_to(robot, "checkpoint_period", 0.5)
    scanned(robot)
    wait_until(manifest.exists, "a checkpoint")


def learning_enabled(robot: Robot) -> None:
    for on in (False, True):
        set_to(robot, "learning.enabled", on)
        robot.scan()
        robot.node.wait(lambda s, on=on: s["counts"]["learning"] == int(on), "the pipeline's word")


def output_folder(robot: Robot) -> None:
    elsewhere = robot.node.folder.parent / "elsewhere"
    set_to(robot, "output_folder", str(elsewhere))
    wait_until((elsewhere / "status.json").exists, "the status elsewhere")
    set_to(robot, "output_folder", str(robot.node.folder))


EFFECTS = {
    "tf_rate": tf_rate,
    "transform_tolerance": transform_tolerance,
    "publish_odom_tf": publish_odom_tf,
    "publish_extrinsic_tf": publish_extrinsic_tf,
    "map_rate": map_rate,
    "voxel_colour": voxel_colour,
    "grid_rate": grid_rate,
    "identity_extrinsic": identity_extrinsic,
    "checkpoint_period": checkpoint_period,
    "learning.enabled": learning_enabled,
    "output_folder": output_folder,
}


def test_every_parameter_that_can_change_is_tried() -> None:
    assert set(EFFECTS) == parameters.CHANGEABLE


@pytest.mark.parametrize("name", EFFECTS)
def test_what_can_change_has_its_effect(name: str, robot: Robot) -> None:
    EFFECTS[name](robot)


def dumped(graph: Graph) -> dict[str, Any]:
    """All parameters, as ``ros2 param dump`` asks for them."""
    names = graph.call("/hero/list_parameters", ListParameters, ListParameters.Request()).result.names
    values = graph.call("/hero/get_parameters", GetParameters, GetParameters.Request(names=names)).values
    return dict(zip(names, map(parameter_value_to_python, values), strict=True))


def dump_of(program: list[str], file: Path, folder: Path) -> dict[str, Any]:
    """Of a node that was given ``file``, active and then ended."""
    domain = free_domain()
    graph = Graph(domain)
    with NodeProgram([*program, "--ros-args", "--params-file", str(file)], folder, domain) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        wait_until(lambda: "active: listening" in node.text, "its subscriptions")
        found = dumped(graph)
        assert node.interrupt() == 0
        assert "has no effect" not in node.text
    graph.close()
    return found


def test_a_dump_of_a_node_is_the_file_that_it_was_given(root: Path, tmp_path: Path, fake_node: list[str]) -> None:
    file, folder = root / "config" / "hero.yaml", tmp_path / "out"
    found = dump_of(fake_node, file, folder)
    own = {name: value for name, value in found.items() if not name.startswith(OF_RCLPY)}
    given = parameter_file.apply_file(cfg.Node(), file)
    expected = {setting.name: setting.value for setting in cfg.settings(given)} | {"output_folder": str(folder)}
    assert own == expected
    assert {name: type(value) for name, value in own.items()} == {n: type(value) for n, value in expected.items()}
    # Changed here and there, it is a file for the next node, which gives the same.
    changed = found | {"tf_rate": 20.0, "qos.scan.depth": 7, "frame_prefix": "robot1/", "keyframes.angle": 1e-2}
    changed["qos_overrides./scan.subscription.depth"] = 9
    again = tmp_path / "dump.yaml"
    again.write_text(yaml.safe_dump({"/hero": {"ros__parameters": changed}}))
    assert dump_of(fake_node, again, folder) == changed
