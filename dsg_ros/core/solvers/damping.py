"""The step logic of Levenberg-Marquardt, shared by the jitted loop and the host's."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

GROWTH = 10.0
LARGEST = 1e8
SMALLEST = 1e-10
REGULAR = 1e-8
"""Damping that makes a singular system solvable, where a factorisation is wanted all the same."""


class Step(NamedTuple):
    """What to do with a trial step, and the damping to go on with."""

    accept: Bool[Array, ""]
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    converged: Bool[Array, ""]
    stuck: Bool[Array, ""]


@jax.jit
def judge(
    cost: Float[Array, ""],
    trial_cost: Float[Array, ""],
    predicted: Float[Array, ""],
    damping: Float[Array, ""],
    growth: Float[Array, ""],
    tolerance: Float[Array, ""],
) -> Step:
    """Accept what lowers the cost; damp less after a step as predicted, ever more after refusals (Nielsen 1999).

    Converged when the model promises less than ``tolerance`` of the cost (or less than 1e-24, for costs that reach zero)
    with little damping: then the remaining error is that small in standard deviations, whatever the units.
    """
    promised = jnp.isfinite(predicted)
    converged = promised & (predicted <= tolerance * cost + 1e-24) & (damping <= 1e-3)
    accept = promised & jnp.isfinite(trial_cost) & (trial_cost < cost)
    ratio = (cost - trial_cost) / jnp.where(promised & (predicted > 0), predicted, 1.0)
    eased = damping * jnp.where(ratio > 0.75, 0.01, jnp.where(ratio > 0.25, 0.5, 4.0))
    kept = jnp.where(accept, jnp.clip(eased, SMALLEST, LARGEST), damping * growth)
    grown = jnp.where(accept, GROWTH, 2 * growth)
    return Step(accept, kept, grown, converged, ~accept & ~converged & (kept > LARGEST))
