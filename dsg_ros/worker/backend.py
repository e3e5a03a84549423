"""What the node knows of the pipeline: frames and commands in, estimates and events out, and accounts of them all."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from dsg_ros.interface import Estimate, Frame
from dsg_ros.worker import messages


class WorkerDied(RuntimeError):
    """The worker ended before it answered; the message says how."""


class Busy(RuntimeError):
    """So many commands wait already that another one is not taken; the message says so."""


@dataclass(frozen=True)
class Event:
    """Something to tell the operator; ``level`` is one of `logging`'s."""

    kind: Literal["ready", "log", "died", "failed"]
    level: int
    text: str


@dataclass(frozen=True)
class Status:
    """Accounts of a backend: ``submitted == processed + sum(dropped.values()) + waiting`` at any time.

    ``told_dropped`` counts what was told of the way from elsewhere (`Frame.reference`) and went with dropped frames.
    """

    state: Literal["stopped", "warming up", "ready", "failed"]
    submitted: int = 0
    processed: int = 0
    waiting: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    restarts: int = 0
    pid: int | None = None
    told_dropped: int = 0


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
    def request(self, command: messages.Command) -> Future[Any]:
        """Have a command executed; the future holds its reply or `WorkerDied`.

        It comes after the frames handed over before, or as soon as the worker is free where
        `messages.AT_ONCE` names it.  `Busy` where too many wait; a `Reset` or `Learning` that stands behind one of its
        kind that was not begun takes its place, and both have one answer.
        """

    @abc.abstractmethod
    def status(self) -> Status: ...

    @abc.abstractmethod
    def stop(self, timeout: float = 5.0) -> None:
        """End for good.  Frames still waiting are dropped and counted; nothing is left running."""
