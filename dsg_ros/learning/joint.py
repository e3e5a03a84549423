"""One theta for several drives: Gauss-Newton on their summed held-out cost, with the guards of live learning.

Whoever holds the drives answers a `Question` with each one's `Evidence`; what is done with the sums is the same
wherever that is.  Sums are taken in the drives' order, so that the result does not depend on who answered first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from dsg_ros import config
from dsg_ros.core.theta import SPECS, Spec, names, specs
from dsg_ros.interface import Parameter
from dsg_ros.learning import guards, noise, parameters
from dsg_ros.learning.evidence import Evidence, Question, total
from dsg_ros.learning.learner import minimiser, robust_covariance

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

ITERATIONS = 50
SMALL_STEP = 1e-5
"""A step below this many standard deviations ends the iteration."""

SLACK = 1e-6
"""The cost may rise by this share: its gradient is taken at fixed S, which is not quite its slope."""

MOST_DAMPING = 1e6

NOISE_ITERATIONS, NOISE_TOLERANCE = 30, 1e-8
"""Of the search for the noise, in shares of its likelihood."""

ROUNDS, SETTLED = 8, 1e-2
"""Calibration and noise are found in turn, at most so often, or until no log sigma moves by more."""

_log = logging.getLogger(__name__)


class Span(NamedTuple):
    """Blocks ``first`` to ``last`` (not included) of one log, by its number: a whole drive, or a part of it."""

    log: int
    first: int
    last: int


class Ask(Protocol):
    """Whoever holds the drives: each span's evidence at one theta, in their order."""

    def __call__(self, question: Question, spans: Sequence[Span]) -> list[Evidence]: ...


