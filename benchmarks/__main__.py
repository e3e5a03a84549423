"""``python -m benchmarks [NAME...]``: time the commands as a user starts them, and the back end against GTSAM.

node, hero, killian, clouds, scans and rates are whole processes, against their limits.  start times the node until it
listens, warm, after an installation and with nothing compiled.  maps runs real logs and tells every
error beside its goal, relocalise draws scans that are to be found in a map, keyframes tells what a keyframe costs from
the first fifth of a run to the last.  batch, incremental, robust, growth run
this project's solvers and GTSAM's on the same graphs; ratios are ours over GTSAM's.  window times a fixed-lag
smoother's updates, registration a scan's match beside the same in JAX, derivative a vector-Jacobian product over the
solve before it, pcg conjugate gradients over sparse Cholesky.  calibration times nothing: it drives a simulated robot
that learns its calibration, and holds what it has learned to the truth.  Nor does published: it calibrates recorded
robots, beside what was published of them.
worsened maps recordings that were made worse, beside what comes of them as they are.  learned tells what recorded
robots learn of themselves, how soon, and what good it does.  corrected maps logs that GMapping corrected, from the
odometry that it was given.
gradients holds the gradient of every loss to central differences.
Graph files are looked for in the folder that DSG_ROS_GRAPHS names, or beside the project, recordings beside their
folder; simulated graphs always run.
Nothing else may run meanwhile.

The exit code is 1 if a process exceeds its limit or, with --gate, if a figure is over 15 % worse than the stored one or
a stored one was not measured, although its benchmark was asked for and --graphs did not leave it out.  --gate without
names asks for all that something is stored of.
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
from benchmarks.measuring import confined, cores
from benchmarks.options import COMPARISONS, OF_GRAPHS, SIZES, UNTIMED, add_options
from benchmarks.processes import PROCESSES, RECORDED, recorded
from benchmarks.table import Row, from_json, render
from dsg_ros.errors import UserError

NAMES = (*PROCESSES, *RECORDED, *COMPARISONS)


def run_process(name: str, recordings: Sequence[str] | None) -> list[Row]:
    """One of the whole-process figures, those of recordings of the ``recordings`` named; printed."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dsg_ros-bench-") as folder:
        of_all = recorded(name, Path(folder), recordings) if name in RECORDED else [PROCESSES[name](Path(folder))]
        for some in of_all:
            print(render(some), flush=True)
            rows += some
    return rows


def run_comparison(name: str, cores: int, arguments: Sequence[str], out: Path) -> list[Row]:
    """One comparison in a process of its own, on ``cores`` cores; `UserError` where it fails."""
    with confined(cores) as environment:
        done = subprocess.run([sys.executable, "-m", "benchmarks.compare", name, *arguments], env=environment)
    if done.returncode:
        raise UserError(f"{name}: the comparison ended with exit code {done.returncode}; what it said stands above")
    return [from_json(fields) for fields in json.loads((out / f"{name}.json").read_text())["rows"]]


def check(rows: Sequence[Row], names: Sequence[str], options: argparse.Namespace) -> int:
    """Hold the rows of the benchmarks ``names`` against the stored figures; the exit code."""
    stored = baseline.load()

    def wanted(benchmark: str, graph: str) -> bool:
        if benchmark == "growth" and sorted(options.sizes) != sorted(SIZES):
            return False  # its figures are named by their sizes
        left_out = benchmark in OF_GRAPHS and options.graphs and graph not in options.graphs
        return benchmark in names and not left_out

    worse, absent = baseline.regressions(rows, stored), baseline.missing(rows, stored, wanted)
    for line in worse:
        print(f"WORSE: {line}")
    for key in absent:
        print(f"NOT MEASURED: {key}, stored as {stored[key]:.4g}")
    for key in baseline.unchecked(rows, stored):
        print(f"not in the baseline, so not checked: {key}")
    checked = sum(row.key in stored for row in rows)
    print(
        f"gate: {len(worse)} of {checked} figures worse than stored by more than {baseline.SLACK - 1:.0%}, "
        f"{len(absent)} not measured"
    )
    if not checked:
        print("gate: nothing was checked: it is not passed")
    return 1 if worse or absent or not checked else 0


def stored_names() -> list[str]:
    """The benchmarks that something is stored of."""
    stored = {key.split("/")[0] for key in baseline.load()}
    return [name for name in NAMES if name in stored]


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and those of them that a comparison is told."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument(
        "--cores", type=int, help="cores that each side may use in a comparison (default 1, calibration: all)"
    )
    parser.add_argument("--gate", action="store_true", help="fail if a figure is over 15 %% worse than the stored one")
    parser.add_argument("--write-baseline", action="store_true", help="store the figures that were measured")
    add_options(parser)
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if options.figures and options.figures.resolve() == options.out.resolve():
        parser.error("--figures and --out must be different folders: both get a growth.json")
    told = ["--repeats", str(options.repeats), "--out", str(options.out), "--sizes", *map(str, options.sizes)]
    told += ["--fresh-peers"] if options.fresh_peers else []
    told += ["--no-peers"] if options.no_peers else []
    told += ["--figures", str(options.figures)] if options.figures else []
    told += ["--seeds", str(options.seeds), "--world", options.world, "--told", str(options.told)]
    told += ["--jump", str(options.jump), *(["--metres", str(options.metres)] if options.metres is not None else [])]
    told += ["--fixes", str(options.fixes), "--fix-rate", str(options.fix_rate)]
    told += ["--fix-memory", str(options.fix_memory)]
    told += [word for name in ("set", "robot") for value in getattr(options, name) for word in (f"--{name}", value)]
    told += ["--graphs", *options.graphs] if options.graphs else []
    told += ["--recordings", *options.recordings] if options.recordings else []
    told += ["--worse", *options.worse] if options.worse else []
    told += ["--logs", str(options.logs)] if options.logs else []
    return options, told


def main(
    arguments: Sequence[str] | None = None,
    comparison: Callable[[str, int, Sequence[str], Path], list[Row]] = run_comparison,
) -> int:
    """Run the benchmarks named on the command line, or all; the exit code."""
    options, told = parse(arguments)
    rows: list[Row] = []
    try:
        names = options.names or (stored_names() if options.gate else NAMES)
        for name in names:
            allowed = options.cores or (cores() if name in UNTIMED else 1)
            if name in COMPARISONS:
                rows += comparison(name, allowed, told, options.out)
            else:
                rows += run_process(name, options.recordings)
        code = 0 if all(row.reached is not False for row in rows if row.benchmark == "processes") else 1
        if options.gate:
            code = check(rows, names, options) or code
        if options.write_baseline:
            print(f"{baseline.write(rows)} figures stored in {baseline.STORED.name}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({row.key: row.as_json() for row in rows}))
    return code


if __name__ == "__main__":
    sys.exit(main())
