"""What the robot measures: a spinning lidar's sweeps and wheel odometry, as they would come from real ones."""

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
"""The lidar in the base frame, which lies on the floor between the wheels."""
NEAREST = 0.3
"""Metres below which the lidar measures nothing."""


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

    def __init__(self, settings: config.SimulatedLidar, solids: scene.Scene) -> None:
        self._settings, self._solids = settings, solids
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
        sensor = poses.compose(motion(begin + self.offsets), MOUNT)
        rays = poses.rotate(sensor[:, None, 3:], self.directions)
        origins = np.broadcast_to(sensor[:, None, :3], rays.shape)
        found = scene.ranges(self._solids, origins.reshape(-1, 3), rays.reshape(-1, 3))
        seen = (found >= NEAREST) & (found <= s.max_range)
        found += s.noise * rng.standard_normal(len(found))
        points = found[seen, None] * self.directions.reshape(-1, 3)[seen]
        times = np.repeat(self.offsets, s.beams)[seen]
        return Sweep(points.astype(np.float32), times.astype(np.float32))


def wheel_odometry(settings: config.SimulatedWheels, truth: Array, rng: np.random.Generator) -> Array:
    """Poses (n, 7) that wheels report for a robot at ``truth`` (n, 7): planar, from the origin, with their errors.

    Of each true increment they see the way forward and sideways and the turn about the robot's own z: what leads up or
    down a ramp they take for level.  Noise grows with the square root of the way, as that of a random walk does.
    """
    steps = poses.between(truth[:-1], truth[1:])
    driven = np.linalg.norm(steps[:, :3], axis=1)
    noise = rng.standard_normal((2, len(steps))) * np.sqrt(driven)
    forward = settings.scale * steps[:, 0] + settings.noise_translation * noise[0]
    sideways = settings.scale * steps[:, 1]
    turns = settings.rotation_gain * poses.yaw(steps) + settings.turn_per_metre * driven
    heading = np.concatenate([[0.0], np.cumsum(turns + settings.noise_rotation * noise[1])])
    cos, sin = np.cos(heading[:-1]), np.sin(heading[:-1])
    x = np.concatenate([[0.0], np.cumsum(cos * forward - sin * sideways)])
    y = np.concatenate([[0.0], np.cumsum(sin * forward + cos * sideways)])
    return poses.from_planar(x, y, heading)
