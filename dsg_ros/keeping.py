"""What of a running pipeline is kept in a map folder, and the graph made of that again."""

from __future__ import annotations

import numpy as np

from dsg_ros import config
from dsg_ros.core.problem import Problem
from dsg_ros.core.theta import Theta
from dsg_ros.core.world import WorldModel
from dsg_ros.errors import UserError
from dsg_ros.interface import GridUpdate, Path, SavedMap, VoxelUpdate
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.parameters import starting_theta
from dsg_ros.mapping.back_end import GRAPH_TYPES
from dsg_ros.mapping.keyframes import Keyframes
from dsg_ros.mapping.registration import observed_axes


def saved_map(
    settings: config.Slam,
    keyframes: Keyframes,
    world: WorldModel,
    calibration: Calibration,
    path: Path,
    voxels: VoxelUpdate,
    grid: GridUpdate,
    *,
    planar: bool = True,
    source: str = "",
) -> SavedMap:
    """The map of ``keyframes`` at ``path``, with the graph's rows between poses.

    Voxel observations are left out: they are made again from the scans, which are kept.
    """
    return SavedMap(
        planar=planar,
        stamps=path.stamps,
        poses=path.poses,
        odometry=keyframes.odometry.values.copy(),
        travel=keyframes.travel.values.copy(),
        clouds=tuple(cloud.astype(np.float32) for cloud in keyframes.clouds),
        loops=path.loops,
        rows={kind.__name__: world.rows(kind)[1] for kind in GRAPH_TYPES},
        voxels=voxels,
        grid=grid,
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
