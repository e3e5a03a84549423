"""The node over real DDS where it has most to do: the whole graph solved again and again, many voxels, late listeners.

Two maps are made by the pipeline from drives of the simulated robot, and kept as checkpoints; the node goes on from one
while the same drive goes on in real time.  ``graph`` has 10,000 keyframes, ``voxels`` 50,000 voxels.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.made_map import Made, Scenario, make
from benchmarks.measuring import apart
from benchmarks.start import said
from benchmarks.table import Row
from benchmarks.witness import Cubes, Witness
from dsg_ros import config
from dsg_ros.io.records import Record
from dsg_ros.processes import Follower, Process, free_domain, isolated, node_arguments

START_UP, FOUND = 900.0, 60.0
"""Longest waits [s]: for the node to be ready, and for it to map again."""
GIVEN_UP = 2.5
"""Seconds between two interrupts, of which the second one gives up saving."""
STARTS, LATECOMERS = 3, 3
"""How often each is measured."""
ALONE, SOLVING = 10.0, 60.0
"""Seconds of driving before the graph is solved, and while it is, again and again."""
LOOK = 0.2
"""Seconds between two looks at how many of the solves that were asked for have ended."""
SETTLING, STEADY = 10.0, 20.0
"""Seconds of driving before the bytes of markers are counted, and while they are."""
WHOLE = 0.99
"""Share of the cubes from which a listener has the map: voxels seen first in its last moments come with the next."""

_SOLVED_WHEN_ASKED = {
    "loops.every_keyframes": 20, "loops.solve_after": 1000, "loops.solve_beyond": 10.0, "learning.enabled": False,
}  # fmt: skip
"""Loops are closed, and the graph is solved as a whole when it is asked for: else making the map would take an hour."""

GRAPH = Scenario(
    config.Simulation(
        world="office",
        drive=config.SimulatedDrive(metres=1900.0, speed=1.2, turn_rate=1.0),
        scanner=config.SimulatedScanner(rate=10.0),
    ),
    seconds=1480.0,
    live=ALONE + SOLVING,
    settings=_SOLVED_WHEN_ASKED | {"keyframes.distance": 0.1, "keyframes.angle": 0.09},
)
VOXELS = Scenario(
    config.Simulation(drive=config.SimulatedDrive(metres=400.0, speed=1.2, turn_rate=1.0)),
    seconds=200.0,
    live=SETTLING + STEADY,
    settings=_SOLVED_WHEN_ASKED
    | {
        "input.max_range": 80.0, "input.max_points": 8192, "input.cell": 0.1, "keyframes.distance": 0.5,
        "registration.max_points": 1000, "registration.window": 12, "registration.coarse_voxel": 0.25,
        "registration.fine_voxel": 0.25, "registration.flatness": 0.05, "registration.restart_below": 0.3,
    },
    every=5,
)  # fmt: skip


_CONTROL = """
import signal, sys, time
gaps, before = [], time.monotonic()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(max(gaps), sorted(gaps)[int(0.99 * len(gaps))])))
while True:
    time.sleep(0.02)
    now = time.monotonic()
    gaps.append(now - before)
    before = now
