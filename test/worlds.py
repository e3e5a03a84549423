"""Simulated places for tests: walls as line segments, a 180-beam planar scanner, drives, and odometry with a bias.

Poses are (7,) or (n, 7) as in `dsg_ros.poses`; lengths are metres, angles radians.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.interface import Frame, OdometryTrack

Array = NDArray[np.float64]
Corner = tuple[float, float]

BEAMS = np.deg2rad(np.arange(180) - 89.5)
"""Bearings of the scanner's beams in the sensor frame."""

SECOND = 1_000_000_000


def polygon(*corners: Corner) -> Array:
    """Walls (s, 4) ``x1 y1 x2 y2`` of a closed polygon."""
    points = np.array(corners, float)
    return np.hstack([points, np.roll(points, -1, axis=0)])


def box(x: float, y: float, width: float, depth: float) -> Array:
    """Walls of an axis-aligned rectangle centred on (x, y)."""
    w, d = width / 2, depth / 2
    return polygon((x - w, y - d), (x + w, y - d), (x + w, y + d), (x - w, y + d))


def room() -> Array:
    """A room of 8 by 6 m with a pillar and a cupboard: no symmetry."""
    return np.vstack([box(0, 0, 8, 6), box(2.2, 1.6, 0.5, 0.5), box(-3.5, -1.2, 1.0, 1.8)])


def corridor(length: float = 80.0, width: float = 2.0) -> Array:
    """Two parallel walls along x, centred on the origin, open at the ends."""
    half = length / 2
    return np.array([[-half, -width / 2, half, -width / 2], [-half, width / 2, half, width / 2]])


def pillared_corridor(period: float, length: float = 80.0) -> Array:
    """A corridor with a pillar at either wall every ``period``: the same place again and again."""
    pillars = [box(x, side * 0.9, 0.3, 0.2) for x in np.arange(-length / 2, length / 2, period) for side in (-1, 1)]
    return np.vstack([corridor(length), *pillars])


def block() -> Array:
    """Corridors 2.5 m wide around a block, 16 by 12 m outside, with niches that make every stretch look different."""
    furniture = [
        (-4.0, -5.8, 0.8, 0.4), (3.0, -3.6, 1.5, 0.3), (7.7, -1.0, 0.6, 1.2), (5.4, 2.5, 0.4, 0.7),
        (1.5, 5.7, 2.0, 0.6), (-3.5, 3.7, 0.5, 0.5), (-7.8, 1.5, 0.4, 0.9), (-5.4, -1.5, 0.4, 1.4),
    ]  # fmt: skip
    return np.vstack([box(0, 0, 16, 12), box(0, 0, 11, 7), *(box(*item) for item in furniture)])


def cluttered_block() -> Array:
    """`block` with forty boxes more along its walls, drawn: no stretch of it looks like another one turned round."""
    rng = np.random.default_rng(3)
    boxes = []
    for _ in range(40):
        side, along, edges, wall = (
            rng.integers(4),
            rng.uniform(-1, 1),
            rng.uniform(0.2, 0.9, 2),
            rng.choice([-0.76, 0.76]),
        )
        ends = [
            (6.5 * along, wall - 4.75),
            (wall + 6.75, 4.5 * along),
            (6.5 * along, wall + 4.75),
            (wall - 6.75, 4.5 * along),
        ]
        boxes.append(box(*ends[side], *edges))
    return np.vstack([block(), *boxes])


BLOCK_ROUTE: tuple[Corner, ...] = ((-6.75, -4.75), (6.75, -4.75), (6.75, 4.75), (-6.75, 4.75))
"""The middle of the corridors of `block`, one lap, counter-clockwise."""


def ranges(walls: Array, origin: Array, bearings: Array) -> Array:
    """Distance (n,) from ``origin`` (2,) to the first wall (s, 4) at each of ``bearings`` (n,), or inf."""
    direction = np.stack([np.cos(bearings), np.sin(bearings)], axis=1)[:, None]
    start, along = walls[:, :2] - origin, walls[:, 2:] - walls[:, :2]
    # origin + t direction = start + u along, by Cramer's rule.
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = direction[..., 0] * along[:, 1] - direction[..., 1] * along[:, 0]
        t = (start[:, 0] * along[:, 1] - start[:, 1] * along[:, 0]) / determinant
        u = (start[:, 0] * direction[..., 1] - start[:, 1] * direction[..., 0]) / determinant
    hit = np.isfinite(t) & (t > 0.0) & (u >= 0.0) & (u <= 1.0)
    return np.where(hit, t, np.inf).min(axis=1)


def scan(walls: Array, pose: Array, *, reach: float = 20.0, noise: float = 0.0, seed: int = 0) -> Array:
    """Points (n, 3) seen from ``pose`` (7,), in its frame; beams that meet nothing in ``reach`` are left out."""
    found = ranges(walls, pose[:2], BEAMS + poses.yaw(pose))
    found = found + np.random.default_rng(seed).normal(0.0, noise, len(found))
    near = found < reach
    bearings = BEAMS[near]
    flat = found[near, None] * np.stack([np.cos(bearings), np.sin(bearings)], axis=1)
    return np.column_stack([flat, np.zeros(len(flat))])


