"""Where the time went."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from dsg_ros.report import html
from dsg_ros.report.figures import style


def draw_timings(metrics: Mapping[str, float]) -> Figure:
    """``timings.png``: every duration among ``metrics``, the long ones [s] and the short ones [ms] apart."""
    times = {name: value for name, value in metrics.items() if html.is_time(name) and np.isfinite(value)}
    short = {name: value for name, value in times.items() if "ms" in name.replace(".", "_").split("_")}
    long = {name: value for name, value in times.items() if name not in short}
    rows = max(len(short), len(long), 1)
    with style.style():
        figure = style.new_figure(0.9 + 0.24 * rows)
        for axes, values, title in zip(
            figure.subplots(1, 2), (long, short), ("Phases [s]", "Latencies [ms]"), strict=True
        ):
            style.open_axes(axes)
            axes.set_title(title)
            if not values:
                style.say(axes, "not measured in this run")
                continue
            names = list(values)
            bars = axes.barh(names, list(values.values()), color=style.AFTER, height=0.55)
            axes.bar_label(bars, [f"{v:.3g}" for v in values.values()], padding=4, fontsize=8, color=style.INK)
            axes.set_yticks(range(len(names)), [n.removeprefix("seconds.").replace("_", " ") for n in names])
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.margins(x=0.15)
            axes.set_ylim(rows - 0.5, -0.5)
    return figure
