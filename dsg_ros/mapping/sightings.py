"""What keyframes saw of the world's voxels: rows of the graph, and to which voxel each belongs when the map has moved.

A sighting is made for the cell that its points fall into.  When keyframes move, sightings of one wall can lie in cells
of several voxels, and those of one voxel in several cells.  `Sightings.regroup` puts that right, so that a cell has one
voxel again: voxels that share a cell are merged into the oldest of them, sightings that left their voxel's cell go to
the one where they are now (a new one where there is none), and voxels without sightings are retired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors import VoxelSensorObs
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.solvers.held_rows import HeldRows
from dsg_ros.core.world import WorldModel
from dsg_ros.mapping import voxel_map
from dsg_ros.mapping.association import Observations, Statistics
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.state import State, packed, unpacked

Floats = NDArray[np.float64]
Keys = NDArray[np.int64]

KEPT = 0.9
"""Share of the voxels there may be that is kept when there are more."""

MARGIN = 0.25
"""How far beyond its voxel's cell a sighting may lie before it leaves, in edges: else noise would split every voxel on
a border.
"""


class Sightings:
    """Rows of `VoxelSensorObs`, and the voxels of ``world`` that they are of; ``counts`` tell what `regroup` did."""

    def __init__(self, settings: config.Slam, world: WorldModel, *, planar: bool) -> None:
        self._settings, self._world, self._planar = settings, world, planar
        self._size, self._in_window = settings.registration.coarse_voxel, settings.window.enabled
        self.first_seen = Rows(dtype=np.int32)
        self.window = HeldRows()
        self.counts = {"voxels_merged": 0, "voxels_split": 0, "voxels_retired": 0, "voxels_evicted": 0}
        self._rows, self._points = Rows(dtype=np.int64), Rows(dtype=np.int32)

    def add(self, keyframe: int, seen: Observations) -> None:
        """Voxel variables for those that ``keyframe`` saw the first time, and one sighting a voxel."""
        added = self._new_voxels(seen.means[seen.new], np.full(np.count_nonzero(seen.new), keyframe))
        assert np.array_equal(added, seen.voxels[seen.new]), "the association and the world number voxels alike"
        count = len(seen.voxels)
        if not count:
            return
        rows = self._world.add_rows(
            VoxelSensorObs, pose=np.full(count, keyframe), voxel=seen.voxels, point=seen.points,
            sqrt_info=seen.sqrt_info,
            kernel=int(Kernel.CAUCHY), kernel_width=self._settings.voxels.robust_scale,
        )  # fmt: skip
        _append(self._rows, rows)
        _append(self._points, seen.counts)
        if self._in_window:
            self.window.add(self._world.stack(VoxelSensorObs, rows))

    def regroup(self) -> Statistics:
        """Sightings to the voxels in whose cells they are now, and voxels to the means of theirs; what is known of each
        voxel then.

        Of more voxels than are to be kept, those seen longest ago are evicted, and their sightings are forgotten.
        """
        seen = self._all()
        voxel, pose = np.asarray(seen.voxel).astype(np.int64), np.asarray(seen.pose)
        if not len(voxel):
            return self._statistics(seen, voxel, np.zeros(len(self.first_seen), np.int64))
        points = poses.transform(self._world.get_poses(pose), seen.point)
        cells = voxel_map.cells_of(points, self._size, planar=self._planar)
        now, cell = self._split(points, cells, self._merged(cells, voxel), pose)
        changed = np.flatnonzero(now != voxel)
        if len(changed):
            self._world.set_rows(self._rows.values[changed], voxel=now[changed])
            self.first_seen.values[now[::-1]] = pose[::-1]
        self._world.set_voxels(*_means(points, now))
        self.counts["voxels_retired"] += len(np.setdiff1d(voxel, now))
        known = self._statistics(seen, now, cell)
        evicted = self._evicted(known)
        if len(evicted):
            kept = ~np.isin(now, evicted)
            self._world.remove(self._rows.values[~kept])
            self._rows.load(self._rows.values[kept])
            self._points.load(self._points.values[kept])
            known = self._statistics(self._all(), now[kept], cell)
        if len(changed) or len(evicted):
            self._hold()
        return known

    def _evicted(self, known: Statistics) -> Keys:
        """Where there are too many voxels, those that go, so that it takes a while until there are too many again."""
        living, most = np.flatnonzero(known.sightings), self._settings.voxels.most
        if len(living) <= most:
            return living[:0]
        over = len(living) - int(KEPT * most)
        self.counts["voxels_evicted"] += over
        return living[np.argsort(known.last[living], kind="stable")[:over]]

    def _merged(self, cells: Keys, voxel: Keys) -> Keys:
        """The oldest voxel of several in a cell, for each sighting; ``cells`` (n, 3) are those of the sightings."""
        seen, home = _homes(voxel_map.pack(cells), voxel)
        _, first, which = np.unique(cells[home], axis=0, return_index=True, return_inverse=True)
        oldest = np.arange(len(self.first_seen))
        oldest[seen] = seen[first[which]]
        self.counts["voxels_merged"] += len(seen) - len(first)
        return oldest[voxel]

    def _split(self, points: Floats, cells: Keys, voxel: Keys, keyframe: NDArray[np.int32]) -> tuple[Keys, Keys]:
        """The same, but for sightings that are beyond their voxel's cell: those belong where they are; and the key of
        each voxel's cell.
        """
        keys = voxel_map.pack(cells)
        seen, home = _homes(keys, voxel)
        cell = np.zeros(len(self.first_seen), np.int64)
        cell[seen] = keys[home]
        of = np.zeros((len(self.first_seen), 3))
        of[seen] = cells[home] + 0.5
        beyond = np.abs(points / self._size - of[voxel]) > 0.5 + MARGIN
        strays = np.flatnonzero(beyond[:, : 2 if self._planar else 3].any(axis=1))
        if not len(strays):
            return voxel, cell
        order = np.argsort(keys[home])
        owned, owners = keys[home][order], seen[order]
        wanted, first, which = np.unique(keys[strays], return_index=True, return_inverse=True)
        place = np.minimum(np.searchsorted(owned, wanted), len(owned) - 1)
        owner = owners[place]
        new = owned[place] != wanted
        begins = strays[first[new]]
        owner[new] = self._new_voxels(points[begins], keyframe[begins])
        self.counts["voxels_split"] += len(np.unique(voxel[strays]))
        out = voxel.copy()
        out[strays] = owner[which]
        return out, np.append(cell, wanted[new])

    def _statistics(self, seen: VoxelSensorObs, voxel: Keys, cell: Keys) -> Statistics:
        count = len(self.first_seen)
        roots = np.asarray(seen.sqrt_info)
        newest = np.full(count, -1)
        newest[voxel] = np.arange(len(voxel))  # sightings are in the order of their keyframes
        of_newest = newest[newest >= 0]
        last, normal = np.zeros(count, np.int64), np.zeros((count, 3))
        last[newest >= 0] = np.asarray(seen.pose)[of_newest]
        # A surface is known along its normal, the first row, and next to nothing across (`voxel_kernels.observe`).
        sharp = roots[of_newest, 0]
        length = np.linalg.norm(sharp, axis=1, keepdims=True)
        normal[newest >= 0] = np.where(length > 1.01 / self._size, sharp / np.maximum(length, 1e-12), 0.0)
        return Statistics(
            cell,
            np.bincount(voxel, minlength=count),
            np.bincount(voxel, self._points.values, count).astype(np.int64),
            np.bincount(voxel, np.einsum("nij,nij->n", roots, roots), count).astype(np.float64),
            last,
            normal,
        )

    def _new_voxels(self, means: Floats, keyframes: NDArray[Any]) -> Keys:
        added = self._world.add_voxels(means)
        _append(self.first_seen, keyframes)
        return added

    def _all(self) -> Any:
        return self._world.stack(VoxelSensorObs, self._rows.values)

    def _hold(self) -> None:
        """Have the window's rows made anew: those of its newest keyframes."""
        self.window = HeldRows()
        if not self._in_window:
            return
        ids, rows = self._world.rows(VoxelSensorObs)
        newest = len(self._world.poses)
        for key in range(max(0, newest - self._settings.window.keyframes), newest):
            if len(seen := ids[rows["pose"] == key]):
                self.window.add(self._world.stack(VoxelSensorObs, seen))

    def state(self) -> State:
        """As `dsg_ros.state` says; rows of the window are found again among the graph's."""
        return {
            "first_seen": self.first_seen.values, "rows": self._rows.values, "points": self._points.values,
            "counts": packed(self.counts),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over, of the world as it is restored; ValueError or KeyError for what is none."""
        for name, rows in (("first_seen", self.first_seen), ("rows", self._rows), ("points", self._points)):
            rows.load(state[name])
        if len(self.first_seen) != len(self._world.voxels) or len(self._rows) != len(self._points):
            raise ValueError("sightings or voxels of another graph")
        self._all()
        self.counts = unpacked(state["counts"])
        self._hold()


def _append(rows: Rows, values: NDArray[Any]) -> None:
    before = len(rows)
    rows.extend(len(values))
    rows.values[before:] = values


def _homes(keys: Keys, voxel: Keys) -> tuple[Keys, Keys]:
    """Which voxels have sightings, and one of each (m,) in the cell where most of its are, by their cells' ``keys``
    (n,); of several such cells in that of the oldest sighting.
    """
    order = np.lexsort((keys, voxel))
    differs = (np.diff(voxel[order]) != 0) | (np.diff(keys[order]) != 0)
    starts = np.flatnonzero(np.concatenate([[True], differs]))
    counts, first = np.diff(np.append(starts, len(order))), order[starts]
    best = np.lexsort((first, -counts, voxel[first]))
    seen, at = np.unique(voxel[first][best], return_index=True)
    return seen, first[best][at]


def _means(points: Floats, voxel: Keys) -> tuple[Keys, Floats]:
    """Which voxels have sightings, and the means (m, 3) of their ``points`` (n, 3)."""
    total = np.bincount(voxel)
    seen = np.flatnonzero(total)
    sums = np.stack([np.bincount(voxel, points[:, axis]) for axis in range(3)], axis=1)
    return seen, sums[seen] / total[seen, None]
