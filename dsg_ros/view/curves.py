"""What is learned and how the inputs are kept up with, as curves over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import viser
from numpy.typing import NDArray
from viser import uplot

from dsg_ros.interface import Parameter
from dsg_ros.view.history import History
from dsg_ros.view.update import Update

_COLOURS = ("#1f69c4", "#e67e22", "#16a05c", "#c0392b", "#8e44ad", "#7f8c8d", "#d4ac0d", "#148f77")
_BAND = "#1f69c433"
_SIGMAS = 2.0
"""Half the width of a parameter's band, in standard deviations."""
_LOW, _HIGH = "low", "high"
_ROOM = 1.5
"""Widths of the usual band that a chart has above and below its curve."""


class Chart:
    """Lines of a `History` over seconds; a name that comes later gets a line of its own.

    Of a chart that is there nothing but the data may change: told of other lines or another title, viser's page makes
    it anew and keeps the old range of time (seen with 1.1.1).
    """

    def __init__(self, gui: viser.GuiApi, title: str, order: float, height: int = 190) -> None:
        self._gui, self._title, self._order, self._height = gui, title, order, height
        self._handle: viser.GuiUplotHandle | None = None
        self._names: tuple[str, ...] = ()

    def show(self, history: History, names: Sequence[str]) -> None:
        """Draw columns ``names`` of the history."""
        if not names or not len(history):
            return
        data = history.table(names)
        if tuple(names) != self._names:
            self.clear()
        if self._handle is not None:
            self._handle.data = data
            return
        self._names = tuple(names)
        self._handle = self._gui.add_uplot(
            data, lines(names), title=self._title, height=self._height, order=self._order, scales=SCALES, axes=axes()
        )

    def clear(self) -> None:
        """Nothing is drawn until there is something to draw."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class ParameterChart:
    """One number of theta with its band of two standard deviations."""

    def __init__(self, gui: viser.GuiApi, history: History, name: str) -> None:
        series = (
            uplot.Series(label="s"),
            uplot.Series(label=name, stroke=_COLOURS[0], width=2),
            uplot.Series(label=f"-{_SIGMAS:g} sd", stroke=_BAND, width=1),
            uplot.Series(label=f"+{_SIGMAS:g} sd", stroke=_BAND, width=1),
        )
        self._name = name
        self._handle = gui.add_uplot(
            self._data(history),
            series,
            bands=(uplot.Band(series=(3, 2), fill=_BAND),),
            title=name,
            height=150,
            scales=SCALES,
            axes=axes(),
            legend=uplot.Legend(show=False),
        )

    def show(self, history: History) -> None:
        """Draw its history."""
        self._handle.data = self._data(history)

    def remove(self) -> None:
        """Take it off the page."""
        self._handle.remove()

    def _data(self, history: History) -> tuple[NDArray[np.float64], ...]:
        """Seconds, value and the ends of its band, which is cut off where its beginning would flatten all the rest."""
        seconds, value, low, high = history.table([self._name, f"{self._name} {_LOW}", f"{self._name} {_HIGH}"])
        room = _ROOM * float(np.median(high - low))
        return seconds, value, np.maximum(low, value.min() - room), np.minimum(high, value.max() + room)


class Curves:
    """All curves of the page, on a tab for what is learned and one for the inputs."""

    def __init__(self, gui: viser.GuiApi) -> None:
        self._gui = gui
        tabs = gui.add_tab_group()
        self._learning = tabs.add_tab("Learning")
        self._inputs = tabs.add_tab("Inputs")
        self._began: int | None = None
        self._theta, self._losses, self._rates, self._dropped = History(), History(), History(), History()
        self._parameters: dict[str, ParameterChart] = {}
        with self._learning:
            self._loss_chart = Chart(gui, "held-out loss of the newest block", order=-2.0)
            self._told = gui.add_markdown("nothing is learned yet", order=-1.0)
        with self._inputs:
            self._rate_chart = Chart(gui, "rates [1/s]", order=1.0)
            self._dropped_chart = Chart(gui, "dropped, in all", order=2.0)

    def show(self, update: Update) -> None:
        """Draw what changed."""
        if update.restarted:
            self._restart()
        for sample in update.samples:
            self._began = sample.stamp if self._began is None else self._began
            seconds = (sample.stamp - self._began) * 1e-9
            self._theta.add(seconds, banded(sample.parameters))
            if sample.losses:
                self._losses.add(seconds, sample.losses)
        if update.samples:
            with self._learning:
                self._loss_chart.show(self._losses, self._losses.names)
                self._show_theta(update.samples[-1].parameters)
        if update.health is not None:
            self._rates.add(update.health.seconds, update.health.rates)
            self._dropped.add(update.health.seconds, update.health.dropped)
            with self._inputs:
                self._rate_chart.show(self._rates, self._rates.names)
                self._dropped_chart.show(self._dropped, some(self._dropped))

    def _show_theta(self, parameters: Sequence[Parameter]) -> None:
        self._told.content = told(parameters)
        for parameter in parameters:
            chart = self._parameters.get(parameter.name)
            if chart is None:
                self._parameters[parameter.name] = ParameterChart(self._gui, self._theta, parameter.name)
            else:
                chart.show(self._theta)

    def _restart(self) -> None:
        """What is learned begins anew; the inputs go on."""
        self._began = None
        self._theta.clear()
        self._losses.clear()
        self._loss_chart.clear()
        for chart in self._parameters.values():
            chart.remove()
        self._parameters.clear()
        self._told.content = "nothing is learned yet"


def banded(parameters: Sequence[Parameter]) -> Mapping[str, float]:
    """Values by name, and the ends of their bands."""
    row: dict[str, float] = {}
    for p in parameters:
        row[p.name] = p.value
        row[f"{p.name} {_LOW}"], row[f"{p.name} {_HIGH}"] = p.value - _SIGMAS * p.sigma, p.value + _SIGMAS * p.sigma
    return row


def told(parameters: Sequence[Parameter]) -> str:
    """Parameters with their standard deviations, one a line."""
    lines = [f"**{p.name}** {p.value:.4g} ± {p.sigma:.2g} {p.unit}, {p.status}" for p in parameters]
    return "<br>".join(line.replace(" ,", ",") for line in lines)


def some(dropped: History) -> tuple[str, ...]:
    """Causes for which something was dropped; if there are none, all of them."""
    table = dropped.table(dropped.names)[1:]
    found = tuple(name for name, column in zip(dropped.names, table, strict=True) if np.nanmax(column) > 0)
    return found or dropped.names


SCALES = {"x": uplot.Scale(time=False), "y": uplot.Scale(auto=True)}


def axes() -> tuple[uplot.Axis, ...]:
    """Seconds below, and a left axis wide enough for small numbers with many digits."""
    grid = uplot.Axis_Grid(stroke="#8884", width=1)
    return (
        uplot.Axis(grid=grid, stroke="#888", size=32),
        uplot.Axis(grid=grid, stroke="#888", size=62),
    )


def lines(names: Sequence[str]) -> tuple[uplot.Series, ...]:
    """Time and a line for each name."""
    drawn = [
        uplot.Series(label=name.replace("_", " "), stroke=_COLOURS[i % len(_COLOURS)], width=2)
        for i, name in enumerate(names)
    ]
    return (uplot.Series(label="s"), *drawn)
