"""``python -m dsg_ros simulate BAG``: a robot with a laser in a simulated world, as a recording with exact truth."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from typing_extensions import Doc

from dsg_ros import config
from dsg_ros.errors import UserError
from dsg_ros.io.bagwriter import BagWriter, RunWriter
from dsg_ros.io.learned import write_learned
from dsg_ros.io.records import CloudRecord, FixRecord, OdometryRecord
from dsg_ros.io.trajectories import write_tum
from dsg_ros.progress import progress

START = 1_700_000_000 * 1_000_000_000
"""The simulated clock when the robot sets off: some day in 2023, the same each time."""
WORLD = "world"
"""Frame of the reference."""


@dataclass(frozen=True)
class Options:
    """Drive a robot with a laser through a world that does not exist; record it as a ROS 2 bag.

    A building with pillars, corridors and ramps, a flat office, or a corridor without features. /points of a spinning
    lidar with the time of every point, or /scan of a planar scanner; /odom of wheels that err as they are told to; with
    --receiver.rate /fix of a satellite receiver. The exact pose, as /reference and as a TUM file beside the bag; and a
    file with the calibration that would undo the errors, which run --freeze-theta takes. The same settings make the
    same bag.
    """

    bag: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BAG")]
    """Folder to create for the ROS 2 bag; it must not exist."""
    simulation: Annotated[config.Simulation, tyro.conf.arg(name="")] = config.Simulation()
    reference: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE"), Doc("Exact poses at every scan's stamp (TUM); default: BAG.tum")
    ] = None
    truth: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE"), Doc("True calibration (as learned.yaml); default: BAG.truth.yaml")
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
    truth = options.truth or options.bag.with_name(f"{options.bag.name}.truth.yaml")
    for path, what in ((reference, "reference"), (truth, "true calibration")):
        if path.is_dir():
            raise UserError(f"{path} is a folder; name a file for the {what}")
    from dsg_ros.simulation.robot import Reference, Robot

    began = time.monotonic()
    robot = Robot(options.simulation, START)
    if not robot.sweeps:
        raise UserError("--drive.metres: the drive ends before the first sweep of the laser does")
    poses: dict[int, np.ndarray] = {}
    sweeps = returns = 0
    with BagWriter(options.bag, options.storage, source="simulation") as bag:
        writer = RunWriter(bag, clouds=not robot.planar, reference=True, fixes=bool(options.simulation.receiver.rate))
        with progress(f"simulating {robot.metres:.0f} m", robot.sweeps) as advance:
            for came, record in robot.records():
                if isinstance(record, OdometryRecord):
                    writer.odometry(record, came)
                elif isinstance(record, Reference):
                    writer.reference(record.stamp, record.pose, WORLD, came)
                    poses[record.stamp] = record.pose
                elif isinstance(record, FixRecord):
                    writer.fix(record, "base_link", came)
                else:
                    if isinstance(record, CloudRecord):
                        writer.cloud(record, "base_link", came)
                        returns += len(record.points)
                    else:
                        writer.scan(record, "base_link", came)
                        returns += int(np.isfinite(record.ranges).sum())
                    advance(sweeps := sweeps + 1)
        stamps = sorted(poses)
        write_tum(reference, stamps, np.array([poses[stamp] for stamp in stamps]))
        _write_truth(truth, options.simulation, options.bag.name)
    counts = {"sweeps": sweeps, "points": returns}
    _tell(options, bag, {"reference": reference, "truth": truth}, counts, robot.metres, time.monotonic() - began)
    return 0


def _write_truth(path: Path, simulation: config.Simulation, bag: str) -> None:
    """The calibration as learned.yaml has it; where it changes halfway, what it is then stands in the provenance."""
    from dsg_ros.simulation.truth import true_parameters

    provenance: dict[str, Any] = {"log": bag, "simulation": _settings(simulation)}
    if simulation.wheels.scale_jump:
        after = true_parameters(simulation, jumped=True)
        provenance["second_half"] = {parameter.name: parameter.value for parameter in after}
    write_learned(path, true_parameters(simulation), provenance)


def _settings(simulation: config.Simulation) -> dict[str, bool | int | float | str]:
    return {setting.name: setting.value for setting in config.settings(simulation)}


def _tell(
    options: Options, bag: BagWriter, files: dict[str, Path], counts: dict[str, int], metres: float, seconds: float
) -> None:
    sweeps, points = counts["sweeps"], counts["points"]
    print(f"{options.bag}: {sweeps} sweeps of {points / sweeps:.0f} points, {bag.duration:.1f} s, {metres:.1f} m")
    print(f"{files['reference']}: exact poses; {files['truth']}: the true calibration; {seconds:.1f} s in all")
    if options.json:
        report = {
            "bag": str(options.bag),
            **{name: str(path) for name, path in files.items()},
            "topics": dict(sorted(bag.counts.items())),
            "points": points,
            "metres": metres,
            "duration": bag.duration,
            "settings": _settings(options.simulation),
            "seconds": round(seconds, 3),
        }
        print(json.dumps(report))
