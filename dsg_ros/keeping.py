"""What of a running pipeline is kept: its result, and the map that goes into a folder; the graph made of that again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.core.problem import Problem
from dsg_ros.core.theta import Theta
from dsg_ros.core.world import WorldModel
from dsg_ros.errors import UserError
from dsg_ros.interface import OccupancyGrid, RunResult, SavedMap
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.parameters import starting_theta
from dsg_ros.mapping.back_end import GRAPH_TYPES
from dsg_ros.mapping.growing_map import GrowingMap
from dsg_ros.mapping.registration import observed_axes


def run_result(
    grown: GrowingMap,
    calibration: Calibration,
    trajectory: NDArray[np.float64],
    grid: OccupancyGrid | None,
    metrics: dict[str, float],
    counts: dict[str, int],
) -> RunResult:
    """What a run has come to, with all scans at ``trajectory`` (n, 7)."""
    path, scans = grown.path(), grown.scans
    return RunResult(
        stamps=scans.stamps.values.copy(),
        trajectory=trajectory,
        causal=scans.on(path.poses),
        live=scans.live.values.copy(),
        odometry=scans.odometry.values.copy(),
        path=path,
        voxels=grown.voxel_map(),
        parameters=calibration.parameters(),
        learning=calibration.history,
        metrics=metrics,
        counts=counts,
        grid=grid,
    )


def saved_map(settings: config.Slam, grown: GrowingMap, calibration: Calibration, source: str = "") -> SavedMap:
    """The map as it is now, with the graph's rows between poses; ``source`` names the recording.

    Voxel observations are left out: they are made again from the scans, which are kept.
    """
    path, keyframes = grown.path(), grown.keyframes
    return SavedMap(
        planar=grown.planar,
        stamps=path.stamps,
        poses=path.poses,
        odometry=keyframes.odometry.values.copy(),
        travel=keyframes.travel.values.copy(),
        clouds=tuple(cloud.astype(np.float32) for cloud in keyframes.clouds),
        loops=path.loops,
        rows={kind.__name__: grown.back_end.world.rows(kind)[1] for kind in GRAPH_TYPES},
        voxels=grown.voxel_map(),
        grid=grown.settled_grid(),
        parameters=calibration.parameters(),
        learned=calibration.names,
        information=calibration.information(),
        configuration={s.name: _value(settings, s.name) for s in config.settings(config.Slam())},
        source=source,
    )


def restored_graph(saved: SavedMap) -> tuple[Problem, Theta]:
    """The graph over the keyframes of ``saved``, and its theta; `UserError` for rows that are not the graph's."""
    world = WorldModel()
    world.add_poses(saved.poses)
    for kind in GRAPH_TYPES:
        rows = saved.rows.get(kind.__name__, {})
        try:
            if len(rows.get("weight", ())):
                world.add_rows(kind, **rows)
        except (ValueError, KeyError) as error:
            raise UserError(f"the map's graph holds rows that this program does not know: {error}") from error
    axes = observed_axes(saved.planar)
    return world.snapshot(types=GRAPH_TYPES, axes=axes), starting_theta(saved.parameters)


def _value(settings: config.Slam, name: str) -> bool | int | float | str:
    """The setting with the dotted ``name``."""
    value = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value  # type: ignore[return-value]
