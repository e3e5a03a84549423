"""Child processes: started in groups of their own, followed by the status file, always ended."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks at a process or its status file."""
PARTICIPANTS = 10
"""Of a ROS domain, whose ports are looked at: one that has been left over need not be the first."""


def isolated(domain: int) -> dict[str, str]:
    """Environment of a ROS process that meets only those of this machine on ``domain``."""
    return {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def node_arguments(parameters: Mapping[str, object]) -> list[str]:
    """The command that runs the node with ``parameters``."""
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()}
    return ["node", "--ros-args", *(word for name, text in texts.items() for word in ("-p", f"{name}:={text}"))]


class Failure(Exception):
    """A child process did not do its part; the message says which one, and how its log ends."""


class Process:
    """One ``python -m dsg_ros`` command in its own process group, its output in a file.

    As a context manager it leaves no process behind: interrupt, then terminate, then kill, the whole group.
    """

    def __init__(self, name: str, arguments: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.output = output
        self._arguments = [sys.executable, "-m", "dsg_ros", *arguments]
        self._environment = {**os.environ, **environment}

    def __enter__(self) -> Self:
        with self.output.open("wb") as file:
            # Its own session: Ctrl-C at the terminal reaches only this process, which then ends the others in order.
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, patience in ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                log.warning("%s (process %d) ignores %s", self.name, self._process.pid, number.name)
        with contextlib.suppress(ProcessLookupError):  # the usual case: nobody of the group is left
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    @property
    def number(self) -> int:
        """The process's id."""
        return self._process.pid

    def interrupt(self) -> None:
        """Ctrl-C for this process alone."""
        if self.code is None:
            self._process.send_signal(signal.SIGINT)

    def check(self) -> None:
        """`Failure` when the process has ended though nobody asked it to."""
        if self.code is not None:
            raise Failure(f"the {self.name} ended early with code {self.code}\n{self.tail()}")

    def wait(self, seconds: float) -> int:
        """Exit code; `Failure` after ``seconds``."""
        end = time.monotonic() + seconds
        while (code := self.code) is None:
            if time.monotonic() > end:
                raise Failure(f"the {self.name} did not end within {seconds:.0f} s\n{self.tail()}")
            time.sleep(POLL)
        return code

    def tail(self, lines: int = 15) -> str:
        """The last lines of its output, with the file they stand in."""
        text = self.output.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([f"--- the end of {self.output}", *text[-lines:]])

    def last_json(self) -> dict[str, Any]:
        """The JSON object in the last line of its output; `Failure` where there is none."""
        lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in reversed(lines):
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise Failure(f"the {self.name} printed no result\n{self.tail()}")


class Follower:
    """Reads what a node tells about itself in its status file, while the node lives."""

    def __init__(self, process: Process, path: Path) -> None:
        self._process = process
        self._path = path

    def read(self) -> dict[str, Any]:
        """The latest status, {} before the first (the node replaces the file as a whole: it is never half)."""
        try:
            found: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def wait(
        self,
        what: str,
        seconds: float,
        done: Callable[[dict[str, Any]], bool],
        show: Callable[[dict[str, Any]], None] = lambda status: None,
        fresh: bool = False,
    ) -> None:
        """Look at the status until it is ``done``; with ``fresh`` only at one written after this call began.

        Raises `Failure` when the process ends meanwhile, or after ``seconds``, telling ``what`` was waited for.
        """
        end = time.monotonic() + seconds
        written = self._written() if fresh else -1.0
        while True:
            self._process.check()
            status = self.read() if self._written() > written else {}
            if status:
                show(status)
                if done(status):
                    return
            if time.monotonic() > end:
                raise Failure(f"the {self._process.name} did not {what} within {seconds:.0f} s\n{self._process.tail()}")
            time.sleep(POLL)

    def _written(self) -> float:
        try:
            return self._path.stat().st_mtime
        except FileNotFoundError:
            return -1.0


def free_domain() -> int:
    """A ROS domain on which no participant of this machine listens: the discovery ports of the first are free, also
    where those that came before them have gone.
    """
    first = os.getpid() % 100
    for offset in range(100):
        domain = 1 + (first + offset) % 100  # 1...100: above 101 the ports collide with Linux's ephemeral range
        # RTPS 2.2, 9.6.1.1: 7400 + 250 domain + 10 + 2 participant
        if all(_free(7410 + 250 * domain + 2 * participant) for participant in range(PARTICIPANTS)):
            return domain
    raise Failure("no free ROS domain among 1...100: are other ROS programs left over?")


def _free(port: int) -> bool:
    """Whether nobody listens on this UDP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
