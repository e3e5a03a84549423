"""The pipeline where it may take its time: in a process of its own (`WorkerProcess`) or in this one (`InProcess`).

Why a process: JAX's tracing and Numba's compilation hold the interpreter's lock for tens of milliseconds, and
nothing in the node may wait for that.  This side imports no JAX; the other side imports no ROS.

Why `subprocess` and not `multiprocessing.Process`: spawn would import the parent's main module, and rclpy with it,
into the worker, and start a resource tracker beside it.  The worker gets a session of its own, so the terminal's
Ctrl-C reaches only the parent, which decides what happens next; a parent that is killed closes the socket, and the
worker leaves.

Why a socket and not shared memory: a frame of 30,000 points (480 kB), pickled with protocol 5 and its arrays sent out
of band, is there and answered in 0.9 ms (median on two busy cores; 0.3 ms for a planar scan).  A ring in shared
memory would save a copy of that and cost slots of a fixed size, a reader that may die holding one, and a segment that
outlives a crash.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import dataclasses
import itertools
import logging
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any, Literal

from dsg_ros import config as cfg
from dsg_ros import worker_session as session
from dsg_ros.aside import interpreter
from dsg_ros.interface import Estimate, Frame

IN_FLIGHT = 2
"""Frames sent and not yet answered: one being processed and one behind it, so that the worker never idles."""

MAX_FAILED_STARTS = 3


class WorkerDied(RuntimeError):
    """The worker ended before it answered; the message says how."""


@dataclass(frozen=True)
class Event:
    """Something to tell the operator; ``level`` is one of `logging`'s."""

    kind: Literal["ready", "log", "died", "failed"]
    level: int
    text: str


@dataclass(frozen=True)
class Status:
    """Accounts of a backend: ``submitted == processed + sum(dropped.values()) + waiting`` at any time."""

    state: Literal["stopped", "warming up", "ready", "failed"]
    submitted: int = 0
    processed: int = 0
    waiting: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    restarts: int = 0
    pid: int | None = None


class Backend(abc.ABC):
    """Takes frames, answers with estimates through ``on_estimate``, tells the rest through ``on_event``.

    Both are called from a thread of the backend's (`InProcess`: the caller's) and must not raise.
    """

    def __init__(self, on_estimate: Callable[[Estimate], None], on_event: Callable[[Event], None]) -> None:
        self._on_estimate = on_estimate
        self._on_event = on_event

    @abc.abstractmethod
    def start(self) -> None:
        """Begin to build and warm up the pipeline; an event ``ready`` follows."""

    @abc.abstractmethod
    def submit(self, frame: Frame) -> None:
        """Hand over a frame; never blocks in a process backend."""

    @abc.abstractmethod
    def request(self, command: session.Command) -> Future[Any]:
        """Have a command executed; the future holds its reply or `WorkerDied`.

        It comes after the frames handed over before, or as soon as the worker is free where
        `session.AT_ONCE` names it.
        """

    @abc.abstractmethod
    def status(self) -> Status: ...

    @abc.abstractmethod
    def stop(self, timeout: float = 5.0) -> None:
        """End for good.  Frames still waiting are dropped and counted; nothing is left running."""


class InProcess(Backend):
    """The pipeline in the caller's thread, for offline runs, tests and debuggers."""

    def __init__(
        self,
        config: cfg.Slam,
        on_estimate: Callable[[Estimate], None],
        on_event: Callable[[Event], None] = lambda event: None,
        factory: str = session.SLAM,
        planar: bool = True,
    ) -> None:
        super().__init__(on_estimate, on_event)
        self._setup = session.Setup(factory, config, planar)
        self._session: session.Session | None = None
        self._processed = 0

    def start(self) -> None:
        self._session = session.Session(self._setup)
        self._session.warm_up()
        self._on_event(Event("ready", logging.INFO, "pipeline ready"))

    def submit(self, frame: Frame) -> None:
        if self._session is None:
            raise RuntimeError("submit() before start()")
        estimate = self._session.process(frame)
        self._processed += 1
        self._on_estimate(estimate)

    def request(self, command: session.Command) -> Future[Any]:
        if self._session is None:
            raise RuntimeError("request() before start()")
        future: Future[Any] = Future()
        try:
            future.set_result(self._session.execute(command))
        except Exception as error:  # noqa: BLE001 - whatever it was, the future carries it to whoever asked
            future.set_exception(error)
        return future

    def status(self) -> Status:
        state: Literal["ready", "stopped"] = "ready" if self._session else "stopped"
        return Status(state, self._processed, self._processed)

    def stop(self, timeout: float = 5.0) -> None:
        self._session = None


