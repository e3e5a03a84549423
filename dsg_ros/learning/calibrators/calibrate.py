"""A calibration from windows: fitted, judged on windows that were held out, and kept where it cannot be known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.learning.calibrators.fit import Errors, Fit, fit, instrumented, sandwich, scale_of, score, scores
from dsg_ros.learning.calibrators.growth import growth
from dsg_ros.learning.calibrators.models import Model, errors, increments
from dsg_ros.learning.calibrators.observability import observability
from dsg_ros.learning.calibrators.windows import Windows, blocks
from dsg_ros.learning.guards import FROZEN, LEARNED, UNOBSERVABLE

Vector = NDArray[np.float64]
Instruments = Callable[[Vector], Vector] | None

HELD_OUT = "every fifth of 25 blocks of neighbouring windows"
_BLOCKS, _EVERY, _FIRST = 25, 5, 2
SANDWICH_BLOCKS = 200
LEAST_WINDOWS = 12
TOLERATED, DOUBT = 0.01, 2.0
"""The held-out loss may get worse by this share, or so many standard errors: else calibrations that are equally good
would be refused."""
_KNOWN = 1e-6
"""Share of its deviation that a number has which is held: it takes nothing from what others are seen by."""
MOST_RATIO = 3.0
"""A length that is learned is not this many times what was said to be its start, unless units are mixed up."""


@dataclass(frozen=True)
class Calibrated:
    """By parameter (K): ``values``, their ``sigmas``, ``status`` (learned, frozen, unobservable) and ``reason``.

    ``held_out_before`` and ``held_out_after`` are negative log likelihoods of the windows that were held out, at the
    start and as learned from the others; about 1 where model and noise are right (`fit.score`).  Where
    nothing is learned, of all windows, at the neutral values and at those given.
    """

    values: Vector
    sigmas: Vector
    status: tuple[str, ...]
    reason: tuple[str, ...]
    held_out_before: float
    held_out_after: float


def calibrate(
    model: Model,
    windows: Windows,
    start: Vector,
    prior: Vector,
    other_starts: Sequence[Vector],
    metres: float,
    noisy_inputs: bool,
    held: NDArray[np.bool_] | None = None,
) -> Calibrated:
    """Learn ``model``'s values (K,) from the windows.

    ``start`` is what is kept of numbers that are not observable, known up to the deviations ``prior`` (K,); the search
    also begins at ``other_starts``, so that a start that is far off does no harm.  ``noisy_inputs``: what is measured
    has more noise than the reference.  Those ``held`` (K,) are known and stay at the start.  `UserError` where the
    windows are too few, or what they say is beyond all bounds.
    """
    if len(windows) < LEAST_WINDOWS:
        raise UserError(
            f"{len(windows)} windows of motion are too few to calibrate with: drive on, {metres:.1f} m so far"
        )
    held = np.zeros(len(start), bool) if held is None else held
    everything = ~held
    prior = np.where(held, _KNOWN * prior, prior)
    other_starts = [np.where(held, start, other) for other in other_starts]
    even = partial(errors, model, windows=windows)
    first = _best(even, (start, *other_starts), everything, prior)
    grown = growth(model, first.values, windows, even(first.values)[0], noisy_inputs)
    told = _relative_to(grown, even)
    first = fit(told, first.values, everything, prior)
    z = (lambda at: _instruments(model, windows, at) / grown[:, :, None]) if noisy_inputs else None
    centre = other_starts[0] if other_starts else start
    seen = observability(model, told, z, first.values, windows, centre, prior, metres)
    free = seen.observable & everything
    begin = np.where(free, first.values, start)
    final = _estimate(told, z, begin, free)
    if final.converged:
        _check(model, final.values, start, free)
    test = (blocks(len(windows), _BLOCKS) % _EVERY) == _FIRST
    before, after, doubt = _held_out(told, z, test, start, begin, free)
    if not final.converged:
        why = "the search did not converge"
    elif not after <= before + max(TOLERATED * before, DOUBT * doubt):
        why = f"what the other windows teach predicts those held out worse ({after:.3g}, {before:.3g} at the start)"
    else:
        why = ""
    covariance = sandwich(final, free, blocks(len(windows), SANDWICH_BLOCKS))
    sigmas = np.where(held, 0.0, np.where(free, np.sqrt(np.diag(covariance)), seen.sigmas))
    status = np.where(held, FROZEN, np.where(free, FROZEN if why else LEARNED, UNOBSERVABLE)).tolist()
    told_why = zip(held, free, seen.reason, strict=True)
    reason = tuple("held, as it was asked for" if h else why if f else r for h, f, r in told_why)
    if why:
        return Calibrated(start.copy(), np.where(held, 0.0, seen.sigmas), tuple(status), reason, before, before)
    return Calibrated(final.values, sigmas, tuple(status), reason, before, after)


def apply(
    model: Model, windows: Windows, neutral: Vector, values: Vector, sigmas: Vector, noisy_inputs: bool
) -> Calibrated:
    """Judge given ``values`` (K,) on all windows, next to ``neutral`` ones; nothing is learned."""
    e, _ = errors(model, values, windows)
    grown = growth(model, values, windows, e, noisy_inputs)
    scale = scale_of(e / grown)
    before = score(errors(model, neutral, windows)[0] / grown, scale)
    count = len(values)
    return Calibrated(
        values, sigmas, (FROZEN,) * count, ("given, not learned",) * count, before, score(e / grown, scale)
    )


def _instruments(model: Model, windows: Windows, values: Vector) -> Vector:
    """The Jacobian (m, d, K) at the motions that the odometry would have told without noise: those that the values turn
    into the reference's."""
    count, steps, inputs = windows.inputs.shape
    linear_map = increments(model, values, np.eye(inputs), np.zeros(inputs)).T
    quiet = np.zeros((count, steps, inputs))
    quiet[:, 0] = np.linalg.lstsq(linear_map, poses.log(windows.reference).T, rcond=None)[0].T
    return errors(model, values, Windows(quiet, windows.seconds, windows.reference))[1]


