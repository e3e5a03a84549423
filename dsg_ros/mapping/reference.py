"""A finished map as something to find oneself in: grids to search, and local maps of the keyframes near a place."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import correlative_kernel
from dsg_ros.mapping.correlative import flattened
from dsg_ros.mapping.correlative_kernel import LEVELS, MARGIN
from dsg_ros.mapping.local_map import LocalMap, LocalMapper, merged
from dsg_ros.mapping.loop_closure import HELD
from dsg_ros.mapping.voxel_map import cells_of, pack

TILE = 1 << (LEVELS - 1)
"""Cells along the edge of a tile: what the coarsest level of a pyramid looks at as one."""

REGION = 64
"""Tiles along the edge of a region."""

KEPT_REGIONS = 16
"""Regions whose grids are kept; of a larger map they are made anew at every search, so that memory stays bounded."""

PLACE, SECTORS = 0.5, 8
"""Of the keyframes in a square of this edge [m] that head into one of so many sectors, a local map has one."""


@dataclass(frozen=True)
class Region:
    """A part of the map as grids (LEVELS, w, h), cell (0, 0) at ``corner`` (2,) [m].

    ``tiles`` (t, 2) are the cells at which the tiles begin where the robot may be.
    """

    grids: NDArray[np.uint8]
    corner: NDArray[np.float64]
    tiles: NDArray[np.int64]


AROUND = np.array([(x, y, 0) for x in (-1, 0, 1) for y in (-1, 0, 1)])
"""From a cell to those beside it."""

COMPARED = 3
"""Clouds of the map that tell how much of one fits into it."""


class Reference:
    """Keyframes at ``trajectory`` (k, 7) with ``clouds`` (n, 3) in their base frames, k >= 1."""

    def __init__(
        self,
        settings: config.Relocalisation,
        mapper: LocalMapper,
        trajectory: NDArray[np.float64],
        clouds: Sequence[NDArray[np.float64]],
        reach: float,
    ) -> None:
        """``reach`` [m]: how far from the robot the points of a query may lie."""
        self._settings = settings
        self._mapper = mapper
        self.trajectory = trajectory
        self._clouds = clouds
        self._points = flattened(merged(trajectory, clouds), planar=mapper.planar)
        self._margin = int(np.ceil(reach / settings.resolution / TILE)) + 1
        self._tiles = self._reachable_tiles()
        blocks = np.floor_divide(self._tiles, REGION)
        self._blocks = [tuple(block) for block in np.unique(blocks, axis=0).tolist()]
        self._members = {block: self._tiles[(blocks == block).all(axis=1)] for block in self._blocks}
        self._kept: OrderedDict[tuple[int, int], Region] = OrderedDict()
        self._typical: dict[int, float | None] = {}
        sector = np.round(poses.yaw(trajectory) * SECTORS / (2 * np.pi)).astype(int) % SECTORS
        self._bins = np.column_stack([np.floor(trajectory[:, :3] / PLACE).astype(int), sector])

    def regions(self, centre: NDArray[np.float64] | None = None, radius: float = 0.0) -> list[Region]:
        """The parts of the map, all or those with tiles that lie within ``radius`` [m] of ``centre`` (2,)."""
        found = []
        for block in self._blocks:
            tiles = self._members[block]
            if centre is not None:
                tiles = tiles[self._distance(tiles, centre[None]) <= radius]
            if not len(tiles):
                continue
            region = self._region(block)
            origin = np.round(region.corner / self._settings.resolution).astype(np.int64)
            found.append(Region(region.grids, region.corner, tiles * TILE - origin))
        return found

    def near(self, pose: NDArray[np.float64]) -> NDArray[np.int64]:
        """Numbers of the keyframes nearest to ``pose`` (7,), one a place and heading."""
        order = np.argsort(np.linalg.norm(self.trajectory[:, :3] - pose[:3], axis=1), kind="stable")
        order = order[: 20 * self._settings.local_keyframes]
        _, first = np.unique(self._bins[order], axis=0, return_index=True)
        return order[np.sort(first)[: self._settings.local_keyframes]]

    def local_map(self, pose: NDArray[np.float64]) -> LocalMap:
        """Of the keyframes near ``pose`` (7,), in map."""
        return self._map_of(self.near(pose))

    def _map_of(self, chosen: NDArray[np.int64]) -> LocalMap:
        """Of these keyframes (m,), in map."""
        return self._mapper.build(self.trajectory[chosen], [self._clouds[i] for i in chosen])

    def typical(self, pose: NDArray[np.float64]) -> float:
        """What share of a keyframe's cloud near ``pose`` (7,) the map of those around it explains: the median of the
        nearest few, 1 where there are none to compare.

        A sparse lidar's next cloud falls between the rings of those before: half of it fits where all is right.
        """
        known = (share for number in self.near(pose).tolist() if (share := self._explained(number)) is not None)
        shares = list(islice(known, COMPARED))
        return float(np.median(shares)) if shares else 1.0

    def _explained(self, number: int) -> float | None:
        """Of the cloud of keyframe ``number``; None of one that has few points, or nobody beside it."""
        if number not in self._typical:
            here, cloud = self.trajectory[number], self._clouds[number]
            others = [i for i in self.near(here).tolist() if i != number and len(self._clouds[i])]
            if len(cloud) < self._settings.least_points or not others:
                self._typical[number] = None
            else:
                around = self._map_of(np.array(others))
                self._typical[number] = self._mapper.register(around, cloud, here[None], here, HELD).inliers
        return self._typical[number]

    def walls(self, flat: NDArray[np.float64], pose: NDArray[np.float64]) -> float:
        """Share of the points ``flat`` (n, 2), n >= 1, seen from ``pose`` (7,), with one of the map's in their cell or
        beside it.
        """
        turned = poses.from_planar(pose[0], pose[1], poses.yaw(pose))
        around = pack(self._cells_of(poses.transform(turned, _in_space(flat)))[:, None] + AROUND[None])
        place = np.minimum(np.searchsorted(self._filled, around), len(self._filled) - 1)
        return float((self._filled[place] == around).any(axis=1).mean())

    @cached_property
    def _filled(self) -> NDArray[np.int64]:
        """Keys of the cells with points, in increasing order."""
        return np.unique(pack(self._cells_of(_in_space(self._points))))

    def _cells_of(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        """Cells (n, 3) of the search, all of one layer, of ``points`` (n, 3)."""
        return cells_of(points, self._settings.resolution, planar=True)

    def lifted(self, x: float, y: float, yaw: float) -> NDArray[np.float64]:
        """The pose (7,) at ``x``, ``y`` [m] with this ``yaw`` [rad], as high and as tilted as the nearest keyframe."""
        nearest = self.trajectory[np.argmin(np.hypot(self.trajectory[:, 0] - x, self.trajectory[:, 1] - y))]
        turned = poses.from_planar(x, y, yaw - poses.yaw(nearest))
        return poses.compose(turned, np.concatenate([[0.0, 0.0], nearest[2:]]))

    def _reachable_tiles(self) -> NDArray[np.int64]:
        """Tiles (t, 2), in tiles from the origin, that hold a place within reach of a keyframe."""
        edge = TILE * self._settings.resolution
        own = np.unique(np.floor(self.trajectory[:, :2] / edge).astype(np.int64), axis=0)
        around = int(np.ceil(self._settings.reach / edge))
        offsets = np.mgrid[-around : around + 1, -around : around + 1].reshape(2, -1).T
        tiles = np.unique((own[:, None] + offsets[None]).reshape(-1, 2), axis=0)
        near = [self._distance(part, self.trajectory[:, :2]) <= self._settings.reach for part in _parts(tiles)]
        return tiles[np.concatenate(near)]

    def _distance(self, tiles: NDArray[np.int64], places: NDArray[np.float64]) -> NDArray[np.float64]:
        """From each of ``tiles`` (t, 2) to the nearest of ``places`` (k, 2), in metres (t,)."""
        edge = TILE * self._settings.resolution
        low = tiles[:, None] * edge
        outside = np.maximum(np.maximum(low - places[None], places[None] - low - edge), 0.0)
        return np.asarray(np.sqrt((outside**2).sum(axis=-1)).min(axis=1))

    def _region(self, block: tuple[int, int]) -> Region:
        if block in self._kept:
            self._kept.move_to_end(block)
            return self._kept[block]
        tiles, resolution = self._members[block], self._settings.resolution
        first, last = (tiles.min(axis=0) - self._margin) * TILE, (tiles.max(axis=0) + 1 + self._margin) * TILE
        cells = np.floor(self._points / resolution).astype(np.int64) - first
        width, height = (last - first).tolist()
        inside = ((cells >= MARGIN) & (cells < [width - MARGIN, height - MARGIN])).all(axis=1)
        cells = np.unique(cells[inside], axis=0)
        grids = correlative_kernel.pyramid(np.ascontiguousarray(cells), width, height)
        region = Region(grids, first * resolution, tiles)
        self._kept[block] = region
        if len(self._kept) > KEPT_REGIONS:
            self._kept.popitem(last=False)
        return region


def _in_space(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 3) of no height, of ``flat`` ones (n, 2)."""
    return np.column_stack([flat, np.zeros(len(flat))])


def _parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """``rows`` in parts of a thousand: distances of all to all keyframes of a large map would fill the memory."""
    return np.array_split(rows, max(1, len(rows) // 1000))
