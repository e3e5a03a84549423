"""Answers to std_srvs/Trigger that take a while, without holding up other callbacks."""

from __future__ import annotations

import time
import types
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

from std_srvs.srv import Trigger

_NAP = 0.002


@types.coroutine
def _others() -> Generator[None, None, None]:
    """Let the executor run what else is ready."""
    yield


async def answer(response: Trigger.Response, future: Future[Any], success: str) -> Trigger.Response:
    """``response`` once ``future`` is done: ``success``, or its error."""
    while not future.done():
        # The executor of Jazzy asks a waiting coroutine again at once, as fast as it can: a nap keeps it off the
        # processor.
        time.sleep(_NAP)  # noqa: ASYNC251 - a short stop of the executor is what is wanted here
        await _others()
    error = future.exception()
    response.success = error is None
    response.message = success if error is None else str(error)
    return response


def refuse(response: Trigger.Response, why: str) -> Trigger.Response:
    """``response`` that says no."""
    response.success, response.message = False, why
    return response