def drive(route: Sequence[Corner], *, step: float = 0.1, turn: float = 0.1) -> Array:
    """Poses (n, 7) along a polyline, ``step`` apart, turning on the spot by at most ``turn`` at its corners."""
    x, y = route[0]
    heading = float(np.arctan2(route[1][1] - y, route[1][0] - x))
    out = [(x, y, heading)]
    for to_x, to_y in route[1:]:
        wanted = float(np.arctan2(to_y - y, to_x - x))
        left = (wanted - heading + np.pi) % (2 * np.pi) - np.pi
        for part in range(count := int(np.ceil(abs(left) / turn - 1e-9))):
            out.append((x, y, heading + left * (part + 1) / count))
        heading = wanted
        count = int(np.ceil(np.hypot(to_x - x, to_y - y) / step - 1e-9))
        out += [(x + (to_x - x) * k / count, y + (to_y - y) * k / count, heading) for k in range(1, count + 1)]
        x, y = to_x, to_y
    return poses.from_planar(*np.array(out).T)


def laps(route: Sequence[Corner], count: float) -> list[Corner]:
    """The closed ``route`` driven ``count`` times (in whole sides)."""
    sides = round(count * len(route))
    return [route[side % len(route)] for side in range(sides + 1)]


def increments(trajectory: Array) -> Array:
    """Steps (n - 1, 7) between consecutive poses."""
    return poses.between(trajectory[:-1], trajectory[1:])


def chained(start: Array, steps: Array) -> Array:
    """Poses (n, 7) of ``steps`` (n - 1, 7) one after the other from ``start``."""
    out = [start]
    for step in steps:
        out.append(poses.compose(out[-1], step))
    return np.array(out)


def biased(trajectory: Array, *, scale: float = 1.0, gain: float = 1.0, turn_per_metre: float = 0.0) -> Array:
    """``trajectory`` (n, 7) as wheels report it: translation times ``scale``, turns times ``gain`` plus a steady drift.

    Starts at the identity, as odometry does.
    """
    steps = increments(trajectory)
    turned = gain * poses.yaw(steps) + turn_per_metre * np.linalg.norm(steps[:, :3], axis=1)
    return chained(poses.IDENTITY, poses.from_planar(scale * steps[:, 0], scale * steps[:, 1], turned))


def ahead(truth: Array, number: int) -> Array:
    """Walls of somebody who walks two seconds ahead of a robot on its way along ``truth`` (n, 7), from side to side."""
    aside = poses.from_planar(0.0, 0.7 * np.sin(0.4 * number), 0.0)
    return box(*poses.compose(truth[min(number + 20, len(truth) - 1)], aside)[:2], 0.3, 0.3)


def frames(
    walls: Array, truth: Array, odometry: Array, *, noise: float = 0.01, followed: bool = False
) -> Iterator[Frame]:
    """Scans at 10 Hz from every pose of ``truth`` (n, 7), each with its ``odometry`` pose; of somebody `ahead`, too,
    if one is ``followed``.
    """
    for number, (pose, wheels) in enumerate(zip(truth, odometry, strict=True)):
        stamp = number * SECOND // 10
        seen = np.vstack([walls, ahead(truth, number)]) if followed else walls
        points = scan(seen, pose, noise=noise, seed=number).astype(np.float32)
        yield Frame(stamp, points, OdometryTrack(np.array([stamp]), wheels[None]), planar=True)


def room_in_space(seed: int = 0, count: int = 6000) -> Array:
    """Points (n, 3) on floor, walls and a cupboard of a room 6 by 5 by 2.6 m, origin at its middle on the floor."""
    rng = np.random.default_rng(seed)
    sheets = [  # corner, one edge, other edge
        ((-3, -2.5, 0), (6, 0, 0), (0, 5, 0)), ((-3, -2.5, 0), (6, 0, 0), (0, 0, 2.6)),
        ((-3, 2.5, 0), (6, 0, 0), (0, 0, 2.6)), ((-3, -2.5, 0), (0, 5, 0), (0, 0, 2.6)),
        ((3, -2.5, 0), (0, 5, 0), (0, 0, 2.6)), ((1.5, 1.5, 0), (0, 1, 0), (0, 0, 1.8)),
        ((1.5, 1.5, 0), (1.5, 0, 0), (0, 0, 1.8)),
    ]  # fmt: skip
    areas = np.array([np.linalg.norm(np.cross(a, b)) for _, a, b in sheets])
    which = rng.choice(len(sheets), count, p=areas / areas.sum())
    corner, a, b = np.array(sheets, float)[which].transpose(1, 0, 2)
    u, v = rng.random((2, count, 1))
    return corner + u * a + v * b
