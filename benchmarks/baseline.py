"""The stored figures, and the gate that a change must pass: none may become more than 15 % worse.

Of a row with a peer the ratio is stored, which other machines share; of one that counts alone (milliseconds, GiB) our
own figure, which holds for the machine it was measured on.  Whole processes are held to their limits instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.table import Row
from dsg_ros.errors import UserError
from dsg_ros.io import atomic

STORED = Path(__file__).with_name("baseline.json")
SLACK = 1.15
NEGLIGIBLE = 0.01
"""Of its goal: by so much an own figure may be worse whatever was stored.  An excess cost of 1e-12 has no 15 %."""


def load(path: Path = STORED) -> dict[str, float]:
    """The stored figures by `Row.key`; none where there is no file yet.  `UserError` where it is not a baseline."""
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text())
        return {str(key): float(figure) for key, figure in stored.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no JSON object of figures ({error}); write it anew with --write-baseline") from error


def write(rows: Sequence[Row], path: Path = STORED) -> int:
    """Store the figures of these rows, keeping those of rows not measured now; how many were stored."""
    figures = {row.key: float(f"{row.figure:.4g}") for row in rows if gated(row) and row.figure is not None}
    merged = dict(sorted((load(path) | figures).items()))
    atomic.write_bytes(path, (json.dumps(merged, indent=2) + "\n").encode())
    return len(figures)


def gated(row: Row) -> bool:
    """Whether the row is one for the baseline.  Whole processes have limits of their own, and the longest of thousands
    of updates is whatever else the machine did then: it has its goal.
    """
    return row.benchmark != "processes" and row.what.split()[0] != "max"


def regressions(rows: Sequence[Row], stored: Mapping[str, float]) -> list[str]:
    """What is worse than stored, beyond `SLACK`: a row that lost its answer too.  Rows not measured now: `missing`."""
    found = []
    for row in rows:
        before = stored.get(row.key)
        if before is None:
            continue
        what = "figure" if row.alone else "ratio"
        allowed = before + (SLACK - 1) * abs(before) + (NEGLIGIBLE * (row.goal or 0.0) if row.alone else 0.0)
        if row.figure is None:
            found.append(f"{row.key}: no {what} any more (was {before:.4g}): {row.note or 'no answer'}")
        elif row.figure > allowed:
            change = f" ({row.figure / before - 1:+.0%})" if before > 0 else ""
            found.append(f"{row.key}: {what} {row.figure:.4g}, was {before:.4g}{change}")
    return found


def missing(rows: Sequence[Row], stored: Mapping[str, float], wanted: Callable[[str, str], bool]) -> list[str]:
    """Stored keys that were not measured though ``wanted(benchmark, graph)`` says that they were asked for."""
    measured = {row.key for row in rows}
    return [key for key in stored if key not in measured and wanted(*key.split("/")[:2])]


def unchecked(rows: Sequence[Row], stored: Mapping[str, float]) -> list[str]:
    """Keys of rows with a figure for which nothing is stored: the gate says nothing of them."""
    return [row.key for row in rows if gated(row) and row.figure is not None and row.key not in stored]
