"""``python -m benchmarks [NAME...]``: time the commands as a user starts them, and the back end against GTSAM.

node, hero and killian are whole processes, against their limits.  batch, incremental, robust and growth run this
project's solvers and GTSAM's on the same graphs; ratios are ours over GTSAM's.  window times a fixed-lag smoother's
updates, derivative a vector-Jacobian product over the solve before it.  Graph files are looked for in the folder that
DSG_ROS_GRAPHS names, or beside the project; simulated graphs always run.  Nothing else may run meanwhile.

The exit code is 1 if a process exceeds its limit or, with --gate, if a ratio is over 15 % worse than the stored one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import baseline
from benchmarks.measuring import confined
from benchmarks.options import COMPARISONS, add_options
from benchmarks.processes import PROCESSES
from benchmarks.table import Row, from_json, render
from dsg_ros.errors import UserError

NAMES = (*PROCESSES, *COMPARISONS)


def run_process(name: str) -> list[Row]:
    """One of the whole-process figures; printed."""
    with tempfile.TemporaryDirectory(prefix="dsg_ros-bench-") as folder:
        rows = PROCESSES[name](Path(folder))
    print(render(rows), flush=True)
    return rows


def run_comparison(name: str, cores: int, arguments: Sequence[str], out: Path) -> list[Row]:
    """One comparison in a process of its own, on ``cores`` cores; `UserError` where it fails."""
    with confined(cores) as environment:
        done = subprocess.run([sys.executable, "-m", "benchmarks.compare", name, *arguments], env=environment)
    if done.returncode:
        raise UserError(f"{name}: the comparison ended with exit code {done.returncode}; what it said stands above")
    return [from_json(fields) for fields in json.loads((out / f"{name}.json").read_text())["rows"]]


def check(rows: Sequence[Row]) -> int:
    """Hold the rows against the stored ratios; the exit code."""
    stored = baseline.load()
    worse = baseline.regressions(rows, stored)
    for line in worse:
        print(f"WORSE: {line}")
    for key in baseline.unchecked(rows, stored):
        print(f"not in the baseline, so not checked: {key}")
    print(f"gate: {len(worse)} of {len(stored)} stored ratios worse by more than {baseline.SLACK - 1:.0%}")
    return 1 if worse else 0


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and those of them that a comparison is told."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--cores", type=int, default=1, help="cores that each side may use in a comparison (default 1)")
    parser.add_argument("--gate", action="store_true", help="fail if a ratio is over 15 %% worse than the stored one")
    parser.add_argument("--write-baseline", action="store_true", help="store the ratios that were measured")
    add_options(parser)
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    told = ["--repeats", str(options.repeats), "--out", str(options.out), "--sizes", *map(str, options.sizes)]
    told += ["--fresh-peers"] if options.fresh_peers else []
    told += ["--figures", str(options.figures)] if options.figures else []
    told += ["--graphs", *options.graphs] if options.graphs else []
    return options, told


def main(
    arguments: Sequence[str] | None = None,
    comparison: Callable[[str, int, Sequence[str], Path], list[Row]] = run_comparison,
) -> int:
    """Run the benchmarks named on the command line, or all; the exit code."""
    options, told = parse(arguments)
    rows: list[Row] = []
    try:
        for name in options.names or NAMES:
            rows += comparison(name, options.cores, told, options.out) if name in COMPARISONS else run_process(name)
        code = 0 if all(row.reached is not False for row in rows if row.benchmark == "processes") else 1
        if options.gate:
            code = check(rows) or code
        if options.write_baseline:
            print(f"{baseline.write(rows)} ratios stored in {baseline.STORED.name}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({row.key: row.as_json() for row in rows}))
    return code


if __name__ == "__main__":
    sys.exit(main())
