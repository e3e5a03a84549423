"""`calibrate` on recordings of robots whose calibration is published, and on KITTI's ground truth.

The Khepera's drives (Censi et al. 2013) come with axle, wheel diameters, laser pose and their covariance.  Deviations
are held against two things: the published, and the scatter of calibrations of resampled drives (a bootstrap over blocks
of neighbouring steps; Kuensch, Annals of Statistics 1989), which needs nobody's model of noise.  KITTI's drives are
judged by the drift that is left under what one of them taught.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import graphs, lego
from benchmarks.log_level import at_level
from benchmarks.table import Row
from dsg_ros.commands._calibrate_motions import Outcome, Settings, calibrate_motions, judge, settings_of
from dsg_ros.errors import UserError
from dsg_ros.io.learned import write_learned
from dsg_ros.io.motion_files import read_motions
from dsg_ros.learning.calibrators.models import DIFF_DRIVE, errors
from dsg_ros.learning.calibrators.windows import Windows

Vector = NDArray[np.float64]

KHEPERA, RESULTS, TUPLES = ("l90", "lstraight"), "_results.json", ".tuple.xz"
"""Drives, and the ends of their files' names: what was published, and the recording."""
KITTI = ("ndt_lidar_odometry", "gt_poses")
"""Folders of the odometry and of the true poses, with a file a drive."""
PUBLISHED = ("axle", "l_diam", "r_diam", "l_x", "l_y", "l_theta")
"""Names in the files of results, in the order of `DIFF_DRIVE`."""
WRONG = 0.1 * np.array([1, -1, 1, -1, 1, 0])
"""How far off wrong starts are, as a share; the laser is turned by `TURNED` [rad] as well."""
TURNED = 1.57
SIZES, PLACES, FACTOR = 0.25, 3.0, 2.0
"""Goals: of axle and diameters [%]; of the laser's pose [published deviations]; of the deviations [ratio]."""
TRIMMED = 0.02
"""Share of the steps that a plain fit leaves out, as the published one did."""
RESAMPLED, NEIGHBOURS = 40, 20
"""Drives that are drawn, in blocks of so many steps."""
EFFECTIVE_GAUGE, GAUGE_OFF = 0.173, 3.0
"""Of the Lego robot [m], and how far from it is allowed [mm]."""
TAUGHT, JUDGED = "00", {"09": 3.7, "10": 4.2, "03": 6.68}
"""KITTI: the drive that teaches; those that are judged, with the drift [%] that may be left."""


def run() -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows of each recording that is at hand; what is left out is told."""
    data = graphs.folder().parent
    calibrations, drives = data / "odometry_calibration", (TAUGHT, *JUDGED)
    recordings = (
        (calibrations / "khepera", khepera, [f"{name}{end}" for name in KHEPERA for end in (RESULTS, TUPLES)]),
        (calibrations / "lego", lego_robot, lego.FILES),
        (data / "kitti_odometry", kitti, [f"{kind}/{drive}.txt.xz" for drive in drives for kind in KITTI]),
    )
    for folder, _, files in recordings:
        check_files(folder, files)
    for folder, measure, _ in recordings:
        if folder.is_dir():
            yield from measure(folder)
        else:
            print(f"left out: {folder} is not there", flush=True)


def check_files(folder: Path, files: Sequence[str]) -> None:
    """`UserError` where a recording's ``folder`` is there and not all of its ``files`` are."""
    missing = [name for name in files if not (folder / name).is_file()]
    if folder.is_dir() and missing:
        wanted = f"{folder}: {', '.join(missing)} missing"
        raise UserError(f"{wanted}: put the whole recording there, or remove the folder to leave it out")


