"""Closures as rows of the factor graph: let in, judged by the graph as a whole, and withdrawn where it denies them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors import Loop
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.world import WorldModel
from dsg_ros.mapping.closures import Closure
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.state import State, packed, unpacked

_log = logging.getLogger(__name__)


class LoopRows:
    """The closures in the graph of ``world``: ``ends`` (l, 2) are the keyframes that they tie, the older one first, and
    those that no solve of the whole graph has taken in come last.

    New ones have no robust kernel: from hundreds of deviations away one would never let them in.
    """

    def __init__(self, settings: config.LoopClosure, world: WorldModel) -> None:
        self._settings, self._world = settings, world
        self.withdrawn = 0
        self._ends, self._rows = Rows(2, dtype=np.int64), Rows(dtype=np.int64)
        self._fresh = 0
        self._correction = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ends(self) -> NDArray[np.int64]:
        """A view (l, 2)."""
        found: NDArray[np.int64] = self._ends.values
        return found

    @property
    def solved(self) -> NDArray[np.int64]:
        """The `ends` of those that a solve of the whole graph has taken in."""
        return self.ends[: len(self) - self._fresh]

    @property
    def fresh(self) -> bool:
        """Whether there are others."""
        return self._fresh > 0

    @property
    def wanted(self) -> bool:
        """Whether enough of those, or one that moves the map far, ask for a solve of the whole graph."""
        s = self._settings
        return self._fresh >= s.solve_after or self._correction > s.solve_beyond

    def add(self, closures: list[Closure]) -> None:
        for closure in closures:
            row = self._world.add(
                Loop, first=closure.older, second=closure.newer, measured=closure.relative,
                sqrt_info=square_root(closure.information),
                kernel=int(Kernel.NONE), kernel_width=self._settings.robust_scale,
            )  # fmt: skip
            self._rows.append(row)
            self._ends.append((closure.older, closure.newer))
            self._fresh += 1
            self._correction = max(self._correction, closure.jump)

    def settle(self) -> None:
        """After a solve that had the new ones as they are: all are robust from here on."""
        if self._fresh:
            self._world.set_rows(self._rows.values[len(self) - self._fresh :], kernel=int(Kernel.CAUCHY))
        self._fresh, self._correction = 0, 0.0

    def withdraw(self) -> bool:
        """Remove those that the graph as it is solved now denies by more than ``withdraw_beyond`` deviations; whether
        there were any.

        One that is outvoted hardly pulls any more, but it would go on to tell that its ends are a few centimetres
        apart: true closures would not be looked for farther off than that, and a tear would be thought mended.
        """
        found = self._world.columns(Loop, self._rows.values, "measured", "sqrt_info")
        at = self._world.get_poses(self.ends.ravel()).reshape(-1, 2, 7)
        off = poses.log(poses.between(found["measured"], poses.between(at[:, 0], at[:, 1])))
        deviations = np.linalg.norm(np.einsum("nij,nj->ni", found["sqrt_info"], off), axis=1)
        denied = deviations > self._settings.withdraw_beyond
        if not denied.any():
            return False
        for (older, newer), far in zip(self.ends[denied].tolist(), deviations[denied].tolist(), strict=True):
            _log.info("the closure of keyframes %d and %d is withdrawn: %.0f sigmas off the others", older, newer, far)
        self._world.remove(self._rows.values[denied])
        for column in (self._rows, self._ends):
            column.replace(0, column.values[~denied])
        self.withdrawn += int(denied.sum())
        return True

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        facts = {"fresh": self._fresh, "correction": self._correction, "withdrawn": self.withdrawn}
        return {"ends": self.ends.copy(), "rows": self._rows.values.copy(), "facts": packed(facts)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over, of the world as it is restored; ValueError or KeyError for what is none."""
        facts = unpacked(state["facts"])
        self._ends.load(state["ends"])
        self._rows.load(state["rows"])
        self._fresh, self._correction, self.withdrawn = facts["fresh"], facts["correction"], facts["withdrawn"]
        there = self._world.columns(Loop, self._rows.values, "first", "second")
        same = np.array_equal(np.stack([there["first"], there["second"]], axis=1), self.ends)
        if not same or self._world.count(Loop) != len(self) or not 0 <= self._fresh <= len(self):
            raise ValueError("closures of another graph")


def square_root(information: NDArray[np.float64]) -> NDArray[np.float64]:
    """``S`` (6, 6) with ``S^T S = information``, which may be singular."""
    values, vectors = np.linalg.eigh(information)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
