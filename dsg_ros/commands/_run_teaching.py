"""Poses from a file that teach a run, handed out with its scans."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from dsg_ros.interface import Frame, ReferencePose
from dsg_ros.io.reference import Reference


def teaching(told: Reference) -> list[ReferencePose]:
    """The poses of a file, of which nothing tells how sure they are."""
    return [ReferencePose(stamp, pose) for stamp, pose in zip(told.stamps.tolist(), told.poses, strict=True)]


def with_teaching(frames: Iterable[Frame], taught: Sequence[ReferencePose], ahead: float) -> Iterator[Frame]:
    """The frames, each with the poses up to ``ahead`` [s] after it that no frame before has."""
    waiting = deque(taught)
    for frame in frames:
        end, due = frame.stamp + frame.sweep + round(ahead * 1e9), []
        while waiting and waiting[0].stamp <= end:
            due.append(waiting.popleft())
        yield dataclasses.replace(frame, reference=tuple(due)) if due else frame
