"""Logs that another SLAM system corrected, mapped from the odometry that it started with: nothing is tuned on them.

GMapping's logs (``gfs2log``) are what is left of many recordings of the Radish repository: for each scan that it took
in, about one a metre, the corrected pose; between two scans ODOM lines, from the corrected pose of the former on as
the odometry went, with the noise that its particles drew.  Chained, these are the odometry that it was given, and the
corrected poses are a reference, not the truth: they are good to some centimetres within a room.  At one scan a metre
everything is harder than for a robot's own scans: half of each is new.

A folder of thirteen lies in the data of Schaefer et al., "A Maximum Likelihood Approach to Extract Polylines from 2-D
Laser Range Scans", IROS 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import Row
from benchmarks.worsened import ALARMS, mapped
from benchmarks.worsening import Recording, worsened
from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.carmen import parse_flaser
from dsg_ros.io.records import ScanRecord
from dsg_ros.io.textfile import read_bytes
from dsg_ros.report.derived import metres_driven
from dsg_ros.report.evaluation import Track, score

PERIOD = 200_000_000
"""Nanoseconds from one ODOM line to the next where the log's stamps have no such digits."""
RISING = 0.98
"""Share of stamps that must be later than the one before, for stamps to be believed."""

Array = NDArray[np.float64]


def run(
    folder: Path | None, names: list[str] | None, ways: list[str] | None
) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """A row for each log of ``folder``, or those of the ``names``: as it is, and made worse in the ``ways`` named."""
    if folder is None:
        raise UserError("corrected: name the folder of the logs with --logs")
    paths = {path.name.split(".")[0].removesuffix("-corrected"): path for path in sorted(folder.glob("*.log*"))}
    if unknown := set(names or ()) - set(paths):
        raise UserError(f"{folder}: no logs {', '.join(sorted(unknown))}; there are {', '.join(paths) or 'none'}")
    for name in names or paths:
        recording, reference = uncorrected(paths[name])
        for how in ("as it is", *(ways or ())):
            taken = recording if how == "as it is" else worsened(recording, how)
            yield _told(name, how, taken, reference)


def uncorrected(path: Path) -> tuple[Recording, Track]:
    """The recording behind a corrected log, with its odometry chained, and the corrected poses."""
    scans: list[ScanRecord] = []
    stamps, odometry, corrected = [], [], []
    lines, told, here = 0, poses.IDENTITY, None
    for line in read_bytes(path).split(b"\n"):
        words = line.split()
        if not words or words[0] not in (b"ODOM", b"FLASER"):
            continue
        if words[0] == b"ODOM":
            pose, lines = poses.from_planar(*map(float, words[1:4])), lines + 1
            told = told if here is None else poses.compose(told, poses.between(here, pose))
        else:
            seconds, words[-3] = float(words[-3]), b"0"  # some have six digits and an exponent: no stamp for a scan
            record, scan = parse_flaser(words, (0.0, 0.0, 0.0))
            pose = record.pose
            scans.append(scan)
            stamps.append((round(seconds * 1e9), lines * PERIOD))
            odometry.append(told)
            corrected.append(pose)
        here = pose
    if len(scans) < 3:
        raise UserError(f"{path}: {len(scans)} FLASER lines: no corrected log")
    own, counted = np.array(stamps).T
    when = own if (np.diff(own) > 0).mean() > RISING else counted
    later = np.concatenate([[True], when[1:] > np.maximum.accumulate(when)[:-1]])
    first = scans[0]
    recording = Recording(
        path.name, when, when, np.array(odometry), np.array([scan.ranges for scan in scans]),
        first.angle_min, first.angle_increment, poses.IDENTITY,
    )  # fmt: skip
    return recording.some(later), Track(when[later], np.array(corrected)[later])


def _told(name: str, how: str, recording: Recording, reference: Track) -> tuple[list[Row], dict[str, Any]]:
    outcome = mapped(recording)
    final = score(Track(outcome.stamps, outcome.final), reference)
    try:
        dead = score(Track(recording.recorded, recording.odometry), reference).ate_rmse
    except UserError:  # it never moves
        dead = None
    length = float(metres_driven(reference.poses)[-1])
    alarms = "".join(f", {alarm} {outcome.counts[alarm]}" for alarm in ALARMS if outcome.counts[alarm])
    note = f"{len(reference.stamps)} scans, {length:.0f} m, {len(outcome.closures)} closures{alarms}"
    row = Row("corrected", name, how, final.ate_rmse, dead, "m", None, note)
    return [row], {
        "recording": name, "worse": how, "ate": final.ate_rmse, "ate_max": final.ate_max, "odometry": dead,
        "metres": length, "closures": len(outcome.closures), "counts": dict(outcome.counts),
        "learned": {p.name: p.value for p in outcome.parameters if p.status == "learned"},
    }  # fmt: skip
