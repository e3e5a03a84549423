"""Answers to std_srvs/Trigger that take a while, without holding up other callbacks."""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

from std_srvs.srv import Trigger


@types.coroutine
def _others() -> Generator[None, None, None]:
    """Let the executor run what else is ready."""
    yield


async def answer(
    response: Trigger.Response, future: Future[Any], success: str, wake: Callable[[], None]
) -> Trigger.Response:
    """``response`` once ``future`` is done: ``success``, or its error.

    The executor of Jazzy asks a waiting coroutine again only when something else happens; ``wake`` makes it look when
    the future is done.  The service needs a reentrant callback group, or every other callback waits with it.
    """
    future.add_done_callback(lambda done: wake())
    while not future.done():
        await _others()
    error = future.exception()
    response.success = error is None
    response.message = success if error is None else str(error)
    return response


def refuse(response: Trigger.Response, why: str) -> Trigger.Response:
    """``response`` that says no."""
    response.success, response.message = False, why
    return response
