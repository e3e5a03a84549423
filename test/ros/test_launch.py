"""The launch file with the real launch system, where that is installed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import tyro
from dds import Graph, Program, wait_until
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from dsg_ros.commands import play
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


ENTRY = """
import sys
from {module} import {function}
sys.exit({function}())
"""
RECORD = """
import json, sys
from pathlib import Path
import yaml
words = sys.argv[1:]
files = [Path(words[i + 1]).read_text() for i, word in enumerate(words) if word == "--params-file"]
told = {"words": words, "parameters": [yaml.safe_load(text) for text in files]}
Path(__file__).with_suffix(".json").write_text(json.dumps(told))
"""
"""Stands in for an executable: keeps its arguments, and the parameter files, which launch makes for it alone."""


def installed(prefix: Path, root: Path, programs: Mapping[str, str]) -> dict[str, str]:
    """The package as colcon would install it, with the source texts of its executables; where ament finds it."""
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "dsg_ros").touch()
    (prefix / "share" / "dsg_ros").mkdir()
    for name in ("launch", "config", "package.xml"):
        (prefix / "share" / "dsg_ros" / name).symlink_to(root / name)
    folder = prefix / "lib" / "dsg_ros"
    folder.mkdir(parents=True)
    for name, text in programs.items():
        program = folder / name
        program.write_text(f"#!{sys.executable}\n{text}")
        program.chmod(0o755)
    paths = [str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")]
    return {**os.environ, "AMENT_PREFIX_PATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture(scope="module")
def environment(root, tmp_path_factory):
    texts = {}
    for name, target in EXECUTABLES.items():
        module, _, function = target.partition(":")
        texts[name] = ENTRY.format(module=module, function=function)
    return installed(tmp_path_factory.mktemp("install"), root, texts)


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


@pytest.mark.parametrize(("arguments", "sim_time"), [((), True), (("use_sim_time:=false",), False)])
def test_a_bag_is_played_to_a_node_on_its_clock(root, tmp_path, arguments, sim_time):
    prefix = tmp_path / "install"
    prefix.mkdir()
    environment = installed(prefix, root, dict.fromkeys(EXECUTABLES, RECORD))
    words = ("bag:=a recording", "rate:=4", *arguments)
    with launched(root, tmp_path, free_domain(), environment, *words) as program:
        # Launch ends when all that it started has ended.
        assert program.process.wait(90) == 0, program.text
    records = {path.stem: json.loads(path.read_text()) for path in (prefix / "lib" / "dsg_ros").glob("*.json")}
    assert set(records) == {"dsg_ros", "hero_node"}
    subcommand, *options = records["dsg_ros"]["words"]
    told = tyro.cli(play.Options, args=options)
    assert (subcommand, told.bag, told.rate, told.loop) == ("play", Path("a recording"), 4.0, False)
    # The node needs longer to compile everything than the player waits by itself.
    assert told.wait > play.Options(told.bag).wait
    # Of several files that set a parameter the last counts.
    settings = [nodes for nodes in records["hero_node"]["parameters"] if "use_sim_time" in json.dumps(nodes)]
    ((_, parameters),) = settings[-1].items()
    assert parameters["ros__parameters"] == {"use_sim_time": sim_time}
