"""What is true of a simulated robot, in the terms of those who have to find it out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import Parameter
from dsg_ros.simulation.sensors import MOUNT, mounted


def assumed_base(settings: config.SimulatedMounting) -> NDArray[np.float64]:
    """The base frame (7,) that scans tell of, in the true one, which is that of the wheels.

    Who believes the told mounting takes the base to be at the true sensor times the inverse of the told mounting.
    """
    return poses.compose(mounted(settings), poses.inverse(MOUNT))


def true_parameters(settings: config.Simulation, *, jumped: bool = False) -> tuple[Parameter, ...]:
    """The calibration that would undo all errors but noise, by the names of `dsg_ros.core.theta`; with ``jumped`` that
    of the second half of the drive.

    With what is told over what is true, scale s, rotation gain g, turn per metre c and biases b_x, b_w, of true
    forward motion x and turn w over dt the wheels tell ``x' = s x + b_x dt`` and ``w' = g w + c x + b_w dt``; solved
    for the true ones::

        x = x' / s - b_x dt / s,    w = w' / g - c x' / (g s) + (c b_x / s - b_w) dt / g

    The lever is the pose L of the `assumed_base` in the frame of the wheels: increments of the one are L^-1 times those
    of the other times L, and so are biases.  ``odometry.time_offset`` is how much later stamps are than what they tell
    of.
    """
    w = settings.wheels
    scale = w.scale * (1.0 + w.scale_jump) if jumped else w.scale
    lever = assumed_base(settings.mounting)
    x, y, yaw = float(lever[0]), float(lever[1]), float(poses.yaw(lever))
    forward = -w.bias_forward / scale
    turn = (w.turn_per_metre * w.bias_forward / scale - w.bias_turn) / w.rotation_gain
    bias = poses.rotate(poses.inverse(lever)[3:], np.array([forward - turn * y, turn * x, 0.0]))
    values = {
        "odometry.scale": (1.0 / scale, "ratio"),
        "odometry.rotation_gain": (1.0 / w.rotation_gain, "ratio"),
        "odometry.turn_per_metre": (-w.turn_per_metre / (w.rotation_gain * scale), "rad/m"),
        "odometry.lever.x": (x, "m"),
        "odometry.lever.y": (y, "m"),
        "odometry.lever.rz": (yaw, "rad"),
        "odometry.bias.x": (float(bias[0]), "m/s"),
        "odometry.bias.y": (float(bias[1]), "m/s"),
        "odometry.bias.rz": (turn, "rad/s"),
        "odometry.time_offset": (w.time_offset, "s"),
    }
    return tuple(Parameter(name, value, 0.0, unit, "frozen", "exact") for name, (value, unit) in values.items())
