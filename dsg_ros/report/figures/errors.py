"""Distance to odometry and, where a reference is given, to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from dsg_ros import poses
from dsg_ros.interface import RunResult
from dsg_ros.report.derived import metres_driven, odometry_in_map
from dsg_ros.report.evaluation import Score, Track
from dsg_ros.report.figures import style

COLOURS = {"odometry": style.BEFORE, "live": "#7a4fb5", "causal": style.LOOP, "trajectory": style.AFTER}


def draw_correction(result: RunResult) -> Figure:
    """``correction.png``: how far map->odom has moved in position and heading, as published and in the end."""
    metres = metres_driven(result.trajectory)
    reference = odometry_in_map(result)
    with style.style():
        figure = style.new_figure(2.6)
        left, right = (style.open_axes(a) for a in figure.subplots(1, 2))
        left.set_title("Correction of odometry: position [m]")
        right.set_title("heading [deg]")
        if len(metres) == 0:
            style.say(left, "no scan was processed")
            style.say(right, "")
            return figure
        for name, label in (("live", "published at the time"), ("trajectory", "after the final refinement")):
            estimate = getattr(result, name)
            apart = np.linalg.norm(estimate[:, :3] - reference[:, :3], axis=1)
            turned = np.degrees(np.unwrap(poses.yaw(poses.between(reference, estimate))))
            for axes, values in ((left, apart), (right, turned)):
                axes.plot(metres, values, color=COLOURS[name], linewidth=1.2, label=label)
        left.legend(loc="upper left")
        for axes in (left, right):
            axes.set_xlabel("driven [m]")
            axes.margins(x=0.01)
    return figure


def draw_errors(scores: Sequence[tuple[str, Score]], reference: Track) -> Figure:
    """``errors.png``: trajectories on the reference, error over metres, relative error over the length of the piece."""
    with style.style():
        figure = style.new_figure(6.4)
        grid = figure.add_gridspec(2, 2, height_ratios=[1.45, 1.0])
        above = figure.add_subplot(grid[0, 0])
        along = style.open_axes(figure.add_subplot(grid[0, 1]))
        shift = style.open_axes(figure.add_subplot(grid[1, 0]))
        turn = style.open_axes(figure.add_subplot(grid[1, 1]))
        above.plot(*reference.poses[:, :2].T, color=style.REFERENCE, linewidth=3.0, alpha=0.5, label="reference")
        for name, score in scores:
            colour = COLOURS.get(name, style.INK)
            label = f"{name}, {score.ate_rmse:.3g} m"
            above.plot(*score.aligned[:, :2].T, color=colour, linewidth=0.9, label=name)
            along.plot(score.metres, score.error, color=colour, linewidth=1.1, label=label)
            if score.relative:
                length = [r.length for r in score.relative]
                shift.plot(length, [r.translation_median for r in score.relative], "o-", color=colour, ms=3)
                turn.plot(length, [r.rotation_median for r in score.relative], "o-", color=colour, ms=3)
        above.set_aspect("equal", adjustable="datalim")
        above.set(title="Aligned with the reference", xlabel="x [m]", ylabel="y [m]")
        above.legend(loc="best")
        along.set(title="Distance to the reference [m], and ATE (RMSE)", xlabel="driven [m]", yscale="log")
        # Errors fill their panel: no corner is free.
        along.legend(loc="lower right", ncols=2, frameon=True, framealpha=0.9, edgecolor="none")
        along.margins(x=0.01)
        floor = max(min(float(np.quantile(s.error, 0.02)) for _, s in scores), 1e-4)
        along.set_ylim(bottom=floor)
        for axes, title in ((shift, "Relative error, translation [%]"), (turn, "Relative error, rotation [deg/m]")):
            axes.set(title=f"{title}, median", xlabel="length of the piece [m]", xscale="log")
            if any(s.relative for _, s in scores):
                axes.set_yscale("log")
                style.plain_numbers(axes)
        style.plain_numbers(along, "y")
    return figure
