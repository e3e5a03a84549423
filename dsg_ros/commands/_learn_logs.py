"""What `learn` does with the logs: sorts out what cannot be used, learns from the rest, and tells of each."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from dsg_ros.errors import UserError
from dsg_ros.fleet.team import Team
from dsg_ros.fleet.worker import Drive, Setup
from dsg_ros.interface import Parameter
from dsg_ros.learning.joint import Joint, Span
from dsg_ros.learning.leave_one_out import LeftOut, Together, learn_together
from dsg_ros.progress import progress

log = logging.getLogger(__name__)

PARTS = 5
"""A single log is cut into so many parts, each foretold by what the others teach."""


@dataclass(frozen=True)
class LogReport:
    """A log; ``found`` is what came of it (none where it cannot be used, and for a single one, which is its own
    parts).
    """

    drive: Drive
    found: LeftOut | None


@dataclass(frozen=True)
class Outcome:
    """What the command tells."""

    joint: Joint
    together: Together
    logs: tuple[LogReport, ...]
    held_out: str

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What was learned."""
        return self.joint.parameters(self.together.estimate)


def learn_logs(team: Team, setup: Setup, logs: Sequence[str], repeated: Sequence[Drive]) -> Outcome:
    """Learn from ``logs``; ``repeated`` are told as well.  `UserError` where none can be used."""
    with progress("matching scans", len(logs)) as advance:
        drives = _distinct(team.take(logs, advance))
    for drive in (*drives, *repeated):
        if drive.unusable:
            log.warning("%s: not used: %s", drive.log, drive.unusable)
    usable = [i for i, drive in enumerate(drives) if not drive.unusable]
    if not usable:
        reasons = "; ".join(f"{drive.log}: {drive.unusable}" for drive in (*drives, *repeated))
        raise UserError(f"nothing to learn from: {reasons}")
    joint = Joint(team.ask, setup.settings, setup.parameters)
    if len(usable) == 1:
        return _single(joint, usable[0], [*drives, *repeated])
    spans = [Span(i, 0, drives[i].blocks) for i in usable]
    together = _learn(joint, spans, [drives[i].metres for i in usable])
    found = dict(zip(usable, together.drives, strict=True))
    for number, each in found.items():
        if not each.agrees:
            log.warning("%s: contradicts the others: %s", drives[number].log, _apart(joint, each))
    reports = tuple(LogReport(drive, found.get(i)) for i, drive in enumerate((*drives, *repeated)))
    return Outcome(joint, together, reports, "each log, by what the others teach")


def _distinct(drives: Sequence[Drive]) -> list[Drive]:
    """The drives, those marked that others hold already."""
    seen: dict[str, str] = {}
    out = []
    for drive in drives:
        if not drive.unusable and drive.fingerprint in seen:
            drive = dataclasses.replace(drive, unusable=f"the same drive as {seen[drive.fingerprint]}, counted once")
        elif not drive.unusable:
            seen[drive.fingerprint] = drive.log
        out.append(drive)
    return out


def _single(joint: Joint, number: int, drives: Sequence[Drive]) -> Outcome:
    drive = drives[number]
    count = min(PARTS, drive.blocks)
    cuts = [round(drive.blocks * part / count) for part in range(count + 1)]
    spans = [Span(number, first, last) for first, last in itertools.pairwise(cuts)]
    metres = [drive.metres * (span.last - span.first) / drive.blocks for span in spans]
    together = _learn(joint, spans, metres, all_used=True)
    held_out = (
        f"each of {count} parts of the only log, by what the others teach"
        if count > 1
        else "the one block it was learned from"
    )
    return Outcome(joint, together, tuple(LogReport(each, None) for each in drives), held_out)


def _learn(joint: Joint, spans: Sequence[Span], metres: Sequence[float], all_used: bool = False) -> Together:
    steps = len(spans) + 1
    with progress("learning", steps) as advance:
        done = 0

        def told(what: str) -> None:
            nonlocal done
            advance(min(done, steps), what)
            done += 1

        return learn_together(joint, spans, metres, told, all_used)


def _apart(joint: Joint, found: LeftOut) -> str:
    """The number in which a log differs most from the others, in deviations."""
    assert found.others is not None
    assert found.test is not None
    own, others = found.own, found.others
    far = abs(own.deviation - others.deviation) / (own.sigmas**2 + others.sigmas**2) ** 0.5
    worst = int(far.argmax())
    spec, told, taught = (
        joint.specs[worst], joint.physical(own.deviation)[worst], joint.physical(others.deviation)[worst],
    )  # fmt: skip
    unit = "" if spec.unit == "ratio" else f" {spec.unit}"
    return (
        f"{spec.name} is {told:.4g} +- {own.sigmas[worst]:.2g}{unit} by itself and {taught:.4g} +- "
        f"{others.sigmas[worst]:.2g} by the others (score test p = {found.test.p_value:.2g}); is it of another robot?"
    )
