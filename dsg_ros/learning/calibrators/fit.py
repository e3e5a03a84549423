"""Robust estimation of a model's values from windows: Levenberg-Marquardt under Student's t, noise included.

Errors e (d,) of the windows are taken to follow a multivariate t of ``NU`` degrees of freedom around zero, with an
unknown scale matrix S (Lange, Little, Taylor, "Robust statistical modeling using the t distribution", JASA 1989):
a window at a squared distance ``q = e^T S^-1 e`` counts by ``w = (NU + d) / (NU + q)``.  Wheels that slip and scans
that are matched wrongly lose their say gradually, where a trimmed mean would depend on the share that is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Errors = Callable[[Vector], tuple[Vector, Vector]]
"""Values (K,) to errors (m, d) and their Jacobian (m, d, K)."""

NU = 5.0
_ITERATIONS = 100
_SCALES = 30
_ROUNDS = 40
_DIVERGED = 1e4
"""A step of so many standard deviations, from values that fit, leads astray."""
_TOLERANCE = 1e-3
"""A step below this many standard deviations ends the iteration."""
_FLOOR = 1e-9
"""Smallest deviation [m, rad] that errors are believed to have: simulated ones may have none."""


@dataclass(frozen=True)
class Fit:
    """``values`` (K,); ``scale`` (d, d) is S of the module's text, ``cost`` the negative log likelihood.

    ``information`` (K, K) is the observed one of the windows alone, ``scores`` (m, K) each window's gradient; both hold
    the held numbers' rows too.  ``jacobian`` (m, d, K) is that of the errors.
    """

    values: Vector
    scale: Matrix
    cost: float
    information: Matrix
    scores: Matrix
    converged: bool


def fit(errors: Errors, start: Vector, free: NDArray[np.bool_], prior: Vector | None = None) -> Fit:
    """Values that are most likely, from ``start``; those not ``free`` are held.

    ``prior`` (K,) are standard deviations around the start; without, the windows speak alone.
    """
    believed = np.zeros(len(start)) if prior is None else 1 / prior**2
    values, damping, converged = start.copy(), 1e-6, False
    e, jacobian = errors(values)
    scale = scale_of(e)
    cost = _cost(e, scale) + float(0.5 * believed @ (values - start) ** 2)
    for _ in range(_ITERATIONS):
        weights, root = _weights(e, scale)
        white, slope = _whitened(root, e), _whitened_jacobian(root, jacobian)
        hessian = np.einsum("m,mdk,mdl->kl", weights, slope, slope) + np.diag(believed)
        gradient = np.einsum("m,mdk,md->k", weights, slope, white) + believed * (values - start)
        step = _step(hessian, gradient, free, damping)
        other = errors(values + step)
        new_scale = scale_of(other[0]) if np.isfinite(other[0]).all() else scale
        new = np.inf
        if np.isfinite(other[0]).all():
            new = _cost(other[0], new_scale) + float(0.5 * believed @ (values + step - start) ** 2)
        if new <= cost + 1e-12 * abs(cost):
            small = float(step @ hessian @ step) < _TOLERANCE**2
            values, (e, jacobian), scale, cost = values + step, other, new_scale, new
            damping = max(damping / 10, 1e-12)
            if small:
                converged = True
                break
        else:
            damping *= 10
            if damping > 1e12:
                converged = True  # no step in any length is better: rounding
                break
    return Fit(values, scale, _cost(e, scale), *information_of(e, jacobian, scale), converged)


def instrumented(
    errors: Errors, instruments: Callable[[Vector], Vector], start: Vector, free: NDArray[np.bool_]
) -> Fit:
    """Values whose errors are not correlated with the instruments (m, d, K), from a fit at ``start``.

    `fit` asks that for the errors' own Jacobian, which holds what was measured, noise and all: its product with the
    error then has a mean, and gains come out too small by the noise's share of the motion.  Instruments that follow the
    motion but not that noise cure it (instrumental variables; Fuller, "Measurement error models", 1987, section 1.4).
    """
    values, converged = start.copy(), False
    for _ in range(_ROUNDS):
        (e, jacobian), z = errors(values), instruments(values)
        scale = scale_of(e)
        weights, root = _weights(e, scale)
        white, slope, lever = _whitened(root, e), _whitened_jacobian(root, jacobian), _whitened_jacobian(root, z)
        hessian = np.einsum("m,mdk,mdl->kl", weights, lever, slope)
        gradient = np.einsum("m,mdk,md->k", weights, lever, white)
        pull = np.einsum("md,mdk->mk", white, slope)
        scores = weights[:, None] * np.einsum("md,mdk->mk", white, lever)
        information = hessian - 2 / (NU + e.shape[1]) * np.einsum("mk,m,ml->kl", scores, weights, pull)
        if converged:
            break
        step = np.zeros(len(values))
        if free.any():
            step[free] = -np.linalg.lstsq(hessian[np.ix_(free, free)], gradient[free], rcond=None)[0]
        size = abs(step @ hessian @ step)
        if not size <= _DIVERGED**2:
            break
        values, converged = values + step, bool(size < _TOLERANCE**2)
    return Fit(values, scale, _cost(e, scale), information, scores, converged)


def scale_of(e: Vector) -> Matrix:
    """The most likely scale matrix S (d, d) of errors (m, d) around zero: the fixed point of ``S = mean(w e e^T)``."""
    d = e.shape[1]
    floor = _FLOOR**2 * np.eye(d)
    # Begun at medians: a share of gross errors would else make the first weights all alike.
    scale = np.diag((1.5 * np.median(np.abs(e), axis=0)) ** 2) + floor
    for _ in range(_SCALES):
        weights, _ = _weights(e, scale)
        # Divided by the weights' sum: the same fixed point, reached in far fewer rounds (Kent, Tyler, Vardi 1994).
        new = np.einsum("m,mi,mj->ij", weights, e, e) / weights.sum() + floor
        done = np.abs(new - scale).max() < 1e-10 * np.abs(new).max()
        scale = new
        if done:
            break
    return scale


def score(e: Vector, scale: Matrix) -> float:
    """The negative log likelihood of errors (m, d) without what depends on the scale alone, as a ratio to what it is on
    average under the t: about 1 where the scale is right.  It grows with the square of small errors and with
    the logarithm of large ones."""
    return float(scores(e, scale).mean())


def scores(e: Vector, scale: Matrix) -> Vector:
    """The terms (m,) of `score`."""
    usual = digamma(0.5 * (NU + e.shape[1])) - digamma(0.5 * NU)
    return np.log1p(_squared(e, scale) / NU) / usual


def sandwich(fitted: Fit, free: NDArray[np.bool_], blocks: NDArray[np.intp]) -> Matrix:
    """Covariance (K, K) of the free values from the scatter of the blocks' gradients (Huber 1967; White 1980), never
    below what the information says alone; zero for held ones.

    ``blocks`` (m,) number the windows: those of one block may share errors.
    """
    chosen = np.ix_(free, free)
    bread = np.linalg.inv(fitted.information[chosen])
    count = int(blocks.max()) + 1
    sums = np.zeros((count, fitted.scores.shape[1]))
    np.add.at(sums, blocks, fitted.scores)
    # The gradients sum to zero at the optimum, K times over: their scatter is that much too small.
    lost = count / max(count - int(free.sum()), 1)
    robust = bread @ (lost * sums[:, free].T @ sums[:, free]) @ bread.T
    grow = np.sqrt(np.maximum(np.diag(robust), np.diag(bread)) / np.maximum(np.diag(robust), 1e-300))
    out = np.zeros(fitted.information.shape)
    out[chosen] = grow[:, None] * robust * grow
    return out


def _squared(e: Vector, scale: Matrix) -> Vector:
    return (_whitened(np.linalg.inv(np.linalg.cholesky(scale)), e) ** 2).sum(axis=1)


def _weights(e: Vector, scale: Matrix) -> tuple[Vector, Matrix]:
    """Weights (m,), and the root W with ``W^T W = S^-1``."""
    root = np.linalg.inv(np.linalg.cholesky(scale))
    return (NU + e.shape[1]) / (NU + (_whitened(root, e) ** 2).sum(axis=1)), root


def _whitened(root: Matrix, e: Vector) -> Vector:
    return e @ root.T


def _whitened_jacobian(root: Matrix, jacobian: Vector) -> Vector:
    return np.einsum("ij,mjk->mik", root, jacobian)


def _cost(e: Vector, scale: Matrix) -> float:
    m, d = e.shape
    spread = float(np.linalg.slogdet(scale)[1])
    return 0.5 * float((NU + d) * np.log1p(_squared(e, scale) / NU).sum() + m * spread)


def _step(hessian: Matrix, gradient: Vector, free: NDArray[np.bool_], damping: float) -> Vector:
    out = np.zeros(len(gradient))
    if free.any():
        h = hessian[np.ix_(free, free)]
        size = np.sqrt(np.maximum(np.diag(h), 1e-300))
        # Scaled to a unit diagonal: metres, radians and ratios damped alike (Marquardt 1963).
        h = h / np.outer(size, size) + (damping + 1e-14) * np.eye(len(h))
        out[free] = -np.linalg.solve(h, gradient[free] / size) / size
    return out


def information_of(e: Vector, jacobian: Vector, scale: Matrix) -> tuple[Matrix, Matrix]:
    """Observed information (K, K) of the values, and every window's gradient (m, K).

    The t's own curvature, ``w S^-1 - 2 w^2 / (NU + d) S^-1 e e^T S^-1``, in the errors; that of the model is left out,
    as Gauss and Newton do.
    """
    weights, root = _weights(e, scale)
    white, slope = _whitened(root, e), _whitened_jacobian(root, jacobian)
    pull = np.einsum("md,mdk->mk", white, slope)
    information = np.einsum("m,mdk,mdl->kl", weights, slope, slope)
    information -= 2 / (NU + e.shape[1]) * np.einsum("m,mk,ml->kl", weights**2, pull, pull)
    return 0.5 * (information + information.T), weights[:, None] * pull
