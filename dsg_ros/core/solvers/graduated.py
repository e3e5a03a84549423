"""Graduated non-convexity: which relative poses to believe where some are false, and the optimum of those.

Rows declared with a Geman-McClure kernel, the pull of which vanishes for large errors, are doubtful, and believed up to
its width; the others, odometry say, are trusted, and have to determine every variable by themselves.  The cost has as
many minima as there are ways to choose among the doubtful rows.  From what the trusted ones say alone, rounds believe
more and more:

1. Which doubtful rows are likely to be right, given all that is believed so far (`plausibility`)?
2. Truncated least squares over these, by graduated non-convexity (Yang, Antonante, Tzoumas and Carlone, "Graduated
   Non-Convexity for Robust Spatial Perception", RA-L 5, 2020): what contradicts the rest is out again.

until the set stays.  The paper's optimiser takes all doubtful rows from the start, each weighted by the inverse of its
error.  With a fifth of parking-garage's loops false that folds the map up, where every loop fits: its noise is claimed
so large, against the robot's steps, that this costs less than the truth even with all false loops left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.factors.base import Factor
from dsg_ros.core.initialise import chordal
from dsg_ros.core.linearisation import HostRows, Values
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Result, Solution
from dsg_ros.core.solvers.host import Descent, descend, on_host, solution_of
from dsg_ros.core.solvers.plausibility import Plausibility, chi2_quantile, degrees_of_freedom
from dsg_ros.core.solvers.sparse import SingularError, SparseCholesky, SparseFactor
from dsg_ros.core.theta import Theta

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

PROBABILITY = 0.999999
"""The usual width: a row that is right has an error below it with this probability.  False loops are far beyond, and
of a graph's thousands of loops none that is right is to be lost."""
ODDS = (3.0, 1.0)
"""Log-likelihood ratio from which on a row is taken, in the first round, and in later ones."""
CONFIRMED = 6.0
"""Rows that were taken on weaker evidence, and found no more since, are out again: one that is false keeps out what
contradicts it, as long as it is in."""
SETTLED = 0.01
"""Rounds end once fewer than this fraction of the doubtful rows are new."""
STRAY, CHANCE = 10.0, 1e-4
"""Where errors have long tails, a few rows that are right are unlikely by the errors of the others.  A row is taken too
if its squared innovation is beyond its width, scaled as those are, by this factor at most, and if by chance one would
be as close with no more than this probability."""
ROUNDS = 20
TRIES = 2
"""How often a row may come back that was out."""
GROWTH = 1.4
"""Of mu, from one round of graduated non-convexity to the next, as in the paper."""
LIGHTEST = 1e-9
"""The weight of rejected rows until a round's end, so that the structure of the equations stays."""


@dataclass(frozen=True)
class Consensus:
    """The optimum of the rows believed, and the others' places in the stacks of their types."""

    solution: Solution
    rejected: dict[type[Factor], Ints]


def width(sqrt_info: Floats, probability: float = PROBABILITY) -> Floats:
    """Widths (n,) for doubtful rows with ``sqrt_info`` (n, d, d): the root of the chi-squared quantile."""
    return np.asarray(np.sqrt(chi2_quantile(probability, degrees_of_freedom(sqrt_info))))


def solve_graduated(problem: Problem, theta: Theta, max_iterations: int = 100, tolerance: float = 1e-7) -> Consensus:
    """Choose among the doubtful rows of ``problem``, and minimise the cost of what is kept.

    Where the trusted rows do not determine all variables the result is SINGULAR, and all doubtful rows are rejected.
    ValueError for doubtful rows that are no relative poses.
    """
    rows = HostRows(problem, theta)
    search = _Search(rows, on_host(problem.state), max_iterations, tolerance)
    if search.doubtful.any() and search.trusted_suffice():
        search.grow(ODDS)
        if search.unconfirmed():
            search.grow(ODDS[-1:])
        search.settle()
    found = search.found._replace(iterations=search.iterations)
    solution = solution_of(problem, search.rows, found, search.linear)
    return Consensus(solution, rows.by_stack(~search.kept))


