"""docs/wrong_map.md names nothing that is not there: figures, parameters, topics, sections and words of the log."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import worlds
from documents import ROOT, flaw, read

# The type support of the wheels pulls in what Python 3.11 deprecates: as in test/ros/conftest.py.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PAGE = read("docs/wrong_map.md")
NAMED = sorted(set(re.findall(r"`([^`]+)`", PAGE)))
COUNTING = ("synchroniser.py", "worker/process.py", "ros/sensors.py", "ros/inputs.py")
"""Where scans and odometry are refused or dropped, each under the name of its cause."""


def literals(*files: str) -> set[str]:
    """Texts in the code of the package, or of ``files`` of it; of a formatted one the parts that stand."""
    paths = [ROOT / "dsg_ros" / name for name in files] or (ROOT / "dsg_ros").rglob("*.py")
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def names(values: Any, prefix: str = "") -> Iterator[str]:
    """Every path in nested mappings, as the page writes it."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield f"{prefix}{key}"
            yield from names(value, f"{prefix}{key}.")


@pytest.fixture(scope="module")
def figures() -> set[str]:
    """Paths in what a node tells of itself and in report.json, while mapping and in a finished map."""
    from dsg_ros import config
    from dsg_ros.localisation import Localisation
    from dsg_ros.pipeline import Slam
    from dsg_ros.report.summary import summarise
    from dsg_ros.ros import status
    from dsg_ros.ros.frames import TransformTree
    from dsg_ros.ros.latencies import Latencies
    from dsg_ros.ros.sensors import Sensors
    from dsg_ros.ros.tf_broadcaster import TfBroadcaster
    from dsg_ros.worker.backend import Status

    slam, truth = Slam(config.Slam()), worlds.drive([(-2.0, -2.0), (3.2, -2.0), (3.2, 2.0)], step=0.2, turn=0.2)
    estimates = [slam.process(f) for f in worlds.frames(worlds.room(), truth, worlds.biased(truth, scale=1.03))]
    there = Localisation(config.Slam(), slam.saved_map()).result()
    slam.optimize()
    result = slam.finish()

    def nothing(*arguments: object) -> None: ...

    sensors = Sensors(config.Node, TransformTree(), nothing, nothing, nothing, nothing)
    sensors.inputs["odom"].frame_changes = 1  # told only where it happens
    tf = TfBroadcaster(nothing, lambda: 0, lambda: 50.0, lambda: 0.1, nothing)
    told = status.figures("running", sensors, Latencies(), Status("ready"), tf, estimates[-1])
    found = {*names(told), *names(summarise(result, config.Node())), *names({"counts": there.counts})}
    assert {"counts.scans", "counts.lost", "metrics.seconds.learn", "inputs.odom.rate_hz"} <= found
    return found


def is_cause(name: str) -> bool:
    """Whether it is a path under which a refused scan or odometry message is told."""
    from dsg_ros.synchroniser import dropped_scans

    known = literals(*COUNTING)
    match name.split("."):
        case ["scans", "dropped", cause]:
            of_topic = re.sub(r"^(scan|points)_", "", cause)
            return (cause in known and bool(dropped_scans({cause: 1}))) or of_topic in known
        case ["odometry", "refused", cause]:
            return cause in known and cause.startswith("odometry_")
    return False


def test_figures_parameters_and_topics_exist(figures):
    from nav_msgs.msg import Odometry
    from security_policy import allowed
    from sensor_msgs.msg import LaserScan

    from dsg_ros import config
    from dsg_ros.core.theta import SPECS
    from dsg_ros.parameter_file import apply_assignments

    topics = {name for names in allowed().values() for name in names}
    known = figures | {setting.name for setting in config.settings(config.Node())}
    known |= {spec.name for specs in SPECS.values() for spec in specs}
    known |= {*Odometry.get_fields_and_field_types(), *LaserScan.get_fields_and_field_types()}
    known |= topics | {name.replace("/hero/", "~/").lstrip("/") for name in topics}
    known |= {"use_sim_time", "map -> odom", "/hero: scans", "--set"}
    words = literals()
    for name in NAMED:
        if name in known or is_cause(name):
            continue
        if assignment := re.fullmatch(r"(?:--set )?([\w.]+)(?:: |:?=)(\S+)", name):
            apply_assignments(config.Node(), [f"{assignment[1]}={assignment[2]}"])
        elif name.startswith("python -m"):
            assert flaw(name.split()) is None, name
        elif name.startswith("--"):
            assert flaw(f"python -m dsg_ros simulate BAG {name}".split()) is None, name
        else:
            # A state, a status or a file: none of the families above, and a word of the code.
            assert not re.match(r"(scans|odometry|inputs|counts|metrics|noise|~?/)\b", name), name
            assert name.removeprefix("dropped.") in words, name


def test_words_of_the_log_are_said():
    said = "\n".join(literals())
    quoted = re.findall(r'"([^"]+)"', PAGE)
    assert quoted
    assert [words for words in quoted if words not in said] == []


def test_sections_exist():
    template = (ROOT / "dsg_ros" / "report" / "templates" / "report.html").read_text(encoding="utf-8")
    sections = re.findall(r"<h2>([^<{]+)</h2>", template) + re.findall(r'pairs\("(\w+)"', template)
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    for name in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*", PAGE):
        assert name in sections or any(heading.startswith(name) for heading in headings), name
