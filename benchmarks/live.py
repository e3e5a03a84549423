"""Scans and clouds at 10 Hz over real DDS: the simulated robot in one process, the node in others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.table import Row
from dsg_ros.processes import Follower, Process, free_domain, isolated

START_UP, DRIVE, DRAIN, SAVING = 900.0, 600.0, 60.0, 300.0
"""Longest waits [s]."""


@dataclass(frozen=True)
class Live:
    """What is driven, as fast as a robot drives: the ``topic`` of its ``scans``, the node's and the simulator's words,
    and how long an estimate may take [ms].
    """

    topic: str
    scans: str
    limit: float
    node: tuple[str, ...]
    robot: tuple[str, ...]


CLOUDS = Live(
    "points",
    "cloud",
    40.0,
    ("--params-file", str(Path(__file__).resolve().parents[1] / "config" / "lidar3d.yaml")),
    ("-p", "world:=building"),
)
"""A lap and a quarter of the building, 30,000 points a cloud."""
SCANS = Live("scan", "scan", 10.0, (), ("-p", "world:=office", "-p", "scanner.beams:=180"))
"""Two laps of the office, 180 beams a scan."""


def clouds(folder: Path) -> list[Row]:
    """`CLOUDS`, as rows."""
    return _driven("clouds", CLOUDS, folder)


def scans(folder: Path) -> list[Row]:
    """`SCANS`, as rows."""
    return _driven("scans", SCANS, folder)


def _driven(name: str, live: Live, folder: Path) -> list[Row]:
    out = folder / name
    out.mkdir()
    # Compiled kernels are kept where they are for everybody: the figures are those of a node that is ready.
    environment = isolated(free_domain())
    # With the default, best effort, the middleware may drop a fragment of a large message, and with it the message.
    reliable = [word for topic in ("odom", live.topic) for word in ("-p", f"qos.{topic}.reliability:=reliable")]
    node_words = [*live.node, *reliable, "-p", f"output_folder:={out}"]
    with Process("node", ["node", "--ros-args", *node_words], folder / "node.log", environment) as node:
        follower = Follower(node, out / "status.json")
        follower.wait("be ready", START_UP, lambda status: status.get("state") in ("ready", "running"))
        with Process("robot", ["simulator", "--ros-args", *live.robot], folder / "robot.log", environment) as robot:
            follower.wait("hear the drive out", DRIVE, lambda status: robot.code is not None)
            if robot.code:
                raise RuntimeError(f"the simulator ended with code {robot.code}\n{robot.tail()}")
        sent = _sent(folder / "robot.log", live.topic)
        follower.wait("work off the scans", DRAIN, lambda status: status["scans"]["waiting"] == 0, fresh=True)
        node.interrupt()
        node.wait(SAVING)
    status = follower.read()
    metrics: dict[str, Any] = json.loads((out / "report.json").read_text())["metrics"]
    told, one = status["scans"], live.scans
    rows: list[tuple[str, float, float | None, str]] = [
        (f"a {one}'s processing, p50", 1e3 * metrics["seconds_p50.estimate"], None, "ms"),
        (f"a {one}'s processing, p99", 1e3 * metrics["seconds_p99.estimate"], live.limit, "ms"),
        ("what it leaves to do then, p99", 1e3 * metrics["seconds_p99.catch_up"], None, "ms"),
        (f"a {one} in the node until its estimate, p50", status["answers"]["p50_ms"], None, "ms"),
        (f"a {one} in the node until its estimate, p99", status["answers"]["p99_ms"], live.limit, "ms"),
        ("a callback of the node, p99", status["callbacks"]["p99_ms"], None, "ms"),
        (f"{one}s sent and not processed", sent - told["processed"], 0, ""),
        (f"{one}s lost on the way", told["lost"], 0, ""),
        ("compilations after warm-up", status["compilations_after_warm_up"], 0, ""),
    ]
    return [Row("processes", name, what, value, None, unit, limit, alone=True) for what, value, limit, unit in rows]


def _sent(log: Path, topic: str) -> int:
    """How many scans the robot says it has sent: its last line is ``... points N, ...``."""
    words = log.read_text(errors="replace").rsplit("the drive is over:", 1)[-1].replace(",", " ").split()
    return int(words[words.index(topic) + 1])
