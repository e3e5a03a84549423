"""A single stamp far from those around it must not move the clock; those of sparse data must not be kept waiting."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Stamped(NamedTuple, Generic[T]):
    """An ``item`` of a ``stamp`` [ns]."""

    stamp: int
    item: T


class StampCheck(Generic[T]):
    """Holds an item whose stamp is more than ``apart`` [ns] ahead of the newest until another comes, and one that is as
    far ``behind``, where that is doubted too.

    Where items come more than half of that apart, one ahead is nothing to doubt: it would wait as long for the next.
    """

    def __init__(self, apart: int, *, behind: bool) -> None:
        self._apart, self._doubts_behind = apart, behind
        self._step: int | None = None
        self.held: Stamped[T] | None = None

    def take(self, newest: int | None, stamp: int, item: T) -> tuple[list[Stamped[T]], Stamped[T] | None]:
        """What is to be used now that ``item`` of ``stamp`` [ns] has come, in order of arrival, and what was held and
        proves wrong.

        ``newest`` is the latest stamp in use, None before there is one.
        """
        held, self.held = self.held, None
        new = Stamped(stamp, item)
        if newest is None or not self._far(stamp - newest):
            self._step = self._step if newest is None or stamp <= newest else stamp - newest
            return [new], held
        if held is None or (held.stamp > newest) is not (stamp > newest) or stamp < held.stamp:
            self.held = new
            return [], held
        self._step = stamp - held.stamp
        return [held, new], None

    def _far(self, away: int) -> bool:
        """Whether a stamp so far [ns] from the newest is doubted."""
        sparse = self._step is None or 2 * self._step > self._apart
        return (away > self._apart and not sparse) or (self._doubts_behind and -away > self._apart)

    def clear(self) -> Stamped[T] | None:
        """Take what is held."""
        held, self.held = self.held, None
        return held
