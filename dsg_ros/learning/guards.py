"""What stands between an estimate of theta and its use: observability, significance and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.core.theta import Spec
from dsg_ros.state import State

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

LEARNED, FROZEN, UNOBSERVABLE = "learned", "frozen", "unobservable"


@dataclass(frozen=True)
class Verdict:
    """Which numbers may be used (K,), with a status and a reason for each."""

    free: NDArray[np.bool_]
    status: tuple[str, ...]
    reason: tuple[str, ...]


@dataclass
class Gate:
    """Decides, number by number, whether what was learned is used; with hysteresis, so that nothing flickers."""

    specs: tuple[Spec, ...]
    settings: config.Learning
    _observable: NDArray[np.bool_] = field(init=False)
    _significant: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._observable = np.zeros(len(self.specs), bool)
        self._significant = np.zeros(len(self.specs), bool)

    def state(self) -> State:
        """As `dsg_ros.state` says: what the hysteresis remembers."""
        return {"observable": self._observable.copy(), "significant": self._significant.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        self._observable, self._significant = np.array(state["observable"]), np.array(state["significant"])

    def judge(
        self, information: Matrix, deviation: Vector, sigmas: Vector, metres: float, known: NDArray[np.bool_]
    ) -> Verdict:
        """``information`` (K, K) with prior, ``deviation`` (K,) from where learning began, ``metres`` ago, ``sigmas``
        (K,) by the sandwich; ``known`` (K,) are those that had been learned before a change: they need not be
        significant again.

        Observable: the formal deviation is below ``observable`` prior deviations, and not again above ``unobservable``.
        Significant: the deviation is above ``significance`` sandwich deviations, and not again below half of that.
        """
        s = self.settings
        prior = np.array([spec.prior_sigma for spec in self.specs])
        ratio = np.sqrt(np.diag(np.linalg.inv(information))) / prior
        self._observable = ratio < np.where(self._observable, s.unobservable, s.observable)
        distance = np.abs(deviation) / sigmas
        self._significant = distance > np.where(self._significant, 0.5, 1.0) * s.significance
        status, reason = [], []
        for i in range(len(self.specs)):
            if not self._observable[i]:
                status.append(UNOBSERVABLE)
                need, partner = self._need(ratio[i], metres), _partner(i, information, self.specs)
                reason.append(f"not observable, {metres:.1f} m of driving{need}{partner}")
            elif not (self._significant[i] or known[i]):
                status.append(FROZEN)
                reason.append(f"within {s.significance:g} standard deviations of where it started")
            else:
                status.append(LEARNED)
                reason.append("")
        return Verdict(self._observable & (self._significant | known), tuple(status), tuple(reason))

    def _need(self, ratio: float, metres: float) -> str:
        """How far it takes at the pace so far: information grows with the way driven."""
        gained, wanted = 1 / ratio**2 - 1, 1 / self.settings.observable**2 - 1
        if gained < 0.01 * wanted:
            return ""
        return f", need about {metres * wanted / gained:.0f} m"


def _partner(number: int, information: Matrix, specs: tuple[Spec, ...]) -> str:
    """Names what a number cannot be told apart from: its largest partner in the weakest direction it takes part in."""
    prior = np.array([spec.prior_sigma for spec in specs])
    values, vectors = np.linalg.eigh(information * np.outer(prior, prior))
    # Variance of the number, direction by direction; the eigenvalues count prior informations.
    weakest = int(np.argmax(vectors[number] ** 2 / values))
    direction = np.abs(vectors[:, weakest])
    direction[number], own = 0.0, direction[number]
    partner = int(np.argmax(direction))
    return f"; not told apart from {specs[partner].name}" if direction[partner] > 0.5 * own else ""


def within_bounds(deviation: Vector, start: Vector, specs: tuple[Spec, ...]) -> str:
    """Empty if every number is finite and inside its bound, else what is wrong."""
    for value, spec in zip(start + deviation, specs, strict=True):
        if not np.isfinite(value):
            return f"{spec.name} is not finite"
        if abs(value) > spec.bound:
            return f"{spec.name} = {spec.physical(value):.4g} {spec.unit} is out of bounds"
    return ""
