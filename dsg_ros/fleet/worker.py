"""What a worker does: match the scans of the logs it is given, keep their blocks, answer questions on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dsg_ros import config
from dsg_ros.errors import UserError
from dsg_ros.interface import Parameter
from dsg_ros.io.records import Topics
from dsg_ros.learning.evidence import DriveEvidence, Evidence, Question
from dsg_ros.learning.joint import Span
from dsg_ros.matched_drive import MatchedDrive, match_drive


@dataclass(frozen=True)
class Setup:
    """What every worker must know: settings, topics in bags, and where theta starts."""

    settings: config.Slam
    topics: Topics = field(default_factory=Topics)
    parameters: tuple[Parameter, ...] = ()


@dataclass(frozen=True)
class Drive:
    """What a log came to.  ``unusable`` says why nothing can be learned from it, if so.

    ``fingerprint`` is the same for two logs of the same drive, however they are stored.
    """

    log: str
    scans: int = 0
    keyframes: int = 0
    blocks: int = 0
    metres: float = 0.0
    fingerprint: str = ""
    unusable: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


class Worker:
    """Logs are known by the numbers they are taken with."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._evidence: dict[int, DriveEvidence] = {}

    def take(self, number: int, path: str, advance: Callable[[float], None] = lambda share: None) -> Drive:
        """Match the log at ``path`` and keep its blocks; a log that cannot be read or used is told, not raised.

        ``advance`` is told which share of its scans is done.
        """
        s = self._setup
        try:
            drive = match_drive(
                Path(path), s.settings, s.topics, lambda done, of: advance(done / max(of, 1)), s.parameters
            )
        except UserError as error:
            return Drive(path, unusable=str(error).removeprefix(f"{path}: "))
        evidence = DriveEvidence(drive.links, s.settings, s.parameters)
        self._evidence[number] = evidence
        size = s.settings.learning.every_keyframes
        return Drive(
            path,
            drive.scans,
            len(drive.links) + 1,
            len(evidence),
            drive.metres,
            _fingerprint(drive),
            _unusable(drive, evidence, size),
            {name: count for name, count in {**drive.counts, "links_refused": evidence.refused}.items() if count},
        )

    def answer(self, question: Question, spans: Sequence[Span]) -> list[Evidence]:
        """The evidence of each span; `UserError` for a log that could not be read again after it once was."""
        for span in spans:
            if span.log not in self._evidence:
                raise UserError(f"log {span.log + 1} can no longer be read; was it moved or changed meanwhile?")
        return [self._evidence[span.log].at(question, span.first, span.last) for span in spans]


def _unusable(drive: MatchedDrive, evidence: DriveEvidence, size: int) -> str:
    if not any(link.moves for link in drive.links):
        if drive.links:
            return f"nothing moves by the odometry, though the scans do in {len(drive.links)} keyframes"
        return f"nothing moves in {drive.scans} scans"
    if not len(evidence):
        return (
            f"too short: {drive.metres:.1f} m give {len(drive.links)} usable links between keyframes less "
            f"{evidence.refused} that are not, and a block takes {size} (learning.every_keyframes)"
        )
    return ""


def _fingerprint(drive: MatchedDrive) -> str:
    """Of the keyframes' stamps and odometry: a log that is packed or converted is still the same drive."""
    told = [drive.stamps.tobytes(), *(np.round(link.measured, 6).tobytes() for link in drive.links)]
    return hashlib.sha256(b"".join(told)).hexdigest()
