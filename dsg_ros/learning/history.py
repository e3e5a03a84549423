"""The newest outer updates, kept twice: as records, and written out for a checkpoint that must not take long."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.interface import LearningStep, Parameter

LENGTH = 5000
"""Outer updates remembered."""


class History:
    """Outer updates, oldest first."""

    def __init__(self) -> None:
        self._steps: deque[LearningStep] = deque(maxlen=LENGTH)
        self._written: deque[bytes] = deque(maxlen=LENGTH)

    @property
    def steps(self) -> tuple[LearningStep, ...]:
        """All that are remembered."""
        return tuple(self._steps)

    def losses(self) -> dict[str, float]:
        """Held-out loss of the newest block before and after the newest update; empty before the first."""
        if not self._steps:
            return {}
        newest = self._steps[-1]
        return {"learning.loss_before": newest.loss_before, "learning.loss_after": newest.loss_after}

    def add(self, step: LearningStep) -> None:
        """One more."""
        self._steps.append(step)
        self._written.append(json.dumps(dataclasses.asdict(step)).encode())

    def written(self) -> NDArray[np.uint8]:
        """All of them as lines of JSON."""
        return np.frombuffer(b"\n".join(self._written), np.uint8)

    def read(self, written: NDArray[Any]) -> None:
        """Take over what `written` gave."""
        for line in written.tobytes().splitlines():
            told = json.loads(line)
            self.add(LearningStep(**told | {"parameters": tuple(Parameter(**p) for p in told["parameters"])}))
