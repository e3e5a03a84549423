"""``python -m benchmarks [--json] [NAME...]``: time the commands as a user starts them, against their limits.

Each time is that of a whole process, from its start to its end, unless its name says otherwise.  The exit code is 1 if
a limit is exceeded.  Nothing else should run meanwhile: the limits are for an idle machine with two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A measured ``value`` and the ``limit`` it must not exceed."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def kept(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit


def node_imports(folder: Path) -> list[Figure]:
    """The node process with all that it imports, as long as it does nothing yet."""
    seconds, _ = timed([sys.executable, "-c", "import dsg_ros.ros.running"], folder)
    return [Figure("node: interpreter and imports", seconds, 1.0, "s")]


def tutorial(folder: Path) -> list[Figure]:
    """The tutorial, compiling everything, then with what the first run left in the cache."""
    command = [sys.executable, "-m", "dsg_ros", "hero", "--json"]
    cold, _ = timed(command, folder)
    warm, _ = timed(command, folder)
    return [Figure("hero: empty compilation cache", cold, 20.0, "s"), Figure("hero: warm", warm, 6.0, "s")]


def killian(folder: Path) -> list[Figure]:
    """3873 scans of the MIT Killian Court, offline, scored against the published trajectory."""
    from dsg_ros.commands.demo import find_run
    from dsg_ros.io.g2o import write_reference

    log, reference = find_run(), folder / "reference.tum"
    write_reference(log, reference)
    command = [sys.executable, "-m", "dsg_ros", "--quiet", "run", str(log), "--out", str(folder / "killian"), "--json"]
    _, output = timed([*command, "--reference", str(reference)], folder)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return [
        Figure("killian: seconds after start-up", found["seconds_after_start_up"], 60.0, "s"),
        Figure("killian: ATE RMSE", found["ate"]["trajectory"], 1.2, "m"),
        Figure("killian: peak memory", found["peak_memory_bytes"] / 2**30, 1.5, "GiB"),
        Figure("killian: compilations after warm-up", found["compilations_after_warm_up"], 0, ""),
    ]


BENCHMARKS: dict[str, Callable[[Path], list[Figure]]] = {"node": node_imports, "hero": tutorial, "killian": killian}


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Wall-clock seconds and stdout of ``command``, with a compilation cache of its own under ``folder``."""
    environment = os.environ | {"DSG_ROS_CACHE": str(folder / "cache")}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def main() -> int:
    """Run the benchmarks named on the command line, or all; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    figures: list[Figure] = []
    for name in options.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="dsg_ros-bench-") as folder:
            for figure in BENCHMARKS[name](Path(folder)):
                verdict = "ok" if figure.kept else "TOO MUCH"
                print(f"{figure.name:<40} {figure.value:9.3f} {figure.unit:<4} (limit {figure.limit:g})  {verdict}")
                figures.append(figure)
    if options.json:
        print(json.dumps({figure.name: asdict(figure) for figure in figures}))
    return 0 if all(figure.kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
