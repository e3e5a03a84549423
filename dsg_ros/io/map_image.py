"""The occupancy grid as map_server loads it: an image (PGM) and a YAML file that says where it lies.

What the pixels mean is map_server's: in mode trinary, without negate, darkness (255 - pixel) / 255 above
``occupied_thresh`` is occupied, below ``free_thresh`` free, and what lies between is not known.  The pixels are
map_saver's own: 0, 254 and 205, whose darkness of 0.19608 is just above the 0.196 that free stays below.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros.interface import OccupancyGrid
from dsg_ros.io.atomic import write_bytes

OCCUPIED_THRESHOLD, FREE_THRESHOLD = 0.65, 0.196
_OCCUPIED, _FREE, _UNKNOWN = 0, 254, 205


def pixels(grid: OccupancyGrid) -> NDArray[np.uint8]:
    """Image (height, width), its first row the grid's last: images begin at the top, grids at the bottom."""
    image = np.full(grid.cells.shape, _UNKNOWN, np.uint8)
    image[grid.cells == 0] = _FREE
    image[grid.cells == 100] = _OCCUPIED
    return image[::-1]


def write_map(image: Path, grid: OccupancyGrid) -> None:
    """Write ``image`` (.pgm) and beside it the YAML that names it, each whole or not at all.

    `UserError` where the place is not writable.
    """
    height, width = grid.cells.shape
    header = f"P5\n# dsg_ros {grid.resolution:.9g} m/pixel\n{width} {height}\n255\n"
    write_bytes(image, header.encode() + pixels(grid).tobytes())
    x, y = grid.origin
    lines = [
        f"image: {image.name}",
        "mode: trinary",
        f"resolution: {grid.resolution:.9g}",
        f"origin: [{x:.9g}, {y:.9g}, 0.0]",
        "negate: 0",
        f"occupied_thresh: {OCCUPIED_THRESHOLD}",
        f"free_thresh: {FREE_THRESHOLD}",
    ]
    write_bytes(image.with_suffix(".yaml"), ("\n".join(lines) + "\n").encode())
