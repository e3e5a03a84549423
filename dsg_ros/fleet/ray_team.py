"""Workers on a Ray cluster: each holds some of the logs, and only sums come back."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from dsg_ros.errors import UserError
from dsg_ros.fleet.team import Advance
from dsg_ros.fleet.worker import Drive, Setup, Worker
from dsg_ros.learning.evidence import Evidence, Question
from dsg_ros.learning.joint import Span

try:
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError
except ModuleNotFoundError as missing:
    if missing.name != "ray":
        raise
    raise UserError("--ray needs the package ray: pip install ray, or install this package as dsg_ros[fleet]") from None

LOCAL = "local"
"""The address that starts a cluster on this machine."""

CONNECTING = 10.0
"""Seconds within which a cluster's address must answer."""

OBJECT_STORE = 100_000_000
"""Bytes for what workers exchange: sums only.  Ray would take a third of the machine's memory."""

MOST_LOST = 3
"""A log whose workers are lost so often loses them: it, or the machine's memory, is at fault."""

LOST = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError)
"""A worker that answers with one of these is no more."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Member:
    """A worker, with the numbers of the logs it holds."""

    actor: Any
    logs: set[int] = field(default_factory=set)


class RayTeam:
    """A `Team` of at most ``workers`` actors of one core each, by default as many as the cluster has cores.

    ``address`` is ``local`` or what `ray.init` takes; `UserError` where nothing answers there.  Logs are read by the
    workers: their paths must lead to them from every machine.  What was held by a worker that is lost is read again
    by the others.
    """

    def __init__(self, setup: Setup, address: str, workers: int = 0) -> None:
        self._setup, self._address, self._most = setup, address, workers
        self._members: list[_Member] = []
        self._logs: list[str] = []
        self._lost: dict[int, int] = {}

    def __enter__(self) -> Self:
        # Ray would tell its makers that it runs.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
        try:
            if self._address == LOCAL:
                ray.init(
                    include_dashboard=False, num_cpus=self._most or None, object_store_memory=OBJECT_STORE, **options
                )
            else:
                _check(self._address)
                ray.init(address=self._address, **options)
        except (OSError, ValueError, RuntimeError) as error:
            what = "the cluster does not start" if self._address == LOCAL else "no Ray cluster answers there"
            raise UserError(f"--ray {self._address}: {what}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._members.clear()
        ray.shutdown()

    @property
    def actors(self) -> list[Any]:
        """The workers that live."""
        return [member.actor for member in self._members]

    def take(self, logs: Sequence[str], advance: Advance) -> list[Drive]:
        """Each worker takes the next log when it is done with one."""
        self._logs = list(logs)
        cores = int(ray.cluster_resources().get("CPU", 1))
        for _ in range(max(1, min(len(logs), self._most or cores))):
            self._members.append(self._new_member())
        found: dict[int, Drive] = {}
        waiting = list(reversed(range(len(logs))))
        running: dict[Any, tuple[_Member, int]] = {}
        advance(0, "")
        while waiting or running:
            for member in self._members:
                if waiting and all(member is not busy for busy, _ in running.values()):
                    number = waiting.pop()
                    running[self._read(member, number)] = member, number
            (done,), _ = ray.wait(list(running), num_returns=1)
            member, number = running.pop(done)
            try:
                found[number] = dataclasses.replace(ray.get(done), log=self._logs[number])
                member.logs.add(number)
            except LOST:
                waiting.append(number)
                waiting.extend(self._bury(member, {number}) - {number})
            advance(len(found), self._logs[number])
        return [found[number] for number in range(len(logs))]

    def ask(self, question: Question, spans: Sequence[Span]) -> list[Evidence]:
        """Every worker answers for its logs at the same time; who is lost meanwhile is replaced, and asked again."""
        found: dict[int, Evidence] = {}
        while missing := [i for i in range(len(spans)) if i not in found]:
            running: list[tuple[_Member, list[int], Any]] = []
            for member in list(self._members):
                own = [i for i in missing if spans[i].log in member.logs]
                if own:
                    running.append((member, own, member.actor.answer.remote(question, [spans[i] for i in own])))
            for member, own, answer in running:
                try:
                    found |= zip(own, ray.get(answer), strict=True)
                except LOST:
                    self._hand_over(self._bury(member, set()))
        return [found[i] for i in range(len(spans))]

    def _read(self, member: _Member, number: int) -> Any:
        # A worker may have another working directory.
        return member.actor.take.remote(number, os.path.abspath(self._logs[number]))

    def _new_member(self) -> _Member:
        # Memory is that of the blocks, which are small; a core is taken while logs are matched and questions answered.
        return _Member(ray.remote(num_cpus=1)(Worker).remote(self._setup))

    def _bury(self, member: _Member, at_hand: set[int]) -> set[int]:
        """Forget a lost worker, and return the logs it held or had ``at_hand``; `UserError` for one lost too often."""
        self._members = [other for other in self._members if other is not member]
        logs = member.logs | at_hand
        for number in logs:
            self._lost[number] = self._lost.get(number, 0) + 1
            if self._lost[number] >= MOST_LOST:
                raise UserError(
                    f"{self._logs[number]}: {MOST_LOST} workers that held it were lost; is their memory too small? "
                    "What they told is in Ray's logs"
                )
        _log.warning("a worker was lost; read again elsewhere: %s", ", ".join(self._logs[n] for n in sorted(logs)))
        if not self._members:
            self._members.append(self._new_member())
        return logs

    def _hand_over(self, logs: Iterable[int]) -> None:
        """Have the workers that live read the logs of one that does not."""
        for number in sorted(logs):
            heir = min(self._members, key=lambda member: len(member.logs))
            heir.logs.add(number)
            # Answers come after it: an actor does one thing after the other.
            self._read(heir, number)


def _check(address: str) -> None:
    """`OSError` or `ValueError` where ``address`` tells a host and a port and nobody listens there: Ray itself would
    try for minutes.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.port is not None:
        with socket.create_connection((parts.hostname, parts.port), CONNECTING):
            pass
