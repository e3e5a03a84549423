"""What the command for all benchmarks and that for one comparison have in common; imports nothing that takes long."""

from __future__ import annotations

import argparse
from pathlib import Path

COMPARISONS = ("batch", "incremental", "robust", "growth", "window", "derivative", "pcg")
OF_GRAPHS = ("batch", "incremental", "robust", "derivative", "pcg")
"""Those that --graphs has a say in."""
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the comparisons."""
    parser.add_argument("--graphs", nargs="+", metavar="GRAPH", help="only these; city-7k simulates 7000 poses")
    parser.add_argument(
        "--repeats", type=int, default=5, help="times each side runs; less where a run is long, more where short"
    )
    parser.add_argument("--fresh-peers", action="store_true", help="measure anew what GTSAM took, where it was kept")
    parser.add_argument("--no-peers", action="store_true", help="robust: leave out GTSAM's side, which takes minutes")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder of the JSON files")
    parser.add_argument("--figures", type=Path, help="growth: write growth.png and growth.json into this folder")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="growth: numbers of poses")
