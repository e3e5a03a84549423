"""The step logic of Levenberg-Marquardt, shared by the jitted loop and the host's."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

Scalar = Any
"""A JAX scalar in the jitted loop, a NumPy one on the host."""

GROWTH = 10.0
LARGEST = 1e8
SMALLEST = 1e-10
REGULAR = 1e-8
"""Damping that makes a singular system solvable, where a factorisation is wanted all the same."""


class Step(NamedTuple):
    """What to do with a trial step, and the damping to go on with."""

    accept: Scalar
    damping: Scalar
    growth: Scalar
    converged: Scalar
    stuck: Scalar


def judge(
    xp: ModuleType,
    cost: Scalar,
    trial_cost: Scalar,
    predicted: Scalar,
    damping: Scalar,
    growth: Scalar,
    tolerance: Scalar,
) -> Step:
    """Accept what lowers the cost; damp less after a step as predicted, ever more after refusals (Nielsen 1999).

    ``xp`` is jax.numpy or numpy.  Converged when the model promises less than ``tolerance`` of the cost (of 1e-6, for
    costs that reach zero) with little damping: then the remaining error is that small in standard deviations, whatever
    the units.  A promise too small to be told from the rounding of the cost is taken at its word.
    """
    promised = xp.isfinite(predicted)
    converged = promised & (predicted <= tolerance * (cost + 1e-6)) & (damping <= 1e-3)
    lost = (predicted <= 1e-11 * cost) & (trial_cost <= cost * (1 + 1e-13)) & (damping <= 1e-3)
    accept = promised & xp.isfinite(trial_cost) & ((trial_cost < cost) | lost)
    usable = promised & (predicted > 0) & xp.isfinite(trial_cost) & xp.isfinite(cost)
    gain = xp.where(usable, cost, 0.0) - xp.where(usable, trial_cost, 0.0)
    ratio = gain / xp.where(usable, predicted, 1.0)
    ratio = xp.where(lost, 0.5, ratio)
    eased = damping * xp.where(ratio > 0.75, 0.01, xp.where(ratio > 0.25, 0.5, 4.0))
    kept = xp.where(accept, xp.clip(eased, SMALLEST, LARGEST), damping * growth)
    grown = xp.where(accept, GROWTH, 2 * growth)
    return Step(accept, kept, grown, converged, ~accept & ~converged & (kept > LARGEST))