def _interpreter(load: str = "") -> tuple[subprocess.Popen[bytes], Connection]:
    """A worker that waits for its setup, having imported the module ``load``, and the connection to it."""
    ours, theirs = Pipe()
    program = f"from dsg_ros.worker_session import main; main({theirs.fileno()}, {load!r})"
    process = interpreter(program, theirs.fileno())
    theirs.close()
    return process, ours


class Standby:
    """A worker's process started ahead: while its parent still imports what it needs itself, this one loads JAX.

    It is `taken` once, or ended by `close`.
    """

    def __init__(self) -> None:
        self._waiting: tuple[subprocess.Popen[bytes], Connection] | None = _interpreter(session.SLAM.partition(":")[0])

    def taken(self) -> tuple[subprocess.Popen[bytes], Connection]:
        """The process and the connection to it; a new one where this was taken or has ended."""
        waiting, self._waiting = self._waiting, None
        return waiting if waiting and waiting[0].poll() is None else _interpreter()

    def close(self) -> None:
        """End it, if nobody has taken it."""
        if self._waiting:
            process, connection = self._waiting
            self._waiting = None
            connection.close()
            process.kill()
            process.wait()


class WorkerProcess(Backend):
    """The pipeline in a child process, which is started again when it dies: from its last checkpoint, or an empty map.

    ``resume`` names a map folder to go on from to begin with; the first worker is the ``standby``, if there is one.

    ``queue`` frames may wait; beyond, the oldest is dropped and counted.  Two threads: one writes frames and commands
    to the worker, one reads what comes back.
    """

    def __init__(
        self,
        config: cfg.Slam,
        on_estimate: Callable[[Estimate], None],
        on_event: Callable[[Event], None],
        queue: int = 100,
        factory: str = session.SLAM,
        planar: bool = True,
        resume: str = "",
        standby: Standby | None = None,
    ) -> None:
        super().__init__(on_estimate, on_event)
        self._setup = session.Setup(factory, config, planar, resume)
        self._begin = standby.taken if standby else _interpreter
        self._limit = queue
        self._frames: collections.deque[Frame] = collections.deque()
        self._commands: collections.deque[tuple[int, session.Command, int]] = collections.deque()
        self._replies: dict[int, Future[Any]] = {}
        self._ids = itertools.count()
        self._changed = threading.Condition()
        self._state: Literal["stopped", "warming up", "ready", "failed"] = "stopped"
        self._stopping = False
        self._in_flight = 0
        self._submitted = self._processed = self._restarts = self._failed_starts = 0
        self._sent = 0
        self._dropped: collections.Counter[str] = collections.Counter()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: session.Channel | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._spawn()
        for target in (self._feed, self._receive):
            thread = threading.Thread(target=target, name=f"worker-{target.__name__.strip('_')}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, frame: Frame) -> None:
        with self._changed:
            self._submitted += 1
            if self._state in ("failed", "stopped"):
                self._dropped[f"worker_{self._state}"] += 1
                return
            self._frames.append(frame)
            if len(self._frames) > self._limit:
                self._frames.popleft()
                self._dropped["queue_full"] += 1
                self._sent += 1  # a command that stands behind the dropped frame must not wait for it
            self._changed.notify_all()

    def request(self, command: session.Command) -> Future[Any]:
        future: Future[Any] = Future()
        with self._changed:
            if self._state in ("failed", "stopped"):
                future.set_exception(WorkerDied(f"the worker is not running ({self._state})"))
                return future
            if isinstance(command, session.Reset):
                if self._frames:
                    self._dropped["reset"] += len(self._frames)
                self._sent += len(self._frames)
                self._frames.clear()
            elif isinstance(command, session.Learning):
                self._setup = self._setup.with_learning(command.on)  # of the next worker too
            number = next(self._ids)
            self._replies[number] = future
            if isinstance(command, session.Reset | session.Checkpoint):
                future.add_done_callback(partial(self._note, command))
            place = self._sent + (0 if isinstance(command, session.AT_ONCE) else len(self._frames))
            self._commands.insert(sum(before <= place for *_, before in self._commands), (number, command, place))
            self._changed.notify_all()
        return future

    def _note(self, command: session.Reset | session.Checkpoint, done: Future[Any]) -> None:
        """From where the next worker is to go on, should this one die."""
        if done.exception() is None:
            folder = command.map_folder if isinstance(command, session.Checkpoint) else ""
            self._setup = dataclasses.replace(self._setup, resume=folder, uninterrupted=bool(folder))

    def status(self) -> Status:
        with self._changed:
            waiting = len(self._frames) + self._in_flight
            pid = self._process.pid if self._process and self._process.poll() is None else None
            return Status(
                self._state, self._submitted, self._processed, waiting, dict(self._dropped), self._restarts, pid
            )

    def stop(self, timeout: float = 5.0) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        process = self._process
        if process is not None:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for thread in self._threads:
            thread.join(timeout)
        with self._changed:
            self._drop_waiting("stopped")
            self._state = "stopped"
            orphans = self._take_replies()
        for future in orphans:
            future.set_exception(WorkerDied("the worker was stopped"))

    def _spawn(self) -> None:
        self._process, ours = self._begin()
        channel = session.Channel(ours)
        channel.send(self._setup)
        with self._changed:
            self._channel, self._state = channel, "warming up"

    def _next(self) -> tuple[session.Channel, Frame | session.Call] | None:
        """The next thing to send and the worker it is for, or None when the feeder should end; waits until there is
        one.
        """
        with self._changed:
            while not self._stopping:
                if self._state == "ready" and self._channel:
                    if self._commands and self._commands[0][2] <= self._sent:
                        number, command, _ = self._commands.popleft()
                        return self._channel, session.Call(number, command)
                    if self._frames and self._in_flight < IN_FLIGHT:
                        self._in_flight += 1
                        self._sent += 1
                        return self._channel, self._frames.popleft()
                self._changed.wait()
        return None

    def _feed(self) -> None:
        while (item := self._next()) is not None:
            channel, message = item
            # When that worker is gone the receiver reads the end of its stream and accounts for what was in flight.
            with contextlib.suppress(OSError):
                channel.send(message)
        if self._channel:
            with contextlib.suppress(OSError):
                self._channel.send(session.Stop())

    def _receive(self) -> None:
        while True:
            try:
                assert self._channel is not None
                message = self._channel.receive()
            except (EOFError, OSError):
                if not self._revive():
                    return
                continue
            if isinstance(message, Estimate):
                with self._changed:
                    self._in_flight -= 1
                    self._processed += 1
                    self._changed.notify_all()
                self._on_estimate(message)
            elif isinstance(message, session.Reply):
                self._resolve(message)
            elif isinstance(message, session.Log):
                self._on_event(Event("log", message.level, message.text))
            elif isinstance(message, session.Ready):
                with self._changed:
                    self._state, self._failed_starts = "ready", 0
                    self._changed.notify_all()
                self._on_event(Event("ready", logging.INFO, f"worker ready after {message.seconds:.1f} s"))

    def _resolve(self, reply: session.Reply) -> None:
        with self._changed:
            future = self._replies.pop(reply.number, None)
        if future is None:
            return
        if reply.error:
            future.set_exception(RuntimeError(reply.error))
        else:
            future.set_result(reply.value)

    def _revive(self) -> bool:
        """Account for a worker that ended, and start another unless that is pointless; False ends the receiver."""
        assert self._process is not None
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        with self._changed:
            if self._stopping:
                return False
            failed_start = self._state == "warming up"
            self._failed_starts += failed_start
            if failed_start and self._setup.uninterrupted:
                # It may be the checkpoint; what the user asked to go on from is not given up like that.
                self._setup = dataclasses.replace(self._setup, resume="", uninterrupted=False)
            hopeless = self._failed_starts >= MAX_FAILED_STARTS
            if self._in_flight:
                self._dropped["worker_died"] += self._in_flight
                self._in_flight = 0
            if hopeless:
                self._drop_waiting("worker_failed")
                self._state = "failed"
            else:
                self._restarts += 1
                self._state = "warming up"
            orphans = self._take_replies()
        for future in orphans:
            future.set_exception(WorkerDied(f"the worker ended ({how})"))
        if hopeless:
            times = f"the worker ended {self._failed_starts} times before it was ready"
            text = f"{times} ({how}): giving up, see its log above"
            self._on_event(Event("failed", logging.CRITICAL, text))
            return False
        start = f"from the checkpoint in {self._setup.resume}" if self._setup.resume else "with an empty map"
        self._on_event(Event("died", logging.ERROR, f"the worker ended ({how}): starting another, {start}"))
        self._spawn()
        return True

    def _drop_waiting(self, cause: str) -> None:
        waiting = len(self._frames) + self._in_flight
        if waiting:
            self._dropped[cause] += waiting
        self._frames.clear()
        self._in_flight = 0

    def _take_replies(self) -> list[Future[Any]]:
        orphans = list(self._replies.values())
        self._replies.clear()
        self._commands.clear()
        return orphans
