"""The odometry's noise, learned slowly beside its calibration: log sigmas by Adam on the likelihood of held-out rows.

The loss of `dsg_ros.learning.losses` cannot teach noise: larger sigmas always make innovations look smaller.  A
likelihood also pays for them with ``log det S``.  The registrations' own covariance R is the anchor: taken as told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jaxtyping import Array, Float
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.core.programs import kept
from dsg_ros.core.theta import SPECS, Theta
from dsg_ros.learning.block import Block
from dsg_ros.learning.scoring import LIKELIHOODS, NoiseLoss
from dsg_ros.state import State

RATE = 0.02
"""Adam's step: sigmas move by at most about this share a block."""

HORIZON = 100.0
"""Blocks that weigh as much as the prior; what the drive does not excite falls back to where it was told."""

PRIOR = np.array([spec.prior_sigma for spec in SPECS["odometry_noise"]])

EVERY, ROTATION = np.ones(6, bool), np.arange(6) >= 3

_adam = optax.adam(RATE)


def chosen(settings: config.Learning) -> NDArray[np.bool_]:
    """Which of the odometry's log sigmas (6,) are learned."""
    if not settings.noise:
        return np.zeros(6, bool)
    return EVERY if settings.noise_of_translation else ROTATION


@kept()
def _step(
    block: Block, theta: Theta, state: optax.OptState, start: Float[Array, " 6"], *, loss: NoiseLoss, width: float
) -> tuple[Float[Array, " 6"], optax.OptState, Float[Array, " 6"]]:
    def posterior(logs: Array) -> Array:
        told = LIKELIHOODS[loss](block, theta.replace(odometry_noise=logs), width)
        return told + 0.5 * jnp.sum(((logs - start) / PRIOR) ** 2) / HORIZON

    gradient = jax.grad(posterior)(theta.odometry_noise)
    change, state = _adam.update(gradient, state)
    return theta.odometry_noise + change, state, gradient


class NoiseLearner:
    """Log sigmas of the odometry (6,), starting at those of ``start``; those move that ``settings`` have learned."""

    def __init__(self, start: Theta, settings: config.Learning) -> None:
        self.learned, self.blocks = chosen(settings), 0
        self._loss, self._width = settings.noise_loss, settings.robust_width
        self._start = start.odometry_noise
        self._state = _adam.init(self._start)
        self._information = np.diag(PRIOR**-2)

    def step(self, block: Block, theta: Theta) -> Any:
        """The log sigmas (6,) after one more block; those of ``theta`` where the block has no finite likelihood."""
        found, state, gradient = _step(block, theta, self._state, self._start, loss=self._loss, width=self._width)
        scatter = np.asarray(gradient)
        if not np.isfinite(scatter).all():
            return theta.odometry_noise
        self._state = state
        logs = np.where(self.learned, np.asarray(found), np.asarray(theta.odometry_noise))
        self.blocks += 1
        self._information = self._information + np.outer(scatter, scatter)
        return logs

    def state(self) -> State:
        """As `dsg_ros.state` says: the optimiser's moments and what is known of the sigmas."""
        moments = {f"moments.{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(self._state))}
        return {"information": self._information.copy(), "blocks": np.array(self.blocks), **moments}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        leaves, tree = jax.tree.flatten(self._state)
        given = [np.asarray(state[f"moments.{i}"], leaf.dtype).reshape(leaf.shape) for i, leaf in enumerate(leaves)]
        self._state = jax.tree.unflatten(tree, [jax.device_put(leaf) for leaf in given])
        self.blocks, self._information = int(state["blocks"]), np.array(state["information"])

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Standard deviations (6,) of the log sigmas, from the outer products of the gradients and the prior."""
        return np.sqrt(np.diag(np.linalg.inv(self._information)))
