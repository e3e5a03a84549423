"""Whether drives are of one robot: each is foretold with what the others teach, and tested against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f

from dsg_ros.learning.evidence import Evidence

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

SEEN = 1e-6
"""Directions in which a drive tells less than this share of what it tells best (in prior deviations) are not tested."""

BELIEVED = 2
"""Blocks, for each direction, that a drive's information counts as when it comes to how its gradients scatter."""


@dataclass(frozen=True)
class ScoreTest:
    """``statistic`` is g^T S^-1 g over ``directions`` of theta; ``p_value`` how often one robot's drives give more."""

    statistic: float
    directions: int
    p_value: float


def score_test(drive: Evidence, covariance: Matrix, prior: Vector, alike: float) -> ScoreTest:
    """Rao's test of a drive against the theta that others teach, at which ``drive`` was evaluated.

    Its gradient g (K,) there has mean zero, and the covariance ``S = B + H (V + T) H``: B the scatter of its own
    blocks' gradients, but no less than its information H; V (K, K) the ``covariance`` of the others' theta; T what the
    same robot's theta may differ by from one drive to another (tyres, load, floor), ``alike`` prior deviations
    ``prior`` (K,).  With few blocks B is uncertain: H counts as some blocks more, and the statistic is Hotelling's.
    """
    unit = np.outer(prior, prior)
    values, vectors = np.linalg.eigh(drive.information * unit)
    seen = values > SEEN * max(values[-1], 0.0)
    count = int(seen.sum())
    if not count:
        return ScoreTest(0.0, 0, 1.0)
    # In coordinates in which H is the unit matrix.
    root = vectors[:, seen] * np.sqrt(values[seen])
    whiten = (vectors[:, seen] / np.sqrt(values[seen])).T * prior
    gradient = whiten @ drive.gradient
    blocks = drive.blocks
    spread = whiten @ (drive.scatter - np.outer(drive.gradient, drive.gradient) / blocks) @ whiten.T
    believed = BELIEVED * count
    freedom = blocks - 1 + believed
    own, axes = np.linalg.eigh((blocks * spread + believed * np.eye(count)) / freedom)
    scatter = (axes * np.maximum(own, 1.0)) @ axes.T
    apart = root.T @ (covariance / unit + alike**2 * np.eye(len(prior))) @ root
    statistic = float(gradient @ np.linalg.solve(scatter + apart, gradient))
    left = freedom - count + 1
    return ScoreTest(statistic, count, float(f.sf(statistic * left / (count * freedom), count, left)))
