"""The worker's process: it runs a session over a socket until told to stop, or until its parent is gone."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import time
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

from dsg_ros.child import GONE, Lines
from dsg_ros.errors import UserError
from dsg_ros.interface import Frame
from dsg_ros.worker.channel import Channel
from dsg_ros.worker.messages import Call, Ready, Reply, Stop
from dsg_ros.worker.session import Session

log = logging.getLogger("worker")

NICENESS = 10
"""The worker yields to the node when cores are scarce: a late solve is late, a late callback loses messages."""


def main(descriptor: int, load: str = "") -> None:
    """Run a session over the socket with this file descriptor until told to stop or the parent is gone; the module
    ``load`` is imported before it is known what for.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    channel = Channel(Connection(descriptor))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Lines(channel.send)])
    try:
        if load:
            importlib.import_module(load)
        _serve(channel)
    except GONE:
        raise SystemExit(0) from None  # with the parent went everybody who could read an answer


def _serve(channel: Channel) -> None:
    try:
        setup = channel.receive()
        began = time.monotonic()
        session = Session(setup)
        session.warm_up()
        channel.send(Ready(time.monotonic() - began))
        while not isinstance(message := channel.receive(), Stop):
            if isinstance(message, Frame):
                channel.send(session.process(message))
                session.catch_up()
            else:
                _answer(session, message, channel)
    except GONE:
        raise
    except UserError as error:
        log.error("the pipeline cannot be built: %s", error)
        raise SystemExit(1) from None
    except Exception:
        # What the pipeline holds after an exception is unknown: say what happened, end, and let the parent start
        # afresh.
        log.exception("the pipeline failed")
        raise SystemExit(1) from None


def _answer(session: Session, call: Call, channel: Channel) -> None:
    """Send the answer now, or when it is there: what a thread is still busy with is a `Future`."""
    try:
        value = session.execute(call.command)
    except Exception as error:  # noqa: BLE001 - it is told, and sent to whoever asked
        channel.send(_refusal(call, error))
        return
    if not isinstance(value, Future):
        channel.send(Reply(call.number, value))
        return

    def tell(done: Future[Any]) -> None:
        error = done.exception()
        with contextlib.suppress(*GONE):  # the other thread notices that as well, and ends
            channel.send(_refusal(call, error) if error else Reply(call.number, done.result()))

    value.add_done_callback(tell)


def _refusal(call: Call, error: BaseException) -> Reply:
    if isinstance(error, UserError):  # its message says all there is to say
        log.error("%s refused: %s", type(call.command).__name__, error)
        return Reply(call.number, error=f"{type(call.command).__name__} refused: {error}")
    log.error("%s failed", type(call.command).__name__, exc_info=error)
    return Reply(call.number, error=f"{type(call.command).__name__} failed: {error}")
