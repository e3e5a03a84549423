"""Which parameters a drive shows: from the eigenvectors of its information, noise in the measurements set aside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros.learning.calibrators.fit import NU, Fit
from dsg_ros.learning.calibrators.models import Model, errors
from dsg_ros.learning.calibrators.windows import Windows

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

OBSERVABLE = 0.25
"""A parameter is observable once its deviation is below this share of what it was before."""
NOISE_SHARE = 2.0
"""Excitation counts as far as it exceeds this many times what noise alone would make."""
_TINY = 1e-6


@dataclass(frozen=True)
class Observability:
    """``sigmas`` (K,) after the drive, and which are ``observable`` (K,), with a ``reason`` where not."""

    sigmas: Vector
    observable: NDArray[np.bool_]
    reason: tuple[str, ...]


def observability(
    model: Model, fitted: Fit, windows: Windows, prior: Vector, free: NDArray[np.bool_], metres: float
) -> Observability:
    """Judge by the posterior's deviations against the ``prior``'s (K,); numbers not ``free`` are taken as known.

    What is measured multiplies the parameters, so its noise looks like excitation: a straight drive with a noisy
    heading seems to show the rotation gain, and shows zero.  Noise cannot be larger than all that is left unexplained,
    the fit's scale matrix; the information that such noise would make is subtracted first.
    """
    count = int(free.sum())
    units = np.outer(prior, prior)[np.ix_(free, free)]
    information = fitted.information - NOISE_SHARE * _of_noise(model, fitted, len(windows))
    values, vectors = np.linalg.eigh(information[np.ix_(free, free)] * units)
    # In units of the prior: an eigenvalue of one doubles what was known of its direction.
    shares = 1 / (1 + np.maximum(values, 0.0))
    ratio = np.ones(len(prior))
    ratio[free] = np.sqrt(vectors**2 @ shares) if count else 0.0
    observable = ratio < OBSERVABLE
    names = np.array(model.names)[free]
    reason = [""] * len(prior)
    for position, number in enumerate(np.flatnonzero(free)):
        if not observable[number]:
            told = (
                f"not observable: {metres:.1f} m of driving leave {100 * ratio[number]:.0f} % of the initial deviation"
            )
            weakest = vectors[:, int(np.argmax(vectors[position] ** 2 * shares))]
            others = [n for n, w in zip(names, weakest, strict=True) if abs(w) > 0.5 * abs(weakest[position])]
            others.remove(model.names[number])
            reason[number] = told + (f"; not told apart from {', '.join(others)}" if others else "")
    return Observability(ratio * prior, observable & free, tuple(reason))


def _of_noise(model: Model, fitted: Fit, count: int) -> Matrix:
    """Information (K, K) that ``count`` windows of nothing but noise would seem to have."""
    inverse = np.linalg.inv(fitted.scale)
    probe, _ = errors(model, fitted.values, _short(_TINY * np.eye(model.inputs)))
    gain = probe.T / _TINY  # (d, inputs): how the error follows what is measured
    spread, directions = np.linalg.eigh(gain.T @ inverse @ gain)
    seen = spread > 1e-9 * spread[-1]
    noise = (directions[:, seen] / np.sqrt(spread[seen])).T
    _, jacobian = errors(model, fitted.values, _short(noise))
    d = len(inverse)
    return count * (NU + d) / (NU + d + 2) * np.einsum("mik,ij,mjl->kl", jacobian, inverse, jacobian)


def _short(inputs: Vector) -> Windows:
    """Windows of one step each, with a reference that stands still."""
    reference = np.zeros((len(inputs), 7))
    reference[:, 6] = 1.0
    return Windows(inputs[:, None], np.zeros((len(inputs), 1)), reference)