def _relative_to(grown: Vector, told: Errors) -> Errors:
    """Errors and Jacobian divided by how much larger the errors are (m, d)."""

    def relative(values: Vector) -> tuple[Vector, Vector]:
        e, jacobian = told(values)
        return e / grown, jacobian / grown[:, :, None]

    return relative


def _best(told: Errors, starts: Sequence[Vector], free: NDArray[np.bool_], prior: Vector) -> Fit:
    """The most likely fit among those from several starts, each with a prior around it."""
    fits = [fit(told, start, free, prior) for start in starts]
    return min(fits, key=lambda fitted: fitted.cost if np.isfinite(fitted.cost) else np.inf)


def _estimate(told: Errors, instruments: Instruments, begin: Vector, free: NDArray[np.bool_]) -> Fit:
    found = fit(told, begin, free)
    return found if instruments is None else instrumented(told, instruments, found.values, free)


def _held_out(
    told: Errors,
    instruments: Instruments,
    test: NDArray[np.bool_],
    start: Vector,
    begin: Vector,
    free: NDArray[np.bool_],
) -> tuple[float, float, float]:
    """Scores of the windows in ``test`` at the start and as the others teach, with the noise the others have then, and
    the standard error of their difference."""

    def of_others(values: Vector) -> tuple[Vector, Vector]:
        e, jacobian = told(values)
        return e[~test], jacobian[~test]

    of_their_own = None if instruments is None else lambda values: instruments(values)[~test]
    taught = _estimate(of_others, of_their_own, begin, free)
    one, other = (scores(told(values)[0][test], taught.scale) for values in (start, taught.values))
    return float(one.mean()), float(other.mean()), float((other - one).std() / np.sqrt(len(one)))


def _check(model: Model, values: Vector, start: Vector, free: NDArray[np.bool_]) -> None:
    """`UserError` for a value that no robot has: it is the data's fault."""
    for number in np.flatnonzero(free):
        quantity, value, begun = model.quantities[number], values[number], start[number]
        if quantity.bound is not None and quantity.neutral is not None:
            if abs(value - quantity.neutral) > quantity.bound:
                raise UserError(
                    f"{quantity.name} = {value:.4g} {quantity.unit} is out of bounds ({quantity.neutral:g} +- "
                    f"{quantity.bound:g}): do odometry and reference belong together, both in m and rad?"
                )
        elif quantity.key.endswith(("axle", "diameter")) and value <= 0:
            raise UserError(
                f"{quantity.name} comes out as {value:.4g} {quantity.unit}: are left and right wheel swapped, or does "
                "one count backwards?"
            )
        elif quantity.key.endswith(("axle", "diameter")) and not 1 / MOST_RATIO < value / begun < MOST_RATIO:
            raise UserError(
                f"{quantity.name}: the data says {value:.4g} {quantity.unit}, the start was {begun:.4g}: expected are "
                "metres, radians and seconds; are units mixed up?"
            )
