"""The Lego robot of Brenner's course on SLAM: its wheels' ticks, and the motions of its laser by its own scans.

A tick turns a wheel by one degree; 0.349 mm of way are told for it, a wheel of 40 mm, and 150 mm were measured between
the wheels.  The pipeline maps the scans with odometry of these numbers, and `calibrate` is given ticks beside what
the map makes of the laser's motion.  Scans are stamped some 0.4 s later than ticks of the same moment: how much is
found first, as the lag under which both turn alike.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.io.ahead import reading
from dsg_ros.io.records import Topics
from dsg_ros.io.textfile import read_bytes
from dsg_ros.pipeline import Slam

Array = NDArray[np.float64]

FILES = "robot4_motors.txt", "robot4_scan.txt.xz"
"""Of the drive: ticks and scans."""
GAUGE, WHEEL = 0.150, 0.349e-3 * 360 / math.pi
"""Measured gauge, and the told wheels' diameter [m]."""
LASER = 0.030
"""How far the laser stands before the axle [m]."""
BEAM, MOUNTED = 0.006135923151543, -0.06981317
"""Angle [rad] between beams, and of the middle one."""
LAGS = np.arange(0.0, 0.81, 0.05)
SCANS = 5
"""In a step of what is calibrated: about 0.2 m."""
MOVES = 0.25
"""Turn of a wheel [rad] below which a step says nothing."""


def write_tuples(folder: Path, path: Path) -> float:
    """Steps of the drive in ``folder`` as wheel tuples at ``path``; returns the lag of the scans [s]."""
    stamps, turned = ticks(folder / FILES[0])
    with tempfile.TemporaryDirectory(prefix="dsg_ros-bench-") as place:
        log = Path(place) / "lego.log"
        log.write_text(carmen(folder / FILES[1], stamps, turned))
        seen_at, seen = mapped(log)
    # With the base's pose the laser's is known up to where it is mounted, which is calibrated along.
    seen = poses.compose(seen, poses.from_planar(LASER, 0.0, 0.0))
    yaw = np.unwrap(poses.yaw(seen))

    def alike(lag: float) -> float:
        left, right = wheels(stamps, turned, seen_at - lag).T
        return float(np.corrcoef(np.diff(right - left), np.diff(yaw))[0, 1])

    lag = float(max(LAGS, key=alike))
    angles = wheels(stamps, turned, seen_at - lag)
    lines = []
    for first in range(0, len(seen) - SCANS, SCANS):
        last = first + SCANS
        motion, seconds = poses.between(seen[first], seen[last]), seen_at[last] - seen_at[first]
        left, right = angles[last] - angles[first]
        if abs(left) + abs(right) > 2 * MOVES:
            moved = [float(motion[0]), float(motion[1]), float(poses.yaw(motion))]
            step = {"T": seconds, "phi_l": left / seconds, "phi_r": right / seconds, "sm": moved}
            lines.append(json.dumps(step) + "\n")
    path.write_text("".join(lines))
    return lag


def ticks(path: Path) -> tuple[Array, Array]:
    """Stamps (n,) [s], and the angles (n, 2) [rad] by which the left and the right wheel have turned."""
    rows = np.array([line.split()[1:] for line in read_bytes(path).decode().splitlines()], float)
    _, first = np.unique(rows[:, 0], return_index=True)
    return rows[first, 0] / 1e3, np.radians(rows[first][:, [1, 5]])


def wheels(stamps: Array, turned: Array, at: Array) -> Array:
    """The wheels' angles (m, 2) at other times (m,)."""
    return np.stack([np.interp(at, stamps, turned[:, side]) for side in (0, 1)], axis=1)


def carmen(path: Path, stamps: Array, turned: Array) -> str:
    """The scans as a CARMEN log, with odometry of the told gauge and wheels."""
    scans = [line.split()[1:] for line in read_bytes(path).decode().splitlines()]
    times = np.array([float(scan[0]) / 1e3 for scan in scans])
    ways = 0.5 * WHEEL * np.diff(wheels(stamps, turned, times), axis=0, prepend=0.0)
    ways[0] = 0.0
    pose, lines = poses.IDENTITY, []
    for scan, at, (left, right) in zip(scans, times.tolist(), ways, strict=True):
        pose = poses.compose(pose, poses.exp(np.array([0.5 * (left + right), 0, 0, 0, 0, (right - left) / GAUGE])))
        laser = poses.compose(pose, poses.from_planar(LASER, 0.0, 0.0))
        places = " ".join(f"{p[0]:.6f} {p[1]:.6f} {float(poses.yaw(p)):.6f}" for p in (laser, pose))
        count, ranges = len(scan) - 2, " ".join(f"{float(each) / 1e3:.3f}" for each in scan[2:])
        start = MOUNTED - count / 2 * BEAM
        lines.append(
            f"ROBOTLASER1 0 {start:.9f} {count * BEAM:.9f} {BEAM:.12f} 4.0 0.01 0 {count} {ranges} 0 {places} "
            f"0 0 0 0 0 {at:.6f} lego {at:.6f}\n"
        )
    return "".join(lines)


def mapped(log: Path) -> tuple[Array, Array]:
    """Stamps [s] of the scans and the poses (n, 7) of the robot that the pipeline gives them."""
    settings = config.Slam()
    with reading(log, Topics(), settings.input) as stream:
        first = next(stream)
        slam = Slam(settings)
        slam.warm_up(first.planar)
        slam.process(first)
        for frame in stream:
            slam.process(frame)
    result = slam.finish()
    return result.stamps / 1e9, result.trajectory
