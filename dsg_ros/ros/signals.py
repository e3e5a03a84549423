"""SIGINT and SIGTERM in the main thread; rclpy's own handlers would shut DDS down before anything can be finished."""

from __future__ import annotations

import signal
from collections.abc import Callable


def on_signals(handle: Callable[[int], None]) -> None:
    """Have SIGINT and SIGTERM call ``handle`` with their number, in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: handle(received))
