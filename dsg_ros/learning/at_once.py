"""Independent pieces of an update side by side: XLA's programs leave the interpreter to other threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import TypeVar

Value = TypeVar("Value")


def begun(piece: Callable[[], Value]) -> Callable[[], Value]:
    """``piece`` while other things are done, where there is a core for it, else now; its value is to be called for, as
    often as it is wanted.
    """
    if len(os.sched_getaffinity(0)) == 1:
        found = piece()
        return lambda: found
    future, alone = _pool().submit(piece), Lock()

    @cache
    def once() -> Value:
        # What no thread has begun is done here: none ever waits for a thread that waits itself.
        return piece() if future.cancel() else future.result()

    def value() -> Value:
        with alone:  # else two that call for it at the same time would both do it
            return once()

    return value


def each(pieces: Sequence[Callable[[], Value]]) -> list[Value]:
    """What each of ``pieces`` returns, in their order.

    The first is worked on here, the others by other threads where there are cores for them; so a piece may have pieces
    of its own.  Which thread does what changes no result.
    """
    others = [begun(piece) for piece in pieces[1:]]
    return [piece() for piece in (*pieces[:1], *others)]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(3, thread_name_prefix="learning")
