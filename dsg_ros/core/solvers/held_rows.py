"""Rows of windows that follow one another, as the solver takes them: made once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.factors import Factor
from dsg_ros.core.native.window_rows import Rows
from dsg_ros.core.solvers import window_stacks
from dsg_ros.core.solvers.window_stacks import chosen, joined, numbered
from dsg_ros.core.theta import Theta

Keys = NDArray[np.int64]

NOTHING = Rows(
    np.zeros((0, 2), np.int64), np.zeros((0, 7)), np.zeros((0, 6, 6)), np.zeros(0), np.zeros(0, np.int32), np.zeros(0)
)


@dataclass
class HeldRows:
    """Rows between the same kinds of variables, as the solver takes them and as they came.

    ``stacks`` are what came; ``stack_of`` and ``place`` (n,) say from which of them, and from where in it, a row in use
    is.  ``rows`` are those of the first ``made`` stacks at ``theta``.
    """

    stacks: list[Factor] = field(default_factory=list)
    stack_of: Keys = field(default_factory=lambda: np.zeros(0, np.int64))
    place: Keys = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: Rows = NOTHING
    made: int = 0
    theta: Theta | None = None

    def add(self, stack: Factor) -> None:
        """Rows of one factor type."""
        count = len(np.asarray(stack.weight))
        self.stack_of = np.concatenate([self.stack_of, np.full(count, len(self.stacks))])
        self.place = np.concatenate([self.place, np.arange(count)])
        self.stacks.append(stack)

    def at(self, theta: Theta, variables: tuple[Keys, Keys] | None = None) -> Rows:
        """All rows in use: made once for each, unless theta is another.

        Under the world's keys, or where ``variables`` are given, by the places of theirs among these (sorted).
        """
        if theta is not self.theta:
            self.rows, self.made, self.theta = NOTHING, 0, theta
        if self.made < len(self.stacks):
            ends = np.searchsorted(self.stack_of, np.arange(self.made, len(self.stacks) + 1))
            fresh = zip(self.stacks[self.made :], ends[:-1], ends[1:], strict=True)
            made = joined([_in_use(window_stacks.rows_of(each, theta), self.place[a:b]) for each, a, b in fresh])
            if variables is not None:
                made = numbered(made, *variables)
            self.rows = joined([self.rows, made]) if self.made else made
            self.made = len(self.stacks)
        return self.rows

    def stacks_of(self, which: NDArray[np.bool_]) -> list[Factor]:
        """Some of the rows in use, one stack a factor type, under the world's keys."""
        by_type: dict[type[Factor], list[dict[str, NDArray[Any]]]] = {}
        for number in np.unique(self.stack_of[which]).tolist():
            stack, rows = self.stacks[number], self.place[which & (self.stack_of == number)]
            columns = {f.name: np.asarray(getattr(stack, f.name))[rows] for f in fields(stack)}
            by_type.setdefault(type(stack), []).append(columns)
        return [
            cls.of({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
            for cls, parts in by_type.items()
        ]

    def keep(self, which: NDArray[np.bool_], numbers: tuple[Keys, Keys] | None = None) -> None:
        """Only some of the rows that `at` returned last; ``numbers`` are the variables' new places by their old
        ones.
        """
        self.stack_of, self.place = self.stack_of[which], self.place[which]
        used = np.bincount(self.stack_of, minlength=len(self.stacks)) > 0
        self.stacks = [stack for stack, one in zip(self.stacks, used.tolist(), strict=True) if one]
        self.stack_of = (np.cumsum(used) - 1)[self.stack_of]
        rows = chosen(self.rows, np.flatnonzero(which))
        if numbers is not None:
            first, second = numbers
            rows = rows._replace(keys=np.stack([first[rows.keys[:, 0]], second[rows.keys[:, 1]]], axis=1))
        self.rows, self.made = rows, len(self.stacks)


def rows_at(stacks: Sequence[Factor], theta: Theta, variables: tuple[Keys, Keys]) -> Rows:
    """Rows under the world's keys as the solver takes them at ``theta``, by the places of their variables among these
    (sorted).
    """
    made = [window_stacks.rows_of(each, theta) for each in stacks]
    return numbered(joined(made) if made else NOTHING, *variables)


def _in_use(rows: Rows, used: Keys) -> Rows:
    return rows if len(used) == len(rows.keys) else chosen(rows, used)
