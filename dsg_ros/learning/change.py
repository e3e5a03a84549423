"""Has the robot changed?  A score test on the newest blocks against everything learned before.

While theta is right, the gradient g of each new block's held-out cost has mean zero at the estimate, and a covariance
``H^1/2 C H^1/2``: H is the block's Gauss-Newton Hessian, C how much more, or less, gradients scatter on this robot than
its noise model says.  Over the newest blocks together (Rao's score test; Basseville and Nikiforov, "Detection of abrupt
changes", 1993, section 4.2), with P the covariance of the estimate itself::

    s = sum g,   V = sum H^1/2 C H^1/2 + c H P H,   T_k = s_k^2 / V_kk  ~  chi^2(1),   change = -(H + Lambda_0)^-1 s

One number after the other, each with its share of the chance of a false alarm: what changes is a tyre or a mounting,
and a test of all together, T = s^T V^-1 s ~ chi^2(K), waits until it is clear among K.

Noise in the measured increments alone makes gains seem to fall where little is driven or turned (`losses.dilution`):
an alarm must stand without that, too.

A single wild block is no change: each counts for no more than a few times the usual.  Neither is a small one, however
sure: scans that bend on a ramp look like wheels that do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from dsg_ros import config
from dsg_ros.state import State

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

PAST = 100
"""Blocks before the newest that tell how gradients scatter."""

FEWEST = 10
"""No test before so many."""

CLIP = 2.0
"""A block's whitened gradient counts for at most this many times the usual length."""

FLOOR = 0.3
"""Scatter, as a share of what the noise model says, below which a calm stretch is not believed."""

VECTORS = ("gradient", "diluted")
"""What is kept of a block that is no matrix."""

SURE = 3.0
"""Standard deviations beyond which a number has changed."""


