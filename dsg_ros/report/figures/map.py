"""Map and trajectory seen from above, by raw odometry and as optimised, side by side at one scale."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dsg_ros.interface import RunResult
from dsg_ros.report.derived import metres_driven, nearest, odometry_in_map, voxels_by_odometry, weight
from dsg_ros.report.figures import style

Array = NDArray[np.float64]

HORIZONTAL = 0.5
"""A surface whose normal's horizontal part is shorter than this (a floor) is seen face on: a dot, not a stroke."""


class Box(NamedTuple):
    """A rectangle in the plane [m]: centre and edges."""

    x: float
    y: float
    width: float
    height: float


def draw_map(result: RunResult) -> Figure:
    """``map.png``: before (the same voxels carried by raw odometry) and after (optimised, with loop closures)."""
    before, after = odometry_in_map(result), result.trajectory
    old_means, old_normals = voxels_by_odometry(result)
    means, normals = np.asarray(result.voxels.means, float), np.asarray(result.voxels.normals, float)
    boxes = _boxes(_bounds(before, old_means), _bounds(after, means))
    with style.style():
        figure, (left, right) = _panels(boxes)
        strength = weight(result.voxels)
        for axes, box, points, directions in (
            (left, boxes[0], old_means, old_normals),
            (right, boxes[1], means, normals),
        ):
            _frame(axes, box)
            _draw_voxels(axes, points, directions, result.voxels.size, strength)
        _draw_path(left, before, style.BEFORE, boxes[0])
        _draw_path(right, after, style.AFTER, boxes[1])
        loops = result.path.loops
        if len(loops) and len(result.stamps):
            at_keyframe = nearest(result.stamps, result.path.stamps)
            _draw_loops(left, before[at_keyframe][:, :2][loops])
            _draw_loops(right, result.path.poses[:, :2][loops])
        driven = metres_driven(after)[-1] if len(after) else 0.0
        left.set_title("Odometry alone", color=style.BEFORE)
        right.set_title("Optimised", color=style.AFTER)
        keyframes = len(result.path.stamps)
        caption = f"{driven:,.0f} m driven · {keyframes:,} keyframes · {len(loops):,} loops · {len(means):,} voxels"
        right.set_title(caption, loc="right", fontsize=8, fontweight="normal", color=style.MUTED)
        if len(loops):
            note = "green: places a closure found to be the same"
            left.set_title(note, loc="right", fontsize=8, fontweight="normal", color=style.LOOP)
    return figure


def _bounds(trajectory: Array, means: Array) -> Box:
    """The box around a trajectory and its map; a few stray voxels far out do not shrink the rest."""
    path = trajectory[:, :2]
    if len(means):
        low, high = np.quantile(means[:, :2], [0.001, 0.999], axis=0)
        path = np.vstack([path, low, high])
    if len(path) == 0:
        return Box(0.0, 0.0, 2.0, 2.0)
    low, high = path.min(axis=0), path.max(axis=0)
    edge = np.maximum(high - low, 0.5)
    margin = 0.04 * edge.max()
    centre = (low + high) / 2
    return Box(float(centre[0]), float(centre[1]), float(edge[0] + 2 * margin), float(edge[1] + 2 * margin))


def _boxes(before: Box, after: Box) -> tuple[Box, Box]:
    """Both panels get boxes of one size, so one scale, unless odometry strayed so far that the map would be a spot."""
    width, height = max(before.width, after.width), max(before.height, after.height)
    if max(width / after.width, height / after.height) > 2.0:
        shape = after.height / after.width
        grown = max(before.width, before.height / shape)
        return Box(before.x, before.y, grown, grown * shape), after
    return Box(before.x, before.y, width, height), Box(after.x, after.y, width, height)


def _panels(boxes: tuple[Box, Box]) -> tuple[Figure, tuple[Axes, Axes]]:
    """Two panels beside each other, or one above the other where the map is wide."""
    shape = boxes[1].height / boxes[1].width
    wide = shape < 0.55
    panel = style.WIDTH - 0.8 if wide else style.WIDTH / 2 - 0.6
    height = float(np.clip(panel * shape, 1.6, 9.0)) + 0.8
    figure = style.new_figure(2 * height if wide else height)
    axes = figure.subplots(2, 1) if wide else figure.subplots(1, 2)
    return figure, (axes[0], axes[1])


