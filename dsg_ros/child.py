"""A Python process of this one's: how it is started, how it is noticed that an end is gone, the lines of its log.

Nothing here imports NumPy or JAX, so that the process loads what it needs and nothing else.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

GONE = (EOFError, BrokenPipeError, ConnectionResetError)
"""What either end meets where the other has ended."""


def interpreter(program: str, descriptor: int) -> subprocess.Popen[bytes]:
    """A Python process that runs ``program`` with this file ``descriptor`` open, and finds the modules this one finds.

    In a session of its own: Ctrl-C at the terminal does not reach it.
    """
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=2,  # what a library prints must not end up among a command's results
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )


@dataclass(frozen=True)
class Line:
    """A line of the process's log, for this one's: logger, level and text."""

    name: str
    level: int
    text: str


class Lines(logging.Handler):
    """Hands every line to ``send``."""

    def __init__(self, send: Callable[[Line], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(Line(record.name, record.levelno, self.format(record)))
