"""The look shared by all figures: colours, type, axes, and how a figure becomes a small PNG."""

from __future__ import annotations

import io
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

INK = "#1d2733"
MUTED = "#6b7785"
GRID = "#e4e8ec"
WALL = "#33404d"
AFTER = "#1b62b5"
BEFORE = "#d0561c"
LOOP = "#149a80"
LEARNED = "#1b62b5"
REFERENCE = "#8a94a0"

WIDTH = 10.0
"""Width of a figure [in]; the report shows it at full text width."""

DPI = 200
COLOURS = 96
"""A PNG keeps this many colours: drawings need few, and the palette makes the file a third of the size."""

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#b8c0c8",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


def style():  # type: ignore[no-untyped-def]  # matplotlib names the type of rc_context privately
    """The context every figure is made and drawn in; the user's own matplotlib settings stay as they are."""
    return matplotlib.rc_context(_RC)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of ``width`` x ``height`` inches; no pyplot, so no display and no global state."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def open_axes(axes: Axes) -> Axes:
    """``axes`` without its upper and right edge."""
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def plain_numbers(axes: Axes, which: Literal["x", "y", "both"] = "both") -> None:
    """Label logarithmic axes 0.1, 1, 20 instead of powers of ten, and not so many of them that they collide."""
    for axis in ([axes.xaxis] if which != "y" else []) + ([axes.yaxis] if which != "x" else []):
        low, high = axis.get_view_interval()
        wide = high > 300.0 * low
        axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=9))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def say(axes: Axes, text: str) -> None:
    """Write ``text`` where data would be: why this panel is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=9, wrap=True)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file with a reduced palette."""
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    reduced = image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    file = io.BytesIO()
    reduced.save(file, format="png", compress_level=6)  # 9 takes six times as long, for files an eighth smaller
    return file.getvalue()
