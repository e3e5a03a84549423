"""Closures of loops, and how far they are believed: large corrections only once several ask for the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.state import State


@dataclass(frozen=True)
class Closure:
    """``relative`` (7,) is keyframe ``newer`` seen from ``older``, ``information`` (6, 6) is in its tangent.

    ``jump`` [m] is how far the closure moves the newer end.  A ``weak`` one matches too poorly, or is of a place too
    far off, to be believed without others.
    """

    older: int
    newer: int
    relative: NDArray[np.float64]
    information: NDArray[np.float64]
    jump: float
    weak: bool = False


class Agreement:
    """Believes a closure at once, or holds it back until enough others agree, far enough apart."""

    def __init__(self, settings: config.LoopClosure) -> None:
        self._settings = settings
        self._waiting: list[Closure] = []

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def state(self) -> State:
        """As `dsg_ros.state` says: the closures that wait."""
        w = self._waiting
        return {
            "older": np.array([c.older for c in w], np.int64),
            "newer": np.array([c.newer for c in w], np.int64),
            "relative": np.array([c.relative for c in w]).reshape(-1, 7),
            "information": np.array([c.information for c in w]).reshape(-1, 6, 6),
            "jump": np.array([c.jump for c in w]),
            "weak": np.array([c.weak for c in w], bool),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        columns = (state[name] for name in ("older", "newer", "relative", "information", "jump", "weak"))
        self._waiting = [
            Closure(int(older), int(newer), relative, information, float(jump), bool(weak))
            for older, newer, relative, information, jump, weak in zip(*columns, strict=True)
        ]

    def believed(self, closure: Closure, trajectory: NDArray[np.float64], travel: NDArray[np.float64]) -> list[Closure]:
        """What is believed now that ``closure`` is there: itself, or with it the waiting ones that ask for the same
        correction of keyframes at ``trajectory`` (k, 7) after ``travel`` (k,) [m], or nothing.
        """
        s = self._settings
        if closure.jump <= s.trusted_jump and not closure.weak:
            return [closure]
        recent = travel[closure.newer] - s.patience
        self._waiting = [w for w in self._waiting if travel[w.newer] >= recent] + [closure]
        wanted = _moved(closure, trajectory, closure.newer)
        agree = []
        for other in self._waiting:
            apart = poses.log(poses.between(wanted, _moved(other, trajectory, closure.newer)))
            if np.linalg.norm(apart[:3]) < s.agreement_distance and np.linalg.norm(apart[3:]) < s.agreement_angle:
                agree.append(other)
        sure = [a for a in agree if not a.weak]
        if not (
            _enough(sure, travel, s.agreement_count, s.agreement_travel)
            or _enough(agree, travel, s.weak_agreement_count, s.weak_agreement_travel)
        ):
            return []
        self._waiting = [w for w in self._waiting if w not in agree]
        return agree


def _enough(closures: Sequence[Closure], travel: NDArray[np.float64], count: int, span: float) -> bool:
    """Whether there are ``count`` of them, over ``span`` metres of travel."""
    if len(closures) < count:
        return False
    ends = travel[[closure.newer for closure in closures]]
    return bool(ends.max() - ends.min() >= span)


def _moved(closure: Closure, trajectory: NDArray[np.float64], keyframe: int) -> NDArray[np.float64]:
    """Where ``keyframe`` would lie in the map if ``closure`` were true and the chain from its newer end rigid."""
    newer = poses.compose(trajectory[closure.older], closure.relative)
    return poses.compose(newer, poses.between(trajectory[closure.newer], trajectory[keyframe]))
