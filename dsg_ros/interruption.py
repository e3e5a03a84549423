"""Ctrl-C in the command line: a `KeyboardInterrupt` where it can do no harm and is not lost, or a request to stop."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_log = logging.getLogger(__name__)

INTERRUPTED = 130
"""128 + SIGINT: what a shell reports for a program ended by Ctrl-C, as an exit code."""

PATIENCE = 0.05
"""Seconds until a `KeyboardInterrupt` that could not be raised is tried again."""

UNSAFE = {"importlib", "_frozen_importlib", "_frozen_importlib_external", "jax", "jaxlib", "numba", "llvmlite"}
"""Packages that are not broken off: an import of an extension would end in a crash or an ImportError, what JAX calls
natively clears the error and goes on, what the compiler had built is taken down half made.
"""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGINT raises `KeyboardInterrupt` as usual, but not within an import or a compiler: it waits for them.

    And again where it was lost: Python prints and forgets the errors of finalisers and of callbacks of the garbage
    collector.  Where SIGINT is ignored (`nohup`) or handled otherwise, that stays; so it does outside the main thread.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    hook = sys.unraisablehook

    def forgotten(told: UnraisableHookArgs) -> None:
        if issubclass(told.exc_type, KeyboardInterrupt):
            _again()
        else:
            hook(told)

    signal.signal(signal.SIGINT, _raise)
    sys.unraisablehook = forgotten
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Interrupt:
    """Ctrl-C as a request to stop between two scans; the second one ends the program where it stands."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        _log.warning("interrupted: saving what was done so far (Ctrl-C again: leave it)")


def _raise(number: int, frame: FrameType | None) -> None:
    if _unsafe(frame):
        _again()
    else:
        raise KeyboardInterrupt


def _unsafe(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in UNSAFE:
            return True
        frame = frame.f_back
    return False


def _again() -> None:
    # From a thread: raised from here, it would end where this one was forgotten.  To the main one, so that what it
    # waits for by then is interrupted.
    main = threading.main_thread().ident
    timer = threading.Timer(PATIENCE, signal.pthread_kill, (main, signal.SIGINT))
    timer.daemon = True
    timer.start()
