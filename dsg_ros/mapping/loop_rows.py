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
from dsg_ros.core.theta import Theta
from dsg_ros.core.world import WorldModel
from dsg_ros.mapping.closures import Closure
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.state import State, packed, unpacked

REMEMBERED = 100
"""Withdrawn closures that are not to come again, at most."""

_log = logging.getLogger(__name__)


class LoopRows:
    """The closures in the graph of ``world``: ``ends`` (l, 2) are the keyframes that they tie, the older one first, and
    those that no solve of the whole graph has taken in come last.

    New ones have no robust kernel: from hundreds of deviations away one would never let them in.
    """

    def __init__(self, settings: config.LoopClosure, world: WorldModel) -> None:
        self._settings, self._world = settings, world
        self.counts = {"loops_withdrawn": 0, "loops_refused_withdrawn": 0}
        self._ends, self._rows = Rows(2, dtype=np.int64), Rows(dtype=np.int64)
        self._fresh = 0
        self._correction = 0.0
        # Ends and motion (7,) of those that were withdrawn last.
        self._denied: list[tuple[int, int, NDArray[np.float64]]] = []

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
        """Have these in the graph, but what was withdrawn and is asked for again."""
        for closure in closures:
            if self._denied_before(closure):
                self.counts["loops_refused_withdrawn"] += 1
                continue
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

    def withdraw(self, theta: Theta) -> bool:
        """Remove the one that the graph as it is solved now, at ``theta``, denies most, if that is by more than
        ``withdraw_beyond`` deviations; whether there was one.

        One that is outvoted hardly pulls any more, but it would go on to tell that its ends are a few centimetres
        apart: true closures would not be looked for farther off than that, and a tear would be thought mended.  One at
        a time, because without it the others may agree.
        """
        found = self._world.columns(Loop, self._rows.values, "measured", "sqrt_info")
        at = self._world.get_poses(self.ends.ravel()).reshape(-1, 2, 7)
        off = poses.log(poses.between(found["measured"], poses.between(at[:, 0], at[:, 1])))
        deviations = np.linalg.norm(np.einsum("nij,nj->ni", found["sqrt_info"], off), axis=1)
        deviations *= np.exp(-float(theta.loop_noise))
        if not len(self) or deviations.max() <= self._settings.withdraw_beyond:
            return False
        worst = int(deviations.argmax())
        older, newer = self.ends[worst].tolist()
        _log.info("the closure of keyframes %d and %d is withdrawn: %.0f sigmas off", older, newer, deviations[worst])
        self._denied = [*self._denied, (older, newer, found["measured"][worst])][-REMEMBERED:]
        self._world.remove(self._rows.values[[worst]])
        for column in (self._rows, self._ends):
            column.replace(worst, np.delete(column.values[worst:], 0, axis=0))
        self._fresh = min(self._fresh, len(self))
        self.counts["loops_withdrawn"] += 1
        return True

    def _denied_before(self, closure: Closure) -> bool:
        """Whether one of about the same keyframes that asked for the same was withdrawn: a place that looks like
        another does so again at the next keyframe, and each time the whole graph would be solved to find that out.
        """
        s = self._settings
        for older, newer, measured in self._denied:
            if max(abs(older - closure.older), abs(newer - closure.newer)) > s.reference_keyframes:
                continue
            to_older, from_newer = (
                poses.between(*self._world.get_poses(ends)) for ends in ((closure.older, older), (newer, closure.newer))
            )
            asked = poses.compose(poses.compose(to_older, measured), from_newer)
            apart = poses.log(poses.between(asked, closure.relative))
            if np.linalg.norm(apart[:3]) < s.agreement_distance and np.linalg.norm(apart[3:]) < s.agreement_angle:
                return True
        return False

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        facts = {"fresh": self._fresh, "correction": self._correction, "counts": self.counts}
        return {
            "ends": self.ends.copy(), "rows": self._rows.values.copy(), "facts": packed(facts),
            "denied": np.array([(older, newer) for older, newer, _ in self._denied], np.int64).reshape(-1, 2),
            "denied_measured": np.array([measured for *_, measured in self._denied]).reshape(-1, 7),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over, of the world as it is restored; ValueError or KeyError for what is none."""
        facts = unpacked(state["facts"])
        self._ends.load(state["ends"])
        self._rows.load(state["rows"])
        self._fresh, self._correction, self.counts = facts["fresh"], facts["correction"], facts["counts"]
        denied = zip(state["denied"].tolist(), np.array(state["denied_measured"]), strict=True)
        self._denied = [(older, newer, measured) for (older, newer), measured in denied]
        there = self._world.columns(Loop, self._rows.values, "first", "second")
        same = np.array_equal(np.stack([there["first"], there["second"]], axis=1), self.ends)
        if not same or self._world.count(Loop) != len(self) or not 0 <= self._fresh <= len(self):
            raise ValueError("closures of another graph")


def square_root(information: NDArray[np.float64]) -> NDArray[np.float64]:
    """``S`` (6, 6) with ``S^T S = information``, which may be singular."""
    values, vectors = np.linalg.eigh(information)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
