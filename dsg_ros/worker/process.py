"""The pipeline in a child process, which is started again when it dies.

Why `subprocess` and not `multiprocessing.Process`: spawn would import the parent's main module, and rclpy with it,
into the worker, and start a resource tracker beside it.  The worker gets a session of its own, so the terminal's
Ctrl-C reaches only the parent, which decides what happens next; a parent that is killed closes the socket, and the
worker leaves.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import logging
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Literal

from dsg_ros import config as cfg
from dsg_ros.child import Line
from dsg_ros.interface import Estimate, Frame
from dsg_ros.worker import messages
from dsg_ros.worker.backend import Backend, Busy, Event, Status, WorkerDied
from dsg_ros.worker.channel import Channel
from dsg_ros.worker.standby import Standby, begin

IN_FLIGHT = 2
"""Frames sent and not yet answered: one being processed and one behind it, so that the worker never idles."""

MAX_FAILED_STARTS = 3

MOST_COMMANDS = 100
"""Not yet answered; of those that anybody may send, more are refused."""

MOST_TOLD = 5000
"""Of what is told of the way from elsewhere, on a frame that others were dropped before."""


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
        factory: str = messages.SLAM,
        planar: bool = True,
        resume: str = "",
        standby: Standby | None = None,
    ) -> None:
        super().__init__(on_estimate, on_event)
        self._setup = messages.Setup(factory, config, planar, resume)
        self._begin = standby.taken if standby else begin
        self._limit = queue
        self._frames: collections.deque[Frame] = collections.deque()
        self._commands: collections.deque[tuple[int, messages.Command, int]] = collections.deque()
        self._replies: dict[int, Future[Any]] = {}
        self._ids = itertools.count()
        self._changed = threading.Condition()
        self._state: Literal["stopped", "warming up", "ready", "failed"] = "stopped"
        self._stopping = False
        self._in_flight = 0
        self._submitted = self._processed = self._restarts = self._failed_starts = 0
        self._sent = 0
        self._dropped: collections.Counter[str] = collections.Counter()
        self._told_dropped = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
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
                dropped = self._frames.popleft()
                if dropped.reference:  # the scan is lost, what is told of the way is not
                    told = dropped.reference + self._frames[0].reference
                    self._frames[0] = dataclasses.replace(self._frames[0], reference=told[-MOST_TOLD:])
                    self._told_dropped += max(0, len(told) - MOST_TOLD)
                self._dropped["queue_full"] += 1
                self._sent += 1  # a command that stands behind the dropped frame must not wait for it
            self._changed.notify_all()

    def request(self, command: messages.Command) -> Future[Any]:
        future: Future[Any] = Future()
        with self._changed:
            if self._state in ("failed", "stopped"):
                future.set_exception(WorkerDied(f"the worker is not running ({self._state})"))
                return future
            if len(self._replies) >= MOST_COMMANDS and _from_anybody(command):
                future.set_exception(
                    Busy(f"{len(self._replies)} requests wait for the worker already; ask again later")
                )
                return future
            if isinstance(command, messages.Reset):
                if self._frames:
                    self._dropped["reset"] += len(self._frames)
                self._sent += len(self._frames)
                self._frames.clear()
            elif isinstance(command, messages.Learning):
                self._setup = self._setup.with_learning(command.on)  # of the next worker too
            if (joined := self._joined(command)) is not None:
                return joined
            number = next(self._ids)
            self._replies[number] = future
            if isinstance(command, messages.Reset | messages.Checkpoint):
                future.add_done_callback(partial(self._note, command))
            place = self._sent + (0 if isinstance(command, messages.AT_ONCE) else len(self._frames))
            self._commands.insert(sum(before <= place for *_, before in self._commands), (number, command, place))
            self._changed.notify_all()
        return future

    def _joined(self, command: messages.Command) -> Future[Any] | None:
        """The answer of one that ``command`` takes the place of, which the worker has not been sent yet."""
        if isinstance(command, messages.NEWEST):
            for place, (number, waiting, before) in enumerate(self._commands):
                if type(waiting) is type(command):
                    self._commands[place] = number, command, before
                    return self._replies[number]
        return None

    def _note(self, command: messages.Reset | messages.Checkpoint, done: Future[Any]) -> None:
        """From where the next worker is to go on, should this one die."""
        if done.exception() is None:
            folder = command.map_folder if isinstance(command, messages.Checkpoint) else ""
            self._setup = dataclasses.replace(self._setup, resume=folder, uninterrupted=bool(folder))

    def status(self) -> Status:
        with self._changed:
            waiting = len(self._frames) + self._in_flight
            pid = self._process.pid if self._process and self._process.poll() is None else None
            return Status(
                self._state, self._submitted, self._processed, waiting, dict(self._dropped), self._restarts, pid,
                self._told_dropped,
            )  # fmt: skip

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
        channel = Channel(ours)
        with contextlib.suppress(OSError):  # one that has ended is noticed where its answers are read
            channel.send(self._setup)
        with self._changed:
            self._channel, self._state = channel, "warming up"

    def _next(self) -> tuple[Channel, Frame | messages.Call] | None:
        """The next thing to send and the worker it is for, or None when the feeder should end; waits until there is
        one.
        """
        with self._changed:
            while not self._stopping:
                if self._state == "ready" and self._channel:
                    if self._commands and self._commands[0][2] <= self._sent:
                        number, command, _ = self._commands.popleft()
                        return self._channel, messages.Call(number, command)
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
                self._channel.send(messages.Stop())

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
            elif isinstance(message, messages.Reply):
                self._resolve(message)
            elif isinstance(message, Line):
                self._on_event(Event("log", message.level, f"{message.name}: {message.text}"))
            elif isinstance(message, messages.Ready):
                with self._changed:
                    self._state, self._failed_starts = "ready", 0
                    self._changed.notify_all()
                self._on_event(Event("ready", logging.INFO, f"worker ready after {message.seconds:.1f} s"))

    def _resolve(self, reply: messages.Reply) -> None:
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


def _from_anybody(command: messages.Command) -> bool:
    """Whether many of them may come at once; the last save of a node, which refines, is its own."""
    return not isinstance(command, messages.FEW) and not (isinstance(command, messages.Save) and command.refine)