@dataclass(frozen=True)
class Estimate:
    """What some drives say together, in deviations (K,) from the start.

    ``deviation`` is where the cost is least, with its ``covariance`` (K, K, sandwich); ``used`` what the guards let
    through.  ``status`` and ``reason`` (K) are told with each number.
    """

    deviation: Vector
    covariance: Matrix
    used: Vector
    status: tuple[str, ...]
    reason: tuple[str, ...]

    @property
    def sigmas(self) -> Vector:
        """Standard deviations (K,)."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))


class Joint:
    """Finds theta.  ``parameters_given`` are where it starts; the prior lies around the start, and counts once."""

    def __init__(self, ask: Ask, settings: config.Slam, parameters_given: Sequence[Parameter] = ()) -> None:
        self._ask = ask
        self._settings = settings.learning
        chosen = parameters.chosen(settings.learning.parameters)
        self.specs: tuple[Spec, ...] = specs(chosen)
        start = parameters.starting_theta(parameters_given)
        self.start = parameters.numbers(start, chosen)
        self.noise_start = np.asarray(start.odometry_noise, float)
        self.given = parameters.given(parameters_given, chosen)
        self.prior = np.diag([1 / spec.prior_sigma**2 for spec in self.specs])
        self.noise = self.noise_start
        self._noise_free = noise.chosen(settings.learning)
        self._noise_scatter = np.zeros((6, 6))
        self._noise_status, self._noise_reason = guards.LEARNED, ""
        self.names = names(chosen)

    def ask(self, deviation: Vector, spans: Sequence[Span]) -> list[Evidence]:
        """Each span's evidence on the calibration, with the noise learned so far."""
        return self._ask(Question(deviation, self.noise), spans)

    def learn_noise(self, spans: Sequence[Span]) -> None:
        """Log sigmas of the odometry from all spans, and the calibration, in turn: each needs the other."""
        if not self._noise_free.any():
            return
        deviation = np.zeros(len(self.specs))
        for _ in range(ROUNDS):
            deviation = self._minimum(spans, deviation)[0]
            before = self.noise
            self._follow_noise(spans, deviation)
            if np.abs(self.noise - before).max() < SETTLED:
                return
        _log.info("calibration and noise still move each other after %d rounds", ROUNDS)

    def _follow_noise(self, spans: Sequence[Span], deviation: Vector) -> None:
        free = np.flatnonzero(self._noise_free)
        blocks = sum(span.last - span.first for span in spans)
        # As in live learning: what the drives do not excite falls back to where it was told.
        prior = np.diag(noise.PRIOR**-2) * blocks / noise.HORIZON

        def cost(logs: Vector) -> tuple[float, Vector]:
            moved = np.zeros(6)
            moved[free] = logs - self.noise_start[free]
            told = total(self._ask(Question(deviation, self.noise_start + moved, "noise"), spans))
            value, slope = told.cost + 0.5 * moved @ prior @ moved, (told.gradient + prior @ moved)[free]
            self._noise_scatter = told.scatter
            return (float(value), slope) if _finite(told) else (np.inf, np.zeros(len(free)))

        bounds = [
            (-spec.bound, spec.bound) for spec, on in zip(SPECS["odometry_noise"], self._noise_free, strict=True) if on
        ]
        options = {"maxiter": NOISE_ITERATIONS, "ftol": NOISE_TOLERANCE}
        found = minimize(cost, self.noise[free], jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        self.noise = self.noise_start.copy()
        self.noise[free] = found.x
        _log.debug("noise %s after %d evaluations", np.exp(self.noise), found.nfev)

    def estimate(self, spans: Sequence[Span], metres: float, begin: Vector | None = None) -> Estimate:
        """Theta by ``spans`` alone, driven for ``metres``; the search begins at ``begin``."""
        deviation, at = self._minimum(spans, np.zeros(len(self.specs)) if begin is None else begin)
        information = at.information + self.prior
        covariance = robust_covariance(information, at.scatter, self.prior)
        gate = guards.Gate(self.specs, self._settings)
        none_before = np.zeros(len(deviation), bool)
        verdict = gate.judge(information, deviation, np.sqrt(np.diag(covariance)), metres, none_before)
        used = np.zeros(len(deviation))
        if verdict.free.any():
            used = self._minimum(spans, np.where(verdict.free, deviation, 0.0), verdict.free)[0]
        status, reason = verdict.status, verdict.reason
        if wrong := guards.within_bounds(used, self.start, self.specs):
            used = np.zeros(len(used))
            status, reason = self._all_frozen(status, reason, wrong)
        return Estimate(deviation, covariance, used, status, reason)

    def kept_at_start(self, estimate: Estimate, why: str) -> Estimate:
        """The same with nothing learned, of the noise neither."""
        self.noise, self._noise_scatter = self.noise_start, np.zeros((6, 6))
        self._noise_status, self._noise_reason = guards.FROZEN, why
        status, reason = self._all_frozen(estimate.status, estimate.reason, why)
        return Estimate(estimate.deviation, estimate.covariance, np.zeros(len(self.specs)), status, reason)

    @staticmethod
    def _all_frozen(
        status: tuple[str, ...], reason: tuple[str, ...], why: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        hidden = [each == guards.UNOBSERVABLE for each in status]
        return (
            tuple(guards.UNOBSERVABLE if hide else guards.FROZEN for hide in hidden),
            tuple(old if hide else why for hide, old in zip(hidden, reason, strict=True)),
        )

    def _minimum(
        self, spans: Sequence[Span], begin: Vector, free: NDArray[np.bool_] | None = None
    ) -> tuple[Vector, Evidence]:
        everything = np.ones(len(self.specs), bool)
        return newton(lambda at: total(self.ask(at, spans)), self.prior, begin, everything if free is None else free)

    def physical(self, deviation: Vector) -> Vector:
        """The numbers (K,) to tell the world."""
        return np.array([spec.physical(s + d) for spec, s, d in zip(self.specs, self.start, deviation, strict=True)])

    def parameters(self, estimate: Estimate) -> tuple[Parameter, ...]:
        """Everything learned as told to the world, then what was given and is not learned."""
        told = [
            Parameter(spec.name, float(value), float(sigma), spec.unit, status, reason)
            for spec, value, sigma, status, reason in zip(
                self.specs,
                self.physical(estimate.used),
                estimate.sigmas,
                estimate.status,
                estimate.reason,
                strict=True,
            )
        ]
        sigmas = np.sqrt(np.diag(np.linalg.inv(np.diag(noise.PRIOR**-2) + self._noise_scatter)))
        for spec, free, log, sigma in zip(SPECS["odometry_noise"], self._noise_free, self.noise, sigmas, strict=True):
            if free:
                value = float(np.exp(log))
                status, reason = self._noise_status, self._noise_reason
                told.append(Parameter(spec.name, value, value * float(sigma), spec.unit, status, reason))
        learned = {parameter.name for parameter in told}
        return (*told, *(parameter for parameter in self.given if parameter.name not in learned))


def newton(
    cost: Callable[[Vector], Evidence], prior: Matrix, begin: Vector, free: NDArray[np.bool_]
) -> tuple[Vector, Evidence]:
    """Where ``cost`` plus the prior's ``0.5 x^T prior x`` is least, and the evidence there; numbers not ``free`` stay
    at zero.

    Levenberg's damping sets in where a step does not lead down, or where the cost is no longer finite.
    """
    at, damping = np.where(free, begin, 0.0), 0.0
    here = cost(at)
    if not _finite(here):
        at = np.zeros(len(begin))
        here = cost(at)
    for _ in range(ITERATIONS):
        information = here.information + prior
        right = -(here.gradient + prior @ at)
        damped = information + damping * np.diag(np.diag(information))
        step = minimiser(damped, right, free, np.zeros(len(right)))
        if step @ information @ step < SMALL_STEP**2:
            break
        there = cost(at + step)
        _log.debug(
            "cost %.9g, step of %.2g deviations, damping %.1g", here.cost, np.sqrt(step @ information @ step), damping
        )
        now, then = (e.cost + 0.5 * x @ prior @ x for e, x in ((here, at), (there, at + step)))
        if _finite(there) and then <= now + SLACK * abs(now):
            at, here, damping = at + step, there, 0.1 * damping if damping > 1e-6 else 0.0
        elif damping > MOST_DAMPING:
            break
        else:
            damping = max(10 * damping, 1e-3)
    return at, here


def _finite(evidence: Evidence) -> bool:
    return bool(np.isfinite(evidence.cost) and np.isfinite(evidence.gradient).all())
