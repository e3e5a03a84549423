"""A progress bar on stderr, for people: nothing at all where stderr is a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Tell the bar how far the work is, and a few words about its state."""

    def __call__(self, completed: float, note: str = "") -> None: ...


@contextmanager
def progress(title: str, total: float) -> Iterator[Advance]:
    """A bar of ``total`` steps with the time left, shown while stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda completed, note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda completed, note="": bar.update(task, completed=completed, note=note)
