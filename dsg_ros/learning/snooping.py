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
from scipy.linalg.lapack import dtrtri

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
    """Tells of what is left out of legs; ``counts`` are counted up: positions_jump and legs_refused."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts
        for name in ("positions_jump", "legs_refused"):
            counts.setdefault(name, 0)
        self._throttled = Throttle(to_log(__name__))

    def believes(self, leg: Leg, found: Snooped) -> bool:
        """Whether anything is to be learned from what was ``found`` of ``leg``."""
        if found.wrong:
            self._counts["legs_refused"] += 1
            text = f"reference: of {len(leg.link)} positions along {len(leg.duration)} keyframes {found.wrong}"
            self._throttled("warning", "leg", f"{text}; not learned from")
            return False
        if found.dropped:
            self._counts["positions_jump"] += found.dropped
            text = f"reference: {found.dropped} of {len(leg.link)} positions jump away from the others and odometry"
            self._throttled("warning", "jump", f"{text}; not used")
        return True


def snoop(leg: Leg, model: Model, prior: Vector) -> Snooped:
    """Leave out what stands out, where theta may be ``prior`` (K,) away from that of ``model``.

    All that stands out is left out before the rest is laid anew, as gross errors have turned it.  Then more may stand
    out, seldom more than once.
    """
    most, dropped = int(MOST * len(leg.link)), 0
    while True:
        try:
            rest = _Rest(leg, model, prior)
            wrong = _leave_out(rest, most - dropped)
        except (np.linalg.LinAlgError, ValueError):
            wrong, rest = "it cannot be told how they lie", None
        if rest is None or not rest.dropped:
            return Snooped(leg, dropped, wrong)
        leg, dropped = leg.without(rest.dropped), dropped + len(rest.dropped)
        if wrong:
            return Snooped(leg, dropped, wrong)


def _leave_out(rest: _Rest, most: int) -> str:
    """Drop the worst as long as one stands out; what is wrong with all of them, if something is."""
    while True:
        found = rest.squared()
        if not np.isfinite(found).all():
            return "it cannot be told how they lie"
        scale = max(1.0, float(np.median(found)) / USUAL)
        if scale > LOOSEST:
            return f"they are {np.sqrt(scale):.1f} times as far from it as their deviations tell"
        worst = int(np.argmax(found))
        if found[worst] <= LARGEST * scale:
            return ""
        if len(rest.dropped) == most:
            return f"more than {MOST:.0%} of them jump"
        rest.drop(worst)


class _Rest:
    """Fixes of a leg that are left, each foretold by the others.

    A fix that is dropped takes ``P_:k P_kk^-1 P_k:`` from P.  So nothing is factorised again, and of P the diagonal
    blocks and ``P r`` are kept, and a pair of columns for each that was ``dropped``: a Cholesky decomposition of P,
    block by block, with the worst as pivot.
    """

    def __init__(self, leg: Leg, model: Model, prior: Vector) -> None:
        told = foretell(leg, model)
        size = len(told.u)
        self.dropped: list[int] = []
        self._kept = np.arange(size // 2)
        self._inverse, flaw = dtrtri(told.lower, lower=1)
        if flaw:
            raise np.linalg.LinAlgError("no inverse")
        unsure = np.linalg.inv(np.diag(prior**-2.0) + told.du.T @ told.du)
        explained = np.concatenate([told.free, told.du @ np.linalg.cholesky(unsure)], axis=1)
        self._told = self._inverse.T @ (told.u - explained @ (explained.T @ told.u))
        # What is taken from S^-1: what t, psi and theta explain, then what is dropped.
        self._taken = self._inverse.T @ explained
        ours = self._inverse.reshape(size, -1, 2)
        self._own = np.einsum("nmi,nmj->mij", ours, ours) - _squares(self._taken)

    def squared(self) -> Vector:
        """Squared normalised errors of those left."""
        error = self._told.reshape(-1, 2)[self._kept]
        return np.einsum("mi,mi->m", error, np.linalg.solve(self._own[self._kept], error[:, :, None])[:, :, 0])

    def drop(self, number: int) -> None:
        """One of those left, by its number among them."""
        fix = int(self._kept[number])
        rows = slice(2 * fix, 2 * fix + 2)
        below = self._inverse[2 * fix :]  # above it the inverse of the factor, whose columns these are, is zero
        columns = below.T @ below[:, rows] - self._taken @ self._taken[rows].T
        root = np.linalg.cholesky(columns[rows])
        columns = np.linalg.solve(root, columns.T).T
        self._told = self._told - columns @ np.linalg.solve(root, self._told[rows])
        self._own -= _squares(columns)
        self._taken = np.concatenate([self._taken, columns], axis=1)
        self._kept = np.delete(self._kept, number)
        self.dropped.append(fix)


def _squares(columns: Vector) -> Vector:
    """Diagonal blocks (m, 2, 2) of what ``columns`` (2m, n) are a root of."""
    pairs = columns.reshape(-1, 2, columns.shape[1])
    return np.asarray(pairs @ pairs.transpose(0, 2, 1))
