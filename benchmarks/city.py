"""A simulated drive through a city: streets in a grid, blocks driven around again and again, loops closed nearby.

The robot explores one district after the other along a spiral.  Inside a district it turns at random, so that it comes
by the same corners many times.  It moves in the plane, in steps of a metre; poses and edges are those of space.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses as se3
from dsg_ros.io.posegraph import Floats, Landmarks, PoseGraph

BLOCK = 5
"""Steps from one crossing to the next."""
DISTRICT = 4
"""Blocks along the side of a district."""
STAY = 500
"""Steps in a district before the robot moves on."""
LOOPS = 5
"""Loops that a pose closes at most: with the odometry, four edges a pose on average."""
YOUNGEST = 10
"""A pose less old than this is no loop."""
MEMORY = 2 * STAY
"""The oldest pose [steps] that a local loop goes back to."""

DEVIATIONS = np.array([0.03, 0.03, 0.02, 0.001, 0.001, 0.002])
"""Of an edge's translation [m] and rotation [rad]."""

_DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))
Place = tuple[int, int]


def simulate(count: int, seed: int = 0, memory: int | None = MEMORY) -> PoseGraph:
    """A graph of ``count`` poses, always the same for the same arguments; initial values are the chained odometry.

    Loops go back to poses at most ``memory`` steps old, or to poses of any age where that is None: streets met again
    after a whole round of the city.  The drive does not depend on ``count``: a shorter one is the beginning of a longer
    one, with loops and noise of its own.
    """
    random = np.random.default_rng([seed, 1 if memory is None else 0])
    places, headings = _drive(count, random)
    first, second = _edges(places, random, memory)
    x, y = np.array(places, float).T
    truth = se3.from_planar(x, y, np.array(headings) * (np.pi / 2))
    noise = random.standard_normal((len(first), 6)) * DEVIATIONS
    measured = se3.compose(se3.between(truth[first], truth[second]), se3.exp(noise))
    odometry = measured[np.flatnonzero(second - first == 1)]
    root = np.diag(1 / DEVIATIONS)
    edges = len(first)
    # Views of one row: half a million matrices of their own would take more memory than the solvers under test.
    return PoseGraph(
        planar=False,
        keys=np.arange(count),
        poses=_chained(odometry),
        known=np.ones(count, bool),
        fixed=np.zeros(0, np.int64),
        first=first,
        second=second,
        measured=measured,
        information=np.broadcast_to((root @ root)[np.triu_indices(6)], (edges, 21)),
        sqrt_info=np.broadcast_to(root, (edges, 6, 6)),
        landmarks=Landmarks.none(planar=False),
        source=Path(f"city of {count} poses"),
    )


def _drive(count: int, random: np.random.Generator) -> tuple[list[Place], list[int]]:
    """Where the robot is at each step, and in which of the four directions it came."""
    place, heading = (0, 0), 0
    places, headings = [place], [heading]
    district, left, spiral = (0, 0), STAY, _spiral()
    next(spiral)
    for _ in range(count - 1):
        if place[0] % BLOCK == 0 and place[1] % BLOCK == 0:
            if left <= 0:
                district, left = next(spiral), STAY
            heading = _turn(place, heading, district, random)
        place = _step(place, heading)
        places.append(place)
        headings.append(heading)
        left -= 1
    return places, headings


def _turn(place: Place, heading: int, district: Place, random: np.random.Generator) -> int:
    """A direction to leave a crossing in: at random inside the district, else towards it; back only where it must."""
    away = _distance(place, district)
    ahead = [(heading + turn) % 4 for turn in (0, 1, 3)]
    crossing = {way: _distance(_step(place, way, BLOCK), district) for way in (*ahead, (heading + 2) % 4)}
    allowed = [way for way in ahead if (crossing[way] == 0 if away == 0 else crossing[way] < away)]
    if not allowed:
        return min(crossing, key=lambda way: crossing[way])
    return allowed[int(random.integers(len(allowed)))]


def _step(place: Place, way: int, steps: int = 1) -> Place:
    return place[0] + steps * _DIRECTIONS[way][0], place[1] + steps * _DIRECTIONS[way][1]


def _distance(place: Place, district: Place) -> int:
    """Steps along the streets from a place to a district; 0 inside and on its border."""
    side = BLOCK * DISTRICT
    gaps = (max(side * d - p, p - side * (d + 1), 0) for p, d in zip(place, district, strict=True))
    return sum(gaps)


def _spiral() -> Iterator[Place]:
    """Districts from the middle outwards, each beside the one before."""
    place, way, length = (0, 0), 0, 1
    yield place
    while True:
        for _ in range(2):
            for _ in range(length):
                place = _step(place, way)
                yield place
            way = (way + 1) % 4
        length += 1


def _edges(
    places: list[Place], random: np.random.Generator, memory: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The poses each edge joins, sorted by the later one: odometry, then loops to poses a step away at most."""
    seen: defaultdict[Place, deque[int]] = defaultdict(deque)
    pairs: list[tuple[int, int]] = []
    for pose, place in enumerate(places):
        if pose:
            pairs.append((pose - 1, pose))
        near: list[int] = []
        for spot in (place, *(_step(place, way) for way in range(4))):
            poses = seen[spot]
            while memory is not None and poses and poses[0] < pose - memory:
                poses.popleft()
            near.extend(old for old in poses if old <= pose - YOUNGEST)
        chosen = random.permutation(len(near))[:LOOPS]
        pairs.extend((old, pose) for old in sorted(near[k] for k in chosen))
        seen[place].append(pose)
    joined = np.array(pairs, np.int64).reshape(-1, 2)
    return joined[:, 0].copy(), joined[:, 1].copy()


def _chained(steps: Floats) -> Floats:
    out = np.empty((len(steps) + 1, 7))
    out[0] = pose = se3.IDENTITY
    for k, step in enumerate(steps):
        out[k + 1] = pose = se3.compose(pose, step)
    return out
