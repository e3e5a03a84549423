"""The growth curves as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsg_ros.report.figures import style


def draw_growth(found: Sequence[dict[str, Any]]) -> Figure:
    """``growth.png``: an update's median and p99 [ms] and memory taken [GiB] against poses, a column for each drive;
    below them the batch solve's seconds and memory, where they were measured.

    ``found`` is what `benchmarks.growth.run` gives: ours, and of iSAM2's variants the one with the lower median.
    """
    batch = next((drive["batch"] for drive in found if drive.get("batch")), None)
    with style.style():
        figure = style.new_figure(9.0 if batch else 6.0)
        panels = figure.subplots(3 if batch else 2, len(found), squeeze=False)
        for column, drive in enumerate(found):
            curves = {"this package": (drive["ours"], style.AFTER), "iSAM2": (_faster(drive["gtsam"]), style.BEFORE)}
            there = {name: curve for name, curve in curves.items() if curve[0]}
            _times(panels[0, column], f"{drive['drive']}: one update [ms]", there)
            _memory(panels[1, column], "Memory that the graph and its solver take, at most [GiB]", there)
        if batch:
            _batch(panels[2, 0], batch)
            for empty in panels[2, 1:]:
                empty.set_axis_off()
    return figure


def _batch(axes: Axes, curve: dict[str, list[float]]) -> None:
    style.open_axes(axes).set_title("city: the whole graph at once [s]")
    for name, colour in (("this package", style.AFTER), ("GTSAM", style.BEFORE)):
        seconds = curve["seconds" if colour == style.AFTER else "gtsam_seconds"]
        axes.plot(curve["sizes"], seconds, color=colour, marker="o", markersize=3, label=name)
    axes.set(xscale="log", yscale="log", xlabel="poses")
    style.plain_numbers(axes)
    axes.legend()


def _faster(variants: dict[str, Any]) -> dict[str, Any]:
    """Nothing where there is none."""
    return min(variants.values(), key=lambda curve: float(curve["median"][-1]), default={})


def _times(axes: Axes, title: str, curves: dict[str, tuple[dict[str, Any], str]]) -> None:
    style.open_axes(axes).set_title(title)
    if not curves:
        style.say(axes, "not measured in this run")
        return
    for name, (curve, colour) in curves.items():
        axes.plot(curve["sizes"], curve["median"], color=colour, marker="o", markersize=3, label=f"{name}, median")
        axes.plot(curve["sizes"], curve["p99"], color=colour, marker="o", markersize=3, linestyle=":", label="p99")
    axes.set(xscale="log", yscale="log", xlabel="poses")
    style.plain_numbers(axes)
    axes.legend()


def _memory(axes: Axes, title: str, curves: dict[str, tuple[dict[str, Any], str]]) -> None:
    style.open_axes(axes).set_title(title)
    if not curves:
        style.say(axes, "not measured in this run")
        return
    for name, (curve, colour) in curves.items():
        taken = [memory - curve["start"] for memory in curve["memory"]]
        axes.plot(curve["sizes"], taken, color=colour, marker="o", markersize=3, label=name)
    axes.set(xscale="log", xlabel="poses")
    axes.set_ylim(0.0, max(1.1 * axes.dataLim.y1, 0.01))
    style.plain_numbers(axes, "x")
    axes.legend()
