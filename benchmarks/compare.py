"""``python -m benchmarks.compare NAME ...``: one comparison with GTSAM, in a process of its own.

`benchmarks.__main__` starts it on as many cores as both sides may use, which must be settled before NumPy is imported.
Rows are printed as they come, and written with all that stands behind them to ``FOLDER/NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks import (
    batch,
    calibration,
    corrected,
    derivative,
    gradients,
    graphs,
    growth,
    incremental,
    learned,
    pcg,
    published,
    registration,
    robust,
    window,
    worsened,
)
from benchmarks.growth_figure import draw_growth
from benchmarks.measuring import cores, machine, version
from benchmarks.options import COMPARISONS, UNTIMED, add_options
from benchmarks.peer_cache import PeerCache
from benchmarks.peers_gtsam import gtsam
from benchmarks.table import Row, render
from dsg_ros.core.compilation import enable_cache
from dsg_ros.errors import UserError
from dsg_ros.io import atomic
from dsg_ros.report.figures.style import to_png

GRAPHS = {
    "batch": batch.GRAPHS,
    "incremental": incremental.GRAPHS,
    "robust": robust.GRAPHS,
    "growth": (),
    "window": (),
    "registration": (),
    "derivative": derivative.GRAPHS,
    "pcg": pcg.GRAPHS,
    "calibration": (),
    "published": (),
    "gradients": (),
    "worsened": (),
    "learned": (),
    "corrected": (),
}

Part = tuple[list[Row], dict[str, Any]]


def available(names: Sequence[str]) -> Iterator[str]:
    """The graphs that are at hand; what is left out, and why, is told."""
    for name in names:
        try:
            graphs.load(name)
        except UserError as error:
            print(f"left out: {error}", flush=True)
        else:
            yield name


def parts(name: str, options: argparse.Namespace) -> Iterable[Part]:
    """The comparison ``name``, graph by graph."""
    if name == "window":
        return window.run()
    if name == "registration":
        return registration.run(options.repeats)
    if name == "calibration":
        return calibration.run(options)
    if name == "published":
        return published.run()
    if name == "gradients":
        return gradients.run()
    if name == "worsened":
        return worsened.run(options.recordings, options.worse)
    if name == "learned":
        return learned.run(options.recordings)
    if name == "corrected":
        return corrected.run(options.logs, options.recordings, options.worse)
    chosen = list(available(options.graphs or GRAPHS[name]))
    if name == "batch":
        return (([row], detail) for row, detail in batch.run(chosen, options.repeats))
    if name == "derivative":
        return derivative.run(chosen, options.repeats)
    if name == "pcg":
        return pcg.run(chosen, options.repeats)
    if name == "robust" and options.no_peers:
        return robust.run(chosen, None)
    cache = PeerCache(options.out / "peers.json", options.fresh_peers)
    if name == "growth":
        return growth.run(cache, options.sizes)
    return (incremental.run if name == "incremental" else robust.run)(chosen, cache)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one comparison; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("name", choices=COMPARISONS)
    add_options(parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        if options.name not in UNTIMED:
            gtsam()
        options.out.mkdir(parents=True, exist_ok=True)
        enable_cache()
        sides = f"for each side; GTSAM {version('gtsam')} has no TBB: one thread"
        print(f"{options.name}: {cores()} core(s) {'' if options.name in UNTIMED else sides}".rstrip(), flush=True)
        rows: list[Row] = []
        details: list[dict[str, Any]] = []
        for some, detail in parts(options.name, options):
            print(render(some), flush=True)
            rows += some
            details.append(detail)
        write(options, rows, details)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def write(options: argparse.Namespace, rows: Sequence[Row], details: Sequence[dict[str, Any]]) -> None:
    """The JSON file, and the growth's figure where it is wanted."""
    found = {
        "machine": machine(),
        "cores": cores(),
        "versions": {name: version(name) for name in ("gtsam", "numpy", "jax", "numba")},
        "rows": [row.as_json() for row in rows],
        "details": list(details),
    }
    atomic.write_bytes(options.out / f"{options.name}.json", json.dumps(found, indent=1).encode())
    if options.name == "growth" and options.figures is not None:
        options.figures.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(options.figures / "growth.png", to_png(draw_growth(details)))
        curves = {"versions": found["versions"], "cores": found["cores"], "curves": list(details)}
        atomic.write_bytes(options.figures / "growth.json", (json.dumps(curves, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
