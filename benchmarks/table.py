"""What a comparison finds, as rows: on the screen and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure: ours, the peer's, and what the ratio, or without a peer our own figure, should not exceed.

    ``ours`` or ``peer`` is None where that side gave no answer that counts; ``note`` then says why.  Where ours counts
    ``alone``, the peer's figure is told beside it, and no ratio.
    """

    benchmark: str
    graph: str
    what: str
    ours: float | None
    peer: float | None
    unit: str
    goal: float | None = None
    note: str = ""
    alone: bool = False

    @property
    def key(self) -> str:
        """Names the row in the baseline."""
        return f"{self.benchmark}/{self.graph}/{self.what}"

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's; smaller is better.  None where a side is missing, and where our figure counts alone."""
        return None if self.alone or self.ours is None or not self.peer else self.ours / self.peer

    @property
    def figure(self) -> float | None:
        """What the row comes to, smaller is better: the ratio, or our own figure where it counts alone."""
        return self.ours if self.alone else self.ratio

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.figure is not None and self.figure <= self.goal

    def as_json(self) -> dict[str, Any]:
        """Its fields, ratio and verdict."""
        return asdict(self) | {"key": self.key, "ratio": self.ratio, "reached": self.reached}


def from_json(fields: dict[str, Any]) -> Row:
    """The inverse of `Row.as_json`."""
    return Row(**{name: value for name, value in fields.items() if name not in ("key", "ratio", "reached")})


HEADINGS = ("graph", "what", "ours", "peer", "unit", "ratio", "goal", "")


def render(rows: Sequence[Row]) -> str:
    """The rows as a table of text."""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADINGS))]
    numbers = (2, 3, 5, 6)
    return "\n".join(
        "  ".join(
            cell.rjust(w) if k in numbers else cell.ljust(w)
            for k, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {None: "", True: "ok", False: "short of it" if row.ours is not None else "no answer"}[row.reached]
    return (
        row.graph,
        row.what,
        _number(row.ours),
        _number(row.peer),
        row.unit,
        "" if row.ratio is None else f"{row.ratio:.3f}",
        "" if row.goal is None else f"{row.goal:g}",
        ", ".join(filter(None, (verdict, row.note))),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
