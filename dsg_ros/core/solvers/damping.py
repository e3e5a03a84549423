"""The step logic of Levenberg-Marquardt inside jit; `dsg_ros.core.native.damping` is that of the host's loops."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from dsg_ros.core.native import damping as numbers

Scalar = Any
"""A JAX scalar."""


class Step(NamedTuple):
    """What to do with a trial step, and the damping to go on with."""

    accept: Scalar
    damping: Scalar
    growth: Scalar
    converged: Scalar
    stuck: Scalar


def judge(
    cost: Scalar, trial_cost: Scalar, predicted: Scalar, damping: Scalar, growth: Scalar, tolerance: Scalar
) -> Step:  # fmt: skip
    """Accept what lowers the cost; damp less after a step as predicted, ever more after refusals (Nielsen 1999).

    Converged when the model promises less than ``tolerance`` of the cost (of `FLOOR`, for costs that reach zero) with
    little damping: then the remaining error is that small in standard deviations, whatever the units.  A promise too
    small to be told from the rounding of the cost is taken at its word.
    """
    promised, little = jnp.isfinite(predicted), damping <= numbers.LITTLE
    converged = promised & (predicted <= tolerance * (cost + numbers.FLOOR)) & little
    lost = (predicted <= numbers.LOST * cost) & (trial_cost <= cost * (1 + numbers.ROUNDING)) & little
    accept = promised & jnp.isfinite(trial_cost) & ((trial_cost < cost) | lost)
    usable = promised & (predicted > 0) & jnp.isfinite(trial_cost) & jnp.isfinite(cost)
    gain = jnp.where(usable, cost, 0.0) - jnp.where(usable, trial_cost, 0.0)
    held = jnp.where(lost, 0.5, gain / jnp.where(usable, predicted, 1.0))
    well = jnp.where(held > numbers.GOOD, numbers.EASED, jnp.where(held > numbers.FAIR, numbers.HALVED, numbers.RAISED))
    kept = jnp.where(accept, jnp.clip(damping * well, numbers.SMALLEST, numbers.LARGEST), damping * growth)
    grown = jnp.where(accept, numbers.GROWTH, 2 * growth)
    return Step(accept, kept, grown, converged, ~accept & ~converged & (kept > numbers.LARGEST))
