"""The stored ratios, and the gate that a change must pass: none may become more than 15 % worse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.table import Row
from dsg_ros.errors import UserError
from dsg_ros.io import atomic

STORED = Path(__file__).with_name("baseline.json")
SLACK = 1.15


def load(path: Path = STORED) -> dict[str, float]:
    """The stored ratios by `Row.key`; none where the file is not there yet.  `UserError` where it is not a baseline."""
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text())
        return {str(key): float(ratio) for key, ratio in stored.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no JSON object of ratios ({error}); write it anew with --write-baseline") from error


def write(rows: Sequence[Row], path: Path = STORED) -> int:
    """Store the ratios of these rows, keeping those of rows not measured now; how many were stored."""
    ratios = {row.key: round(row.ratio, 4) for row in rows if row.ratio is not None}
    merged = dict(sorted((load(path) | ratios).items()))
    atomic.write_bytes(path, (json.dumps(merged, indent=2) + "\n").encode())
    return len(ratios)


def regressions(rows: Sequence[Row], stored: Mapping[str, float]) -> list[str]:
    """What is worse than stored, beyond `SLACK`: a row that lost its answer too.  Rows not measured now are no loss."""
    found = []
    for row in rows:
        before = stored.get(row.key)
        if before is None:
            continue
        if row.ratio is None:
            found.append(f"{row.key}: no ratio any more (was {before:.3f}): {row.note or 'no answer'}")
        elif row.ratio > SLACK * before:
            found.append(f"{row.key}: {row.ratio:.3f}, was {before:.3f} ({row.ratio / before - 1:+.0%})")
    return found


def unchecked(rows: Sequence[Row], stored: Mapping[str, float]) -> list[str]:
    """Keys of rows with a ratio for which nothing is stored: the gate says nothing of them."""
    return [row.key for row in rows if row.ratio is not None and row.key not in stored]
