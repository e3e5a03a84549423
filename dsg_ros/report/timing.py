"""Durations among the metrics of a run, told apart by their names.

``seconds_run.<phase>`` is a phase of the whole run.  ``seconds_total.<phase>``, ``seconds_p50.<phase>`` and
``seconds_p99.<phase>`` are a phase of the pipeline, in total and for one call; ``seconds.<phase>`` is its latest call,
of interest only while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

RUN, TOTAL, P50, P99, LATEST = "seconds_run.", "seconds_total.", "seconds_p50.", "seconds_p99.", "seconds."


class Phase(NamedTuple):
    """A phase of the pipeline; all durations in seconds."""

    name: str
    total: float
    p50: float
    p99: float


def run_phases(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Seconds of each phase of the whole run."""
    return dict(_starting(metrics, RUN))


def phases(metrics: Mapping[str, float | None]) -> list[Phase]:
    """The pipeline's phases, those that took the most time first."""
    p50, p99 = dict(_starting(metrics, P50)), dict(_starting(metrics, P99))
    found = [Phase(n, total, p50[n], p99[n]) for n, total in _starting(metrics, TOTAL) if n in p50 and n in p99]
    return sorted(found, key=lambda phase: -phase.total)


def others(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics that are no durations of these kinds."""
    return {name: value for name, value in metrics.items() if not name.startswith((RUN, TOTAL, P50, P99, LATEST))}


def _starting(metrics: Mapping[str, float | None], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if name.startswith(prefix) and value is not None:
            yield name.removeprefix(prefix), value
