"""Learned numbers as they are told to the world: value, deviation, status, and the reason where they are not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.theta import SPECS, Spec, Theta
from dsg_ros.interface import Parameter
from dsg_ros.learning import guards
from dsg_ros.learning.proposal import Proposal

if TYPE_CHECKING:
    from dsg_ros.learning.noise import NoiseLearner

Vector = NDArray[np.float64]


def told_numbers(specs: tuple[Spec, ...], start: Vector, used: Vector, proposal: Proposal, on: bool) -> list[Parameter]:
    """The calibration's numbers ``specs`` (K,): at ``start`` (K,), moved by ``used`` (K,); how sure: ``proposal``."""
    told, verdict = [], proposal.verdict
    for i, spec in enumerate(specs):
        status, reason = _status(verdict.status[i], verdict.reason[i], on)
        if status == guards.LEARNED and used[i] == 0.0:
            status, reason = guards.FROZEN, "waits for a block that confirms it"
        value = spec.physical(float(start[i] + used[i]))
        told.append(Parameter(spec.name, value, float(proposal.sigmas[i]), spec.unit, status, reason))
    return told


def told_noise(noise: NoiseLearner, theta: Theta, verdict: guards.Verdict, on: bool) -> list[Parameter]:
    """The odometry's deviations that are learned; before the first block as far as the calibration is."""
    values = np.exp(np.asarray(theta.odometry_noise))
    rows = zip(SPECS["odometry_noise"], values.tolist(), (values * noise.deviations).tolist(), strict=True)
    told = [row for row, learned in zip(rows, noise.learned, strict=True) if learned]
    status, reason = guards.LEARNED, ""
    if not noise.blocks:
        status, reason = verdict.status[0], verdict.reason[0]
        if status == guards.LEARNED:  # as from positions alone
            status, reason = guards.FROZEN, "no block of scans or poses has taught it"
    status, reason = _status(status, reason, on)
    return [Parameter(spec.name, value, sigma, spec.unit, status, reason) for spec, value, sigma in told]


def _status(status: str, reason: str, on: bool) -> tuple[str, str]:
    """As judged, or that learning is off."""
    return (status, reason) if on else (guards.FROZEN, "learning is off")
