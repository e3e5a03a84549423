"""Voxels of the world with their sightings, fed with clouds as a growing map feeds them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors import VoxelSensorObs
from dsg_ros.core.world import WorldModel
from dsg_ros.mapping.association import Observations, WorldVoxels
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.retirement import Retirement
from dsg_ros.mapping.sightings import Sightings

Array = NDArray[np.float64]


class Mapped:
    """World, voxels, sightings, and what is to be retired of them."""

    def __init__(self, mapper: LocalMapper, settings: config.Slam) -> None:
        self.mapper, self.settings = mapper, settings
        self.world = WorldModel()
        self.size = settings.registration.coarse_voxel
        self.sightings = Sightings(settings, self.world, planar=mapper.planar)
        self.voxels = WorldVoxels(settings.voxels, size=self.size, planar=mapper.planar)
        self.retirement = Retirement(settings.retirement, self.voxels)

    def see(self, pose: Array, cloud: Array) -> Observations:
        key = self.world.add_pose(pose)
        around = self.mapper.build(pose[None], [cloud]).coarse
        seen = self.voxels.observe(key, 1000 + key, pose, cloud, around, np.zeros(3))
        self.sightings.add(key, seen)
        return seen

    def look(self, cloud: Array, *, window: int = 0, near: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Retire what the newest keyframe is the last to look through, by its returns in the base frame, where its
        sensor is.
        """
        trajectory = self.world.poses
        near = np.ones(len(trajectory), np.bool_) if near is None else near
        first = len(trajectory) - window
        gone = self.retirement.look(cloud, np.zeros(3), self.world.voxel_view, trajectory, near, first)
        self.forget(gone, "retired")
        return gone

    def forget(self, voxels: NDArray[np.int64], why: Literal["evicted", "retired"]) -> None:
        if len(voxels):
            self.voxels.forget(voxels)
            self.sightings.forget(voxels, self.voxels.anchor.values[voxels], why)

    def move(self, keys: list[int], pose: Array) -> None:
        self.world.set_poses(keys, poses.compose(pose, self.world.get_poses(keys)))

    def regroup(self) -> None:
        known = self.sightings.regroup()
        cells = known.cell[known.sightings > 0]
        assert len(np.unique(cells)) == len(cells)
        self.voxels.follow(known, 1000 + np.arange(len(self.world.poses)))
        self.retirement.follow(known)

    def rows(self) -> tuple[Array, Array, Array]:
        """Keyframe and voxel of every sighting, and where in the map it is."""
        _, rows = self.world.rows(VoxelSensorObs)
        return rows["pose"], rows["voxel"], poses.transform(self.world.get_poses(rows["pose"]), rows["point"])

    def told(self) -> tuple[set[int], set[int]]:
        """Voxels that changed, and that are gone."""
        update = self.voxels.update(self.world.voxels, self.world.poses)
        return set(update.ids.tolist()), set(update.removed.tolist())
