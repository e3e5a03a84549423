"""A leg of positions, worked out beside what comes: it takes as long as many scans, and none of them is to wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.theta import Theta
from dsg_ros.learning import leg_loss
from dsg_ros.learning.at_once import begun
from dsg_ros.learning.leg import Leg
from dsg_ros.learning.losses import Score
from dsg_ros.learning.proposal import Proposal
from dsg_ros.learning.snooping import Snooped, Snooper, snoop
from dsg_ros.state import State

Vector = NDArray[np.float64]


class Trial(NamedTuple):
    """What a block says of the last update, which it has not seen: its score ``before`` it and ``after``; and what is
    to be learned from it, ``own`` at the estimate, with `losses.dilution` ``diluted`` (K,).
    """

    before: Score
    after: Score
    own: Score
    diluted: Vector


class Scores(Protocol):
    """The trial of a leg with theta as it is used, by deviations (K,) from ``start``, and as it is proposed."""

    def __call__(self, leg: Leg, /, start: Theta, used: Vector, proposal: Proposal) -> Trial: ...


class LegWork:
    """One leg at a time, of the numbers ``names`` with deviations ``prior`` (K,).

    ``counts`` are counted up, those of `Snooper`, when the ``outcome`` is asked for: nothing depends on when a thread
    is done.
    """

    def __init__(self, names: tuple[str, ...], prior: Vector, scores: Scores, counts: dict[str, int]) -> None:
        self._names, self._prior, self._scores = names, prior, scores
        self._snooper = Snooper(counts)
        self._leg: Leg | None = None
        self._found: Callable[[], tuple[Snooped, Trial | None]] | None = None

    @property
    def begun(self) -> bool:
        """Whether there is one, done or not."""
        return self._leg is not None

    def begin(self, leg: Leg, start: Theta, used: Vector, proposal: Callable[[], Proposal]) -> None:
        """Leave out of ``leg`` what does not fit, and score the rest, in another thread; ``proposal`` may have to be
        waited for.
        """
        self._leg = leg
        self._found = begun(lambda: self._examined(leg, start, used, proposal()))

    def outcome(self) -> tuple[Leg, Trial] | None:
        """What is left of the leg that was begun, and its trial; None where nothing is to be learned from it."""
        assert self._leg is not None
        assert self._found is not None
        whole, work = self._leg, self._found
        self._leg = self._found = None  # whatever becomes of it, it is not begun again
        found, trial = work()
        return (found.leg, trial) if self._snooper.believes(whole, found) and trial else None

    def state(self) -> State:
        """As `dsg_ros.state` says: the leg as it came, to begin it again."""
        return self._leg.state() if self._leg else {}

    def restore(self, state: Mapping[str, Any], start: Theta, used: Vector, proposal: Callable[[], Proposal]) -> None:
        """Take over what `state` gave; the rest as for `begin`."""
        self._leg = self._found = None
        if state:
            self.begin(Leg.of(state), start, used, proposal)

    def _examined(self, leg: Leg, start: Theta, used: Vector, proposal: Proposal) -> tuple[Snooped, Trial | None]:
        start = start.replace(odometry_noise=proposal.noise)
        found = snoop(leg, leg_loss.model_at(start, used, self._names), self._prior)
        return found, None if found.wrong else self._scores(found.leg, start, used, proposal)
