"""A single stamp far from those around it must not move the clock; those of sparse data must not be kept waiting."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class LeapCheck:
    """Tells a single stamp far ahead from a clock that went on, by the one that comes after it.

    Nothing waits for that: a gap in the data, or a slow robot's, is the same until then.
    """

    def __init__(self, apart: int) -> None:
        self._apart = apart
        self._before: int | None = None

    def wrong(self, newest: int | None, stamp: int) -> int | None:
        """The latest stamp [ns] to go by instead, where ``stamp`` shows that the ``newest`` was a single wrong one:
        more than ``apart`` [ns] ahead of that before it, and of this one.
        """
        before, self._before = self._before, None
        if newest is not None and stamp - newest > self._apart:
            self._before = newest
        elif before is not None and newest is not None and before - self._apart <= stamp < newest - self._apart:
            return before
        return None

    def clear(self) -> None:
        """Forget the leap before."""
        self._before = None


class BehindCheck(Generic[T]):
    """Holds an item stamped more than ``apart`` [ns] behind the newest until the next one is, too."""

    def __init__(self, apart: int) -> None:
        self._apart = apart
        self.held: tuple[int, T] | None = None

    def take(self, newest: int | None, stamp: int, item: T) -> tuple[list[T], tuple[int, T] | None]:
        """What is to be used now that ``item`` of ``stamp`` [ns] has come, in order of arrival, and what was held and
        proves wrong, with its stamp.  ``newest`` is the latest stamp in use, None before there is one.
        """
        held, self.held = self.held, None
        if newest is None or newest - stamp <= self._apart:
            return [item], held
        if held is None or abs(stamp - held[0]) > self._apart:
            self.held = stamp, item
            return [], held
        return [held[1], item], None

    def clear(self) -> list[T]:
        """What was held until now."""
        held, self.held = self.held, None
        return [] if held is None else [held[1]]
