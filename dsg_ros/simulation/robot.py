"""A robot's drive through its world, as the records that a recording of it would hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.geodesy import LocalFrame
from dsg_ros.io.records import CloudRecord, FixRecord, OdometryRecord, ScanRecord
from dsg_ros.simulation.route import Schedule
from dsg_ros.simulation.sensors import MOUNT, NEAREST_SCANNED, Lidar, Scanner, mounted
from dsg_ros.simulation.wheels import wheel_odometry
from dsg_ros.simulation.worlds import world

Array = NDArray[np.float64]

ACCELERATION = 0.5
"""Of the robot, at both ends of its drive and of its arcs [m/s^2]."""
STREAM_ODOMETRY, STREAM_LASER, STREAM_FIXES = 1, 2, 3
"""Random numbers are drawn by subject, and by sweep: how long the drive is changes none of what came before."""
ANTENNA: Array = np.array([0.2, 0.1, 1.0, 0.0, 0.0, 0.0, 1.0])
"""Of the satellite receiver, in the base."""
PLACE = LocalFrame([48.0, 11.0, 500.0])
"""On the earth, of the origin of every world, whose x axis points east."""
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Reference:
    """The exact ``pose`` (7,) of the base in world at ``stamp`` [ns]."""

    stamp: int
    pose: Array


Record = OdometryRecord | CloudRecord | ScanRecord | Reference | FixRecord


class Robot:
    """Drives along the way of its world, its clock at ``start`` [ns] when it sets off; `UserError` where that way is
    shorter than ``settings.drive.metres``.

    The same settings give the same numbers.
    """

    def __init__(self, settings: config.Simulation, start: int = 0) -> None:
        drive, place = settings.drive, world(settings)
        self._settings, self._start, self._way = settings, start, place.way
        self.metres = place.metres(drive.metres)
        """Length of the drive, in the plane."""
        self._schedule = Schedule(place.way, self.metres, drive.speed, drive.turn_rate, ACCELERATION)
        sensor = place.sensor if settings.sensor == "auto" else settings.sensor
        self._laser: Lidar | Scanner
        if sensor == "lidar":
            self._laser = Lidar(settings.lidar, place.scene, mounted(settings.mounting))
            self._sweep_time = 1.0 / settings.lidar.rate
        else:
            self._laser = Scanner(settings.scanner, place.scene, mounted(settings.mounting))
            self._sweep_time = 1.0 / settings.scanner.rate
        self.planar = sensor == "scanner"
        """Whether it has the planar scanner, and not the lidar."""
        self.sweeps = int(self._schedule.duration / self._sweep_time)
        """How many sweeps are complete at the end of the drive."""

    def truth(self, seconds: Array) -> Array:
        """Exact poses (n, 7) of the base in world, ``seconds`` (n,) after it set off."""
        return self._way.at(self._schedule.travelled(seconds))

    def records(self, begin: float = -math.inf, end: float = math.inf) -> Iterator[tuple[int, Record]]:
        """Everything in the order it becomes known, with the time [ns] when it does; only what becomes known from
        ``begin`` until before ``end`` [s] after it set off.

        A scan or cloud has the stamp of its sweep's beginning and comes at its end, after the odometry and the
        reference of all that time.  References are at the times of the odometry and at the beginnings of sweeps.  A fix
        is known when it is measured.
        """
        wheels = self._settings.wheels
        offset = round(wheels.time_offset * _SECOND)
        # Stamps must span the first sweep and the last: with an offset they begin earlier, or go on for longer.
        first = -int(np.ceil(max(0.0, wheels.time_offset) * wheels.rate))
        last = int(np.ceil((self.sweeps * self._sweep_time + max(0.0, -wheels.time_offset)) * wheels.rate)) + 2
        ticks = np.arange(first, last) / wheels.rate
        truth = self.truth(ticks)
        odometry = wheel_odometry(wheels, truth, self._random(STREAM_ODOMETRY), 0.5 * self.metres)
        due = [(self._stamp(t), 0, k) for k, t in enumerate(ticks.tolist())]
        due += [(self._stamp((k + 1) * self._sweep_time), 1, k) for k in range(self.sweeps)]
        fixes = self._fixes()
        due += [(fix.stamp, 2, k) for k, fix in enumerate(fixes)]
        for time, kind, k in sorted(due):
            if not begin <= (time - self._start) / _SECOND < end:
                continue
            if kind == 2:
                yield time, fixes[k]
            elif kind == 1:
                began = k * self._sweep_time
                yield time, Reference(self._stamp(began), self.truth(np.array([began]))[0])
                yield time, self.sweep(k)
            else:
                yield time, OdometryRecord(time + offset, odometry[k], "odom", "base_link")
                yield time, Reference(time, truth[k])

    def sensed(
        self, begin: float = -math.inf, end: float = math.inf
    ) -> Iterator[tuple[int, OdometryRecord | CloudRecord | ScanRecord]]:
        """Of `records` what a map is made of: not the truth, and no fixes."""
        for time, record in self.records(begin, end):
            if not isinstance(record, Reference | FixRecord):
                yield time, record

    def _fixes(self) -> list[FixRecord]:
        """Of the whole drive; each second's first a little behind it, for odometry to be around."""
        receiver = self._settings.receiver
        if not receiver.rate:
            return []
        seconds = np.arange(0.3 / receiver.rate, self.sweeps * self._sweep_time, 1.0 / receiver.rate)
        deviations = receiver.deviation * np.array([1.0, 1.0, 2.0])
        places = poses.compose(self.truth(seconds), ANTENNA)[:, :3]
        places = places + deviations * self._random(STREAM_FIXES).standard_normal(places.shape)
        told = zip(seconds.tolist(), PLACE.geodetic(places), strict=True)
        return [FixRecord(self._stamp(at), place, deviations, ANTENNA) for at, place in told]

    def sweep(self, number: int) -> CloudRecord | ScanRecord:
        """Sweep ``number`` of the drive, with the sensor's place as it is told."""
        begin, random = number * self._sweep_time, self._random(STREAM_LASER, number)
        if isinstance(self._laser, Lidar):
            swept = self._laser.sweep(self.truth, begin, random)
            return CloudRecord(self._stamp(begin), swept.points, swept.times, "lidar", MOUNT)
        return ScanRecord(
            self._stamp(begin),
            self._laser.scan(self.truth, begin, random),
            self._laser.angle_min,
            self._laser.angle_increment,
            NEAREST_SCANNED,
            self._settings.scanner.max_range,
            self._laser.time_increment,
            "laser",
            MOUNT,
        )

    def _stamp(self, seconds: float) -> int:
        return self._start + round(seconds * _SECOND)

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._settings.seed, *stream])
