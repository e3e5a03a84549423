"""PointCloud2 of 30,000 points at 10 Hz over real DDS: the simulated robot in one process, the node in others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.table import Row
from dsg_ros.processes import Follower, Process, free_domain, isolated

CONFIG = Path(__file__).resolve().parents[1] / "config" / "lidar3d.yaml"
START_UP, DRIVE, DRAIN, SAVING = 900.0, 600.0, 60.0, 300.0
"""Longest waits [s]."""


def clouds(folder: Path) -> list[Row]:
    """A lap and a quarter of the simulated building, as fast as a robot drives."""
    out = folder / "clouds"
    out.mkdir()
    # Compiled kernels are kept where they are for everybody: the figures are those of a node that is ready.
    environment = isolated(free_domain())
    # With the default, best effort, the middleware may drop a fragment of so large a message, and with it the message.
    reliable = [word for topic in ("odom", "points") for word in ("-p", f"qos.{topic}.reliability:=reliable")]
    node_words = ["--params-file", str(CONFIG), *reliable, "-p", f"output_folder:={out}"]
    drive_words = ["-p", "world:=building"]
    with Process("node", ["node", "--ros-args", *node_words], folder / "node.log", environment) as node:
        follower = Follower(node, out / "status.json")
        follower.wait("be ready", START_UP, lambda status: status.get("state") in ("ready", "running"))
        with Process("robot", ["simulator", "--ros-args", *drive_words], folder / "robot.log", environment) as robot:
            follower.wait("hear the drive out", DRIVE, lambda status: robot.code is not None)
            if robot.code:
                raise RuntimeError(f"the simulator ended with code {robot.code}\n{robot.tail()}")
        sent = _sent(folder / "robot.log")
        follower.wait("work off the clouds", DRAIN, lambda status: status["scans"]["waiting"] == 0, fresh=True)
        node.interrupt()
        node.wait(SAVING)
    status = follower.read()
    metrics: dict[str, Any] = json.loads((out / "report.json").read_text())["metrics"]
    scans = status["scans"]
    return [
        _figure("a cloud's processing, p50", 1e3 * metrics["seconds_p50.estimate"], None, "ms"),
        _figure("a cloud's processing, p99", 1e3 * metrics["seconds_p99.estimate"], 40.0, "ms"),
        _figure("what it leaves to do then, p99", 1e3 * metrics["seconds_p99.catch_up"], None, "ms"),
        _figure("a cloud in the node until its estimate, p50", status["answers"]["p50_ms"], None, "ms"),
        _figure("a cloud in the node until its estimate, p99", status["answers"]["p99_ms"], 40.0, "ms"),
        _figure("a callback of the node, p99", status["callbacks"]["p99_ms"], None, "ms"),
        _figure("clouds sent and not processed", sent - scans["processed"], 0, ""),
        _figure("clouds lost on the way", scans["lost"], 0, ""),
        _figure("compilations after warm-up", status["compilations_after_warm_up"], 0, ""),
    ]


def _sent(log: Path) -> int:
    """How many clouds the robot says it has sent: its last line is ``... points N, ...``."""
    words = log.read_text(errors="replace").rsplit("the drive is over:", 1)[-1].replace(",", " ").split()
    return int(words[words.index("points") + 1])


def _figure(what: str, value: float, limit: float | None, unit: str) -> Row:
    return Row("processes", "clouds", what, value, None, unit, limit, alone=True)
