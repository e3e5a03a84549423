"""The compiled loops of `dsg_ros.mapping.correlative`: the pyramid of grids, and the search tree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Grids = NDArray[np.uint8]
Ints = NDArray[np.int64]

LEVELS = 5
MARGIN = 1 << (LEVELS - 1)
"""Cells left empty around the points: blocks of the coarsest level that reach them begin there."""

_HIT, _NEAR = 255, 140
"""Value of an occupied cell, and of the eight around it."""


@compiled
def pyramid(cells: Ints, width: int, height: int) -> Grids:
    """Occupancy (LEVELS, width, height) of ``cells`` (n, 2), smeared by a cell, and maxima over 2^l x 2^l cells.

    Cells are `MARGIN` at least from the border.
    """
    grids = np.zeros((LEVELS, width, height), np.uint8)
    for i in range(len(cells)):
        x, y = cells[i, 0], cells[i, 1]
        for dx in range(-1, 2):
            for dy in range(-1, 2):
                grids[0, x + dx, y + dy] = max(grids[0, x + dx, y + dy], _NEAR)
        grids[0, x, y] = _HIT
    for level in range(1, LEVELS):
        step = 1 << (level - 1)
        last, this = grids[level - 1], grids[level]
        for x in range(width):
            right = min(x + step, width - 1)
            for y in range(height - step):
                this[x, y] = max(max(last[x, y], last[right, y]), max(last[x, y + step], last[right, y + step]))
            for y in range(height - step, height):
                this[x, y] = max(last[x, y], last[right, y])
    return grids


@compiled
def _score(grid: Grids, cells: Ints, x: int, y: int) -> float:
    """Mean over points with ``cells`` (p, 2), moved by (x, y), of what they meet in the grid, of at most 1."""
    total = 0
    for i in range(len(cells)):
        cx, cy = cells[i, 0] + x, cells[i, 1] + y
        if 0 <= cx < grid.shape[0] and 0 <= cy < grid.shape[1]:
            total += grid[cx, cy]
    return total / (255.0 * max(len(cells), 1))


@compiled
def search(
    grids: Grids, cells: Ints, reach: int, least_score: float, rival_share: float
) -> tuple[Ints, NDArray[np.float64]]:
    """Placements (m, 3) (angle, x, y) in cells and their scores (m,): all that reach ``rival_share`` of the best.

    ``cells`` (a, p, 2) are the points by angle; x and y lie within ``reach``.  Depth first, the most promising branch
    first: a node's score is an upper bound of its descendants', so what is cut cannot matter.
    """
    top = LEVELS - 1
    stride = 1 << top
    side = (2 * reach) // stride + 1
    nodes = np.empty((len(cells) * side * side, 4), np.int64)  # level, angle, x, y
    scores = np.empty(len(nodes))
    count = 0
    for angle in range(len(cells)):
        for i in range(side):
            for j in range(side):
                x, y = i * stride - reach, j * stride - reach
                nodes[count] = top, angle, x, y
                scores[count] = _score(grids[top], cells[angle], x, y)
                count += 1
    order = np.argsort(scores)  # the end of the stack is taken first
    room = len(order) + 3 * LEVELS
    stack, bounds = np.empty((room, 4), np.int64), np.empty(room)
    stack[: len(order)], bounds[: len(order)] = nodes[order], scores[order]
    depth = len(order)

    found, values = np.empty((64, 3), np.int64), np.empty(64)
    kept = 0
    bound = rival_share * least_score
    children, marks = np.empty((4, 4), np.int64), np.empty(4)
    while depth:
        depth -= 1
        if bounds[depth] < bound:
            continue
        level, angle, x, y = stack[depth]
        if level == 0:
            if kept == len(found):
                found = np.concatenate((found, np.empty_like(found)))
                values = np.concatenate((values, np.empty_like(values)))
            found[kept] = angle, x, y
            values[kept] = bounds[depth]
            kept += 1
            bound = max(bound, rival_share * bounds[depth])
            continue
        step = 1 << (level - 1)
        born = 0
        for dx in (0, step):
            for dy in (0, step):
                if x + dx > reach or y + dy > reach:  # whole tiles may stand out of the bounds
                    continue
                mark = _score(grids[level - 1], cells[angle], x + dx, y + dy)
                if mark < bound:
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
    best = values[:kept] >= bound
    return found[:kept][best], values[:kept][best]
