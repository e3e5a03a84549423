"""Wheel odometry that errs as it is told to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dsg_ros import config, poses

Array = NDArray[np.float64]


def wheel_odometry(
    settings: config.SimulatedWheels, truth: Array, rng: np.random.Generator, jump_after: float = np.inf
) -> Array:
    """Poses (n, 7) that wheels report for a robot at ``truth`` (n, 7), ``1 / settings.rate`` apart: planar, from the
    origin, with their errors; the scale jumps after ``jump_after`` metres.

    Of each true increment they see the way forward and sideways and the turn about the robot's own z: what leads up or
    down a ramp they take for level.  Noise grows with the square root of way and turn, as that of a random walk does.
    """
    s = settings
    true = poses.log(poses.between(truth[:-1], truth[1:]))
    forward, sideways, turn = true[:, 0], true[:, 1], true[:, 5]
    driven, turned = np.hypot(forward, sideways), np.abs(turn)
    # One row a reading, so that the beginning of a longer drive has the same errors.
    drawn = rng.standard_normal((len(truth), 9))
    step, jitter = drawn[1:], drawn[:, 6:]
    translation = np.sqrt(s.noise_translation**2 * driven + s.noise_translation_turning**2 * turned)
    rotation = np.sqrt(s.noise_rotation**2 * driven + s.noise_rotation_turning**2 * turned)
    slips = ndtr(step[:, 5]) < s.slips_per_metre * driven
    scale = np.where(np.cumsum(driven) > jump_after, s.scale * (1.0 + s.scale_jump), s.scale)
    told = np.zeros_like(true)
    told[:, 0] = scale * forward + s.bias_forward / s.rate
    told[:, 1] = scale * sideways
    told[:, 5] = s.rotation_gain * turn + s.turn_per_metre * forward + s.bias_turn / s.rate
    told[:, :2] += translation[:, None] * step[:, :2]
    told[:, 5] += rotation * step[:, 2]
    told[slips, 0] += s.slip_translation * step[slips, 3]
    told[slips, 5] += s.slip_rotation * step[slips, 4]
    path = _chained(poses.exp(told))
    jitter = jitter * [s.jitter_translation, s.jitter_translation, s.jitter_rotation]
    return poses.compose(path, poses.from_planar(*jitter.T))


def _chained(increments: Array) -> Array:
    """Poses (n + 1, 7) that planar ``increments`` (n, 7) lead to, one after the other, from the identity."""
    heading = np.concatenate([[0.0], np.cumsum(poses.yaw(increments))])
    cos, sin = np.cos(heading[:-1]), np.sin(heading[:-1])
    x = np.concatenate([[0.0], np.cumsum(cos * increments[:, 0] - sin * increments[:, 1])])
    y = np.concatenate([[0.0], np.cumsum(sin * increments[:, 0] + cos * increments[:, 1])])
    return poses.from_planar(x, y, heading)
