"""Which voxels of the world a keyframe's points belong to: one observation per (keyframe, voxel)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain
from dsg_ros.interface import VoxelUpdate
from dsg_ros.mapping import voxel_kernels, voxel_map
from dsg_ros.mapping.cell_index import CellIndex
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.state import State

_BY_VOXEL = ("cell", "counts", "last_seen", "anchor", "normal", "information")


@dataclass(frozen=True)
class Observations:
    """What one keyframe saw, by voxel.

    ``voxels`` (m,) are indices, ``points`` (m, 3) the means of the ``counts`` (m,) points seen of each [m] and
    ``sqrt_info`` (m, 3, 3) their square-root information [1/m], both in the keyframe's base frame; of a surface
    its first row faces the sensor.  ``new`` (m,) marks voxels seen for the first time; ``means`` (m, 3) are the points
    in map.
    """

    voxels: NDArray[np.int64]
    points: NDArray[np.float64]
    sqrt_info: NDArray[np.float64]
    counts: NDArray[np.int64]
    new: NDArray[np.bool_]
    means: NDArray[np.float64]


class Statistics(NamedTuple):
    """By voxel of the world (v,): the key of its ``cell``, no other's if anybody sees it, ``sightings`` and their
    ``points``, trace of their ``information`` [1/m^2], the ``last`` keyframe that saw it and the ``normal`` (v, 3) in
    the frame of that one, zero where it is no surface.

    ``passed`` (m, 2) are the voxels that lost a sighting, each beside the one that has it now.
    """

    cell: NDArray[np.int64]
    sightings: NDArray[np.int64]
    points: NDArray[np.int64]
    information: NDArray[np.float64]
    last: NDArray[np.int64]
    normal: NDArray[np.float64]
    passed: NDArray[np.int64]


class WorldVoxels:
    """The voxels of the whole map: index of occupied cells and, by voxel, count, normal, when last seen and from where.

    Positions are variables of the WorldModel; they are handed in where they are needed.
    """

    def __init__(self, settings: config.Voxels, *, size: float, planar: bool) -> None:
        self._settings = settings
        self.size = size
        self.planar = planar
        self.cells = CellIndex()
        self.cell = Rows(dtype=np.int64)
        self.counts = Rows(dtype=np.int32)
        self.last_seen = Rows(dtype=np.int64)
        self.anchor = Rows(dtype=np.int32)
        self.normal = Rows(3)
        # Trace of what observations tell of the position [1/m^2].
        self.information = Rows()
        # Those that were told of, and have not been told to be gone since.
        self._shown = Rows(dtype=np.bool_)
        self._changed = Rows(dtype=np.bool_)

    def __len__(self) -> int:
        """All there have been: numbers are not used again."""
        return len(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept of them."""
        columns = (*(getattr(self, name) for name in _BY_VOXEL), self._shown, self._changed)
        return self.cells.nbytes + sum(column.nbytes for column in columns)

    @property
    def living(self) -> int:
        """Those that keyframes see: each has a cell."""
        return len(self.cells)

    def _grow(self, count: int) -> None:
        for name in _BY_VOXEL:
            getattr(self, name).extend(count)
        self._shown.extend(count)
        self._changed.extend(count)

    def observe(
        self,
        keyframe: int,
        stamp: int,
        pose: NDArray[np.float64],
        cloud: NDArray[np.float64],
        surroundings: voxel_map.VoxelTable,
        sensor: NDArray[np.float64],
        doubt: float = 0.0,
    ) -> Observations:
        """Associate ``cloud`` (n, 3) by cell, making voxels where there are none.

        The cloud is in the base frame of ``keyframe``, at ``pose`` (7,) in map and ``stamp`` [ns].  ``surroundings``
        is the local map at this voxel size; it gives each observation its normal, which faces the ``sensor`` (3,), in
        the base frame.  Variances are larger by the share ``doubt`` of themselves, as that of the scan's match is
        (`LocalMapper.doubt`).
        """
        s = self._settings
        keys, counts, points, sqrt_info, normals, means = voxel_kernels.observe(
            plain(cloud), plain(pose), (surroundings.slot_keys, surroundings.slot_rows, surroundings.moments),
            self.size, self.planar, s.least_points, (s.flatness, s.noise), (s.noise, s.discount, s.roughness),
        )  # fmt: skip
        away = ((points - sensor) * normals).sum(axis=1) > 0.0
        normals[away] *= -1.0
        sqrt_info[away, 0] *= -1.0
        sqrt_info /= np.sqrt(1.0 + doubt)
        voxels = self.cells.find(keys)
        new = voxels < 0
        voxels[new] = len(self) + np.arange(np.count_nonzero(new))
        self.cells.add(keys[new], voxels[new])
        self._grow(int(np.count_nonzero(new)))
        self.cell.values[voxels] = keys
        self.counts.values[voxels] += counts.astype(np.int32)
        self.last_seen.values[voxels] = stamp
        self.anchor.values[voxels] = keyframe
        self.normal.values[voxels] = normals
        self.information.values[voxels] += np.einsum("nij,nij->n", sqrt_info, sqrt_info)
        self._changed.values[voxels] = True
        return Observations(voxels, points, sqrt_info, counts, new, means)

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        return {name: getattr(self, name).values.copy() for name in _BY_VOXEL}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over; all voxels are in the next update."""
        for name in _BY_VOXEL:
            getattr(self, name).load(state[name])
        living = np.flatnonzero(self.counts.values)
        lengths = {len(getattr(self, name)) for name in _BY_VOXEL}
        if len(lengths) != 1 or len(np.unique(self.cell.values[living])) != len(living):
            raise ValueError("voxels that do not belong together, or two in one cell")
        # Whether these were told of is not known: those that are not shown are told to be gone.
        self._shown.load(np.ones(len(self), np.bool_))
        self.cells.load(self.cell.values[living], living)
        self._changed.load(np.ones(len(self), np.bool_))

    def moved(self, voxels: NDArray[np.int64]) -> None:
        """Voxels (n,) whose positions a solve changed: they are in the next update."""
        self._changed.values[voxels] = True

    def follow(self, known: Statistics, stamps: NDArray[np.int64]) -> None:
        """After the map moved: what is ``known`` of voxels, seen by keyframes of ``stamps`` (k,) [ns].  Those that
        nobody sees any more are gone.
        """
        there = np.flatnonzero(known.sightings)
        self._grow(len(known.cell) - len(self))
        self.counts.values[:] = known.points
        self.last_seen.values[there] = stamps[known.last[there]]
        self.anchor.values[:], self.normal.values[:] = known.last, known.normal
        self.information.values[:] = known.information
        self.cell.values[:] = known.cell
        self.cells.load(known.cell[there], there)
        self._changed.values[:] = True

    def seen_longest_ago(self, count: int, before: int) -> NDArray[np.int64]:
        """Voxels (m,), ``count`` of them at most, that no keyframe from ``before`` on has seen."""
        known = np.flatnonzero((self.counts.values > 0) & (self.anchor.values < before))
        return known[np.argsort(self.anchor.values[known], kind="stable")[:count]]

    def forget(self, voxels: NDArray[np.int64]) -> None:
        """Have nothing known of ``voxels`` (n,): where they were, others are made."""
        self.cells.drop(self.cell.values[voxels])
        self.counts.values[voxels] = 0
        self.information.values[voxels] = 0.0
        self._changed.values[voxels] = True

    def update(
        self, means: NDArray[np.float64], trajectory: NDArray[np.float64], *, whole: bool = False
    ) -> VoxelUpdate:
        """What changed since the last call without ``whole``, or with it everything.

        ``means`` (v, 3) are the voxels' positions and ``trajectory`` (k, 7) the keyframes' poses, both in map.
        """
        ids = np.arange(len(self)) if whole else np.flatnonzero(self._changed.values)
        shown = self.counts.values[ids] >= self._settings.least_count
        gone = ids[:0]
        if not whole:  # who is told everything is somebody else than who is told what changes
            gone = ids[~shown & self._shown.values[ids]]
            self._changed.values[:] = False
            self._shown.values[ids] = shown
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
            removed=gone,
        )
