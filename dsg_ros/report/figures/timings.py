"""Where the time went."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsg_ros.report.figures import style
from dsg_ros.report.timing import Phase, phases, run_phases


def draw_timings(metrics: Mapping[str, float | None]) -> Figure:
    """``timings.png``: the run's phases [s], if it has any, and the pipeline's: in total [s], a call at a time [ms]."""
    run, pipeline = run_phases(metrics), phases(metrics)
    rows = max(len(run), len(pipeline), 2)
    with style.style():
        figure = style.new_figure(0.9 + 0.25 * rows)
        # A node's run has no phases of its own.
        panels = list(figure.subplots(1, 3 if run else 2))
        if run:
            _bars(panels.pop(0), run, "The run [s]", rows)
        _bars(panels[0], {p.name: p.total for p in pipeline}, "The pipeline, in total [s]", rows)
        _calls(panels[1], pipeline, rows)
    return figure


def _bars(axes: Axes, seconds: Mapping[str, float], title: str, rows: int) -> None:
    style.open_axes(axes).set_title(title)
    if not seconds:
        style.say(axes, "not measured in this run")
        return
    bars = axes.barh(range(len(seconds)), list(seconds.values()), color=style.AFTER, height=0.55)
    axes.bar_label(bars, [f"{value:.3g}" for value in seconds.values()], padding=4, fontsize=8, color=style.INK)
    axes.margins(x=0.18)
    _name_rows(axes, list(seconds), rows)


def _calls(axes: Axes, pipeline: list[Phase], rows: int) -> None:
    """Median and 99th percentile of each phase on a logarithmic scale: they span microseconds to seconds."""
    style.open_axes(axes).set_title("One call, median and p99 [ms]")
    if not pipeline:
        style.say(axes, "not measured in this run")
        return
    row = np.arange(len(pipeline))
    p50, p99 = (np.maximum(1e3 * np.array([getattr(p, q) for p in pipeline]), 1e-3) for q in ("p50", "p99"))
    axes.hlines(row, p50, p99, color=style.AFTER, linewidth=2.0, alpha=0.35)
    axes.scatter(p50, row, s=18, color=style.AFTER, linewidths=0, zorder=3)
    axes.scatter(p99, row, s=18, facecolor="white", edgecolor=style.AFTER, linewidths=1.0, zorder=3)
    axes.set_xscale("log")
    axes.set_xlim(0.5 * p50.min(), 2.0 * p99.max())
    style.plain_numbers(axes, "x")
    _name_rows(axes, [p.name for p in pipeline], rows)


def _name_rows(axes: Axes, names: list[str], rows: int) -> None:
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
