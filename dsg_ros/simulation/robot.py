"""A robot's drive through the building, as the records that a recording of it would hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.io.records import CloudRecord, OdometryRecord
from dsg_ros.simulation.building import building, way
from dsg_ros.simulation.route import Schedule
from dsg_ros.simulation.sensors import MOUNT, Lidar, wheel_odometry

Array = NDArray[np.float64]

ACCELERATION = 0.5
"""Of the robot, at both ends of its drive [m/s^2]."""
STREAM_ODOMETRY, STREAM_LIDAR = 1, 2
"""Random numbers are drawn by subject, and by sweep: how long the drive is changes none of what came before."""
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Reference:
    """The exact ``pose`` (7,) of the base in world at ``stamp`` [ns]."""

    stamp: int
    pose: Array


class Robot:
    """Drives ``settings.drive.laps`` around the building, its clock at ``start`` [ns] when it sets off.

    The same settings give the same numbers.
    """

    def __init__(self, settings: config.Simulation, start: int = 0) -> None:
        drive = settings.drive
        self._settings, self._start, self._route = settings, start, way()
        self.metres = drive.laps * self._route.length
        """Length of the drive, in the plane."""
        self._schedule = Schedule(self.metres, drive.speed, ACCELERATION)
        self._lidar = Lidar(settings.lidar, building(settings.seed))
        self._sweep_time = 1.0 / settings.lidar.rate
        self.sweeps = int(self._schedule.duration / self._sweep_time)
        """How many sweeps are complete at the end of the drive."""

    def truth(self, seconds: Array) -> Array:
        """Exact poses (n, 7) of the base in world, ``seconds`` (n,) after it set off."""
        return self._route.at(self._schedule.travelled(seconds))

    def records(self) -> Iterator[tuple[int, OdometryRecord | CloudRecord | Reference]]:
        """Everything in the order it becomes known, with the time [ns] when it does.

        A cloud has the stamp of its sweep's beginning and comes at its end, after the odometry and the reference of
        all that time.  References are at the stamps of the odometry and of the clouds.
        """
        wheels, rate = self._settings.wheels, self._settings.wheels.rate
        # One sample more than the sweeps last: the last of them is spanned, too.
        ticks = np.arange(int(np.ceil(self.sweeps * self._sweep_time * rate)) + 2) / rate
        truth = self.truth(ticks)
        odometry = wheel_odometry(wheels, truth, self._random(STREAM_ODOMETRY))
        due = [(self._stamp(t), 0, k) for k, t in enumerate(ticks.tolist())]
        due += [(self._stamp((k + 1) * self._sweep_time), 1, k) for k in range(self.sweeps)]
        for time, cloud, k in sorted(due):
            if cloud:
                begin = k * self._sweep_time
                yield time, Reference(self._stamp(begin), self.truth(np.array([begin]))[0])
                yield time, self.cloud(k)
            else:
                yield time, OdometryRecord(time, odometry[k], "odom", "base_link")
                yield time, Reference(time, truth[k])

    def cloud(self, number: int) -> CloudRecord:
        """Sweep ``number`` of the drive."""
        begin = number * self._sweep_time
        sweep = self._lidar.sweep(self.truth, begin, self._random(STREAM_LIDAR, number))
        return CloudRecord(self._stamp(begin), sweep.points, sweep.times, "lidar", MOUNT)

    def _stamp(self, seconds: float) -> int:
        return self._start + round(seconds * _SECOND)

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._settings.seed, *stream])
