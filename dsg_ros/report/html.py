"""report.html: one file that needs nothing else, laid out from the content of report.json and the figures."""

from __future__ import annotations

import base64
import datetime
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from dsg_ros import config as configuration
from dsg_ros.effect import with_margin
from dsg_ros.report import timing

FIGURES = {
    "map.png": (
        "Map and trajectory from above. Left, the voxels carried by raw odometry (each with the scan that saw it "
        "last); right, the optimised map. Strokes follow the surface, darker where more points support it."
    ),
    "learning.png": (
        "Outer learning. Loss on the block of scans held out, before and after each update, and every parameter over "
        "the metres driven with a band of one standard deviation; grey where it is frozen or cannot be observed."
    ),
    "correction.png": "How far the estimate has moved away from odometry: what map->odom carries.",
    "errors.png": (
        "Against the reference: trajectories after rigid alignment, distance to the reference along the way, and "
        "relative error over pieces of the path."
    ),
    "timings.png": "Where the time went.",
}
"""Every figure a run may leave, in the order of the report, with its caption."""


def render(report: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """The page for ``report`` (as report.json) with ``images`` (PNG files by name) embedded."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        number=number, stamp=_stamp, duration=_duration, words=lambda name: name.replace("_", " ")
    )
    figures = [
        {"name": name, "caption": caption, "data": base64.b64encode(images[name]).decode("ascii")}
        for name, caption in FIGURES.items()
        if name in images
    ]
    return environment.get_template("report.html").render(
        report=report,
        figures=figures,
        phases=timing.phases(report["metrics"]),
        metrics=timing.others(report["metrics"]),
        settings=_settings(report["configuration"]),
        effects=_effects(report.get("sensitivity") or {"effects": ()}),
    )


def number(value: Any) -> str:
    """A number for people: whole ones with thin thousands, others with four significant digits, an em dash for none."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u2009").replace("-", "\u2212")
    text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}".replace(",", "\u2009")
    return text.replace("-", "\u2212")


def _stamp(nanoseconds: int | None) -> str:
    if nanoseconds is None:
        return "—"
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _effects(sensitivity: Mapping[str, Any]) -> list[dict[str, str]]:
    """Each parameter's effect on the last pose, in words, and on the others."""
    return [
        {
            "name": effect["parameter"],
            "step": _step(effect["value"], effect["change"], effect["unit"]),
            "distance": _with_margin(effect["last_pose_m"], effect["last_pose_margin_m"], "m"),
            "turn": _with_margin(effect["last_pose_deg"], effect["last_pose_margin_deg"], "deg"),
            "by_sigma": "—" if effect["last_pose_sigma_m"] is None else f"{effect['last_pose_sigma_m']:.2g} m",
            "worst": f"{effect['worst_pose_m']:.3g} m",
            "odometry": f"{effect['odometry_alone_last_pose_m']:.3g} m",
        }
        for effect in sensitivity["effects"]
    ]


def _step(value: float, change: float, unit: str) -> str:
    """From which value to which, to the same places."""
    places = max(0, 1 - math.floor(math.log10(abs(change))))
    before, after = (f"{each:.{places}f}".replace("-", "\u2212") for each in (value, value + change))
    return f"{before} → {after}" + ("" if unit == "ratio" else f" {unit}")


def _with_margin(value: float, margin: float, unit: str) -> str:
    return with_margin(value, margin, unit).replace("+-", "±")


def _settings(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each setting with its documentation and whether it departs from the default."""
    known = {s.name: s for s in configuration.settings(configuration.Node())}
    rows = []
    for name, value in values.items():
        setting = known.get(name)
        rows.append(
            {
                "name": name,
                "value": value,
                "unit": setting.range.unit if setting and setting.range else "",
                "doc": setting.doc if setting else "",
                "default": setting.value if setting else None,
                "changed": setting is not None and setting.value != value,
            }
        )
    return rows
