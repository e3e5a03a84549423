"""How long the node takes from its first instruction until it listens: warm, after an installation, with nothing.

Each start is a node of its own, with nothing beside it; one of each kind follows the other, so that what slows the
machine for a while slows all.  The seconds are those until it logs ``active: listening``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.table import Row
from dsg_ros.core.compilation import BUILT_VARIABLE, CACHE_VARIABLE
from dsg_ros.processes import POLL, Failure, Process, free_domain, isolated

ROUNDS = 3
"""How often each kind of start is measured."""
LONGEST = 1200.0
"""Longest wait [s], for a node or for an installation."""
LISTENING = "active: listening"
GOALS = {"warm": 6.0, "first after an installation": 25.0, "nothing compiled anywhere": 25.0}
"""Kinds of start, and in how many seconds the node should listen."""


@dataclass
class Starts:
    """Those of one kind: wall-clock and processor seconds until the node listens."""

    listening: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def start(folder: Path) -> list[Row]:
    """All kinds, in turn."""
    built, words = folder / "built", ["--quiet", "compile", "--into", str(folder / "built")]
    with Process("installation", words, folder / "installation.log", {}) as installation:
        if code := installation.wait(LONGEST):
            raise Failure(f"the installation ended with code {code}\n{installation.tail()}")
    found = {kind: Starts() for kind in GOALS}
    for number in range(ROUNDS):
        cold, first = folder / f"cold{number}", folder / f"first{number}"
        _started(found["nothing compiled anywhere"], {CACHE_VARIABLE: str(cold), BUILT_VARIABLE: ""}, folder)
        _started(found["first after an installation"], {CACHE_VARIABLE: str(first), BUILT_VARIABLE: str(built)}, folder)
        _started(found["warm"], {CACHE_VARIABLE: str(first), BUILT_VARIABLE: str(built)}, folder)
    rows = []
    for kind, starts in found.items():
        rows += [
            _figure(f"{kind}, until it listens", median(starts.listening), GOALS[kind], "s"),
            _figure(f"{kind}, the slowest", max(starts.listening), None, "s"),
            _figure(f"{kind}, processor time of all processes until then", median(starts.processor), None, "s"),
        ]
    return rows


def _started(starts: Starts, environment: Mapping[str, str], folder: Path) -> None:
    """One start more, with the caches that ``environment`` names."""
    began = time.time()
    with Process("node", ["node"], folder / "node.log", {**environment, **isolated(free_domain())}) as node:
        _wait(node, LISTENING)
        starts.processor.append(processor_seconds(node.number))
        starts.listening.append(said(node.output, LISTENING) - began)
        node.interrupt()


def _wait(node: Process, words: str) -> None:
    end = time.monotonic() + LONGEST
    while words not in node.output.read_text(errors="replace"):
        node.check()
        if time.monotonic() > end:
            raise Failure(f"the node did not say {words!r} within {LONGEST:.0f} s\n{node.tail()}")
        time.sleep(POLL)


def said(log: Path, words: str) -> float:
    """When [s] the node logged ``words``: its lines begin ``[INFO] [seconds] ``."""
    line = next(line for line in log.read_text(errors="replace").splitlines() if words in line)
    return float(line.split("[")[2].split("]")[0])


def processor_seconds(root: int) -> float:
    """Processor time [s] so far of the process ``root``, of its children and theirs, also those that have ended."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        parents[int(path.parent.name)] = int(fields[1])
        ticks[int(path.parent.name)] = sum(map(int, fields[11:15]))
    family = {root}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(ticks.get(number, 0) for number in family) / os.sysconf("SC_CLK_TCK")


def _figure(what: str, value: float, goal: float | None, unit: str) -> Row:
    return Row("processes", "start", what, value, None, unit, goal, alone=True)
