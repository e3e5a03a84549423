"""How well a drive's deviations describe its errors: normalised squared errors (NEES, Bar-Shalom), ratios, alarms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import Estimate, Parameter, SavedMap
from dsg_ros.learning.increments import IncrementModel
from dsg_ros.learning.parameters import starting_theta
from dsg_ros.simulation.robot import Robot
from dsg_ros.simulation.truth import assumed_base, true_parameters

Array = NDArray[np.float64]

PLANE = [0, 1, 5]
"""What a planar robot's tangent has of the six."""
CHANGES = "changes_detected"
"""The pipeline's count of changes that its learner has noticed, where it looks for them."""


@dataclass(frozen=True)
class Keyframes:
    """Estimates as published at keyframes (k of them), with the true poses (k, 7) of the base that scans tell of,
    seen from that of the first scan, and the ``metres`` (k,) driven until then.
    """

    estimates: Sequence[Estimate]
    stamps: NDArray[np.int64]
    truth: Array
    metres: Array

    @staticmethod
    def of(estimates: Sequence[Estimate], robot: Robot, simulation: config.Simulation) -> Keyframes:
        """Those among ``estimates``; the map begins at the first of these."""
        every = np.array([estimate.stamp for estimate in estimates])
        truth = truth_at(robot, simulation, every)
        metres = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(truth[:, :3], axis=0), axis=1))])
        at = [k for k, estimate in enumerate(estimates) if estimate.keyframe]
        return Keyframes([estimates[k] for k in at], every[at], poses.between(truth[0], truth[at]), metres[at])


def truth_at(robot: Robot, simulation: config.Simulation, stamps: NDArray[np.int64]) -> Array:
    """True poses (n, 7), in world, of the base that scans tell of."""
    return poses.compose(robot.truth(1e-9 * stamps.astype(np.float64)), assumed_base(simulation.mounting))


def value(name: str, parameters: Sequence[Parameter]) -> float:
    """That of the parameter ``name``."""
    return next(parameter.value for parameter in parameters if parameter.name == name)


def theta_nees(kept: SavedMap, errors: Mapping[str, float]) -> tuple[float, int]:
    """Squared ``errors`` of parameters, normalised by their covariance, and how many they are.

    The correlations are those of the accumulated information, the deviations those that are told.
    """
    at = [k for k, name in enumerate(kept.learned) if name in errors]
    if not at:
        return 0.0, 0
    told = {parameter.name: parameter.sigma for parameter in kept.parameters}
    formal = np.linalg.inv(kept.information)[np.ix_(at, at)]
    scale = np.array([told[kept.learned[k]] for k in at]) / np.sqrt(np.diag(formal))
    error = np.array([errors[kept.learned[k]] for k in at])
    return float(error @ np.linalg.solve(formal * np.outer(scale, scale), error)), len(at)


def pose_nees(keyframes: Keyframes) -> float:
    """Mean a direction over all keyframes but the first, which holds the map."""
    found = np.array([estimate.pose for estimate in keyframes.estimates])
    errors = poses.log(poses.between(found, keyframes.truth))[1:, PLANE]
    told = np.array([estimate.covariance for estimate in keyframes.estimates])[1:][:, PLANE][:, :, PLANE]
    return float(np.einsum("ki,ki->k", errors, np.linalg.solve(told, errors[..., None])[..., 0]).mean() / len(PLANE))


def noise_ratios(
    keyframes: Keyframes,
    robot: Robot,
    simulation: config.Simulation,
    settings: config.Slam,
    parameters: Sequence[Parameter],
) -> dict[str, float]:
    """Root mean squares over the increments between keyframes: deviations told by ``parameters``, over true errors."""
    offset = round(1e9 * simulation.wheels.time_offset)
    # The wheels' own frame, and the time at which they were read.
    wheels = dataclasses.replace(simulation.wheels, time_offset=0.0)
    own = dataclasses.replace(simulation, mounting=config.SimulatedMounting(), wheels=wheels)
    true = robot.truth(1e-9 * (keyframes.stamps - offset).astype(np.float64))
    true = poses.between(true[:-1], true[1:])
    odometry = np.array([estimate.odometry for estimate in keyframes.estimates])
    measured = poses.between(odometry[:-1], odometry[1:])
    seconds = np.diff(keyframes.stamps) * 1e-9
    jumped = keyframes.metres[1:] > 0.5 * robot.metres
    calibrated = [
        IncrementModel(starting_theta(true_parameters(own, jumped=j)), config.Odometry()) for j in (False, True)
    ]
    told = IncrementModel(starting_theta(parameters), settings.odometry)
    steps = list(zip(measured, seconds.tolist(), strict=True))
    right = np.array([calibrated[int(j)].predict(m, dt)[0] for j, (m, dt) in zip(jumped, steps, strict=True)])
    errors = poses.log(poses.between(true, right))[:, PLANE]
    sigmas = np.array([told.predict(m, dt)[1] for m, dt in steps])[:, PLANE]
    ratio = np.sqrt((sigmas[:, [0, 2]] ** 2).mean(axis=0))
    ratio /= np.sqrt([(errors[:, :2] ** 2).mean(), (errors[:, 2] ** 2).mean()])
    return {"translation": float(ratio[0]), "rotation": float(ratio[1])}


def alarms(estimates: Sequence[Estimate], jump: int) -> list[int] | None:
    """Which of ``estimates`` at keyframes, counted from number ``jump``, noticed a change; None where nobody looks."""
    counts = [estimate.counts.get(CHANGES) for estimate in estimates]
    if counts[-1] is None:
        return None
    rises = np.diff([0, *(count or 0 for count in counts)])
    return [k - jump for k in np.repeat(np.arange(len(rises)), np.maximum(rises, 0)).tolist()]
