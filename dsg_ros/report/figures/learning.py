"""What was learned: the held-out loss and every parameter over metres driven."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsg_ros.interface import LearningStep, RunResult
from dsg_ros.report.figures import style

COLUMNS = 3


def draw_learning(result: RunResult) -> Figure:
    """``learning.png``: loss on the held-out block, before and after each update; parameters with one-sigma bands."""
    steps = result.learning
    names = list(dict.fromkeys(p.name for step in steps for p in step.parameters))
    rows = math.ceil(len(names) / COLUMNS)
    with style.style():
        figure = style.new_figure(2.3 + 1.75 * rows)
        ratios = [1.25] + [1.0] * rows
        grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=ratios)
        _draw_loss(style.open_axes(figure.add_subplot(grid[0, :])), steps)
        for i, name in enumerate(names):
            axes = style.open_axes(figure.add_subplot(grid[1 + i // COLUMNS, i % COLUMNS]))
            _draw_parameter(axes, steps, name)
            if i + COLUMNS >= len(names):
                axes.set_xlabel("driven [m]")
    return figure


def _draw_loss(axes: Axes, steps: tuple[LearningStep, ...]) -> None:
    axes.set_title("Held-out loss, per update of theta")
    if not steps:
        style.say(axes, "no update of theta was made in this run")
        return
    metres = np.array([s.metres for s in steps])
    before = np.array([s.loss_before for s in steps])
    after = np.array([s.loss_after for s in steps])
    accepted = np.array([s.accepted for s in steps])
    axes.vlines(metres, before, after, color=style.GRID, linewidth=1.5, zorder=1)
    hollow: dict[str, Any] = {"facecolor": "white", "edgecolor": style.BEFORE, "linewidths": 0.7}
    axes.scatter(metres, before, s=14, label="before the update", zorder=3, **hollow)
    axes.scatter(metres[accepted], after[accepted], s=5, color=style.AFTER, linewidths=0, label="after", zorder=4)
    if not accepted.all():
        refused: dict[str, Any] = {
            "s": 12,
            "facecolor": "white",
            "edgecolor": style.AFTER,
            "linewidths": 0.8,
            "zorder": 4,
        }
        axes.scatter(metres[~accepted], after[~accepted], label="after, rolled back", **refused)
    if len(steps) >= 9:
        for values, colour in ((before, style.BEFORE), (after, style.AFTER)):
            axes.plot(metres, _running_median(values), color=colour, linewidth=1.2, alpha=0.8, zorder=2)
    _mark_changes(axes, steps)
    finite = np.concatenate([before, after])
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.min() > 0 and finite.max() / finite.min() > 30:
        axes.set_yscale("log")
    axes.set_xlabel("driven [m]")
    axes.legend(loc="upper right", ncols=3)
    axes.margins(x=0.01)


def _mark_changes(axes: Axes, steps: tuple[LearningStep, ...]) -> None:
    """A line where the robot itself has changed."""
    for step in steps:
        if step.change:
            axes.axvline(step.metres, color=style.MUTED, linewidth=0.9, linestyle="--", zorder=1)


def _running_median(values: np.ndarray, reach: int = 4) -> np.ndarray:
    return np.array([np.median(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))])


def _draw_parameter(axes: Axes, steps: tuple[LearningStep, ...], name: str) -> None:
    found = [(s.metres, p) for s in steps for p in s.parameters if p.name == name]
    metres = np.array([m for m, _ in found])
    value = np.array([p.value for _, p in found])
    sigma = np.array([p.sigma for _, p in found])
    last = found[-1][1]
    colour = style.LEARNED if last.status == "learned" else style.MUTED
    axes.fill_between(metres, value - sigma, value + sigma, color=colour, alpha=0.18, linewidth=0)
    axes.plot(metres, value, color=colour)
    _mark_changes(axes, steps)
    axes.set_title(name.replace("_", " "), fontsize=9)
    end = f"{last.value:.4g} ± {last.sigma:.2g} {last.unit}" if last.status == "learned" else last.status
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axes.text(0.98, 0.96, end, transform=axes.transAxes, ha="right", va="top", fontsize=8, color=colour, bbox=box)
    axes.margins(x=0.01)
    axes.locator_params(nbins=5)
    _fit(axes, value, sigma)


def _fit(axes: Axes, value: np.ndarray, sigma: np.ndarray) -> None:
    """Show the values and the settled part of the band; the wide band of the first updates may leave the panel."""
    settled = sigma[len(sigma) // 4 :]
    reach = max(float(np.ptp(value)) * 0.15, float(np.median(settled)) * 2.0, 1e-9)
    low, high = float(value.min()) - reach, float(value.max()) + reach
    if math.isfinite(low) and math.isfinite(high):
        axes.set_ylim(low, high)