class _Search:
    """Which rows (R,) are ``kept``, with those of the doubtful ones (n,) that are ``inside``; these ``rows`` alone, and
    their optimum, ``found``.
    """

    def __init__(self, every: HostRows, start: Values, max_iterations: int, tolerance: float) -> None:
        self.every, self.linear = every, SparseCholesky()
        self.max_iterations, self.tolerance = max_iterations, tolerance
        self.doubtful, self.widest = every.doubtful, every.widths**2
        self.judge = Plausibility(every, self.doubtful)
        if len(self.judge.rows) < self.doubtful.sum():
            raise ValueError("only relative poses in a compiled form can be doubtful (have a Geman-McClure kernel)")
        self.iterations = 0
        self.seen: Descent | None = None
        self.weak = np.zeros(len(self.judge.rows), bool)
        self.keep(self.weak)
        self.optimise(self.better(start))

    def trusted_suffice(self) -> bool:
        """Whether the trusted rows determine every variable."""
        try:
            self.factorise()
        except SingularError:
            return False
        return self.found.result is not Result.DIVERGED

    def grow(self, odds: tuple[float, ...]) -> None:
        """Take rows as they become likely: by ``odds`` round after round, the last ones as long as there are some."""
        for turn in range(ROUNDS):
            self.look()
            if not self.judge.scale:
                self.judge.scale_by_sharpest()
            asked = np.where(self.weak, CONFIRMED, odds[min(turn, len(odds) - 1)])
            fresh = (self.judge.log_likelihood_ratio() > asked) & ~self.inside
            if fresh.any():
                self.keep(self.inside | fresh)
                self.graduate(self.better(self.found.state))
            if turn + 1 >= len(odds) and fresh.sum() < SETTLED * len(fresh):
                break

    def unconfirmed(self) -> bool:
        """Drop rows that little else speaks for; whether there were any."""
        self.judge.leave_one_out(self.look(), self.inside)
        self.weak = self.inside & (self.judge.log_likelihood_ratio() < CONFIRMED)
        if self.weak.any():
            self.keep(self.inside & ~self.weak)
            self.optimise(self.found.state)
        return bool(self.weak.any())

    def settle(self) -> None:
        """Test each row against all others that are kept, until none is to go or to come."""
        came = np.zeros(len(self.inside), np.int64)
        for _ in range(ROUNDS):
            self.judge.leave_one_out(self.look(), self.inside)
            self.judge.scale_by_kept(self.inside)
            # Truncated least squares asks for just this: to have a row in raises the cost of the others by half of it.
            widest = (self.every.weights * self.widest)[self.judge.rows]
            fits = self.judge.squared <= widest
            stray = (self.judge.squared <= STRAY * self.judge.scale * widest) & (self.judge.by_chance() <= CHANCE)
            likely = (self.judge.log_likelihood_ratio() > 0) | stray
            wanted = fits & (self.inside | (likely & (came < TRIES)))
            if np.array_equal(wanted, self.inside):
                break
            came += wanted & ~self.inside
            self.keep(wanted)
            self.optimise(self.found.state)

    def look(self) -> SparseFactor:
        """Have the doubtful rows judged at the optimum, by its normal equations."""
        factor = self.factorise()
        self.judge.look(np.asarray(self.found.state.poses), None if self.seen is self.found else factor)
        self.seen = self.found
        return factor

    def keep(self, inside: Mask) -> None:
        """From here on these doubtful rows (n,) are believed."""
        self.inside, self.kept = inside, ~self.doubtful
        self.kept[self.judge.rows] = inside
        self.rows = self.every.weighted(self.kept.astype(float))

    def optimise(self, state: Values) -> None:
        """The optimum of the rows kept."""
        self.found = descend(self.rows, state, self.linear, self.max_iterations, self.tolerance, 0.0)
        self.iterations += self.found.iterations

    def factorise(self) -> SparseFactor:
        """The normal equations at the optimum; SingularError where they do not determine all."""
        return self.linear.factorise(self.rows, self.found.linearised, np.zeros(len(self.rows.free)))

    def better(self, state: Values) -> Values:
        """``state``, or the rows' chordal relaxation where that costs less, what is doubtful truncated."""
        relaxed: Any = chordal(self.rows, np.asarray(state.poses))
        if relaxed is None:
            return state
        other = state._replace(poses=relaxed)
        return other if self.truncated_cost(other) < self.truncated_cost(state) else state

    def truncated_cost(self, state: Values) -> float:
        """Cost of the rows kept; a doubtful one's is that of its width at most."""
        cost, _ = self.rows.linearise(state)
        beyond = np.maximum(self.rows.squared - self.widest, 0.0)
        return cost - 0.5 * float(np.sum(self.rows.weights * beyond, where=self.doubtful & self.kept))

    def graduate(self, state: Values) -> None:
        """Truncated least squares over the rows kept, from ``state``: those it rejects are kept no more.

        Equations 13 and 14 of the paper: weights between 0 and 1 for errors between two bounds about the width, which
        begin as far apart as the largest error asks for, and meet.
        """
        mask = self.doubtful & self.kept
        self.rows.linearise(state)
        ratio = self.rows.squared / self.widest
        worst = float(np.max(ratio, where=mask, initial=0.0))
        weights, mu, damping = self.kept.astype(float), 1 / (2 * worst - 1) if worst > 1 else np.inf, 0.0
        while np.isfinite(mu):
            light = np.sqrt(mu * (mu + 1) / np.maximum(ratio[mask], LIGHTEST)) - mu
            weights[mask] = np.clip(light, LIGHTEST, 1.0)
            if not ((weights > LIGHTEST) & (weights < 1)).any():
                break
            rows = self.every.weighted(weights)
            found = descend(rows, state, self.linear, 1, self.tolerance, damping)
            state, damping, ratio = found.state, found.damping, rows.squared / self.widest
            self.iterations += 1
            mu *= GROWTH
        if worst > 1:
            self.keep(weights[self.judge.rows] > 0.5)
        self.optimise(state)
