"""What the command for all benchmarks and that for one comparison have in common; imports nothing that takes long."""

from __future__ import annotations

import argparse
from pathlib import Path

COMPARISONS = (
    "batch",
    "incremental",
    "robust",
    "growth",
    "window",
    "registration",
    "derivative",
    "pcg",
    "calibration",
    "published",
    "gradients",
    "worsened",
    "learned",
    "corrected",
)
UNTIMED = ("calibration", "published", "gradients", "worsened", "learned", "corrected")
"""Those that measure no time: they may use every core."""
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
    drives = parser.add_argument_group("calibration", "a simulated robot that learns its calibration")
    drives.add_argument("--seeds", type=positive, default=20, help="drives, each through its own world (default 20)")
    drives.add_argument("--world", choices=("office", "corridor"), default="office", help="where (default office)")
    drives.add_argument("--metres", type=float, help="length of a drive (default 200, in the corridor 60)")
    drives.add_argument(
        "--told", type=float, default=3.0, help="told deviations of the odometry over the true ones (default 3)"
    )
    drives.add_argument("--jump", type=float, default=0.0, help="share by which the wheels' scale jumps halfway")
    drives.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the pipeline, as of `run`"
    )
    drives.add_argument(
        "--robot", action="append", default=[], metavar="NAME=VALUE", help="a setting of the robot, as of `simulate`"
    )
    drives.add_argument(
        "--fixes", type=float, default=0.0, metavar="M", help="positions with this deviation [m] teach, scans do not"
    )
    drives.add_argument("--fix-rate", type=float, default=5.0, metavar="HZ", help="so many a second (default 5)")
    drives.add_argument(
        "--fix-memory", type=float, default=0.0, metavar="S", help="time constant of their errors (default: white)"
    )
    worse = parser.add_argument_group("recordings", "of real robots")
    worse.add_argument(
        "--recordings",
        nargs="+",
        metavar="NAME",
        help="only these: intel, aces, mit-csail; maps, relocalise and keyframes: killian and fr-clinic too, maps: "
        "hku-balm; maps and relocalise: building; corrected: of the folder",
    )
    worse.add_argument("--worse", nargs="+", metavar="HOW", help="only so, of benchmarks/worsening.py")
    worse.add_argument(
        "--logs", type=Path, metavar="FOLDER", help="corrected: folder of GMapping's logs, as NAME.log.gz"
    )


def positive(text: str) -> int:
    """A number of things."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number
