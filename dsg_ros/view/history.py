"""Values over time for the curves, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


class History:
    """Rows of named numbers over increasing time [s].

    When it holds ``most`` rows, every second one goes and from then on only every second one is taken, so that the
    whole run stays in view with even spacing; the newest row is always there.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._times: list[float] = []
        self._rows: list[Mapping[str, float]] = []
        self._every, self._count = 1, 0
        self._passing = False  # the newest row stands there until the next only
        self._shift = 0.0
        self.names: tuple[str, ...] = ()
        """All names so far, in the order in which they came."""

    def __len__(self) -> int:
        return len(self._times)

    def add(self, time: float, row: Mapping[str, float]) -> None:
        """Append a row; where the clock jumped back, time goes on from where it was."""
        newest = self._times[-1] if self._times else -np.inf
        if time + self._shift <= newest:
            self._shift = newest - time + 1e-3
        if set(row) - set(self.names):
            self.names = tuple(dict.fromkeys([*self.names, *row]))
        if self._passing:
            self._times.pop()
            self._rows.pop()
        self._passing = self._count % self._every != 0
        self._count += 1
        self._times.append(time + self._shift)
        self._rows.append(row)
        if len(self._times) >= self._most and not self._passing:
            self._passing = len(self._times) % 2 == 0
            del self._times[1 : -1 if self._passing else None : 2], self._rows[1 : -1 if self._passing else None : 2]
            self._every *= 2

    def table(self, names: Sequence[str]) -> tuple[NDArray[np.float64], ...]:
        """Times (n,) and a column (n,) for each of ``names``; NaN where a row does not have it."""
        columns = [np.array([row.get(name, np.nan) for row in self._rows], float) for name in names]
        return (np.array(self._times, float), *columns)
