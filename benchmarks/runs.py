"""Recordings that are mapped by ``dsg_ros run`` as a user starts it: where they lie, and what a run of one came to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import graphs
from benchmarks.measuring import stopwatch
from benchmarks.table import Row
from dsg_ros.errors import UserError

TRACKS = {"final": "trajectory", "causal": "trajectory_causal", "live": "trajectory_live"}
SCORES = {"final": "trajectory", "causal": "causal", "live": "live"}
"""The same as the report's evaluation names them."""
SCORER = Path("tools") / "relations_error.py"
"""Beside the folder of the data."""
LOGS = {
    "intel": "intel.clf.bz2",
    "aces": "aces.clf.bz2",
    "mit-csail": "mit-csail.clf.bz2",
    "fr-clinic": "fr-clinic_robotlaser.clf.bz2",
}
"""Files in the folder of recordings."""
KILLIAN = "killian"


def recordings() -> Path:
    """Where recordings are looked for."""
    return graphs.folder().parent / "relations_benchmark"


def scorer() -> Path:
    """The program that scores relations."""
    return graphs.folder().parents[1] / SCORER


def there(*paths: Path) -> bool:
    """Whether all are; said where one is not."""
    missing = [path for path in paths if not path.exists()]
    for path in missing:
        print(f"left out: {path} is not there", flush=True)
    return not missing


def log_of(name: str) -> Path:
    """The recording of that name, of `LOGS` or `KILLIAN`; `UserError` for another, and where it is missing."""
    from dsg_ros.commands.demo import find_run

    if name == KILLIAN:
        return find_run()
    if name not in LOGS:
        raise UserError(f"no recording {name}; there are {', '.join((*LOGS, KILLIAN))}")
    if not (path := recordings() / LOGS[name]).is_file():
        raise UserError(f"{path} is not there")
    return path


def logs_of(names: Sequence[str] | None, default: str) -> Iterator[tuple[str, Path]]:
    """The recordings named, `UserError` where one is missing; or the ``default`` one, left out where it is."""
    if names or there(recordings() / LOGS[default]):
        for name in names or (default,):
            yield name, log_of(name)


@dataclass(frozen=True)
class Run:
    """The folder ``out`` of a run of a log, what it ``told`` and how long the whole process took, by run."""

    name: str
    out: Path
    told: Mapping[str, Any]
    seconds: Sequence[float]

    @staticmethod
    def of(name: str, path: Path, folder: Path, reference: Path | None = None, runs: int = 1) -> Run:
        """``dsg_ros run`` of the log at ``path``, so many times, each in a process of its own."""
        out = folder / name
        command = [sys.executable, "-m", "dsg_ros", "--quiet", "run", str(path), "--out", str(out), "--json"]
        command += [] if reference is None else ["--reference", str(reference)]
        done = [stopwatch(lambda: output(command)) for _ in range(runs)]
        return Run(name, out, json.loads(done[-1][1].splitlines()[-1]), [seconds for seconds, _ in done])

    def row(
        self, what: str, value: float, unit: str, goal: float | None = None, peer: float | None = None, note: str = ""
    ) -> Row:
        """A figure that counts alone."""
        return Row("processes", self.name, what, value, peer, unit, goal, note, alone=True)

    def whole(self, goal: float | None = None) -> Row:
        """The median of the times that the whole process took."""
        told = f"median of {len(self.seconds)}, " if len(self.seconds) > 1 else ""
        start = self.told["seconds"]["start_up"]
        note = f"{told}start-up ({start:.1f} s) and files included; {self.told['scans']} scans"
        return self.row("whole run", median(self.seconds), "s", goal, note=note)

    def scores(self) -> Mapping[str, Any]:
        """Of its trajectories against the reference that it was given; `UserError` where they could not be told."""
        evaluation = json.loads((self.out / "report.json").read_text())["evaluation"]
        if evaluation["error"]:
            raise UserError(f"{self.name}: {evaluation['error']}")
        found: Mapping[str, Any] = evaluation["scores"]
        return found

    def ate(self, goals: Mapping[str, float]) -> Iterator[Row]:
        """Against the reference that it was given."""
        scores = self.scores()
        for what, name in SCORES.items():
            ate, dead = (scores[each]["ate_rmse_m"] for each in (name, "odometry"))
            yield self.row(f"ATE RMSE, {what}", ate, "m", goals.get(what), dead)


def output(command: Sequence[str], expected: Sequence[int] = (0,)) -> str:
    """Of a process; `UserError` where its exit code is none of the ``expected``."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode not in expected:
        raise UserError(f"{' '.join(command)}\nended with exit code {done.returncode}; what it said stands above")
    return done.stdout
