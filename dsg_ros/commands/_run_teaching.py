"""Poses or positions from a file that teach a run, handed out with its scans."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dsg_ros.errors import UserError
from dsg_ros.interface import Frame, ReferencePose, ReferencePosition, Told
from dsg_ros.io.kinds import bag_kind
from dsg_ros.io.reference import Reference, read_reference
from dsg_ros.io.textfile import read_bytes


@dataclasses.dataclass(frozen=True)
class Teaching:
    """What is ``told``, in order, and ``counts`` of what was left out by cause."""

    source: Path
    told: Sequence[Told]
    counts: dict[str, int]

    def check(self, first: Frame) -> None:
        """`UserError` where a log that begins with this frame cannot be taught so."""
        if self.told and self.told[-1].stamp < first.stamp:
            ends, begins = self.told[-1].stamp * 1e-9, first.stamp * 1e-9
            raise UserError(f"{self.source}: it ends at {ends:.3f} s, before the log begins at {begins:.3f} s")
        if not first.planar and any(isinstance(each, ReferencePosition) for each in self.told):
            raise UserError(f"{self.source}: it tells positions alone, and the log is of a robot in 3D: not built")


def read_teaching(
    path: Path, topic: str, antenna: tuple[float, float, float] | None, base: Callable[[], str]
) -> Teaching:
    """Fixes of a bag, positions of a text file of four columns, or poses as --reference takes them; ``base`` tells the
    frame of the base as the run has it, in which the antenna is looked for.
    """
    if path.is_dir() or bag_kind(path):
        from dsg_ros.io import positions  # here: the bag library is slow to import

        found = positions.of_bag(path, topic, antenna, base)
        return Teaching(path, found.told, found.counts)
    if topic:
        raise UserError(f"--teach-topic {topic}: {path} is no bag")
    text = read_bytes(path).decode(errors="replace")
    lines = (line.replace(",", " ").split() for line in text.splitlines())
    if len(next((words for words in lines if words and not words[0].startswith("#")), ())) == 4:
        from dsg_ros.io import positions

        found = positions.of_text(path, text, antenna)
        return Teaching(path, found.told, found.counts)
    if antenna is not None:
        raise UserError(f"--antenna: {path} tells poses of the base, not positions of an antenna")
    return Teaching(path, teaching(read_reference(path)), {})


def teaching(told: Reference) -> list[ReferencePose]:
    """The poses of a file, of which nothing tells how sure they are."""
    return [ReferencePose(stamp, pose) for stamp, pose in zip(told.stamps.tolist(), told.poses, strict=True)]


def with_teaching(frames: Iterable[Frame], taught: Sequence[Told], ahead: float) -> Iterator[Frame]:
    """The frames, each with what is told up to ``ahead`` [s] after it that no frame before has."""
    waiting = deque(taught)
    for frame in frames:
        end, due = frame.stamp + frame.sweep + round(ahead * 1e9), []
        while waiting and waiting[0].stamp <= end:
            due.append(waiting.popleft())
        yield dataclasses.replace(frame, reference=tuple(due)) if due else frame
