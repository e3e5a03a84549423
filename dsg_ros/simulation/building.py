"""The building: a hall with pillars, and a corridor that leads out of it, up a ramp, around a block and back.

Seen from above, in metres (z = 0 is the hall's floor; east of the ramps the floor is `RISE` higher)::

    y 24 +----------------+
         |  hall     o    +--------------------------------+ 22
         |    o           :  corridor      \\ ramp \\         |
         |                +------------------------+       |
         |  o     o       |                        |       |
         |                |         block          |       |
         |    o           +------------------------+       |
         |          o     :  corridor      / ramp /        |
         |                +--------------------------------+ 2
       0 +----------------+ 16                    43.5     46 x
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.simulation.furniture import along_walls, crates
from dsg_ros.simulation.route import Route
from dsg_ros.simulation.scene import Box, Scene, box, scene, turned_box

Array = NDArray[np.float64]

RISE, RAMP = 0.6, (26.0, 36.0)
"""How high [m] the ramps lead, and between which x."""
HALL_HEIGHT, CEILING = 6.0, 3.2
WAY = ((8.0, 3.25), (44.75, 3.25), (44.75, 20.75), (9.0, 20.75), (4.0, 17.0), (6.5, 12.0), (3.5, 7.0))
"""Corners of the way around, counter-clockwise, which the robot rounds off."""
TURNING_RADIUS = 1.0
WHEELBASE = 0.5
_PILLARS = ((3.0, 12.0), (8.5, 9.0), (12.0, 6.5), (12.5, 14.0), (8.0, 16.0), (12.0, 18.5))
_CRATES = ((1.2, 3.0), (11.0, 11.0), (14.5, 9.5), (2.0, 21.5), (14.6, 16.8), (10.0, 1.0))
_WALLS = (
    (0, 2.0, 1, 17.5, 42.0), (0, 4.5, -1, 17.5, 42.0), (0, 19.5, 1, 17.5, 42.0), (0, 22.0, -1, 17.5, 42.0),
    (1, 46.0, -1, 5.5, 18.5), (1, 43.5, 1, 5.5, 18.5),
)  # fmt: skip
"""Both of every corridor."""


def ground(x: Array) -> Array:
    """Height of the floor [m] at ``x`` (...)."""
    return RISE * np.clip((x - RAMP[0]) / (RAMP[1] - RAMP[0]), 0.0, 1.0)


def way() -> Route:
    """One lap, about 110 m, on the `ground`."""
    return Route(WAY, TURNING_RADIUS, ground, WHEELBASE)


def building(seed: int = 0) -> Scene:
    """The building, furnished by ``seed``: no two stretches of the corridor look alike."""
    rng = np.random.default_rng(seed)
    pillars = [(x, y, rng.uniform(0.2, 0.4), 0.0, HALL_HEIGHT) for x, y in _PILLARS]
    furniture = [*crates(rng, _CRATES), *along_walls(rng, _WALLS, CEILING, ground)]
    return scene([*_shell(), *furniture], pillars)


def _shell() -> list[Box]:
    start, end = RAMP
    slope = np.arctan2(RISE, end - start)
    # A little longer at its lower end, where it goes under the floor: no ray slips between the two.
    length, thick, over = np.hypot(RISE, end - start), 0.5, 0.05
    turn = poses.rotation_exp(np.array([0.0, -slope, 0.0]))
    along, normal = poses.rotate(turn, np.array([1.0, 0.0, 0.0])), poses.rotate(turn, np.array([0.0, 0.0, 1.0]))
    middle = np.array([start, 12.0, 0.0]) + 0.5 * (length - over) * along - 0.5 * thick * normal
    return [
        box((-1, -1, -1), (start, 25, 0)),  # floor, ramp, upper floor
        turned_box(np.concatenate([middle, turn]), (length + over, 26.0, thick)),
        box((end, -1, RISE - 1), (47, 25, RISE)),
        box((-1, -1, HALL_HEIGHT), (16, 25, 7)),  # ceilings; that of the corridor is also the wall above its doors
        box((16, -1, CEILING), (47, 25, 7)),
        box((-1, -1, 0), (0, 25, HALL_HEIGHT)),  # the hall's west, south and north
        box((0, -1, 0), (16, 0, HALL_HEIGHT)),
        box((0, 24, 0), (16, 25, HALL_HEIGHT)),
        box((16, -1, 0), (47, 2, CEILING)),  # outside of the corridor
        box((16, 22, 0), (47, 25, CEILING)),
        box((46, 2, 0), (47, 22, CEILING)),
        box((16, 4.5, 0), (43.5, 19.5, CEILING)),  # the block
    ]
