"""What stands about in a world, drawn at random: crates anywhere, pilasters and cupboards along walls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.simulation.route import level
from dsg_ros.simulation.scene import Box, box, turned_box

Array = NDArray[np.float64]

Wall = tuple[int, float, int, float, float]
"""The axis it runs along (0 for x), where it stands on the other one, the side of it that is the room (1 or -1), and
from where to where it is furnished.
"""


def crates(rng: np.random.Generator, places: Iterable[tuple[float, float]]) -> list[Box]:
    """A crate at each of ``places`` (x, y), on a floor at z = 0, turned anyhow."""
    found = []
    for x, y in places:
        width, depth, height = rng.uniform(0.5, 1.2), rng.uniform(0.4, 0.9), rng.uniform(0.5, 2.2)
        turn = poses.rotation_exp(np.array([0.0, 0.0, rng.uniform(-np.pi, np.pi)]))
        found.append(turned_box(np.concatenate([[x, y, 0.5 * height], turn]), (width, depth, height)))
    return found


def along_walls(
    rng: np.random.Generator, walls: Sequence[Wall], ceiling: float, ground: Callable[[Array], Array] = level
) -> list[Box]:
    """Pilasters, up to the ``ceiling`` [m], and cupboards at each of ``walls``; ``ground(x)`` is the floor's height."""
    found = []
    for axis, wall, inwards, first, last in walls:
        at = first + rng.uniform(0.0, 2.0)
        while at < last:
            cupboard = rng.random() < 0.4
            wide = rng.uniform(0.7, 1.3) if cupboard else rng.uniform(0.25, 0.5)
            deep = rng.uniform(0.25, 0.4) if cupboard else rng.uniform(0.1, 0.2)
            bottom = float(ground(np.array(at if axis == 0 else wall))) - 0.2
            top = bottom + 0.2 + rng.uniform(0.9, 2.0) if cupboard else ceiling
            across = sorted((wall, wall + inwards * deep))
            low, high = [at, across[0], bottom], [at + wide, across[1], top]
            order = [0, 1, 2] if axis == 0 else [1, 0, 2]
            found.append(box([low[k] for k in order], [high[k] for k in order]))
            at += wide + rng.uniform(1.0, 4.0)
    return found
