"""A thread that calls a function at a steady rate of wall time, whatever the ROS clock does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Ticker:
    """Calls ``function`` every ``period()`` seconds until stopped; an exception goes to ``on_error`` and ends
    nothing.
    """

    def __init__(
        self,
        name: str,
        period: Callable[[], float],
        function: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._period, self._function, self._on_error = period, function, on_error
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the call in progress."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._period(), time.monotonic())
            try:
                self._function()
            except Exception as error:  # noqa: BLE001 - one failed publication must not silence the next
                self._on_error(error)
