"""Whoever holds the logs: one worker in this process, or many elsewhere (`dsg_ros.fleet.ray_team`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from dsg_ros.fleet.worker import Drive, Setup, Worker
from dsg_ros.learning.evidence import Evidence, Question
from dsg_ros.learning.joint import Span

Advance = Callable[[float, str], None]
"""Told how many logs are done, in fractions, and which one is at hand."""


class Team(Protocol):
    """Logs are known by their place in the list that `take` was given; all answers are in the order of the request.

    A context manager: however it is left, no worker stays.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def take(self, logs: Sequence[str], advance: Advance) -> list[Drive]:
        """Match every log, once, and keep its blocks."""
        ...

    def ask(self, question: Question, spans: Sequence[Span]) -> list[Evidence]:
        """The evidence of every span at one theta."""
        ...


class InProcess:
    """The `Team` of one, here."""

    def __init__(self, setup: Setup) -> None:
        self._worker = Worker(setup)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def take(self, logs: Sequence[str], advance: Advance) -> list[Drive]:
        """One log after the other."""
        drives = []
        for number, log in enumerate(logs):
            advance(number, log)
            drives.append(self._worker.take(number, log, partial(_share, advance, number, log)))
        advance(len(logs), "")
        return drives

    def ask(self, question: Question, spans: Sequence[Span]) -> list[Evidence]:
        """Evaluated here."""
        return self._worker.answer(question, spans)


def _share(advance: Advance, number: int, log: str, share: float) -> None:
    advance(number + share, log)
