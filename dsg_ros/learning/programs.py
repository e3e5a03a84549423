"""Programs of the outer update, traced once: theta at a deviation, a block's score there, with its dilution or without.

Of this module, not of an object: a second `Calibration` (after a clock jump, in tests) finds them compiled.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from dsg_ros.core.factors.odometry import linear_map
from dsg_ros.core.programs import kept
from dsg_ros.core.theta import Theta, mask
from dsg_ros.learning import losses, parameters, scoring
from dsg_ros.learning.block import Block
from dsg_ros.learning.losses import Score

Vector = NDArray[np.float64]


@kept()
def theta_at(start: Theta, deviation: Float[Array | Vector, " K"], *, names: tuple[str, ...]) -> Theta:
    """``start`` with the numbers ``names`` (K,) moved by ``deviation`` (K,)."""
    return parameters.moved(start, deviation, names)


@kept()
def map_gained(
    start: Theta, deviation: Float[Array | Vector, " K"], *, names: tuple[str, ...]
) -> Float[Array, "7 6 K"]:
    """Derivative of `linear_map` in the numbers ``names`` (K,), at ``deviation`` (K,) from ``start``."""
    return jax.jacfwd(lambda by: linear_map(parameters.moved(start, by, names)))(jnp.asarray(deviation))


@kept()
def score_at(
    block: Block,
    start: Theta,
    deviation: Float[Array | Vector, " K"],
    *,
    width: float,
    names: tuple[str, ...],
    loss: scoring.Loss,
) -> Score:
    """How ``block`` is scored there by the ``loss`` of this name, whose robust kernel is ``width`` wide."""
    return scoring.SCORES[loss](block, parameters.moved(start, deviation, names), mask(start, *names), width)


@kept()
def own_at(
    block: Block,
    start: Theta,
    deviation: Float[Array | Vector, " K"],
    *,
    width: float,
    names: tuple[str, ...],
    loss: scoring.Loss,
) -> tuple[Score, Float[Array, " 2"]]:
    """`score_at`, and `losses.dilution` of ``block`` there."""
    theta = parameters.moved(start, deviation, names)
    if loss == "held_out":
        return losses.score_and_dilution(block, theta, mask(start, *names), width)
    score = score_at(block, start, deviation, width=width, names=names, loss=loss)
    return score, losses.dilution(block, theta, width)
