"""Independent pieces of an update side by side: XLA's programs leave the interpreter to other threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Value = TypeVar("Value")


def each(pieces: Sequence[Callable[[], Value]]) -> list[Value]:
    """What each of ``pieces`` returns, in their order.

    The first are worked on here, from the last one on by other threads where there are cores for them; so a piece may
    have pieces of its own.  Which thread does what changes no result.
    """
    futures: list[Future[Value]] = []
    if len(os.sched_getaffinity(0)) > 1:
        futures = [_pool().submit(piece) for piece in pieces[1:]]
    here = [piece() for piece in pieces[: len(pieces) - len(futures)]]
    out = list(here)
    for piece, future in zip(pieces[len(here) :], futures, strict=True):
        # What no thread has begun is done here: none ever waits for a thread that waits itself.
        out.append(piece() if future.cancel() else future.result())
    return out


def begun(piece: Callable[[], Value]) -> Callable[[], Value]:
    """``piece`` while other things are done, where there is a core for it, else now; its value is to be called for, as
    often as it is wanted.
    """
    if len(os.sched_getaffinity(0)) == 1:
        found = piece()
        return lambda: found
    future = _pool().submit(piece)

    @cache
    def value() -> Value:
        return piece() if future.cancel() else future.result()

    return value


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(3, thread_name_prefix="learning")