"""
"""What the machine, busy with whatever it is, does to somebody who has nothing to do."""


def rates(folder: Path) -> list[Row]:
    """All of them."""
    before = os.getloadavg()[0]
    graph = apart(make, GRAPH, folder / "graph")
    rows = [*start_up(folder), *while_solving(graph, folder)]
    rows += markers(apart(make, VOXELS, folder / "voxels"), folder)
    return [_figure("load of the machine before", before, None, ""), *rows]


def start_up(folder: Path) -> list[Row]:
    """Of a node with an empty map, after another process has compiled the same kernels, until it listens."""
    seconds = []
    for _ in range(STARTS):
        began = time.time()
        with _node(GRAPH, folder / "out", {}) as (node, follower, _):
            follower.wait("listen", START_UP, lambda status: "active: listening" in node.output.read_text())
            seconds.append(said(node.output, "active: listening") - began)
    return [
        _figure("start-up, kernels compiled before", median(seconds), 6.0, "s"),
        _figure("start-up, the slowest", max(seconds), None, "s"),
    ]


def while_solving(made: Made, folder: Path) -> list[Row]:
    """Broadcasts and callbacks while the robot drives on and the whole graph is solved and refined in a loop."""
    parameters = {"map_folder": folder / "graph", "publish_odom_tf": True}
    with (
        _node(GRAPH, folder / "out", parameters) as (_, follower, domain),
        Witness(domain, planar=True) as witness,
    ):
        _go_on(follower, witness, made, ALONE)
        control = subprocess.Popen([sys.executable, "-c", _CONTROL], stdout=subprocess.PIPE, text=True)
        started, delays = len(witness.corrections), len(witness.delays)
        asked, looked = 0, 0.0

        def ask_again() -> None:
            """One is being solved, and one waits for it, at any time."""
            nonlocal asked, looked
            if (now := time.monotonic()) - looked >= LOOK:
                looked = now
                while asked < _solved(follower.read()) + 2:
                    witness.optimize()
                    asked += 1

        witness.drive(_between(made, ALONE, ALONE + SOLVING), ask_again)
        solved = _solved(follower.read())
        largest, usual = _gaps(control)
        follower.wait("solve the graph", START_UP, lambda status: _solved(status) == asked, fresh=True)
        status = follower.read()
    gaps, alone = witness.gaps(started), witness.gaps()[: started - 1]
    answered = np.array(witness.delays)
    return [
        _figure("keyframes of the graph", made.keyframes, None, ""),
        _figure("global solves meanwhile", solved, None, ""),
        _figure("map->odom, largest gap while solving", 1e3 * gaps.max(), 60.0, "ms"),
        _figure("the same of a process that only sleeps 20 ms", 1e3 * largest, None, "ms"),
        _figure("map->odom, p99 of gaps while solving", _p99(gaps), None, "ms"),
        _figure("the same of a process that only sleeps", 1e3 * usual, None, "ms"),
        _figure("map->odom, largest gap before", 1e3 * alone.max(), None, "ms"),
        _figure("odometry there and back, p99 while solving", _p99(answered[delays:]), 10.0, "ms"),
        _figure("odometry there and back, p99 before", _p99(answered[:delays]), None, "ms"),
        _figure("callbacks in the node, p99", status["callbacks"]["p99_ms"], 10.0, "ms"),
        _figure("load of the machine while solving", os.getloadavg()[0], None, ""),
    ]  # fmt: skip


def _solved(status: dict[str, Any]) -> int:
    """How many solves of the whole graph that were asked for have ended."""
    told = status["services"].get("optimize", {"done": 0, "failed": 0})
    if told["failed"]:
        raise RuntimeError(f"the graph was not solved: {told['latest']}")
    return int(told["done"])


def markers(made: Made, folder: Path) -> list[Row]:
    """Bytes of ~/voxels while the robot drives through a map of many voxels, and how soon late listeners have it."""
    parameters = {"map_folder": folder / "voxels", "sensors": "points", **_RELIABLE}
    with (
        _node(VOXELS, folder / "out", parameters) as (_, follower, domain),
        Witness(domain, planar=False) as witness,
        Cubes("early", domain) as early,
    ):
        _go_on(follower, witness, made, SETTLING)
        began = time.monotonic()
        witness.drive(_between(made, SETTLING, SETTLING + STEADY))
        ended = time.monotonic()
        follower.wait("work off the clouds", FOUND, lambda status: status["scans"]["waiting"] == 0, fresh=True)
        time.sleep(2.0)  # the last of them is on the screen
        delays = [_late(domain, number, early) for number in range(LATECOMERS)]
        shown = early.growth()[-1][1]
    return [
        _figure("voxels shown", shown, None, ""),
        _figure("markers while driving", early.bytes_between(began, ended) / (ended - began) / 1e6, 1.0, "MB/s"),
        _figure("a late listener has the map after", median(delays), 2.0, "s"),
        _figure("the latest", max(delays), None, "s"),
    ]  # fmt: skip


_RELIABLE = {"qos.odom.reliability": "reliable", "qos.points.reliability": "reliable"}
"""Of clouds sent by best effort the middleware drops some on a busy machine."""


def _late(domain: int, number: int, early: Cubes) -> float:
    """Seconds from the making of another participant until it has as many cubes as ``early`` has."""
    began = time.monotonic()
    with Cubes(f"late{number}", domain) as late:
        time.sleep(8.0)
    wanted = WHOLE * early.growth()[-1][1]
    return next((when - began for when, cubes in late.growth() if cubes >= wanted), float("inf"))


def _go_on(follower: Follower, witness: Witness, made: Made, seconds: float) -> None:
    """Drive on for ``seconds``: the robot is found in the map, and maps."""
    follower.wait("be ready", START_UP, lambda status: status.get("state") in ("ready", "running"))
    witness.wait()
    witness.drive(_between(made, 0.0, seconds))
    follower.wait("map", FOUND, lambda status: status["counts"].get("keyframes", 0) > made.keyframes)


def _between(made: Made, begin: float, end: float) -> list[tuple[int, Record]]:
    first = made.live[0][0]
    return [(due, record) for due, record in made.live if begin <= (due - first) * 1e-9 < end]


@contextmanager
def _node(scenario: Scenario, out: Path, parameters: Mapping[str, object]) -> Iterator[tuple[Process, Follower, int]]:
    """A node with the settings of ``scenario``, going on from its map where ``parameters`` name the folder."""
    domain = free_domain()
    given = {**scenario.settings, **parameters, "output_folder": out, "checkpoint_period": 0.0}
    given |= {"resume": True} if "map_folder" in parameters else {}
    out.mkdir(exist_ok=True)
    (out / "status.json").unlink(missing_ok=True)
    os.environ |= isolated(domain)  # for the participants of this process
    with Process("node", node_arguments(given), out / "node.log", {}) as node:
        yield node, Follower(node, out / "status.json"), domain
        node.interrupt()
        time.sleep(GIVEN_UP)
        node.interrupt()  # what it would save is of no use


def _p99(seconds: NDArray[np.float64]) -> float:
    """In milliseconds."""
    return 1e3 * float(np.quantile(seconds, 0.99))


def _gaps(control: subprocess.Popen[str]) -> tuple[float, float]:
    """The largest and the 99th percentile [s] that `_CONTROL` met, which ends with this."""
    control.terminate()
    told, _ = control.communicate()
    if not told:
        raise RuntimeError(f"the process that only sleeps told nothing, and ended with code {control.returncode}")
    largest, usual = map(float, told.split())
    return largest, usual


def _figure(what: str, value: float, limit: float | None, unit: str) -> Row:
    return Row("processes", "rates", what, value, None, unit, limit, alone=True)
