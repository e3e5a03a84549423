"""What keyframes saw of the world's voxels: rows of the graph, and to which voxel each belongs when the map has moved.

A sighting is made for the cell that its points fall into.  When keyframes move, sightings of one wall can lie in cells
of several voxels, and those of one voxel in several cells.  `Sightings.regroup` puts that right: a cell has one voxel
and a keyframe one sighting of it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors import VoxelSensorObs
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.solvers.held_rows import HeldRows
from dsg_ros.core.variables import Kind
from dsg_ros.core.world import WorldModel
from dsg_ros.mapping import voxel_map
from dsg_ros.mapping.association import Observations, Statistics
from dsg_ros.mapping.joint import Surfaces, sides
from dsg_ros.mapping.keyframes import Rows
from dsg_ros.state import State, packed, unpacked

Floats = NDArray[np.float64]
Keys = NDArray[np.int64]

MARGIN = 0.25
"""How far beyond its voxel's cell a sighting may lie before it leaves, in edges: else noise would split every voxel on
a border.
"""


class Sightings:
    """Rows of `VoxelSensorObs`, and the voxels of ``world`` that they are of; ``counts`` tell what `regroup` did.

    ``first_seen`` (v,) are the keyframes that saw the world's voxels first, ``window`` the rows of the newest keyframes
    as a window's solver takes them.
    """

    def __init__(self, settings: config.Slam, world: WorldModel, *, planar: bool) -> None:
        self._settings, self._world, self._planar = settings, world, planar
        self._size, self._in_window = settings.registration.coarse_voxel, settings.window.enabled
        self.first_seen = Rows(dtype=np.int32)
        self.window = HeldRows()
        self.counts = {"voxels_merged": 0, "voxels_split": 0, "voxels_evicted": 0, "voxels_retired": 0}
        # By sighting, in the order of their keyframes: the row's id, the keyframe, of how many points it is the mean.
        self._rows, self._keyframe, self._points = Rows(dtype=np.int64), Rows(dtype=np.int32), Rows(dtype=np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of them and of the voxels' positions, in the world too."""
        own = sum(rows.nbytes for rows in (self.first_seen, self._rows, self._keyframe, self._points))
        there = self._world.nbytes
        return own + there.get(VoxelSensorObs, 0) + there[Kind.VOXEL]

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
        for column, values in ((self._rows, rows), (self._keyframe, keyframe), (self._points, seen.counts)):
            column.extend(count)
            column.values[-count:] = values
        if self._in_window:
            self.window.add(self._world.stack(VoxelSensorObs, rows))

    def regroup(self) -> Statistics:
        """Sightings to the voxels in whose cells they are now, and voxels to the means of theirs; what is known of each
        voxel then.

        Voxels that share a cell are merged into the oldest of them; sightings that left their voxel's cell go to the
        one where they are, or to a new one.
        """
        found = self._world.columns(VoxelSensorObs, self._rows.values, "voxel", "point")
        before = found["voxel"].astype(np.int64)
        points = poses.transform(self._world.get_poses(self._keyframe.values), found["point"])
        cells = voxel_map.cells_of(points, self._size, planar=self._planar)
        voxel, owner, key = self._merged(voxel_map.pack(cells), before)
        voxel, owner, key = self._split(points, cells, voxel, owner, key)
        changed = np.flatnonzero(voxel != before)
        passed = np.stack([before[changed], voxel[changed]], axis=1)
        if len(changed):
            self._world.set_rows(self._rows.values[changed], voxel=voxel[changed])
            points, voxel = self._fused(points, found["point"], voxel)
            self.first_seen.values[voxel[::-1]] = self._keyframe.values[::-1]
            self._remake_window_rows()
        self._world.set_voxels(*_means(points, voxel))
        return self._statistics(voxel, owner, key, passed)

    def surfaces(self) -> Surfaces:
        """What several keyframes saw the same side of, with the rows of those sightings."""
        found = self._world.columns(VoxelSensorObs, self._rows.values, "voxel", "point", "sqrt_info")
        placed = self._world.get_poses(self._keyframe.values)
        surface = sides(found["voxel"].astype(np.int64), _normals(found["sqrt_info"]), placed[:, 3:])
        shared = np.flatnonzero(surface >= 0)
        numbers = surface[shared]
        rows: Any = self._world.stack(VoxelSensorObs, self._rows.values[shared])
        _, means = _means(poses.transform(placed[shared], found["point"][shared]), numbers)
        return Surfaces(dataclasses.replace(rows, voxel=numbers.astype(np.int32)), means)

    def forget(self, voxels: Keys, last: NDArray[np.int32], why: Literal["evicted", "retired"]) -> None:
        """Remove all sightings of some voxels (m,), one at least, that keyframes ``last`` (m,) saw the last time."""
        self.counts[f"voxels_{why}"] += len(voxels)
        # Only those of the keyframes that saw any of them are gone through: what is retired was there for a short time.
        keyframes = self.first_seen.values[voxels].min(), last.max() + 1
        begin, end = np.searchsorted(self._keyframe.values, keyframes).tolist()
        of = self._world.columns(VoxelSensorObs, self._rows.values[begin:end], "voxel")["voxel"]
        gone = np.zeros(len(self.first_seen), np.bool_)
        gone[voxels] = True
        lost = begin + np.flatnonzero(gone[of])
        in_window = len(lost) > 0 and self._keyframe.values[lost[-1]] >= self._oldest_in_window
        self._remove(lost)
        if in_window:
            self._remake_window_rows()

    def _remove(self, lost: Keys) -> None:
        """Of the sightings those at ``lost`` (n,), in increasing order."""
        if not len(lost):
            return
        self._world.remove(self._rows.values[lost])
        begin = int(lost[0])
        for column in (self._rows, self._keyframe, self._points):
            column.replace(begin, np.delete(column.values[begin:], lost - begin))

    def _merged(self, keys: Keys, voxel: Keys) -> tuple[Keys, Keys, Keys]:
        """The oldest voxel of several in a cell, for each sighting; and which voxels are left (m,), with the keys (m,)
        of their cells, in the order of these.  ``keys`` (n,) are those of the sightings' cells.
        """
        seen, home = _main_cells(keys, voxel)
        cell, first, which = np.unique(home, return_index=True, return_inverse=True)
        oldest = np.arange(len(self.first_seen))
        oldest[seen] = seen[first[which]]
        self.counts["voxels_merged"] += len(seen) - len(first)
        return oldest[voxel], seen[first], cell

    def _split(self, points: Floats, cells: Keys, voxel: Keys, owner: Keys, key: Keys) -> tuple[Keys, Keys, Keys]:
        """The same, but for sightings that are beyond their voxel's cell: those belong where they are."""
        centre = np.zeros((len(self.first_seen), 3))
        centre[owner] = voxel_map.unpack(key) + 0.5
        beyond = np.abs(points / self._size - centre[voxel]) > 0.5 + MARGIN
        strays = np.flatnonzero(beyond[:, : 2 if self._planar else 3].any(axis=1))
        if not len(strays):
            return voxel, owner, key
        wanted, first, which = np.unique(voxel_map.pack(cells[strays]), return_index=True, return_inverse=True)
        place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        to, new = owner[place], key[place] != wanted
        begins = strays[first[new]]
        to[new] = self._new_voxels(points[begins], self._keyframe.values[begins])
        self.counts["voxels_split"] += len(np.unique(voxel[strays]))
        out = voxel.copy()
        out[strays] = to[which]
        return out, np.append(owner, to[new]), np.append(key, wanted[new])

    def _fused(self, points: Floats, told: Floats, voxel: Keys) -> tuple[Floats, Keys]:
        """One sighting of several that a keyframe has of one voxel now, and what is left of ``points`` (n, 3), in map,
        and ``voxel`` (n,): the mean of ``told`` (n, 3), in the keyframe's frame, weighted by their points, and no surer
        than the one of most points was.
        """
        order = np.lexsort((-self._points.values, voxel, self._keyframe.values))
        pair = np.stack([self._keyframe.values[order], voxel[order]])
        begins = np.flatnonzero(np.append(True, (np.diff(pair) != 0).any(axis=0)))
        if len(begins) == len(order):
            return points, voxel
        weights = self._points.values[order]
        total = np.add.reduceat(weights, begins)
        fused = np.flatnonzero(np.diff(np.append(begins, len(order))) > 1)
        kept = order[begins]
        points, told = points.copy(), told.copy()
        for values in (points, told):
            sums = np.add.reduceat(values[order] * weights[:, None], begins)
            values[kept[fused]] = (sums / total[:, None])[fused]
        self._points.values[kept] = total
        self._world.set_rows(self._rows.values[kept[fused]], point=told[kept[fused]])
        alone = np.zeros(len(order), np.bool_)
        alone[kept] = True
        self._remove(np.flatnonzero(~alone))
        return points[alone], voxel[alone]

    def _statistics(self, voxel: Keys, owner: Keys, key: Keys, passed: Keys) -> Statistics:
        count = len(self.first_seen)
        roots = self._world.columns(VoxelSensorObs, self._rows.values, "sqrt_info")["sqrt_info"]
        cell, last, normal = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros((count, 3))
        cell[owner] = key
        newest = np.zeros(count, np.int64)
        newest[voxel] = np.arange(len(voxel))
        last[owner] = self._keyframe.values[newest[owner]]
        normal[owner] = _normals(roots[newest[owner]])
        return Statistics(
            cell,
            np.bincount(voxel, minlength=count),
            np.bincount(voxel, self._points.values, count).astype(np.int64),
            np.bincount(voxel, np.einsum("nij,nij->n", roots, roots), count).astype(np.float64),
            last,
            normal,
            passed,
        )

    def _new_voxels(self, means: Floats, keyframes: NDArray[Any]) -> Keys:
        added = self._world.add_voxels(means)
        self.first_seen.extend(len(added))
        self.first_seen.values[added] = keyframes
        return added

    @property
    def _oldest_in_window(self) -> int:
        return int(self._keyframe.values[-1]) + 1 - self._settings.window.keyframes

    def _remake_window_rows(self) -> None:
        """After rows of the newest keyframes were changed or removed."""
        self.window = HeldRows()
        if not self._in_window or not len(self._rows):
            return
        keyframes = np.arange(max(0, self._oldest_in_window), self._keyframe.values[-1] + 2)
        ends = np.searchsorted(self._keyframe.values, keyframes)
        for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            if begin < end:
                self.window.add(self._world.stack(VoxelSensorObs, self._rows.values[begin:end]))

    def state(self) -> State:
        """As `dsg_ros.state` says; rows of the window are found again among the graph's."""
        return {
            "first_seen": self.first_seen.values.copy(), "rows": self._rows.values.copy(),
            "points": self._points.values.copy(), "counts": packed(self.counts),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over, of the world as it is restored; ValueError or KeyError for what is none."""
        for name, rows in (("first_seen", self.first_seen), ("rows", self._rows), ("points", self._points)):
            rows.load(state[name])
        keyframe = self._world.columns(VoxelSensorObs, self._rows.values, "pose")["pose"]
        self._keyframe.load(keyframe)
        lengths = {len(np.unique(self._rows.values)), len(self._points), self._world.count(VoxelSensorObs)}
        if (
            len(self.first_seen) != len(self._world.voxels)
            or lengths != {len(self._rows)}
            or (np.diff(keyframe) < 0).any()
        ):
            raise ValueError("sightings or voxels of another graph")
        self.counts = unpacked(state["counts"])
        self._remake_window_rows()


def _normals(roots: Floats) -> Floats:
    """Normals (m, 3) of what square-root information ``roots`` (m, 3, 3) tells of, zero where that is no surface.

    Across a surface, which is the first row (`voxel_kernels.observe`), a sighting is surer than along it; where there
    is none it is as sure in every direction.
    """
    across, along = np.linalg.norm(roots[:, :2], axis=2).T[..., None]
    return np.where(across > along * (1 + 1e-6), roots[:, 0] / np.maximum(across, 1e-12), 0.0)


def _main_cells(keys: Keys, voxel: Keys) -> tuple[Keys, Keys]:
    """Which voxels have sightings, and the cell in which most of those of each (m,) are, by the sightings' ``keys``
    (n,); of several such cells that of the oldest sighting.
    """
    order = np.lexsort((keys, voxel))
    differs = (np.diff(voxel[order]) != 0) | (np.diff(keys[order]) != 0)
    starts = np.flatnonzero(np.append(len(order) > 0, differs))
    counts, first = np.diff(np.append(starts, len(order))), order[starts]
    best = np.lexsort((first, -counts, voxel[first]))
    seen, at = np.unique(voxel[first][best], return_index=True)
    return seen, keys[first[best][at]]


def _means(points: Floats, voxel: Keys) -> tuple[Keys, Floats]:
    """Which voxels have sightings, and the means (m, 3) of their ``points`` (n, 3)."""
    total = np.bincount(voxel)
    seen = np.flatnonzero(total)
    sums = np.stack([np.bincount(voxel, points[:, axis]) for axis in range(3)], axis=1)
    return seen, sums[seen] / total[seen, None]
