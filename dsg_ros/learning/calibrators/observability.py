"""Which parameters a drive shows: from the eigenvectors of its information, noise in the measurements set aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from dsg_ros.learning.calibrators.fit import NU, Errors, information_of, scale_of
from dsg_ros.learning.calibrators.models import Model, errors
from dsg_ros.learning.calibrators.windows import Windows
from dsg_ros.poses import IDENTITY

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

OBSERVABLE = 0.25
"""A parameter is observable once its deviation is below this share of what it was before."""
NOISE_SHARE = 2.0
"""Excitation counts as far as it exceeds this many times what noise alone would make."""
SURE = 3.0
"""Deviations from the start beyond which no robot is."""
_TINY = 1e-6


@dataclass(frozen=True)
class Observability:
    """``sigmas`` (K,) after the drive, and which are ``observable`` (K,), with a ``reason`` where not."""

    sigmas: Vector
    observable: NDArray[np.bool_]
    reason: tuple[str, ...]


def observability(
    model: Model,
    told: Errors,
    instruments: Callable[[Vector], Vector] | None,
    found: Vector,
    windows: Windows,
    start: Vector,
    prior: Vector,
    metres: float,
) -> Observability:
    """Judge the values ``found`` (K,) by the posterior's deviations against the ``prior``'s (K,) around ``start``.

    ``told`` are the windows' errors, ``instruments`` their derivatives where those of ``told`` hold noise.

    What is measured multiplies the parameters, so its noise looks like excitation: a straight drive with a noisy
    heading seems to show the rotation gain, and shows zero.  Noise cannot be larger than all that is left unexplained;
    the information that so much noise would make is subtracted first.  At a gain of zero nothing would be left: values
    beyond what any robot has are judged at the edge of that.
    """
    at = _plausible(found, start, prior)
    e, jacobian = told(at)
    if instruments is not None:
        jacobian = instruments(at)
    scale, units = scale_of(e), np.outer(prior, prior)
    everything, noise = information_of(e, jacobian, scale)[0] * units, _of_noise(model, at, scale, windows) * units
    values, vectors = np.linalg.eigh(_excited(everything, noise))
    # In units of the prior: an eigenvalue of one doubles what was known of its direction.
    shares = 1 / (1 + np.maximum(values, 0.0))
    ratio = np.sqrt(vectors**2 @ shares)
    observable = ratio < OBSERVABLE
    reason = [""] * len(prior)
    for number in np.flatnonzero(~observable):
        why = f"not observable: {metres:.1f} m of driving leave {100 * ratio[number]:.0f} % of the initial deviation"
        weakest = np.abs(vectors[:, int(np.argmax(vectors[number] ** 2 * shares))])
        others = [name for i, name in enumerate(model.names) if i != number and weakest[i] > 0.5 * weakest[number]]
        reason[number] = why + (f"; not told apart from {', '.join(others)}" if others else "")
    return Observability(ratio * prior, observable, tuple(reason))


def _plausible(found: Vector, start: Vector, prior: Vector) -> Vector:
    """Values within three deviations of the start, and of no other sign where a sign is certain."""
    low, high = start - SURE * prior, start + SURE * prior
    certain = np.abs(start) > prior
    low = np.where(certain & (start > 0), np.maximum(low, start / SURE), low)
    high = np.where(certain & (start < 0), np.minimum(high, start / SURE), high)
    return np.clip(found, low, high)


def _excited(told: Matrix, noise: Matrix) -> Matrix:
    """The information ``told`` (K, K) without that of ``noise``, along the eigenvectors they share: their plain
    difference need not be one.

    Observed information may be less than nothing where the values were judged away from the optimum, or gross errors
    are many: nothing is seen in those directions.
    """
    values, axes = np.linalg.eigh(told)
    told = (axes * np.maximum(values, 1e-12 * np.abs(values).max())) @ axes.T
    share, vectors = eigh(noise, told)
    rows = np.linalg.inv(vectors)  # told = rows^T rows
    return (rows.T * np.maximum(0.0, 1 - NOISE_SHARE * share)) @ rows


def _of_noise(model: Model, values: Vector, scale: Matrix, windows: Windows) -> Matrix:
    """Information (K, K) that as many windows of nothing but noise would seem to have."""
    inverse, steps = np.linalg.inv(scale), windows.seconds.shape[1]
    probe, _ = errors(model, values, _short(_TINY * np.eye(model.inputs), steps))
    gain = probe.T / _TINY  # (d, inputs): how the error follows what is measured
    spread, directions = np.linalg.eigh(gain.T @ inverse @ gain)
    seen = spread > 1e-9 * spread[-1]
    noise = (directions[:, seen] / np.sqrt(spread[seen])).T
    _, jacobian = errors(model, values, _short(noise, steps))
    d = len(inverse)
    return len(windows) * (NU + d) / (NU + d + 2) * np.einsum("mik,ij,mjl->kl", jacobian, inverse, jacobian)


def _short(inputs: Vector, steps: int) -> Windows:
    """Windows of one step, and others in which nothing moves, with a reference that stands still."""
    reference = np.tile(IDENTITY, (len(inputs), 1))
    padded = np.zeros((len(inputs), steps, inputs.shape[1]))
    padded[:, 0] = inputs
    return Windows(padded, np.zeros(padded.shape[:2]), reference)
