"""A robot that drives a snake over a square of places and sees, from each row, the row before; and false loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses

Floats = NDArray[np.float64]


@dataclass
class Drive:
    """True poses (P, 7), and edges: ``pairs`` (E, 2), ``measured`` (E, 7), ``false`` (E,) and ``sqrt_info`` (6, 6)."""

    truth: Floats
    pairs: NDArray[np.int64]
    measured: Floats
    false: NDArray[np.bool_]
    sqrt_info: Floats

    @property
    def odometry(self) -> NDArray[np.bool_]:
        """(E,) which edges join consecutive poses."""
        return self.pairs[:, 1] - self.pairs[:, 0] == 1


def drive(
    planar: bool, seed: int = 0, side: int = 9, noise: float = 0.03, claimed: float = 1.0, false: float = 0.2
) -> Drive:
    """``noise`` is the deviation of all measurements [m, rad], ``claimed`` times which they are said to have; there are
    ``false`` times as many false loops as true ones, each a copy of one of those between poses picked at random.
    """
    random = np.random.default_rng(seed)
    axes = np.isin(np.arange(6), (0, 1, 5)) if planar else np.ones(6, bool)
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    x[1::2] = x[1::2, ::-1]
    truth = np.tile(poses.IDENTITY, (side * side, 1))
    truth[:, 0], truth[:, 1] = x.ravel(), y.ravel()
    truth = poses.compose(truth, poses.exp(0.5 * random.normal(size=(len(truth), 6)) * axes))
    truth = poses.between(truth[0], truth)
    chain = np.stack([np.arange(len(truth) - 1), np.arange(1, len(truth))], axis=1)
    row, place = np.divmod(np.arange(side, len(truth)), side)
    loops = np.stack([row * side - 1 - place, row * side + place], axis=1)
    loops = loops[loops[:, 1] - loops[:, 0] > 1]
    pairs = np.concatenate([chain, loops])
    between = poses.between(truth[pairs[:, 0]], truth[pairs[:, 1]])
    measured = poses.compose(between, poses.exp(noise * random.normal(size=(len(pairs), 6)) * axes))
    count = round(false * len(loops))
    wrong = np.sort(random.integers(len(truth), size=(20 * count, 2)), axis=1)
    far = np.linalg.norm(truth[wrong[:, 0], :3] - truth[wrong[:, 1], :3], axis=1) > side / 3
    copied = random.integers(len(chain), len(pairs), size=count)
    return Drive(
        truth,
        np.concatenate([pairs, wrong[far][:count]]),
        np.concatenate([measured, measured[copied]]),
        np.arange(len(pairs) + count) >= len(pairs),
        np.diag(np.where(axes, 1 / max(claimed * noise, 1e-3), 0.0)),
    )
