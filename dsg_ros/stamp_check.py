"""A stamp far from those before is doubted until the next one agrees: a single wrong one must not move the clock."""

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
    """

    def __init__(self, apart: int, *, behind: bool) -> None:
        self._apart, self._behind = apart, behind
        self.held: Stamped[T] | None = None

    def take(self, newest: int | None, stamp: int, item: T) -> tuple[list[Stamped[T]], Stamped[T] | None]:
        """What is to be used now that ``item`` of ``stamp`` [ns] has come, in order of arrival, and what was held and
        proves wrong.

        ``newest`` is the latest stamp in use, None before there is one.
        """
        held, self.held = self.held, None
        new = Stamped(stamp, item)
        if newest is None or (abs(stamp - newest) if self._behind else stamp - newest) <= self._apart:
            return [new], held
        if held is None or (held.stamp > newest) is not (stamp > newest) or stamp < held.stamp - self._apart:
            self.held = new
            return [], held
        return [held, new], None

    def clear(self) -> list[Stamped[T]]:
        """What was held until now."""
        held, self.held = self.held, None
        return [] if held is None else [held]
