"""The office: a level floor with corridors around two blocks of rooms, driven through in a figure of eight.

Seen from above, in metres (the middle corridor is driven northwards, twice a lap)::

    y 15 +-----------------------------------------------------------+
         |   <------ o -------     13.5      ------- o ------>        |
     12  |     +--------------------+     +--------------------+     |
         |     |                    |  ^  |                    |     |
         |  o  |       block        |  o  |       block        |  o  |
         |  v  |                    |  ^  |                    |  v  |
      3  |     +--------------------+     +--------------------+     |
         |   ------- o ------>      1.5      <------ o -------       |
       0 +-----------------------------------------------------------+
         0     3                   10    13                   20    23 x

It turns left around the western block and right around the eastern one.  In the middle of every corridor stands a
planter (o) that the robot swerves around, so that it turns both ways everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.simulation.furniture import along_walls, crates
from dsg_ros.simulation.route import Route
from dsg_ros.simulation.scene import Scene, box, scene

Array = NDArray[np.float64]
Corner = tuple[float, float]

CEILING = 2.8
TURNING_RADIUS = 0.5
SWERVE = 0.7
"""How far [m] the robot leaves the middle of a corridor for a planter, and begins that `SWERVE_LENGTH` before it."""
SWERVE_LENGTH = 2.0
_JUNCTIONS: tuple[Corner, ...] = (
    (1.5, 1.5), (11.5, 1.5), (11.5, 13.5), (21.5, 13.5), (21.5, 1.5), (11.5, 1.5), (11.5, 13.5), (1.5, 13.5)
)  # fmt: skip
_LEFT = (True, True, False, True, False, True, False, True)
"""Whether the robot passes the planter behind each junction on its left."""
_PLANTER_RADIUS, _PLANTER_ASIDE = 0.3, 0.25
_WALLS = (
    (0, 0.0, 1, 1.0, 21.0), (0, 15.0, -1, 1.0, 21.0), (1, 0.0, 1, 1.0, 13.0), (1, 23.0, -1, 1.0, 13.0),
    (0, 3.0, -1, 3.5, 9.0), (0, 12.0, 1, 3.5, 9.0), (1, 3.0, -1, 3.5, 11.0), (1, 10.0, 1, 3.5, 11.0),
    (0, 3.0, -1, 13.5, 19.0), (0, 12.0, 1, 13.5, 19.0), (1, 13.0, -1, 3.5, 11.0), (1, 20.0, 1, 3.5, 11.0),
)  # fmt: skip
_CRATES = ((0.6, 14.4), (22.4, 0.6), (22.4, 14.4), (11.5, 0.5), (11.5, 14.5))


def way() -> Route:
    """One lap, about 90 m and 33 rad of turning, half of it to either side."""
    corners: list[Corner] = []
    for here, middle, along, left in _legs():
        begin, end = (middle + side * SWERVE_LENGTH * along for side in (-1, 1))
        beside = SWERVE * left
        near = [middle + side * 0.5 * SWERVE_LENGTH * along + beside for side in (-1, 1)]
        corners += [(float(x), float(y)) for x, y in (here, begin, *near, end)]
    return Route(corners, TURNING_RADIUS)


def office(seed: int = 0) -> Scene:
    """The office, furnished by ``seed``."""
    rng = np.random.default_rng(seed)
    planters = [
        (*(middle - _PLANTER_ASIDE * left), _PLANTER_RADIUS * rng.uniform(0.7, 1.0), 0.0, 1.6)
        for _, middle, _, left in _legs()
    ]
    shell = [
        box((-1, -1, -1), (24, 16, 0)),
        box((-1, -1, CEILING), (24, 16, CEILING + 1)),
        box((-1, -1, 0), (0, 16, CEILING)),
        box((23, -1, 0), (24, 16, CEILING)),
        box((0, -1, 0), (23, 0, CEILING)),
        box((0, 15, 0), (23, 16, CEILING)),
        box((3, 3, 0), (10, 12, CEILING)),
        box((13, 3, 0), (20, 12, CEILING)),
    ]
    return scene([*shell, *crates(rng, _CRATES), *along_walls(rng, _WALLS, CEILING)], planters)


def _legs() -> list[tuple[Array, Array, Array, Array]]:
    """Of every corridor as it is driven: where it begins, its middle, its direction, and that of the swerve."""
    found = []
    for k, aside in enumerate(_LEFT):
        here, there = np.array(_JUNCTIONS[k]), np.array(_JUNCTIONS[(k + 1) % len(_JUNCTIONS)])
        along = (there - here) / np.linalg.norm(there - here)
        left = np.array([-along[1], along[0]])
        found.append((here, 0.5 * (here + there), along, left if aside else -left))
    return found
