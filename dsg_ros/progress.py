"""How far the work is: a bar where stderr is a terminal, a line of the log per tenth where it is a file or a pipe."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

log = logging.getLogger(__name__)


class Advance(Protocol):
    """Tell the bar how far the work is, and a few words about its state."""

    def __call__(self, completed: float, note: str = "") -> None: ...


@contextmanager
def progress(title: str, total: float) -> Iterator[Advance]:
    """Tell of ``total`` steps; the bar also estimates the time left."""
    if not sys.stderr.isatty():
        yield _logged(title, total)
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


def _logged(title: str, total: float) -> Advance:
    told = 0

    def advance(completed: float, note: str = "") -> None:
        nonlocal told
        tenth = int(10 * completed / total) if total else 10
        if tenth > told:
            told = tenth
            log.info("%s %d %%%s", title, 10 * tenth, f": {note}" if note else "")

    return advance
