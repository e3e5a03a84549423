"""Relocalisation: scans of a run drawn at random, each found in the run's map without a first guess.

Once in the whole map, which has the scan itself in it, and once without what was seen within `APART` seconds of it:
then only places that the robot came to again are there to be found.  Goals are those of the
whole map.  It takes half an hour, as a map is made anew for each scan.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs import Run, logs_of, output
from benchmarks.table import Row
from dsg_ros.io.map_folder import IN_RUN

TRIALS = 200
APART = 60.0
"""Seconds."""
MISSED = 0.01
"""Share of the scans that may not be found, within 0.2 m and 2 deg, in the whole map."""


def run(folder: Path, names: Sequence[str] | None = None) -> Iterator[list[Row]]:
    """Rows of each of the recordings named, or of intel."""
    for name, log in logs_of(names, "intel"):
        yield list(_told(name, log, folder))


def _told(name: str, log: Path, folder: Path) -> Iterator[Row]:
    run = Run.of(name, log, folder)
    for what, apart in (("whole map", 0.0), (f"without {APART:g} s around", APART)):
        command = [sys.executable, "-m", "dsg_ros", "--quiet", "relocalise", str(run.out / IN_RUN), str(log), "--json"]
        command += ["--trials", str(TRIALS), "--apart", str(apart)]
        said = output(command, expected=(0, 1))  # 1: one was wrong, which a row tells
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        missed, wrong, search = found["trials"] - found["right"], found["wrong"], found["search_seconds"]
        note = f"of {found['trials']}; found by one scan alone {found['by_one_scan']}"
        goal = None if apart else MISSED * found["trials"]
        yield run.row(f"{what}: not found right", missed, "", goal, note=note)
        yield run.row(f"{what}: accepted and wrong", wrong, "", None if apart else 0.0)
        yield run.row(f"{what}: a search, median", search["p50"], "s", note=f"longest {search['p100']:.2f}")
        if found["error_m"]:
            note = f"turn {found['error_deg']['p50']:.2f} deg; 99 % {found['error_m']['p99']:.3f} m"
            yield run.row(f"{what}: error of those found, median", found["error_m"]["p50"], "m", note=note)
