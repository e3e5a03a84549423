"""A worker's process, and one that waits for the node to need it."""

from __future__ import annotations

import subprocess
from multiprocessing.connection import Connection, Pipe

from dsg_ros.child import interpreter
from dsg_ros.worker.messages import SLAM


def begin(load: str = "") -> tuple[subprocess.Popen[bytes], Connection]:
    """A worker that waits for its setup, having imported the module ``load``, and the connection to it."""
    ours, theirs = Pipe()
    program = f"from dsg_ros.worker.serving import main; main({theirs.fileno()}, {load!r})"
    process = interpreter(program, theirs.fileno())
    theirs.close()
    return process, ours


class Standby:
    """A worker's process started ahead: while its parent still imports what it needs itself, this one loads JAX.

    It is `taken` once, or ended by `close`.
    """

    def __init__(self) -> None:
        self._waiting: tuple[subprocess.Popen[bytes], Connection] | None = begin(SLAM.partition(":")[0])

    def taken(self) -> tuple[subprocess.Popen[bytes], Connection]:
        """The process and the connection to it; a new one where this was taken or has ended."""
        waiting, self._waiting = self._waiting, None
        return waiting if waiting and waiting[0].poll() is None else begin()

    def close(self) -> None:
        """End it, if nobody has taken it."""
        if self._waiting:
            process, connection = self._waiting
            self._waiting = None
            connection.close()
            process.kill()
            process.wait()
