"""What the robot sees: sweeps of a spinning lidar and of a planar scanner, as they would come from real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.simulation import scene

Array = NDArray[np.float64]
Motion = Callable[[Array], Array]
"""Poses (n, 7) of the base in world at seconds (n,)."""

MOUNT: Array = np.array([0.1, 0.0, 0.7, 0.0, 0.0, 0.0, 1.0])
"""Where the sensor is told to be in the base frame, which lies on the floor between the wheels."""
NEAREST, NEAREST_SCANNED = 0.3, 0.1
"""Metres below which the lidar, or the scanner, measures nothing."""


def mounted(settings: config.SimulatedMounting) -> Array:
    """Where the sensor really is (7,) in the base frame."""
    return poses.compose(MOUNT, poses.from_planar(settings.x, settings.y, settings.yaw))


@dataclass(frozen=True)
class Sweep:
    """Points (n, 3) float32 in the sensor frame at the moment each was measured, ``times`` (n,) float32 [s] after the
    beginning of the sweep.
    """

    points: NDArray[np.float32]
    times: NDArray[np.float32]


class Lidar:
    """Beams above each other on a head that turns once a sweep, clockwise as most do, beginning behind.

    Every column of beams is fired from where the robot is then, so that sweeps are distorted as real ones are.
    """

    def __init__(self, settings: config.SimulatedLidar, solids: scene.Scene, mount: Array = MOUNT) -> None:
        self._settings, self._solids, self._mount = settings, solids, mount
        elevations = np.linspace(settings.lowest, settings.highest, settings.beams)
        azimuths = np.pi - 2 * np.pi * np.arange(settings.columns) / settings.columns
        up, around = np.meshgrid(elevations, azimuths)
        self.directions = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], axis=-1)
        """Unit vectors (columns, beams, 3) in the sensor frame, in the order they are measured."""
        self.offsets = np.arange(settings.columns) / (settings.columns * settings.rate)
        """Seconds (columns,) after the beginning of a sweep."""

    def sweep(self, motion: Motion, begin: float, rng: np.random.Generator) -> Sweep:
        """The sweep that begins ``begin`` seconds after the start of ``motion``."""
        s = self._settings
        found = _seen(self._solids, poses.compose(motion(begin + self.offsets), self._mount), self.directions)
        seen = (found >= NEAREST) & (found <= s.max_range)
        found += s.noise * rng.standard_normal(len(found))
        points = found[seen, None] * self.directions.reshape(-1, 3)[seen]
        times = np.repeat(self.offsets, s.beams)[seen]
        return Sweep(points.astype(np.float32), times.astype(np.float32))


class Scanner:
    """One level beam that turns once a scan, counter-clockwise, and is fired from where the robot is then.

    Beam i, at ``angle_min + i * angle_increment`` [rad], is measured ``i * time_increment`` [s] after the scan's
    beginning: beams that see nothing, behind, take their time, too.
    """

    def __init__(self, settings: config.SimulatedScanner, solids: scene.Scene, mount: Array = MOUNT) -> None:
        self._settings, self._solids, self._mount = settings, solids, mount
        view = settings.field_of_view
        # All around, the first beam would come again as the last.
        self.angle_increment = view / (settings.beams if view > 2 * np.pi - 1e-3 else settings.beams - 1)
        self.angle_min = -0.5 * self.angle_increment * (settings.beams - 1)
        self.time_increment = self.angle_increment / (2 * np.pi * settings.rate)
        bearings: Array = self.angle_min + self.angle_increment * np.arange(settings.beams, dtype=np.float64)
        self._directions = np.stack([np.cos(bearings), np.sin(bearings), np.zeros_like(bearings)], axis=1)
        self._offsets: Array = self.time_increment * np.arange(settings.beams, dtype=np.float64)

    def scan(self, motion: Motion, begin: float, rng: np.random.Generator) -> NDArray[np.float32]:
        """Ranges (beams,) [m] of the scan that begins ``begin`` seconds after the start of ``motion``.

        As REP-117 has it, no return is +inf, and what is too close -inf.
        """
        s = self._settings
        sensor = poses.compose(motion(begin + self._offsets), self._mount)
        found = _seen(self._solids, sensor, self._directions[:, None])
        too_far, too_close = found > s.max_range, found < NEAREST_SCANNED
        found += s.noise * rng.standard_normal(len(found))
        found = np.clip(found, NEAREST_SCANNED, s.max_range)
        found[too_far], found[too_close] = np.inf, -np.inf
        return found.astype(np.float32)


def _seen(solids: scene.Scene, sensor: Array, directions: Array) -> Array:
    """Distances (n * m,) from places (n, 7) of a sensor in world along ``directions`` (n, m, 3) in its own frame."""
    rays = poses.rotate(sensor[:, None, 3:], directions)
    origins = np.broadcast_to(sensor[:, None, :3], rays.shape)
    return scene.ranges(solids, origins.reshape(-1, 3), rays.reshape(-1, 3))