def _frame(axes: Axes, box: Box) -> None:
    axes.set_aspect("equal")
    axes.set_xlim(box.x - box.width / 2, box.x + box.width / 2)
    axes.set_ylim(box.y - box.height / 2, box.y + box.height / 2)
    axes.set(xlabel="x [m]", ylabel="y [m]")
    axes.locator_params(nbins=6)


def _points_per_metre(axes: Axes) -> float:
    """Typographic points one metre takes, near enough for a line width (the layout still moves axes a little)."""
    place = axes.get_subplotspec()
    assert place is not None, "axes made by Figure.subplots have a place in its grid"
    across = style.WIDTH * place.get_position(axes.figure).width * 72.0  # type: ignore[arg-type]  # a Figure, never part of one
    low, high = axes.get_xlim()
    return float(across / (high - low))


def _draw_voxels(axes: Axes, means: Array, normals: Array, size: float, strength: Array) -> None:
    """Each planar voxel a stroke along its surface, any other a dot; the more often seen the darker."""
    if len(means) == 0:
        return
    scale = _points_per_metre(axes)
    horizontal = np.linalg.norm(normals[:, :2], axis=1)
    wall = horizontal > HORIZONTAL
    colours = np.column_stack([np.tile(to_rgb(style.WALL), (len(means), 1)), 0.3 + 0.7 * strength])
    along = np.column_stack([-normals[wall, 1], normals[wall, 0]]) / horizontal[wall, None]
    half = 0.55 * size * along
    strokes = np.stack([means[wall, :2] - half, means[wall, :2] + half], axis=1)
    width = float(np.clip(0.25 * size * scale, 0.8, 2.2))
    axes.add_collection(LineCollection(list(strokes), colors=colours[wall], linewidths=width, zorder=2), autolim=False)
    dot = float(np.clip(0.4 * size * scale, 0.5, 3.0))
    colours[:, 3] *= 0.6
    axes.scatter(means[~wall, 0], means[~wall, 1], s=dot**2, c=colours[~wall], linewidths=0, zorder=2)


def _draw_path(axes: Axes, trajectory: Array, colour: str, box: Box) -> None:
    if len(trajectory) == 0:
        style.say(axes, "no scan was processed")
        return
    # On a large map a corridor is a few points wide: a thin line leaves its walls to be seen.
    width = 0.7 if max(box.width, box.height) > 60.0 else 1.1
    axes.plot(trajectory[:, 0], trajectory[:, 1], color=colour, linewidth=width, zorder=4)
    ends: dict[str, Any] = {"facecolor": "white", "edgecolor": colour, "linewidth": 1.2, "zorder": 6}
    axes.scatter(trajectory[0, 0], trajectory[0, 1], s=26, marker="o", **ends)
    axes.scatter(trajectory[-1, 0], trajectory[-1, 1], s=26, marker="s", **ends)
    for name, pose in (("start", trajectory[0]), ("end", trajectory[-1])):
        apart = np.hypot(*(trajectory[0, :2] - trajectory[-1, :2])) > 0.06 * max(box.width, box.height)
        if name == "start" or apart:
            halo = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
            where: dict[str, Any] = {"xytext": (5, 5), "textcoords": "offset points", "zorder": 7}
            axes.annotate(name if apart else "start, end", pose[:2], fontsize=7, color=colour, bbox=halo, **where)


def _draw_loops(axes: Axes, ends: Array) -> None:
    """A line between the two keyframes of each closure, ``ends`` (l, 2, 2): long where odometry had lost its way."""
    axes.add_collection(
        LineCollection(list(ends), colors=style.LOOP, linewidths=0.6, alpha=0.8, zorder=3), autolim=False
    )
    x, y = ends.reshape(-1, 2).T
    axes.scatter(x, y, s=3, color=style.LOOP, linewidths=0, alpha=0.7, zorder=5)
