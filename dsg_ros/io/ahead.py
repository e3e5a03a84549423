"""A log's frames, read ahead by a process of its own: parsing goes on while the frames before are mapped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from dsg_ros.aside import Aside, Receive, spare_core
from dsg_ros.config import Input
from dsg_ros.interface import Frame
from dsg_ros.io.logs import Frames, check_log, frames, open_log
from dsg_ros.io.records import Topics

BATCH = 1 << 16
"""Bytes of points that frames are sent with at least, the first one apart: a message has its price.  A few batches fit
into the socket; the process waits when it is full.
"""

Counts = dict[str, int]


class Stream(Protocol):
    """What is wanted of `dsg_ros.io.logs.Frames`, wherever they are read."""

    @property
    def counts(self) -> Counts: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def __next__(self) -> Frame: ...


class FramesAhead(Iterator[Frame]):
    """The frames that another process makes.  ``counts`` are as they were when the latest frame was read, although
    reading has gone on since.
    """

    def __init__(self, aside: Aside) -> None:
        self._aside = aside
        self._length: int | None = None
        self._waiting: Iterator[tuple[Frame | None, Counts]] = iter(())
        self._counts: Counts = {}

    def __len__(self) -> int:
        """The number of scans in the log: an upper bound of the number of frames."""
        if self._length is None:
            self._length = next(self._aside)
        return self._length

    @property
    def counts(self) -> Counts:
        return self._counts

    def __next__(self) -> Frame:
        len(self)  # comes first
        while (found := next(self._waiting, None)) is None:
            self._waiting = iter(next(self._aside))
        frame, self._counts = found
        if frame is None:
            raise StopIteration
        return frame


@contextmanager
def reading(path: Path, topics: Topics, settings: Input) -> Iterator[Stream]:
    """`frames` of the log at ``path``, read ahead where a core is free for that.

    `UserError` for a path that cannot be a log; what else is wrong with it is told by the first frame asked for.
    """
    check_log(path)
    if not spare_core():
        yield frames(open_log(path, topics, settings.point_time_unit), settings)
        return
    with Aside(f"{__name__}:read") as aside:
        aside.send((path, topics, settings))
        yield FramesAhead(aside)


def read(receive: Receive) -> Iterator[int | list[tuple[Frame | None, Counts]]]:
    """In the process: the number of scans, then frames in batches, each with the counts so far; None at the end."""
    path, topics, settings = receive()
    stream = frames(open_log(path, topics, settings.point_time_unit), settings)
    yield len(stream)
    yield from _batches(stream)


def _batches(stream: Frames) -> Iterator[list[tuple[Frame | None, Counts]]]:
    batch: list[tuple[Frame | None, Counts]] = []
    size, enough = 0, 0
    try:
        for frame in stream:
            batch.append((frame, stream.counts))
            size += frame.points.nbytes
            if size >= enough:
                yield batch
                batch, size, enough = [], 0, BATCH
    except Exception:
        # What was read before the error counts as it would have, had the error not been met ahead of time.
        yield batch
        raise
    yield [*batch, (None, stream.counts)]
