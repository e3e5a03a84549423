"""The compiled loops of `dsg_ros.mapping.occupancy`: the virtual scan, and its rays traced through tiles of cells."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled, se3

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]
Ints = NDArray[np.int64]
Counts = NDArray[np.uint16]

SHIFT = 6
TILE = 1 << SHIFT
"""Cells along the edge of a tile.  At 0.05 m a tile is 3.2 m wide: a corridor leaves few of its cells unused."""

COLUMNS = 5
"""Numbers kept of a ray: its end (3) in the base frame, the share of it that is skipped, and whether it hit."""

HITS, MISSES = 0, 1
_MOST = 65535
"""What a count can hold: cells seen by more keyframes stay there, and may be a little off until the grid is redone."""

_UNKNOWN, _FREE, _OCCUPIED = -1, 0, 100
_PASSED, _RETURNED = 1, 2


@compiled
def _inside(start: float, end: float, low: float, high: float) -> tuple[float, float]:
    """The part [from, to] of a straight way from height ``start`` to ``end`` that lies between two heights.

    As shares of the way; from > to where no part of it does.
    """
    first, last = 0.0, 1.0
    rise = end - start
    if rise == 0.0:
        return (0.0, 1.0) if low <= start <= high else (1.0, 0.0)
    a, b = (low - start) / rise, (high - start) / rise
    if a > b:
        a, b = b, a
    return max(first, a), min(last, b)


@compiled
def virtual_scan(
    points: Floats, sensor: Floats, directions: int, most: float, band: Floats
) -> tuple[Rows, NDArray[np.bool_]]:
    """Rays (d, `COLUMNS`), one by direction in the plane from ``sensor`` (3,), and which directions have one.

    ``points`` (n, 3) are returns in the base frame, ``band`` the lowest and highest that count.  In each direction the
    nearest of those is kept: what lies behind it at another height neither matters to a robot nor was seen to be free.
    Where there is none, the ray that went farthest inside the band (to the floor, over a low edge) says what is free.
    Ways beyond ``most`` [m] are cut there.
    """
    rays = np.zeros((directions, COLUMNS), np.float32)
    there = np.zeros(directions, np.bool_)
    reach = np.zeros(directions)
    scale = directions / (2.0 * math.pi)
    for i in range(len(points)):
        dx, dy, z = points[i, 0] - sensor[0], points[i, 1] - sensor[1], points[i, 2]
        distance = math.sqrt(dx * dx + dy * dy)
        first, last = _inside(sensor[2], z, band[0], band[1])
        if first >= last or distance == 0.0:
            continue
        hit = band[0] <= z <= band[1]
        if distance * last > most:
            last, hit = most / distance, False
            if first >= last:
                continue
        at = int((math.atan2(dy, dx) + math.pi) * scale) % directions
        length = distance * last
        if there[at]:
            better = length < reach[at] if hit else length > reach[at]
            if (rays[at, 4] > 0.0 and not hit) or (hit == (rays[at, 4] > 0.0) and not better):
                continue
        there[at], reach[at] = True, length
        rays[at, 0] = sensor[0] + last * dx
        rays[at, 1] = sensor[1] + last * dy
        rays[at, 2] = sensor[2] + last * (z - sensor[2])
        rays[at, 3] = first / last
        rays[at, 4] = 1.0 if hit else 0.0
    return rays, there


@compiled
def _ends(rays: Rows, r: int, eye: Floats, rotation: Floats, pose: Floats, resolution: float) -> tuple[float, ...]:
    """Where ray ``r`` begins (x, y) and ends (x, y) in the map, in cells; ``eye`` (3,) is the sensor in the map."""
    px, py, pz, skipped = float(rays[r, 0]), float(rays[r, 1]), float(rays[r, 2]), float(rays[r, 3])
    x = rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz + pose[0]
    y = rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz + pose[1]
    scale = 1.0 / resolution
    return (
        scale * (eye[0] + skipped * (x - eye[0])), scale * (eye[1] + skipped * (y - eye[1])), scale * x, scale * y,
    )  # fmt: skip


@compiled
def extents(rays: Rows, offsets: Ints, sensors: Floats, poses: Floats, which: Ints, resolution: float) -> Ints:
    """Cells (w, 4) between which the rays of keyframes ``which`` (w,) lie: least x and y, greatest x and y.

    ``rays`` (r, `COLUMNS`) lie one keyframe after the other from ``offsets`` (k + 1,); ``sensors`` (k, 3) are their
    origins in the base, which is at ``poses`` (k, 7).
    """
    out = np.empty((len(which), 4), np.int64)
    for i in range(len(which)):
        k = which[i]
        pose = poses[k]
        rotation, eye = se3.rotation_matrix(pose), pose[:3] + se3.rotate(pose[3:], sensors[k])
        low_x, low_y, high_x, high_y = math.inf, math.inf, -math.inf, -math.inf
        for r in range(offsets[k], offsets[k + 1]):
            ax, ay, bx, by = _ends(rays, r, eye, rotation, pose, resolution)
            low_x, high_x = min(low_x, ax, bx), max(high_x, ax, bx)
            low_y, high_y = min(low_y, ay, by), max(high_y, ay, by)
        if low_x > high_x:  # a keyframe that saw nothing
            low_x, high_x = pose[0] / resolution, pose[0] / resolution
            low_y, high_y = pose[1] / resolution, pose[1] / resolution
        # One more: seen from the box's corner, rounding may lift a coordinate over the border of its cell.
        out[i] = math.floor(low_x), math.floor(low_y), math.floor(high_x) + 1, math.floor(high_y) + 1
    return out


@compiled
def admitted(boxes: Ints, held: Ints, most: int) -> NDArray[np.bool_]:
    """Which of ``boxes`` (w, 4), in cells, fit with those before them into a rectangle of ``most`` cells.

    ``held`` (4,) is the rectangle so far, and becomes the one that holds what fits too.
    """
    out = np.zeros(len(boxes), np.bool_)
    for i in range(len(boxes)):
        x, y = min(held[0], boxes[i, 0]), min(held[1], boxes[i, 1])
        right, top = max(held[2], boxes[i, 2]), max(held[3], boxes[i, 3])
        if (right - x + 1) * (top - y + 1) <= most:
            out[i] = True
            held[0], held[1], held[2], held[3] = x, y, right, top
    return out


@compiled
def tiles_wanted(index: NDArray[np.int32], corner: Ints, boxes: Ints) -> int:
    """Tiles under ``boxes`` (w, 4), in cells, that ``index`` has not yet: as many as rays in them can ask for."""
    wanted = np.zeros(index.shape, np.bool_)
    count = 0
    for i in range(len(boxes)):
        for y in range((boxes[i, 1] >> SHIFT) - corner[1], (boxes[i, 3] >> SHIFT) - corner[1] + 1):
            for x in range((boxes[i, 0] >> SHIFT) - corner[0], (boxes[i, 2] >> SHIFT) - corner[0] + 1):
                if index[y, x] < 0 and not wanted[y, x]:
                    wanted[y, x] = True
                    count += 1
    return count


@compiled
def _pass(
    marks: NDArray[np.uint8], found: NDArray[np.int32], count: int,
    begin: tuple[float, float], end: tuple[float, float], strides: tuple[int, int],
) -> int:  # fmt: skip
    """Note the cells, unless noted before, that a ray passes before the cell it ends in (Bresenham 1965, as a DDA).

    One cell in each step along the longer axis, whose coordinates and stride come first: where the ray is in the middle
    of the step.  Visiting every cell that a ray so much as clips (Amanatides and Woo 1987) took three times as long and
    wears walls away at their corners.
    """
    length, rise = end[0] - begin[0], end[1] - begin[1]
    first, last = int(begin[0]), int(end[0])
    if first == last:
        return count
    slope = rise / length
    step = 1 if last > first else -1
    low, high = min(begin[1], end[1]), max(begin[1], end[1])
    along, across = strides
    for major in range(first, last, step):
        # The middle of the first step may lie before the beginning.
        minor = int(min(max(begin[1] + (major + 0.5 - begin[0]) * slope, low), high))
        at = major * along + minor * across
        if marks[at] == 0:
            marks[at] = _PASSED
            found[count] = at
            count += 1
    return count


@compiled
def place(
    tiles: tuple[NDArray[np.int32], Ints, Counts, Ints], used: int, version: int,
    rays: Rows, offsets: Ints, sensors: Floats, poses: Floats,
    which: Ints, boxes: Ints, marks: NDArray[np.uint8], shift: int, found: NDArray[np.int32],
    resolution: float, amount: int,
) -> int:  # fmt: skip
    """Add (``amount`` 1) or take out (-1) the rays of keyframes ``which`` (w,), whose `extents` are ``boxes`` (w, 4).

    A keyframe counts once a cell: as a hit where one of its rays returned, else as a miss where one passed.  So a wall
    seen at a grazing angle is not worn away by the rays that pass beside those that hit it (as in OctoMap, Hornung et
    al. 2013, and Cartographer).

    ``tiles`` are the index, its corner, the counts (t, 2, `TILE`, `TILE`) and by tile the version it last changed in.
    There is room for the tiles that may be new.  ``marks`` has room for the largest box in rows of 2^``shift`` cells,
    and is zero before and after; ``found`` has room for as many cells.  Returns the tiles now in use.
    """
    index, corner, counts, versions = tiles
    cells = counts.reshape(-1)
    stride, mask = 1 << shift, (1 << shift) - 1
    for i in range(len(which)):
        k = which[i]
        pose = poses[k]
        rotation, eye = se3.rotation_matrix(pose), pose[:3] + se3.rotate(pose[3:], sensors[k])
        left, low = float(boxes[i, 0]), float(boxes[i, 1])
        count = 0
        for r in range(offsets[k], offsets[k + 1]):
            if rays[r, 4] > 0.0:
                ends = _ends(rays, r, eye, rotation, pose, resolution)
                at = (int(ends[3] - low) << shift) + int(ends[2] - left)
                if marks[at] == 0:
                    found[count] = at
                    count += 1
                marks[at] = _RETURNED
        for r in range(offsets[k], offsets[k + 1]):
            ax, ay, bx, by = _ends(rays, r, eye, rotation, pose, resolution)
            ax, ay, bx, by = ax - left, ay - low, bx - left, by - low
            if abs(bx - ax) >= abs(by - ay):
                count = _pass(marks, found, count, (ax, ay), (bx, by), (1, stride))
            else:
                count = _pass(marks, found, count, (ay, ax), (by, bx), (stride, 1))
        for j in range(count):
            at = found[j]
            x, y = (at & mask) + boxes[i, 0], (at >> shift) + boxes[i, 1]
            row, column = (y >> SHIFT) - corner[1], (x >> SHIFT) - corner[0]
            tile = index[row, column]
            if tile < 0:
                tile = used
                index[row, column] = used
                used += 1
            versions[tile] = version
            kind = HITS if marks[at] == _RETURNED else MISSES
            marks[at] = 0
            cell = (((2 * tile + kind) << SHIFT) + (y & (TILE - 1)) << SHIFT) + (x & (TILE - 1))
            seen = cells[cell]
            if amount > 0 and seen < _MOST:
                cells[cell] = seen + 1
            elif amount < 0 and seen > 0:
                cells[cell] = seen - 1
    return used


@compiled
def moved(poses: Floats, placed: Floats, distance: float, angle: float) -> NDArray[np.bool_]:
    """Which of ``placed`` (k, 7) lie farther than ``distance`` [m] or ``angle`` [rad] from ``poses`` (k, 7)."""
    out = np.empty(len(placed), np.bool_)
    half = math.cos(0.5 * angle)
    for k in range(len(placed)):
        square = 0.0
        for j in range(3):
            square += (poses[k, j] - placed[k, j]) ** 2
        overlap = 0.0  # of two quaternions: the cosine of half the angle between them
        for j in range(3, 7):
            overlap += poses[k, j] * placed[k, j]
        out[k] = square > distance * distance or abs(overlap) < half
    return out


@compiled
def states(counts: Counts, chosen: Ints, occupied: float, least_seen: int) -> NDArray[np.int8]:
    """Cells (c, `TILE`, `TILE`) of tiles ``chosen`` (c,): 100 occupied, 0 free, -1 not known; [y, x] in each."""
    out = np.empty((len(chosen), TILE, TILE), np.int8)
    for i in range(len(chosen)):
        tile = counts[chosen[i]]
        for y in range(TILE):
            for x in range(TILE):
                hits = int(tile[HITS, y, x])
                seen = hits + int(tile[MISSES, y, x])
                if seen < least_seen or seen == 0:
                    out[i, y, x] = _UNKNOWN
                elif hits >= occupied * seen and hits > 0:
                    out[i, y, x] = _OCCUPIED
                else:
                    out[i, y, x] = _FREE
    return out
