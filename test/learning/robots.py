"""Simulated planar robots with a known calibration: what odometry and the scan matcher would tell of a drive."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dsg_ros import config, poses
from dsg_ros.learning.block import Link
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.increments import IncrementModel, rate
from dsg_ros.state import State

TOLD = {
    "odometry.sigma_translation": 0.004,
    "odometry.translation_per_metre": 0.01,
    "odometry.translation_per_radian": 0.0,
    "odometry.sigma_rotation": 0.002,
    "odometry.rotation_per_radian": 0.02,
    "odometry.rotation_per_metre": 0.0,
}
"""The noise of simulated odometry, as settings."""

SECONDS = 0.5
"""Between two keyframes."""

SCAN_SIGMAS = np.array([0.006, 0.006, 0.002])
"""Deviations of a simulated registration in x, y [m] and yaw [rad]."""


@dataclass(frozen=True)
class Robot:
    """True increment = parameter x measured, as in `dsg_ros.core.theta`; ``noise`` scales the odometry's error."""

    scale: float = 1.0
    rotation_gain: float = 1.0
    turn_per_metre: float = 0.0
    lever: tuple[float, float] = (0.0, 0.0)
    lever_yaw: float = 0.0
    time_offset: float = 0.0
    noise: float = 1.0
    slips: dict[int, float] = field(default_factory=dict)
    """Extra turn [rad] the odometry does not see, by link."""


def drive(kind: str, links: int) -> np.ndarray:
    """True wheel motion (links, 3): forward [m], sideways [m], turn [rad], each about a keyframe apart."""
    forward, turn = np.full(links, 0.3), np.zeros(links)
    if kind == "rooms":
        k = np.arange(links)
        turn = 0.25 * np.sin(k / 3.0) + 0.15 * np.sin(k / 1.3 + 1.0)
        forward = np.where(k % 11 == 10, -0.3, 0.3)
    elif kind != "corridor":
        raise ValueError(kind)
    return np.stack([forward, np.zeros(links), turn], axis=1)


def links_of(robot: Robot, motion: np.ndarray, seed: int) -> list[Link]:
    """Links of a robot whose wheels moved by ``motion``: noisy odometry, and registrations that do not drift."""
    rng = np.random.default_rng(seed)
    lever = poses.from_planar(np.array(robot.lever[0]), np.array(robot.lever[1]), np.array(robot.lever_yaw))
    true, measured = [], []
    for i, (forward, sideways, turn) in enumerate(motion):
        base = np.array([forward, sideways, 0.0, 0.0, 0.0, turn])
        sigma_t = robot.noise * (0.004 + 0.01 * abs(forward))
        sigma_r = robot.noise * (0.002 + 0.02 * abs(turn))
        wheel_turn = (turn - robot.turn_per_metre * forward / robot.scale) / robot.rotation_gain
        told = np.array([forward / robot.scale, sideways / robot.scale, 0.0, 0.0, 0.0, wheel_turn])
        told[:2] += sigma_t * rng.standard_normal(2)
        told[5] += sigma_r * rng.standard_normal() - robot.slips.get(i, 0.0)
        true.append(poses.compose(poses.compose(poses.inverse(lever), poses.exp(base)), lever))
        measured.append(poses.exp(told))
    measured, rates = _late(np.stack(measured), robot.time_offset)
    return _seen(np.stack(true), measured, rates, rng)


def _late(measured: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Increments (n, 7) of odometry that is stamped ``offset`` [s] late, and how they change with it.

    Between two keyframes a robot moves evenly; before the first it stood.
    """
    velocity = np.vstack([np.zeros(6), poses.log(measured) / SECONDS])
    before, after = velocity[:-1], velocity[1:]
    late = poses.compose(poses.compose(poses.exp(offset * before), measured), poses.exp(-offset * after))
    return late, np.stack([rate(m, b, a) for m, b, a in zip(late, before, after, strict=True)])


def _seen(true: np.ndarray, measured: np.ndarray, rates: np.ndarray, rng: np.random.Generator) -> list[Link]:
    """The scan matcher places each keyframe on its own, with an error that does not add up."""
    information = np.zeros((6, 6))
    axes = np.array([0, 1, 5])
    information[axes, axes] = 1 / SCAN_SIGMAS**2
    chain = [poses.IDENTITY]
    for increment in true:
        chain.append(poses.compose(chain[-1], increment))
    error = np.zeros((len(chain), 6))
    error[1:, axes] = SCAN_SIGMAS * rng.standard_normal((len(true), 3))
    placed = poses.compose(np.stack(chain), poses.exp(error))
    relative = poses.between(placed[:-1], placed[1:])
    return [Link(m, SECONDS, r, information, d) for m, r, d in zip(measured, relative, rates, strict=True)]


def noise_of(calibration: Calibration, settings: config.Slam, link: Link) -> np.ndarray:
    """Deviations (6,) of the increment of ``link`` by the odometry's noise alone."""
    return IncrementModel(calibration.theta, settings.odometry).predict(link.measured, SECONDS)[1]


def frozen(state: State) -> State:
    """As it is written and read: what comes next has no part in it, and what was a list is not one any more."""
    return {name: np.array(value) for name, value in state.items()}
