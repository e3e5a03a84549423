"""The commands as a user starts them: each time is that of a whole process, against a limit for two idle cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.live import clouds, scans
from benchmarks.measuring import stopwatch
from benchmarks.rates import rates
from benchmarks.start import start
from benchmarks.table import Row
from dsg_ros.core.compilation import BUILT_VARIABLE, CACHE_VARIABLE


def node_imports(folder: Path) -> list[Row]:
    """The node process with all that it imports, as long as it does nothing yet."""
    seconds, _ = timed([sys.executable, "-c", "import dsg_ros.ros.running"], folder)
    return [_figure("node", "interpreter and imports", seconds, 1.0, "s")]


def tutorial(folder: Path) -> list[Row]:
    """The tutorial, compiling everything, then with what the first run left in the cache."""
    command = [sys.executable, "-m", "dsg_ros", "hero", "--json"]
    cold, _ = timed(command, folder)
    warm, _ = timed(command, folder)
    return [_figure("hero", "empty compilation cache", cold, 20.0, "s"), _figure("hero", "warm", warm, 6.0, "s")]


def killian(folder: Path) -> list[Row]:
    """3873 scans of the MIT Killian Court, offline, scored against the published trajectory."""
    from dsg_ros.commands.demo import find_run
    from dsg_ros.io.g2o import write_reference

    log, reference = find_run(), folder / "reference.tum"
    write_reference(log, reference)
    command = [sys.executable, "-m", "dsg_ros", "--quiet", "run", str(log), "--out", str(folder / "killian"), "--json"]
    _, output = timed([*command, "--reference", str(reference)], folder)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return [
        _figure("killian", "seconds after start-up", found["seconds_after_start_up"], 60.0, "s"),
        _figure("killian", "ATE RMSE", found["ate"]["trajectory"], 0.85, "m"),
        _figure("killian", "peak memory", found["peak_memory_bytes"] / 2**30, 1.5, "GiB"),
        _figure("killian", "compilations after warm-up", found["compilations_after_warm_up"], 0, ""),
    ]


PROCESSES: dict[str, Callable[[Path], list[Row]]] = {
    "node": node_imports, "hero": tutorial, "killian": killian, "clouds": clouds, "scans": scans, "rates": rates,
    "start": start,
}  # fmt: skip

RECORDED = {"maps": "maps", "relocalise": "relocating", "keyframes": "keyframes"}
"""Those of recordings, which can be chosen: the module of each, with JAX imported only where one is wanted."""


def recorded(name: str, folder: Path, recordings: Sequence[str] | None) -> Iterator[list[Row]]:
    """Rows of one of `RECORDED`, recording by recording; `UserError` for a recording that it does not know."""
    found: Iterator[list[Row]] = import_module(f"benchmarks.{RECORDED[name]}").run(folder, recordings)
    return found


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Wall-clock seconds and stdout of ``command``, with a compilation cache of its own under ``folder``."""
    environment = os.environ | {CACHE_VARIABLE: str(folder / "cache"), BUILT_VARIABLE: ""}
    seconds, done = stopwatch(
        lambda: subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    )
    return seconds, done.stdout


def _figure(name: str, what: str, value: float, limit: float, unit: str) -> Row:
    return Row("processes", name, what, value, None, unit, limit, alone=True)
