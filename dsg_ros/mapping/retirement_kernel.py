"""The compiled loop of `dsg_ros.mapping.retirement`: which voxels the beams of a keyframe pass through."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled, se3
from dsg_ros.core.native.cells import pack, slot_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[np.int32]


@compiled
def _hit(ends: Floats, mark: int, slots: tuple[Ints, Numbers], marks: Numbers, size: float, planar: bool) -> Ints:
    """Voxels (m,) in whose cells beams end, each once; they are marked."""
    keys, numbers = slots
    found, count = np.empty(len(ends), np.int64), 0
    for i in range(len(ends)):
        layer = 0 if planar else math.floor(ends[i, 2] / size)
        key = pack(math.floor(ends[i, 0] / size), math.floor(ends[i, 1] / size), layer)
        at = slot_of(keys, key)
        if keys[at] == key and numbers[at] >= 0 and marks[numbers[at]] != mark:
            marks[numbers[at]] = mark
            found[count] = numbers[at]
            count += 1
    return found[:count].copy()


@compiled
def _through(way: Floats, direction: Floats, reach: float, normal: Floats, radius: float, across: float) -> bool:
    """Whether a beam of unit ``direction`` (3,) passes within ``radius`` of what is ``way`` (3,) from where it begins,
    before it is ``reach`` long: where it crosses its surface, if the ``normal`` (3,) is that of one, and not along it.
    """
    flat = normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2 > 0.25
    along, slope, ahead = 0.0, 0.0, 0.0
    for k in range(3):
        along += way[k] * direction[k]
        slope += normal[k] * direction[k]
        ahead += normal[k] * way[k]
    if flat:
        if abs(slope) < across:
            return False
        along = ahead / slope
    if along <= 0.0 or along > reach:
        return False
    square = 0.0
    for k in range(3):
        square += (way[k] - along * direction[k]) ** 2
    return square <= radius * radius


@compiled
def _blocked(ends: Floats, eye: Floats, mean: Floats, axes: int, clear: float, margin: float) -> bool:
    """Whether a beam from ``eye`` (3,) to one of the ``ends`` (n, 3), on a way that leads past ``mean`` (3,) within
    ``clear``, ends before it is ``margin`` beyond.
    """
    for i in range(len(ends)):
        square, along, length = 0.0, 0.0, 0.0
        for k in range(axes):
            way, beam = mean[k] - eye[k], ends[i, k] - eye[k]
            square += way * way
            along += way * beam
            length += beam * beam
        if along <= 0.0 or (square - clear * clear) * length > along * along:
            continue
        length = math.sqrt(length)
        if length < along / length + margin:
            return True
    return False


@compiled
def look(
    ends: Floats,
    eye: Floats,
    mark: int,
    slots: tuple[Ints, Numbers],
    voxels: tuple[Floats, Floats, Numbers],
    trajectory: Floats,
    near: NDArray[np.bool_],
    marks: Numbers,
    cells: tuple[float, bool],
    limits: tuple[float, float, float, float],
) -> tuple[Ints, Ints]:
    """Voxels (m,) in whose cells beams from ``eye`` (3,) to ``ends`` (n, 3), in map, end, and voxels (l,) that beams
    look through; each once.

    ``slots`` is a `CellIndex`; ``voxels`` are their means (v, 3) in map, normals (v, 3), zero where they are no
    surface, in the frame of the keyframe that saw them last, and that one (v,).  ``cells`` are the edge [m] and whether
    all lie in one layer.  ``marks`` (v,), which are not ``mark`` before, are scratch.

    Looked through is what a keyframe saw last that is ``near`` (k,), at ``trajectory`` (k, 7), by a beam that meets the
    ``limits``: passes within so many metres of the mean, meets a surface at least at so great an angle (its sine), and
    ends so many metres beyond, as do all beams that pass within so many metres (the last one).  Beams visit all cells
    that they pass (Amanatides and Woo, "A fast voxel traversal algorithm for ray tracing", 1987).
    """
    keys, numbers = slots
    means, normals, anchor = voxels
    size, planar = cells
    radius, across, margin, clear = limits
    hit = _hit(ends, mark, slots, marks, size, planar)
    found, count = np.empty(64, np.int64), 0
    axes = 2 if planar else 3
    direction, way, normal = np.zeros(3), np.zeros(3), np.zeros(3)
    step, wait, pace = np.zeros(3, np.int64), np.full(3, np.inf), np.full(3, np.inf)
    first = pack(math.floor(eye[0] / size), math.floor(eye[1] / size), 0 if planar else math.floor(eye[2] / size))
    for i in range(len(ends)):
        length = 0.0
        for k in range(axes):
            direction[k] = ends[i, k] - eye[k]
            length += direction[k] ** 2
        length = math.sqrt(length)
        reach = length - margin
        if not reach > 0.0:
            continue
        for k in range(axes):
            direction[k] /= length
            step[k] = 1 if direction[k] > 0.0 else -1
            within = eye[k] - size * math.floor(eye[k] / size)
            # Infinite along a beam that never leaves its row.
            pace[k] = size / abs(direction[k])
            wait[k] = (size - within if step[k] > 0 else within) / abs(direction[k]) if direction[k] != 0.0 else np.inf
        key = first
        while True:
            at = slot_of(keys, key)
            if keys[at] == key and numbers[at] >= 0:
                voxel = numbers[at]
                if marks[voxel] != mark and near[anchor[voxel]]:
                    for k in range(axes):
                        way[k] = means[voxel, k] - eye[k]
                    normal[:] = se3.rotate(trajectory[anchor[voxel], 3:], normals[voxel])
                    if _through(way, direction, reach, normal, radius, across):
                        marks[voxel] = mark
                        if not _blocked(ends, eye, means[voxel], axes, clear, margin):
                            if count == len(found):
                                found = np.concatenate((found, np.empty(count, np.int64)))
                            found[count] = voxel
                            count += 1
            k = 0 if wait[0] < wait[1] else 1
            if not planar and wait[2] < wait[k]:
                k = 2
            if wait[k] > reach:
                break
            wait[k] += pace[k]
            if k == 0:
                key += step[0] << 42
            elif k == 1:
                key += step[1] << 21
            else:
                key += step[2]
    return hit, found[:count].copy()
