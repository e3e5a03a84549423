"""A straight corridor without any feature along its axis: what a drive along it cannot show must not be learned."""

from __future__ import annotations

from dsg_ros.simulation.route import Route
from dsg_ros.simulation.scene import Scene, box, scene

LENGTH = 60.0
"""Of the way [m]."""
BEYOND = 40.0
"""From the ends of the way to those of the corridor [m], which a scanner of a shorter range never sees."""
WIDTH, CEILING = 2.4, 2.8


def way() -> Route:
    """Along the middle, once."""
    return Route(((0.0, 0.0), (LENGTH, 0.0)), radius=1.0, closed=False)


def corridor() -> Scene:
    """Walls, floor, ceiling and far ends; there is no furniture."""
    first, last, side = -BEYOND, LENGTH + BEYOND, 0.5 * WIDTH
    return scene(
        [
            box((first, -side, -1), (last, side, 0)),
            box((first, -side, CEILING), (last, side, CEILING + 1)),
            box((first, -side - 1, 0), (last, -side, CEILING)),
            box((first, side, 0), (last, side + 1, CEILING)),
            box((first - 1, -side, 0), (first, side, CEILING)),
            box((last, -side, 0), (last + 1, side, CEILING)),
        ]
    )
