"""The launch file with the real launch system, where that is installed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from dds import Graph, Program, wait_until
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from dsg_ros.processes import free_domain

pytest.importorskip("launch_ros", reason="launch and launch_ros are not on PyPI; this runs in a ROS installation")

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(word.split(":=")) for word in sys.argv[2:]]
included = IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""
EXECUTABLES = {
    "dsg_ros": "dsg_ros.cli:main",
    "hero_node": "dsg_ros.ros.main:main",
    "hero_simulator": "dsg_ros.ros.simulator:main",
}


@pytest.fixture(scope="module")
def environment(root, tmp_path_factory):
    """The package as colcon would install it, found by ament."""
    prefix = tmp_path_factory.mktemp("install")
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "dsg_ros").touch()
    (prefix / "share" / "dsg_ros").mkdir()
    for name in ("launch", "config", "package.xml"):
        (prefix / "share" / "dsg_ros" / name).symlink_to(root / name)
    programs = prefix / "lib" / "dsg_ros"
    programs.mkdir(parents=True)
    for name, target in EXECUTABLES.items():
        module, _, function = target.partition(":")
        program = programs / name
        program.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        program.chmod(0o755)
    paths = [str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")]
    return {**os.environ, "AMENT_PREFIX_PATH": os.pathsep.join(filter(None, paths))}


def launched(root: Path, tmp_path: Path, domain: int, environment: dict[str, str], *arguments: str) -> Program:
    script = tmp_path / "launch_it.py"
    script.write_text(RUN)
    words = [str(script), str(root / "launch" / "hero.launch.py"), "rviz:=false", *arguments]
    return Program(words, tmp_path / "launch.log", domain, environment)


def ctrl_c(program: Program) -> int:
    """As the terminal does it: to launch and to what it started, which launch relies on."""
    os.killpg(program.process.pid, signal.SIGINT)
    return program.process.wait(90)


def test_without_argument_the_tutorial_is_shown(root, tmp_path, environment):
    domain = free_domain()
    graph = Graph(domain)
    graph.listen("/tf", TFMessage, 100)
    graph.listen("/hero/voxels", MarkerArray, LATCHED)
    graph.listen("/hero/path", PathMessage, LATCHED)
    with launched(root, tmp_path, domain, environment) as program:
        wait_until(lambda: len(graph.messages("/hero/voxels")) >= 3, "three steps", details=lambda: program.text)
        frames = {(t.header.frame_id, t.child_frame_id) for m in graph.messages("/tf") for t in m.transforms}
        assert frames == {("map", f"pose{i}") for i in range(6)}
        assert len(graph.messages("/hero/voxels")[-1].markers[0].points) == 6
        assert len(graph.messages("/hero/path")[-1].poses) == 6
        assert ctrl_c(program) == 0, program.text
    graph.close()
    assert "Traceback" not in program.text


def test_a_robot_in_a_namespace(root, tmp_path, environment):
    domain = free_domain()
    graph = Graph(domain)
    arguments = ("simulator:=false", "namespace:=robot1")
    with launched(root, tmp_path, domain, environment, *arguments) as program:
        wait_until(lambda: "listening to /robot1/odom" in program.text, "active node", details=lambda: program.text)
        assert ctrl_c(program) == 0, program.text
    graph.close()
    assert "Traceback" not in program.text
