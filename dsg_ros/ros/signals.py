"""SIGINT and SIGTERM in the main thread; rclpy's own handlers would shut DDS down before anything can be finished."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from dsg_ros.interruption import INTERRUPTED


def on_signals(handle: Callable[[int], None]) -> None:
    """Have SIGINT and SIGTERM call ``handle`` with their number, in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: handle(received))


def leave_on_interrupt(name: str) -> None:
    """Have SIGINT end the process at once with code 130, until `on_signals` is called: for the time of the imports.

    Catching KeyboardInterrupt is not enough there: raised in a callback of the import system or in an extension's
    initialisation it is printed with its traceback and forgotten, or comes out as an ImportError.
    """

    def leave(*_: object) -> None:
        sys.stderr.write(f"{name}: interrupted\n")
        sys.stderr.flush()
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
