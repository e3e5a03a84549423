"""Positions that do not fit the rest of their leg: data snooping (Baarda, "A testing procedure for use in geodetic
networks", 1968).

Each fix is foretold from all others: with P the information of the rows that t, psi and theta leave, the error of that
is ``P_kk^-1 (P r)_k`` with covariance ``P_kk^-1``, whatever else is correlated.  The worst is left out, as long as one
stands out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from dsg_ros.learning.leg import Leg
from dsg_ros.learning.leg_loss import Model, foretell
from dsg_ros.throttle import Throttle, to_log

Vector = NDArray[np.float64]

LARGEST = 25.0
"""Squared normalised error of a fix (two numbers) that the rest does not foretell: 4e-6 of good ones are beyond."""
USUAL = 2 * np.log(2.0)
"""Its median."""
LOOSEST = 9.0
"""How many times that the median may be: beyond, the leg as a whole is not what was told."""
MOST = 0.2
"""Share of a leg's fixes that may be left out."""


class Snooped(NamedTuple):
    """What is left of a leg, how many fixes are ``dropped``, and what is ``wrong`` with it as a whole, if something."""

    leg: Leg
    dropped: int
    wrong: str


class Snooper:
    """Has every leg snooped, and tells of what is left out; ``prior`` (K,) are deviations of theta.

    ``counts`` are counted up: positions_jump and legs_refused.
    """

    def __init__(self, prior: Vector, counts: dict[str, int]) -> None:
        self._prior, self._counts = prior, counts
        for name in ("positions_jump", "legs_refused"):
            counts.setdefault(name, 0)
        self._throttled = Throttle(to_log(__name__))

    def left(self, leg: Leg, model: Model) -> Leg | None:
        """What is left of ``leg``; None where nothing is to be learned from it."""
        found = snoop(leg, model, self._prior)
        if found.wrong:
            self._counts["legs_refused"] += 1
            text = f"reference: of {len(leg.link)} positions along {len(leg.duration)} keyframes {found.wrong}"
            self._throttled("warning", "leg", f"{text}; not learned from")
            return None
        if found.dropped:
            self._counts["positions_jump"] += found.dropped
            text = f"reference: {found.dropped} of {len(leg.link)} positions jump away from the others and odometry"
            self._throttled("warning", "jump", f"{text}; not used")
        return found.leg


def snoop(leg: Leg, model: Model, prior: Vector) -> Snooped:
    """Leave out what stands out, where theta may be ``prior`` (K,) away from that of ``model``."""
    count = len(leg.link)
    for dropped in range(int(MOST * count) + 1):
        try:
            found = _foretold_by_others(leg, model, prior)
        except (np.linalg.LinAlgError, ValueError):
            found = np.full(count, np.nan)
        if not np.isfinite(found).all():
            return Snooped(leg, dropped, "it cannot be told how they lie")
        scale = max(1.0, float(np.median(found)) / USUAL)
        if scale > LOOSEST:
            return Snooped(leg, dropped, f"they are {np.sqrt(scale):.1f} times as far from it as their deviations tell")
        worst = int(np.argmax(found))
        if found[worst] <= LARGEST * scale:
            return Snooped(leg, dropped, "")
        leg = leg.without(worst)
    return Snooped(leg, dropped, f"more than {MOST:.0%} of them jump")


def _foretold_by_others(leg: Leg, model: Model, prior: Vector) -> Vector:
    """Squared normalised errors (m,)."""
    told = foretell(leg, model)
    size = len(told.u)
    left = np.eye(size) - told.free @ told.free.T
    left -= told.du @ np.linalg.solve(np.diag(prior**-2.0) + told.du.T @ told.du, told.du.T)
    inverse = np.asarray(solve_triangular(told.lower, np.eye(size), lower=True))
    error = (inverse.T @ (left @ told.u)).reshape(-1, 2)
    index = np.arange(size // 2)
    own = (inverse.T @ left @ inverse).reshape(size // 2, 2, size // 2, 2)[index, :, index, :]
    return np.einsum("mi,mi->m", error, np.linalg.solve(own, error[:, :, None])[:, :, 0])
