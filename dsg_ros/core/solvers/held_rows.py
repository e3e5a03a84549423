"""Rows of windows that follow one another, as the solver takes them: made once and kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.factors import Factor
from dsg_ros.core.native.window_rows import Rows
from dsg_ros.core.solvers import window
from dsg_ros.core.theta import Theta

Keys = NDArray[np.int64]

NOTHING = Rows(
    np.zeros((0, 2), np.int64), np.zeros((0, 7)), np.zeros((0, 6, 6)), np.zeros(0), np.zeros(0, np.int32), np.zeros(0)
)


@dataclass
class HeldRows:
    """Rows between the same kinds of variables, as the solver takes them and as they came.

    Each part is a stack and which of its rows are still in use; ``rows`` are those of the first ``made`` parts, one
    after the other, at ``theta``.
    """

    parts: list[tuple[Factor, Keys]] = field(default_factory=list)
    rows: Rows = NOTHING
    made: int = 0
    theta: Theta | None = None

    def add(self, stack: Factor) -> None:
        """Rows of one factor type."""
        self.parts.append((stack, np.arange(len(np.asarray(stack.weight)))))

    def at(self, theta: Theta, variables: tuple[Keys, Keys] | None = None) -> Rows:
        """All rows in use: made once for each, unless theta is another.

        Under the world's keys, or where ``variables`` are given, by the places of theirs among these (sorted).
        """
        if theta is not self.theta:
            self.rows, self.made, self.theta = NOTHING, 0, theta
        if fresh := self.parts[self.made :]:
            made = window.joined([_in_use(window.rows_of(stack, theta), used) for stack, used in fresh])
            if variables is not None:
                made = window.numbered(made, *variables)
            self.rows = window.joined([self.rows, made]) if self.made else made
            self.made = len(self.parts)
        return self.rows

    def keep(self, which: NDArray[np.bool_], numbers: tuple[Keys, Keys] | None = None) -> None:
        """Only some of the rows that `at` returned last; ``numbers`` are the variables' new places by their old
        ones.
        """
        parts, start = [], 0
        # There are many parts, and most lose nothing.
        kept = np.concatenate([np.zeros(1, np.int64), np.cumsum(which)]).tolist()
        for stack, used in self.parts:
            stop = start + len(used)
            if left := kept[stop] - kept[start]:
                parts.append((stack, used if left == len(used) else used[which[start:stop]]))
            start = stop
        self.parts = parts
        rows = window.chosen(self.rows, np.flatnonzero(which))
        if numbers is not None:
            first, second = numbers
            rows = rows._replace(keys=np.stack([first[rows.keys[:, 0]], second[rows.keys[:, 1]]], axis=1))
        self.rows, self.made = rows, len(self.parts)


def _in_use(rows: Rows, used: Keys) -> Rows:
    return rows if len(used) == len(rows.keys) else window.chosen(rows, used)