@dataclass(frozen=True)
class Change:
    """``step`` (K,) by which the numbers seem to have changed, seen over the whole window and so too small at first,
    ``sigmas`` (K,) its deviations, over how many of the newest ``blocks`` there is something of it, and
    which numbers (K,) have ``told`` of it.
    """

    step: Vector
    sigmas: Vector
    blocks: int
    told: NDArray[np.bool_]

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Which of the numbers (K,) have changed beyond doubt."""
        return np.abs(self.step) > SURE * self.sigmas


@dataclass(frozen=True)
class _Seen:
    gradient: Vector
    diluted: Vector
    hessian: Matrix
    root: Matrix
    inverse: Matrix
    covariance: Matrix


class ChangeDetector:
    """Tests after every block; ``sigmas`` (K,) are the numbers' prior deviations."""

    def __init__(self, settings: config.Learning, sigmas: Vector) -> None:
        self._settings, self._sigmas = settings, sigmas
        self._window: deque[_Seen] = deque()
        self._past: deque[Vector] = deque(maxlen=PAST)

    def restart(self) -> None:
        """What was seen before a change is no evidence of another; how gradients scatter stays known."""
        self._window.clear()

    def state(self) -> State:
        """As `dsg_ros.state` says: the newest blocks, and how those before them scattered."""
        size = len(self._sigmas)
        shapes = {f.name: (-1, size) if f.name in VECTORS else (-1, size, size) for f in fields(_Seen)}
        window = {
            f"window.{name}": np.array([getattr(seen, name) for seen in self._window]).reshape(shape)
            for name, shape in shapes.items()
        }
        return {**window, "past": np.array(self._past).reshape(-1, size)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        rows = zip(*(state[f"window.{f.name}"] for f in fields(_Seen)), strict=True)
        self._window = deque(_Seen(*row) for row in rows)
        self._past = deque(state["past"], maxlen=PAST)

    def add(self, gradient: Vector, diluted: Vector, hessian: Matrix, information: Matrix) -> Change | None:
        """A new block at the estimate: its ``gradient`` (K,), what part of it is ``diluted`` (K,), and ``hessian`` (K,
        K); and the ``information`` (K, K) of the estimate without it.
        """
        root, inverse = _roots(hessian)
        self._window.append(_Seen(gradient, diluted, hessian, root, inverse, _inverse(information)))
        if len(self._window) > self._settings.change_blocks:
            oldest = self._window.popleft()
            self._past.append(oldest.inverse @ oldest.gradient)
        if len(self._window) < 2 or len(self._past) < FEWEST:
            return None
        change = self._test([seen.gradient for seen in self._window])
        if change is None:
            return None
        undiluted = self._test([seen.gradient - seen.diluted for seen in self._window])
        if undiluted is None or not (undiluted.sure & change.sure & change.told).any():
            return None
        return replace(change, step=np.where(undiluted.sure, change.step, 0.0))

    def _test(self, gradients: Sequence[Vector]) -> Change | None:
        """The test on the window's blocks, of whose ``gradients`` (K,) only that is believed which is given."""
        size = len(self._sigmas)
        lengths = np.array([np.linalg.norm(u) for u in self._past])
        usual = max(float(np.median(lengths)), np.sqrt(FLOOR * size))
        scatter = self._scatter(usual)
        newest_first = list(reversed(self._window))
        clipped = [
            seen.root @ _clipped(seen.inverse @ gradient, CLIP * usual)
            for seen, gradient in zip(newest_first, reversed(gradients), strict=True)
        ]
        totals = np.cumsum(clipped, axis=0)  # row i: over the newest i + 1 blocks
        spreads = np.cumsum([seen.root @ scatter @ seen.root for seen in newest_first], axis=0)
        hessian = np.sum([seen.hessian for seen in newest_first], axis=0)
        spread = spreads[-1] + np.trace(scatter) / size * hessian @ self._window[0].covariance @ hessian
        limit = chdtri(1, self._settings.change_probability / size)
        told = totals[-1] ** 2 > limit * np.maximum(np.diag(spread), 1e-9 * np.trace(spread))
        gain = np.linalg.inv(hessian + np.diag(self._sigmas**-2))
        sigmas = np.sqrt(np.diag(gain @ spread @ gain))
        raw = np.sum(gradients, axis=0)  # the size of a step is not to be clipped
        # There is something of it in those over which the test is clearest.
        since = 1 + int(np.argmax([_squared(t, s) for t, s in zip(totals, spreads, strict=True)]))
        change = Change(-gain @ raw, sigmas, since, told)
        large = np.abs(change.step) > self._settings.change_least * self._sigmas
        return change if (change.sure & large & told).any() else None

    def _scatter(self, usual: float) -> Matrix:
        """C (K, K), with ten blocks' worth of belief that it is the same in all directions."""
        size = len(self._sigmas)
        past = np.array([_clipped(u, CLIP * usual) for u in self._past])
        scatter = (past.T @ past + FEWEST * usual**2 / size * np.eye(size)) / (len(past) + FEWEST)
        values, vectors = np.linalg.eigh(scatter)
        floored: Matrix = vectors * np.maximum(values, FLOOR) @ vectors.T
        return floored


def _squared(total: Vector, spread: Matrix) -> float:
    """``total^T spread^-1 total``.  Directions that no block has seen have neither."""
    size = float(np.trace(spread))
    if not size > 0.0:  # scans that see nothing
        return 0.0
    regular = spread + 1e-9 * size * np.eye(len(total))
    return float(total @ np.linalg.solve(regular, total))


def _clipped(whitened: Vector, limit: float) -> Vector:
    length = float(np.linalg.norm(whitened))
    return whitened * (limit / length) if length > limit else whitened


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _roots(hessian: Matrix) -> tuple[Matrix, Matrix]:
    """H^1/2 and its pseudo-inverse."""
    values, vectors = np.linalg.eigh(hessian)
    seen = values > 1e-9 * max(values[-1], 0.0)
    root = np.sqrt(np.where(seen, values, 0.0))
    return vectors * root @ vectors.T, vectors * np.where(seen, 1 / np.where(seen, root, 1.0), 0.0) @ vectors.T
