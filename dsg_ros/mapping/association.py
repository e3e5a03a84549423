"""Which voxels of the world a keyframe's points belong to: one observation per (keyframe, voxel)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain
from dsg_ros.interface import VoxelUpdate
from dsg_ros.mapping import voxel_kernels, voxel_map
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.state import State

_BY_VOXEL = ("counts", "last_seen", "anchor", "normal", "information")


@dataclass(frozen=True)
class Observations:
    """What one keyframe saw, by voxel.

    ``voxels`` (m,) are indices, ``points`` (m, 3) the means of the ``counts`` (m,) points seen of each [m] and
    ``sqrt_info`` (m, 3, 3) their square-root information [1/m], both in the keyframe's base frame.  ``new`` (m,) marks
    voxels seen for the first time; ``means`` (m, 3) are the points in map.
    """

    voxels: NDArray[np.int64]
    points: NDArray[np.float64]
    sqrt_info: NDArray[np.float64]
    counts: NDArray[np.int64]
    new: NDArray[np.bool_]
    means: NDArray[np.float64]


class WorldVoxels:
    """The voxels of the whole map: index of occupied cells and, by voxel, count, normal, when last seen and from where.

    Positions are variables of the WorldModel; they are handed in where they are needed.
    """

    def __init__(self, settings: config.Voxels, *, size: float, planar: bool) -> None:
        self._settings = settings
        self.size = size
        self._planar = planar
        self._cells: dict[int, int] = {}
        self.counts = Rows(dtype=np.int32)
        self.last_seen = Rows(dtype=np.int64)
        self.anchor = Rows(dtype=np.int32)
        self.normal = Rows(3)
        # Trace of what observations tell of the position [1/m^2].
        self.information = Rows()
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self.counts)

    def observe(
        self,
        keyframe: int,
        stamp: int,
        pose: NDArray[np.float64],
        cloud: NDArray[np.float64],
        surroundings: voxel_map.VoxelTable,
    ) -> Observations:
        """Associate ``cloud`` (n, 3) by cell, making voxels where there are none.

        The cloud is in the base frame of ``keyframe``, at ``pose`` (7,) in map and ``stamp`` [ns].  ``surroundings``
        is the local map at this voxel size; it gives each observation its normal.
        """
        s = self._settings
        keys, counts, points, sqrt_info, normals, means = voxel_kernels.observe(
            plain(cloud), plain(pose), (surroundings.slot_keys, surroundings.slot_rows, surroundings.moments),
            self.size, self._planar, s.least_points, (s.flatness, s.noise), (s.noise, s.discount, s.roughness),
        )  # fmt: skip
        voxels = np.array([self._cells.get(key, -1) for key in keys.tolist()], np.int64)
        new = voxels < 0
        voxels[new] = len(self) + np.arange(np.count_nonzero(new))
        self._cells.update(zip(keys[new].tolist(), voxels[new].tolist(), strict=True))
        for rows in (self.counts, self.last_seen, self.anchor, self.normal, self.information):
            rows.extend(int(np.count_nonzero(new)))
        self.counts.values[voxels] += counts.astype(np.int32)
        self.last_seen.values[voxels] = stamp
        self.anchor.values[voxels] = keyframe
        self.normal.values[voxels] = normals
        self.information.values[voxels] += np.einsum("nij,nij->n", sqrt_info, sqrt_info)
        self._changed.update(voxels.tolist())
        return Observations(voxels, points, sqrt_info, counts, new, means)

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        count = len(self._cells)
        cells = {
            "cells": np.fromiter(self._cells.keys(), np.int64, count),
            "in_cells": np.fromiter(self._cells.values(), np.int64, count),
        }
        return cells | {name: getattr(self, name).values.copy() for name in _BY_VOXEL}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over; all voxels are in the next update."""
        for name in _BY_VOXEL:
            getattr(self, name).load(state[name])
        inside = state["in_cells"]
        lengths = {len(getattr(self, name)) for name in _BY_VOXEL}
        if len(lengths) != 1 or (inside < 0).any() or (inside >= len(self)).any():
            raise ValueError("voxels that do not belong together, or cells of voxels that are not there")
        self._cells = dict(zip(state["cells"].tolist(), inside.tolist(), strict=True))
        self._changed = set(range(len(self)))

    def moved(self, voxels: NDArray[np.int64]) -> None:
        """Voxels (n,) whose positions a solve changed: they are in the next update."""
        self._changed.update(voxels.tolist())

    def reindex(self, means: NDArray[np.float64]) -> None:
        """After the map moved: voxels find the cells of their ``means`` (v, 3); the oldest of several keeps it."""
        keys = voxel_map.pack(voxel_map.cells_of(means, self.size, planar=self._planar))
        self._cells = dict(zip(keys[::-1].tolist(), range(len(keys) - 1, -1, -1), strict=True))
        self._changed.update(range(len(keys)))

    def update(
        self, means: NDArray[np.float64], trajectory: NDArray[np.float64], *, whole: bool = False
    ) -> VoxelUpdate:
        """What changed since the last call, or with ``whole`` everything.

        ``means`` (v, 3) are the voxels' positions and ``trajectory`` (k, 7) the keyframes' poses, both in map.
        """
        ids = np.arange(len(self)) if whole else np.array(sorted(self._changed), np.int64)
        self._changed.clear()
        counts = self.counts.values[ids]
        shown = counts >= self._settings.least_count
        ids = ids[shown]
        normals = poses.rotate(trajectory[self.anchor.values[ids], 3:], self.normal.values[ids])
        return VoxelUpdate(
            size=self.size,
            ids=ids.astype(np.int64),
            means=means[ids].astype(np.float32),
            normals=normals.astype(np.float32),
            counts=self.counts.values[ids].copy(),
            deviations=(1 / np.sqrt(np.maximum(self.information.values[ids], 1e-12))).astype(np.float32),
            last_seen=self.last_seen.values[ids].copy(),
            removed=np.zeros(0, np.int64),
        )
