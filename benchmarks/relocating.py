"""Relocalisation: scans of a run drawn at random, each found in the run's map without a first guess.

Once in the whole map, which has the scan itself in it, and once without what was seen within `APART` seconds of it:
then only places that the robot came to again are there to be found.  Goals are those of the
whole map.  It takes half an hour, as a map is made anew for each scan.  Clouds are a simulated lidar's; what stands for
the places left out is another day, with other furniture.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs import Run, logs_of, output
from benchmarks.table import Row
from dsg_ros import poses
from dsg_ros.io.map_folder import IN_RUN
from dsg_ros.io.trajectories import read_tum, write_tum

TRIALS = 200
APART = 60.0
"""Seconds."""
MISSED = 0.01
"""Share of the scans that may not be found, within 0.2 m and 2 deg, in the whole map."""
BUILDING = "building"
"""Clouds in place of a recording: simulated, as in `benchmarks.maps`."""


def run(folder: Path, names: Sequence[str] | None = None) -> Iterator[list[Row]]:
    """Rows of each of the recordings named, or of intel."""
    recorded = [name for name in names or () if name != BUILDING]
    if recorded or not names:
        for name, log in logs_of(recorded, "intel"):
            yield list(_of_log(name, log, folder))
    if BUILDING in (names or ()):
        yield list(_of_clouds(folder))


def _of_log(name: str, log: Path, folder: Path) -> Iterator[Row]:
    run = Run.of(name, log, folder)
    yield from _told(run, log, "whole map", goal=True)
    yield from _told(run, log, f"without {APART:g} s around", "--apart", str(APART))


def _of_clouds(folder: Path) -> Iterator[Row]:
    """Sweeps of the drive that made the map, and of one on another day: the same way, and other furniture."""
    one, other = folder / "one_day", folder / "another"
    for day, bag in enumerate((one, other)):
        output([sys.executable, "-m", "dsg_ros", "--quiet", "simulate", str(bag), "--seed", str(day)])
    run = Run.of(BUILDING, one, folder)
    yield from _told(run, one, "whole map", goal=True)
    stamps, truth = read_tum(other.with_name(f"{other.name}.tum"))
    in_map = folder / "another_in_map.tum"
    write_tum(in_map, stamps, poses.between(truth[0], truth))
    yield from _told(run, other, "other furniture", "--truth", str(in_map))


def _told(run: Run, log: Path, what: str, *options: str, goal: bool = False) -> Iterator[Row]:
    command = [sys.executable, "-m", "dsg_ros", "--quiet", "relocalise", str(run.out / IN_RUN), str(log), "--json"]
    said = output([*command, "--trials", str(TRIALS), *options], expected=(0, 1))  # 1: one was wrong: a row tells
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    missed, wrong, search = found["trials"] - found["right"], found["wrong"], found["search_seconds"]
    note = f"of {found['trials']}; found by one scan alone {found['by_one_scan']}"
    yield run.row(f"{what}: not found right", missed, "", MISSED * found["trials"] if goal else None, note=note)
    yield run.row(f"{what}: accepted and wrong", wrong, "", 0.0 if goal else None)
    yield run.row(f"{what}: a search, median", search["p50"], "s", note=f"longest {search['p100']:.2f}")
    if found["error_m"]:
        note = f"turn {found['error_deg']['p50']:.2f} deg; 99 % {found['error_m']['p99']:.3f} m"
        yield run.row(f"{what}: error of those found, median", found["error_m"]["p50"], "m", note=note)