def khepera(folder: Path) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Both drives, each from its closed form and from two wrong starts."""
    for name in KHEPERA:
        told = json.loads((folder / f"{name}{RESULTS}").read_text())
        values = np.array([told[key] for key in PUBLISHED])
        radii_first = np.sqrt(np.diag(told["covariance"]))
        sigmas = np.array([radii_first[2], 2 * radii_first[0], 2 * radii_first[1], *radii_first[3:]])
        motions = read_motions(folder / f"{name}{TUPLES}", None)
        assert motions is not None
        starts = [{}, *(wrong_start(values, sign) for sign in (1, -1))]
        found = [calibrated(settings_of("diff_drive", motions, start)).calibrated for start in starts]
        off = np.abs([each.values - values for each in found]).max(axis=0)
        settings, own = settings_of("diff_drive", motions, {}), found[0].sigmas
        scatter, plain = resampled(settings).std(axis=0, ddof=1), plain_sigmas(settings, values)
        size, place = 100 * (off / values)[:3].max(), (off / sigmas)[3:].max()
        rows = [
            _row(name, "axle and diameters: worst off", size, SIZES, "%", f"from {len(starts)} starts"),
            _row(name, "laser's pose: worst off, published sigmas", place, PLACES),
            _row(name, "sigmas / scatter of resampled drives", apart(own / scatter), FACTOR, note=span(own / scatter)),
            _row(name, "sigmas / published", apart(own / sigmas), FACTOR, note=span(own / sigmas)),
            _row(name, "plain fit's sigmas / published", apart(plain / sigmas), None, note=span(plain / sigmas)),
        ]
        yield (
            rows,
            {
                "recording": name,
                "published": {"values": values.tolist(), "sigmas": sigmas.tolist()},
                "found": [each.values.tolist() for each in found],
                "sigmas": own.tolist(),
                "scatter": scatter.tolist(),
                "plain": plain.tolist(),
            },
        )


def calibrated(settings: Settings) -> Outcome:
    """What `calibrate` makes of a recording; that something is not observable is no news here."""
    with at_level("dsg_ros.commands", logging.ERROR):
        return calibrate_motions(settings)


def wrong_start(values: Vector, sign: int) -> dict[str, float]:
    """By name: every length 10 % off, up or down in turn, and the laser turned."""
    start = values * (1 + sign * WRONG)
    start[-1] += sign * TURNED
    return dict(zip(DIFF_DRIVE.names, start.tolist(), strict=True))


def resampled(settings: Settings) -> Vector:
    """Values (`RESAMPLED`, K) from as many drives, drawn with repetition in blocks of neighbouring steps."""
    rng, windows, found = np.random.default_rng(0), settings.windows, []
    count = len(windows)
    for _ in range(RESAMPLED):
        first = rng.integers(0, count - NEIGHBOURS + 1, -(-count // NEIGHBOURS))
        chosen = (first[:, None] + np.arange(NEIGHBOURS)).ravel()[:count]
        drawn = Windows(windows.inputs[chosen], windows.seconds[chosen], windows.reference[chosen])
        found.append(calibrated(replace(settings, windows=drawn)).calibrated.values)
    return np.array(found)


def plain_sigmas(settings: Settings, values: Vector) -> Vector:
    """Deviations (K,) of a Gaussian fit that leaves out the share `TRIMMED` of steps it explains worst."""
    e, jacobian = errors(DIFF_DRIVE, values, settings.windows)
    worst = (np.abs(e) / np.median(np.abs(e), axis=0)).max(axis=1)
    kept = worst <= np.quantile(worst, 1 - TRIMMED)
    e, jacobian = e[kept], jacobian[kept]
    inverse = np.linalg.inv(e.T @ e / len(e))
    return np.sqrt(np.diag(np.linalg.inv(np.einsum("mik,ij,mjl->kl", jacobian, inverse, jacobian))))


def lego_robot(folder: Path) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """The gauge that makes ticks of the told size turn as the robot did, from the one that was measured."""
    start = {"axle": lego.GAUGE, "left_wheel_diameter": lego.WHEEL, "right_wheel_diameter": lego.WHEEL,
             "laser_x": lego.LASER, "laser_y": 0.0, "laser_yaw": 0.0}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="dsg_ros-bench-") as place:
        path = Path(place) / "lego.tuple"
        lag = lego.write_tuples(folder, path)
        motions = read_motions(path, None)
    assert motions is not None
    settings = settings_of("diff_drive", motions, start, ("left_wheel_diameter", "right_wheel_diameter"))
    found = calibrated(settings).calibrated
    off, sigma = 1e3 * (found.values[0] - EFFECTIVE_GAUGE), 1e3 * found.sigmas[0]
    note = f"{1e3 * found.values[0]:.1f} +- {sigma:.1f} mm ({found.status[0]}), measured 150 mm; scans {lag:.2f} s late"
    row = _row("lego", "effective gauge: off", abs(off), GAUGE_OFF, "mm", note)
    yield [row], {"recording": "lego", "values": found.values.tolist(), "sigmas": found.sigmas.tolist(), "lag": lag}


def kitti(folder: Path) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Drift of other drives under what one taught; nominal drift beside it."""

    def settings(drive: str) -> Settings:
        odometry, truth = (folder / kind / f"{drive}.txt.xz" for kind in KITTI)
        motions = read_motions(odometry, truth)
        assert motions is not None
        return settings_of("linear", motions, {})

    with tempfile.TemporaryDirectory(prefix="dsg_ros-bench-") as place:
        learned = Path(place) / "learned.yaml"
        write_learned(learned, calibrated(settings(TAUGHT)).parameters(keys=True), {})
        for drive, most in JUDGED.items():
            with at_level("dsg_ros.commands", logging.ERROR):
                found = judge(settings(drive), learned).drift
            assert found is not None
            (nominal, turn_before), (left, turn) = found
            note = f"nominal {nominal:.2f} %; {turn_before:.2f} -> {turn:.2f} deg/100 m"
            row = _row(f"KITTI {drive}", f"drift, learned on {TAUGHT}", left, most, "%", note)
            yield [row], {"recording": drive, "nominal": found[0], "learned": found[1]}


def apart(ratios: Vector) -> float:
    """The worst factor, up or down."""
    return float(np.maximum(ratios, 1 / ratios).max())


def span(ratios: Vector) -> str:
    """The least and the largest, as text."""
    return f"{ratios.min():.2f} to {ratios.max():.2f}"


def _row(name: str, what: str, ours: float, goal: float | None, unit: str = "", note: str = "") -> Row:
    return Row("published", name, what, float(ours), None, unit, goal, note, alone=True)
