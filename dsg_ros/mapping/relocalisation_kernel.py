"""The compiled loops of `dsg_ros.mapping.relocalisation`: branch and bound over the grids of a map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Grids = NDArray[np.uint8]
Ints = NDArray[np.int64]
Cells = NDArray[np.int32]
Floats = NDArray[np.float64]

BIN_LEVEL = 3
"""Of all placements in 2^3 x 2^3 cells and `BIN_ANGLES` steps only the best is asked for."""

BIN_ANGLES = 8

_FULL = 255
_STRIDE = 16
"""Points between two looks at whether a placement can still reach the bound."""


@compiled
def _score(grid: Grids, cells: Cells, x: int, y: int, needed: float) -> float:
    """Mean over points with ``cells`` (p, 2), moved by (x, y), of what they meet in the grid, of at most 1.

    -1 as soon as ``needed`` is out of reach: most placements are hopeless after a few points.
    """
    count = len(cells)
    total, least = 0, needed * _FULL * count
    for i in range(count):
        cx, cy = cells[i, 0] + x, cells[i, 1] + y
        if 0 <= cx < grid.shape[0] and 0 <= cy < grid.shape[1]:
            total += grid[cx, cy]
        if i % _STRIDE == _STRIDE - 1 and total + _FULL * (count - 1 - i) < least:
            return -1.0
    return total / (_FULL * max(count, 1))


@compiled
def search(grids: Grids, cells: Cells, tiles: Ints, least_score: float, rival_share: float) -> tuple[Ints, Floats]:
    """Placements (m, 3) (angle, x, y) in cells and their scores (m,): the best of each bin of neighbours, if it reaches
    ``rival_share`` of the best of all and of ``least_score``.

    ``grids`` (l, w, h) are maxima over 2^l x 2^l cells; ``cells`` (a, p, 2) are the points by angle, placed at cell
    (0, 0); ``tiles`` (t, 2) are the cells, multiples of 2^(l - 1), in whose tiles the placement is looked for.  Depth
    first, the most promising branch first: a node's score is an upper bound of its descendants', so what is cut is
    neither the best of its bin nor within the share of the best.
    """
    top = len(grids) - 1
    wide = (grids.shape[1] >> BIN_LEVEL) + 1
    high = (grids.shape[2] >> BIN_LEVEL) + 1
    turns = (len(cells) + BIN_ANGLES - 1) // BIN_ANGLES
    best = np.zeros((turns, wide, high))
    where = np.zeros((turns, wide, high, 3), np.int64)
    bound = rival_share * least_score

    nodes, scores = np.empty((len(cells) * len(tiles), 4), np.int64), np.empty(len(cells) * len(tiles))
    count = 0
    for angle in range(len(cells)):
        for t in range(len(tiles)):
            mark = _score(grids[top], cells[angle], tiles[t, 0], tiles[t, 1], bound)
            if mark >= bound:
                nodes[count] = top, angle, tiles[t, 0], tiles[t, 1]
                scores[count] = mark
                count += 1
    order = np.argsort(scores[:count])  # the end of the stack is taken first
    stack, bounds = np.empty((count + 4 * (top + 1), 4), np.int64), np.empty(count + 4 * (top + 1))
    stack[:count], bounds[:count] = nodes[order], scores[order]
    depth = count

    children, marks = np.empty((4, 4), np.int64), np.empty(4)
    while depth:
        depth -= 1
        level, angle, x, y = stack[depth]
        needed = bound
        if level <= BIN_LEVEL:
            needed = max(needed, best[angle // BIN_ANGLES, x >> BIN_LEVEL, y >> BIN_LEVEL])
        if bounds[depth] < needed:
            continue
        if level == 0:
            bin_ = angle // BIN_ANGLES, x >> BIN_LEVEL, y >> BIN_LEVEL
            if bounds[depth] > best[bin_]:
                best[bin_] = bounds[depth]
                where[bin_] = angle, x, y
                bound = max(bound, rival_share * bounds[depth])
            continue
        step = 1 << (level - 1)
        born = 0
        for dx in (0, step):
            for dy in (0, step):
                least = bound
                if level - 1 <= BIN_LEVEL:
                    least = max(least, best[angle // BIN_ANGLES, (x + dx) >> BIN_LEVEL, (y + dy) >> BIN_LEVEL])
                mark = _score(grids[level - 1], cells[angle], x + dx, y + dy, least)
                if mark < least:
                    continue
                at = born  # insertion sort: the best child last
                while at > 0 and marks[at - 1] > mark:
                    children[at], marks[at] = children[at - 1], marks[at - 1]
                    at -= 1
                children[at], marks[at] = (level - 1, angle, x + dx, y + dy), mark
                born += 1
        for i in range(born):
            stack[depth], bounds[depth] = children[i], marks[i]
            depth += 1

    kept = 0
    found, values = np.empty((best.size, 3), np.int64), np.empty(best.size)
    for a in range(turns):
        for i in range(wide):
            for j in range(high):
                if best[a, i, j] > 0.0 and best[a, i, j] >= bound:
                    found[kept], values[kept] = where[a, i, j], best[a, i, j]
                    kept += 1
    return found[:kept], values[:kept]
