"""What an outer update works out of all blocks so far, for the next block to judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.learning import guards
from dsg_ros.state import State, packed, unpacked

Vector = NDArray[np.float64]


class Proposal(NamedTuple):
    """Deviations (K,) of the learned numbers from where they started: ``estimate`` the minimiser, ``candidate`` that of
    the numbers that the ``verdict`` lets be used.  ``sigmas`` (K,) are the estimate's; ``noise`` (6,) are the
    odometry's log sigmas.
    """

    estimate: Vector
    candidate: Vector
    sigmas: Vector
    verdict: guards.Verdict
    noise: Vector

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        words = packed({"status": self.verdict.status, "reason": self.verdict.reason})
        numbers = {"estimate": self.estimate, "candidate": self.candidate, "sigmas": self.sigmas, "noise": self.noise}
        copies: State = {name: array.copy() for name, array in numbers.items()}
        return copies | {"free": self.verdict.free.copy(), "words": words}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Proposal:
        """Of a state; KeyError or ValueError for what is none."""
        words = unpacked(state["words"])
        verdict = guards.Verdict(np.array(state["free"]), tuple(words["status"]), tuple(words["reason"]))
        estimate, candidate, sigmas, noise = (
            np.array(state[name]) for name in ("estimate", "candidate", "sigmas", "noise")
        )
        return cls(estimate, candidate, sigmas, verdict, noise)


def nothing_known(sigmas: Vector, noise: Vector) -> Proposal:
    """Before the first block: the prior's deviations ``sigmas`` (K,), nothing observable, ``noise`` (6,) as told."""
    count, zero = len(sigmas), np.zeros(len(sigmas))
    reason = "not observable, 0 m of driving"
    verdict = guards.Verdict(np.zeros(count, bool), (guards.UNOBSERVABLE,) * count, (reason,) * count)
    return Proposal(zero, zero, sigmas, verdict, noise)
