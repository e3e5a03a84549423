"""``python -m dsg_ros simulate BAG``: a robot with a 3D lidar in a building, as a recording with exact truth."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from typing_extensions import Doc

from dsg_ros import config
from dsg_ros.errors import UserError
from dsg_ros.io.bagwriter import BagWriter, RunWriter
from dsg_ros.io.records import CloudRecord, OdometryRecord
from dsg_ros.io.trajectories import write_tum
from dsg_ros.progress import progress

START = 1_700_000_000 * 1_000_000_000
"""The simulated clock when the robot sets off: some day in 2023, the same each time."""
WORLD = "world"
"""Frame of the reference."""


@dataclass(frozen=True)
class Options:
    """Drive a robot with a 3D lidar through a building that does not exist; record it as a ROS 2 bag.

    A hall with pillars and a corridor with two ramps; /points of a spinning lidar with the time of every point; /odom
    of wheels that err as they are told to; the exact pose, as /reference and as a TUM file beside the bag. The same
    settings make the same bag.
    """

    bag: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BAG")]
    """Folder to create for the ROS 2 bag; it must not exist."""
    simulation: Annotated[config.Simulation, tyro.conf.arg(name="")] = config.Simulation()
    reference: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE"), Doc("Exact poses at every scan's stamp (TUM); default: BAG.tum")
    ] = None
    storage: Annotated[Literal["mcap", "sqlite3"], Doc("Storage plugin of the bag")] = "mcap"
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


def main(options: Options) -> int:
    """Simulate; 0 when bag and reference are complete."""
    try:
        config.check_all(options.simulation)
    except config.ConfigError as error:
        raise UserError(f"--{error}") from error
    reference = options.reference or options.bag.with_name(f"{options.bag.name}.tum")
    if reference.is_dir():
        raise UserError(f"{reference} is a folder; name a file for the reference")
    from dsg_ros.simulation.robot import Reference, Robot

    began = time.monotonic()
    robot = Robot(options.simulation, START)
    if not robot.sweeps:
        raise UserError("--drive.laps: the drive ends before the first sweep of the lidar does")
    poses: dict[int, np.ndarray] = {}
    points = 0
    with BagWriter(options.bag, options.storage, source="simulation") as bag:
        writer = RunWriter(bag, clouds=True, reference=True)
        with progress(f"simulating {robot.metres:.0f} m", robot.sweeps) as advance:
            for came, record in robot.records():
                if isinstance(record, OdometryRecord):
                    writer.odometry(record)
                elif isinstance(record, CloudRecord):
                    writer.cloud(record, "base_link", came)
                    points += len(record.points)
                    advance(bag.counts["/points"])
                elif isinstance(record, Reference):
                    writer.reference(record.stamp, record.pose, WORLD, came)
                    poses[record.stamp] = record.pose
        stamps = sorted(poses)
        write_tum(reference, stamps, np.array([poses[stamp] for stamp in stamps]))
    _tell(options, bag, reference, robot.metres, points, time.monotonic() - began)
    return 0


def _tell(options: Options, bag: BagWriter, reference: Path, metres: float, points: int, seconds: float) -> None:
    clouds = bag.counts["/points"]
    print(f"{options.bag}: {clouds} clouds of {points / clouds:.0f} points, {bag.duration:.1f} s, {metres:.1f} m")
    print(f"{reference}: exact poses; {seconds:.1f} s in all")
    if options.json:
        report = {
            "bag": str(options.bag),
            "reference": str(reference),
            "topics": dict(sorted(bag.counts.items())),
            "points": points,
            "metres": metres,
            "duration": bag.duration,
            "settings": {setting.name: setting.value for setting in config.settings(options.simulation)},
            "seconds": round(seconds, 3),
        }
        print(json.dumps(report))
