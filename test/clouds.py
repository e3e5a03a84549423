"""Clouds of the simulated robot in its building, as frames: few columns and sweeps, for a lap in seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.interface import Frame
from dsg_ros.io.records import CloudRecord
from dsg_ros.log_settings import LIDAR3D
from dsg_ros.simulation.robot import Robot
from dsg_ros.synchroniser import Synchroniser

SIMULATED = {"drive.speed": 2.0, "lidar.columns": 300, "lidar.rate": 4.0}
SETTINGS = config.replace(config.Slam(), {name: value for name, value in LIDAR3D.items() if name != "sensors"})


def drive(metres: float, **simulated: float) -> tuple[list[Frame], NDArray[np.float64]]:
    """Frames of a drive of so many ``metres``, by the synchroniser, and the exact poses (n, 7) at their stamps.

    ``simulated`` are settings of the simulation, with ``__`` for a dot.
    """
    more = {name.replace("__", "."): value for name, value in simulated.items()}
    robot = Robot(config.replace(config.Simulation(), {"drive.metres": metres, **SIMULATED, **more}))
    room, frames = Synchroniser(SETTINGS.input), []
    for _, record in robot.sensed():
        if isinstance(record, CloudRecord):
            mount = record.base_from_sensor
            frames += room.add_scan(record.stamp, record.points, record.times, mount, False, "points", record.frame)
        else:
            frames += room.add_odometry(record.stamp, record.pose)
    frames += room.flush()
    return frames, robot.truth(np.array([frame.stamp for frame in frames]) * 1e-9)
