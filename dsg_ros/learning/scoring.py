"""Losses by the names that the configuration has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Array, Float

from dsg_ros.core.theta import Mask, Theta
from dsg_ros.learning import losses, state_losses
from dsg_ros.learning.block import Block
from dsg_ros.learning.losses import Score

Loss = Literal["held_out", "joint"]
NoiseLoss = Literal["predictive", "laplace"]

SCORES: dict[Loss, Callable[[Block, Theta, Mask, float], Score]] = {
    "held_out": losses.score,
    "joint": state_losses.score,
}
"""Of the calibration, with the kernel's width."""

LIKELIHOODS: dict[NoiseLoss, Callable[[Block, Theta, float], Float[Array, ""]]] = {
    "predictive": losses.negative_log_likelihood,
    "laplace": state_losses.negative_log_likelihood,
}
"""Negative, of the odometry's noise."""
