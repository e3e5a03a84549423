"""Work in a process of its own, beside this one: what a function makes there arrives here, item after item.

A fresh interpreter, never a fork: JAX's threads do not survive one.  Nothing here imports NumPy or JAX, so that the
process loads what its function needs and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from dsg_ros.child import GONE, Line, Lines, interpreter

Receive = Callable[[], Any]
"""Waits for the next object that was sent to the process."""


class _Abandoned(Exception):
    """Nobody is left to talk to."""


def spare_core() -> bool:
    """Whether another process would have a core to run on."""
    return len(os.sched_getaffinity(0)) > 1


@dataclass(frozen=True)
class _Item:
    value: Any


@dataclass(frozen=True)
class _End:
    """There are no more items: because of ``error``, if any."""

    error: BaseException | None = None


class Aside(Iterator[Any]):
    """The items of the generator ``target`` (``module:function``), called in a process of its own with its `Receive`.

    What it logs is logged here when it arrives, what it raises is raised here.  A context manager: however it is left,
    no process stays.  `RuntimeError` where the process was ended from outside.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._over = False
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sender: threading.Thread | None = None

    def __enter__(self) -> Self:
        ours, theirs = Pipe()
        self._connection: Connection[Any, Any] = ours
        with theirs:
            self._process = interpreter(
                f"from dsg_ros.aside import main; main({theirs.fileno()}, {self._target!r}, "
                f"{logging.getLogger('dsg_ros').getEffectiveLevel()})",
                theirs.fileno(),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._sender is not None:
            self._outbox.put(None)
            self._sender.join()  # whatever it was sending to nobody has failed by now
        self._connection.close()

    def kill(self) -> None:
        """End the process wherever it is; whoever waits for an item gets `RuntimeError`."""
        self._process.kill()

    def send(self, value: Any) -> None:
        """Hand an object over, as it is now, without waiting until it is taken; a process that has ended is told of by
        the next item.
        """
        # From a thread: while the process waits for its items to be taken, it takes nothing itself.
        self._outbox.put(pickle.dumps(value, protocol=5))
        if self._sender is None:
            self._sender = threading.Thread(target=self._send_all, name="aside", daemon=True)
            self._sender.start()

    def _send_all(self) -> None:
        with contextlib.suppress(*GONE):
            while (message := self._outbox.get()) is not None:
                self._connection.send_bytes(message)

    def __next__(self) -> Any:
        while not self._over:
            try:
                message = _get(self._connection)
            except GONE:
                self._over = True
                raise RuntimeError(f"the process of {self._target} ended with code {self._process.wait()}") from None
            if isinstance(message, _Item):
                return message.value
            if isinstance(message, Line):
                logging.getLogger(message.name).log(message.level, "%s", message.text)
                continue
            self._over = True
            if message.error is not None:
                raise message.error
        raise StopIteration


class _Parent:
    """The way back, for items and for lines of the log."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection

    def send(self, message: _Item | Line | _End) -> None:
        try:
            _put(self._connection, message)
        except GONE:
            raise _Abandoned from None

    def receive(self) -> Any:
        try:
            return _get(self._connection)
        except GONE:
            raise _Abandoned from None


def main(descriptor: int, target: str, level: int) -> None:
    """The process: ends when the generator does, or when nobody is left to take its items."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = _Parent(Connection(descriptor))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[Lines(parent.send)])
    logging.getLogger("dsg_ros").setLevel(level)
    with contextlib.suppress(_Abandoned):
        parent.send(_run(target, parent))


def _run(target: str, parent: _Parent) -> _End:
    module, _, name = target.partition(":")
    try:
        for value in getattr(importlib.import_module(module), name)(parent.receive):
            parent.send(_Item(value))
    except _Abandoned:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, it is raised where the items were wanted
        return _End(_portable(error))
    return _End()


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note; as a `RuntimeError` where it cannot be carried from process to
    process.
    """
    told = "".join(traceback.format_exception(error))
    error = error.with_traceback(None)
    error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - constructors of exceptions take what they like
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a process of its own:\n{told}")
    return error


def _put(connection: Connection[Any, Any], value: Any) -> None:
    connection.send_bytes(pickle.dumps(value, protocol=5))


def _get(connection: Connection[Any, Any]) -> Any:
    return pickle.loads(connection.recv_bytes())
