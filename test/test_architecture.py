"""The arrows of docs/architecture.md: who may import whom."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from imports import imported, modules

PACKAGE = Path(__file__).resolve().parents[1] / "dsg_ros"
MODULES = modules(PACKAGE)
EDGES = [(name, line, target) for name, path in MODULES.items() for line, target in imported(name, path, set(MODULES))]

ROS = r"(rclpy|bond|rosidl\w*|rosbag2_py|tf2?_\w+|ament_\w+|launch(_\w+)?|\w+_(msgs|srvs|msgs_py|interfaces))"


@dataclass(frozen=True)
class Rule:
    """No module matching ``importer`` imports one matching ``imported`` (both match whole packages)."""

    importer: str
    imported: str
    why: str
    except_: str = "nothing"


def own(*names: str) -> str:
    return rf"dsg_ros\.({'|'.join(names)})"


RULES = [
    Rule(r"dsg_ros", ROS, "only dsg_ros/ros speaks ROS", except_=own("ros")),
    Rule(r"dsg_ros", r"jaxlie", "SE(3) has one door", except_=own(r"core\.geometry")),
    Rule(
        own("core"),
        own("io", "mapping", "learning", "ros", "report", "commands", "experiments", "pipeline", "worker"),
        "the core knows nothing of files, maps, or who uses it",
    ),
    Rule(
        own("mapping", "learning"),
        own("io", "ros", "report", "commands", "experiments", "pipeline", "worker", "synchroniser"),
        "mapping and learning build on the core alone; the pipeline composes them",
    ),
    Rule(
        own("simulation"),
        own("mapping", "learning", "ros", "report", "commands", "experiments", "pipeline", "worker"),
        "what is simulated knows nothing of what is made of it",
    ),
    Rule(own("mapping", "learning", "io", "pipeline"), own("simulation"), "nor the other way"),
    Rule(own("fleet"), own("ros", "report", "commands"), "workers match logs and answer; who asks is told by others"),
    Rule(own("core", "io", "mapping", "learning", "pipeline", "report"), own("fleet"), "nor do these know of workers"),
    Rule(r"dsg_ros", "ray", "the cluster has one door", except_=own(r"fleet\.ray_team")),
    Rule(own("mapping"), own("learning"), "the pipeline composes them"),
    Rule(own("learning"), own("mapping"), "the pipeline composes them"),
    Rule(
        own("io"),
        own("ros", "mapping", "learning", "report", "commands", "experiments", "pipeline", "worker"),
        "readers and writers serve everybody",
    ),
    Rule(own("report"), own("ros", "commands", "experiments", "pipeline", "worker"), "a report needs results only"),
    Rule(
        own("view"),
        own("ros", "io", "core", "mapping", "learning", "report", "commands", "experiments", "pipeline", "worker"),
        "the view is handed records, and does not ask where they come from",
    ),
    Rule(r"dsg_ros", "viser", "the page has one process", except_=own(r"view\.(page|scene|curves)")),
    Rule(
        r"dsg_ros",
        own(r"view\.(page|scene|curves)"),
        "what imports viser is loaded in the page's process alone",
        except_=own(r"view\.(page|scene|curves)"),
    ),
    Rule(own("pipeline"), own("ros", "commands", "report", "view"), "the pipeline serves node and command line alike"),
    Rule(
        r"dsg_ros",
        own("commands"),
        "commands are the outermost layer",
        except_=own("commands", "cli"),
    ),
    Rule(own("poses", "interface", "config", "errors"), r"dsg_ros", "contracts stand on their own"),
]
CONTRACTS = own("poses", "interface", "config", "errors")


def matches(pattern: str, name: str) -> bool:
    return re.fullmatch(rf"({pattern})(\..*)?", name) is not None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.importer}-{rule.imported}"[:60])
def test_imports_follow_the_arrows(rule: Rule) -> None:
    wrong = [
        f"{importer} (line {line}) imports {target}"
        for importer, line, target in EDGES
        if matches(rule.importer, importer)
        and matches(rule.imported, target)
        and not matches(rule.except_, importer)
        and not (matches(CONTRACTS, importer) and matches(CONTRACTS, target))
    ]
    assert not wrong, "\n".join([rule.why, *wrong])


def test_every_rule_is_about_something() -> None:
    """A rule whose importer matches no module would pass for ever."""
    assert [rule for rule in RULES if not any(matches(rule.importer, name) for name in MODULES)] == []


def test_the_reader_of_imports_sees_all_forms(tmp_path: Path) -> None:
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("from . import b\n")
    (package / "a.py").write_text("import x.y\ndef f():\n    from .b import c\n    from p import b\n")
    (package / "b.py").write_text("")
    found = modules(package)
    assert list(imported("p", found["p"], set(found))) == [(1, "p.b")]
    assert sorted(imported("p.a", found["p.a"], set(found))) == [(1, "x.y"), (3, "p.b"), (4, "p.b")]


# What the node process loads: it must be up in under a second and never wait for a compilation or for XLA's threads.
NODE_PROCESS = [
    "dsg_ros.poses",
    "dsg_ros.interface",
    "dsg_ros.config",
    "dsg_ros.synchroniser",
    "dsg_ros.worker.process",
    "dsg_ros.worker.standby",
    "dsg_ros.view.web",
    "dsg_ros.io.pointcloud",
    "dsg_ros.io.laserscan",
    "dsg_ros.ros.running",
    "dsg_ros.commands.node",
]


@pytest.mark.parametrize("module", NODE_PROCESS)
def test_node_process_imports_no_jax(module: str) -> None:
    program = (
        f"import sys, {module}; print(*sorted({{'jax', 'jaxlib', 'jaxlie', 'equinox', 'optax'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
