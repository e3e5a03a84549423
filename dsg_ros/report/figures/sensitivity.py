"""How far changes of the parameters move the poses of a run, along its way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dsg_ros.effect import Effect, metres
from dsg_ros.report.figures import style

Array = NDArray[np.float64]

SMALLEST = 1e-5
"""Displacements below this [m] are drawn as it."""


def draw_sensitivity(effects: Sequence[Effect], travel: Array) -> Figure:
    """Displacements [m] over the metres driven ``travel`` (k,), of the map and, beside it, of odometry alone."""
    with style.style():
        figure = style.new_figure(3.6)
        axes = figure.subplots(1, 2, sharey=True)
        colours = colormaps["tab10"].colors  # type: ignore[attr-defined]  # of a ListedColormap
        for number, effect in enumerate(effects):
            for panel, moved in zip(axes, (effect.moved, effect.odometry), strict=True):
                distance = np.maximum(metres(moved), SMALLEST)
                panel.plot(travel, distance, color=colours[number % len(colours)], linewidth=1.0,
                           label=f"{effect.name} {effect.step}")  # fmt: skip
        for panel, title in zip(axes, ("The map moves [m]", "By odometry alone [m]"), strict=True):
            style.open_axes(panel).set_title(title)
            panel.set(xlabel="driven [m]", yscale="log")
        axes[0].set_ylim(bottom=SMALLEST)
        style.plain_numbers(axes[0], "y")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return figure
