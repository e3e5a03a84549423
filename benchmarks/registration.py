"""One scan against a local map: the compiled loop that runs (Numba) and the same arithmetic as one program in JAX.

Both sides have the same voxel tables, the same stages, tolerances and starts; JAX's has its shapes fixed and its hash
table as sorted keys, which its vector instructions search fastest; padding the tables is not timed.  The two answers
are compared.  In the plane, from one start: nearly all scans of a run are matched so.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import stopwatch
from benchmarks.table import Row
from dsg_ros import config, poses
from dsg_ros.mapping import registration, scan
from dsg_ros.mapping.local_map import LocalMap, LocalMapper
from dsg_ros.mapping.registration_kernel import Stage
from dsg_ros.mapping.voxel_map import VoxelTable, pack

POINTS, VOXELS = 256, 4096
"""Capacity of a scan, and of a table."""
SCANS, BEAMS = 200, 361
NOISE = 0.01
"""Of a range [m]."""
FAR = 1e6
"""Where padding lies [m]: no voxel is near."""
AGREE = 1e-6
"""Within which the two sides' poses are the same [m, rad]."""

Floats = NDArray[np.float64]


class Padded(NamedTuple):
    """A table whose voxels are in the order of their keys."""

    keys: Any
    anchors: Any
    means: Any
    axes: Any
    deviations: Any
    flat: Any


def padded(table: VoxelTable) -> Padded:
    """The planar part of ``table``, with room for `VOXELS`."""
    order, room = np.argsort(table.keys), VOXELS - len(table.keys)
    assert room > 0
    shapes = table.shapes

    def column(values: NDArray[Any], filling: float) -> NDArray[Any]:
        return np.concatenate([values[order], np.full((room, *values.shape[1:]), filling, values.dtype)])

    return Padded(
        column(table.keys, np.iinfo(np.int64).max), column(table.anchors, FAR), column(shapes.means[:, :2], FAR),
        column(shapes.axes[:, :, :2], 0), column(shapes.deviations, np.inf), column(shapes.flat, False),
    )  # fmt: skip


_CELLS = np.array([(x, y, 0) for x in (-1, 0, 1) for y in (-1, 0, 1)], np.int64)
AROUND = pack(_CELLS) - pack(np.zeros(3, np.int64))
"""What a neighbouring cell's key is more than that of the cell in the middle."""


def _system(table: Padded, points: Any, pose: Any, size: float, kernel: float, spread: float) -> tuple[Any, Any, Any]:
    """Information (3, 3) and gradient (3,) of x, y, yaw, and the errors (n,) [m], as `normal_equations` has them."""
    cos, sin = jnp.cos(pose[2]), jnp.sin(pose[2])
    rotation = jnp.array([[cos, -sin], [sin, cos]])
    world = points @ rotation.T + pose[:2]
    cells = jnp.floor(world / size).astype(jnp.int64) + (1 << 20)
    keys = ((cells[:, 0] << 42) | (cells[:, 1] << 21) | (1 << 20))[:, None] + AROUND
    at = jnp.clip(jnp.searchsorted(table.keys, keys), 0, VOXELS - 1)
    apart = ((world[:, None] - table.anchors[at][..., :2]) ** 2).sum(axis=2)
    apart = jnp.where(table.keys[at] == keys, apart, jnp.inf)
    nearest = jnp.take_along_axis(at, apart.argmin(axis=1)[:, None], axis=1)[:, 0]
    there = jnp.isfinite(apart.min(axis=1))
    d = world - table.means[nearest]
    axes = table.axes[nearest]
    error = jnp.where(table.flat[nearest], jnp.abs((axes[:, 0] * d).sum(axis=1)), jnp.hypot(d[:, 0], d[:, 1]))
    error = jnp.where(there, error, jnp.inf)
    weight = jnp.where(there, (kernel**2 / (kernel**2 + error**2)) ** 2, 0.0)
    scale = 1.0 / (jnp.sqrt(1.0 + spread**2) * table.deviations[nearest])
    rows = axes * scale[..., None]
    residual = (rows * d[:, None]).sum(axis=2)
    moved = rows @ rotation
    turned = points[:, None, 0] * moved[..., 1] - points[:, None, 1] * moved[..., 0]
    jacobian = jnp.concatenate([moved, turned[..., None]], axis=2)
    weighted = jacobian * weight[:, None, None]
    information = jnp.einsum("nra,nrb->ab", weighted, jacobian)
    return information, jnp.einsum("nra,nr->a", weighted, residual), error


def _minimised(table: Padded, points: Any, start: Any, prediction: Any, prior: Any, size: float, stage: Stage) -> Any:
    """Gauss-Newton with a prior, to the tolerance of ``stage``."""

    def step(carried: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        pose, _, count = carried
        information, gradient, _ = _system(table, points, pose, size, stage.kernel, stage.spread)
        cos, sin = jnp.cos(prediction[2]), jnp.sin(prediction[2])
        off = pose - prediction
        # The logarithm of a motion in the plane, as `se3.log`.
        half = 0.5 * off[2]
        ratio = jnp.where(jnp.abs(half) < 1e-6, 1.0 - half**2 / 3.0, half / jnp.tan(jnp.where(half == 0, 1.0, half)))
        x, y = cos * off[0] + sin * off[1], -sin * off[0] + cos * off[1]
        innovation = jnp.array([ratio * x + half * y, -half * x + ratio * y, off[2]])
        delta = jnp.linalg.solve(information + prior, -gradient - prior @ innovation)
        # The exponential of one, as `se3.exp`.
        turn = delta[2]
        along = jnp.where(jnp.abs(turn) < 1e-6, 1.0, jnp.sin(turn) / jnp.where(turn == 0, 1.0, turn))
        across = jnp.where(jnp.abs(turn) < 1e-6, turn / 2, (1.0 - jnp.cos(turn)) / jnp.where(turn == 0, 1.0, turn))
        moved = jnp.array([along * delta[0] - across * delta[1], across * delta[0] + along * delta[1]])
        cos, sin = jnp.cos(pose[2]), jnp.sin(pose[2])
        turned = jnp.array([cos * moved[0] - sin * moved[1], sin * moved[0] + cos * moved[1]])
        return jnp.append(pose[:2] + turned, pose[2] + turn), jnp.abs(delta).max(), count + 1

    def goes_on(carried: tuple[Any, Any, Any]) -> Any:
        return (carried[1] > stage.tolerance) & (carried[2] < stage.iterations)

    return jax.lax.while_loop(goes_on, step, (start, jnp.inf, 0))[0]


def program(coarse: float, fine: float) -> Any:
    """`registration.register` of one start in JAX, for voxels of these edges [m]."""

    @jax.jit
    def register(
        rough: Padded, exact: Padded, points: Any, start: Any, prior: Any, inlier_distance: float
    ) -> tuple[Any, Any, Any]:
        pose = _minimised(rough, points, start, start, prior, coarse, registration.COARSE)
        pose = _minimised(exact, points, pose, start, prior, fine, registration.FINE)
        stage = registration.FINE
        information, _, error = _system(exact, points, pose, fine, stage.kernel, stage.spread)
        return pose, information, (error < inlier_distance).sum()

    return register


def seen_from(pose: Floats, seed: int) -> Floats:
    """Points (n, 3) of a hall of 12 by 9 m with pillars, in the frame of ``pose`` (7,)."""
    rng = np.random.default_rng(seed)
    bearings = np.linspace(-0.75 * np.pi, 0.75 * np.pi, BEAMS) + poses.yaw(pose)
    direction = np.stack([np.cos(bearings), np.sin(bearings)], axis=1)
    with np.errstate(divide="ignore"):
        walls = np.where(direction > 0, [6.0, 4.5], [-6.0, -4.5]) - pose[:2]
        ranges = (walls / direction).min(axis=1)
    for pillar in ((-3.0, 1.5), (2.5, -2.0), (3.5, 2.5), (-1.0, -3.0)):
        way = np.array(pillar) - pose[:2]
        along = direction @ way
        inside = 0.3**2 - (way @ way - along**2)
        hit = (inside > 0) & (along > 0)
        ranges[hit] = np.minimum(ranges[hit], along[hit] - np.sqrt(inside[hit]))
    ranges += rng.normal(0.0, NOISE, BEAMS)
    points = direction * ranges[:, None] + pose[:2]
    return poses.transform(poses.inverse(pose), np.column_stack([points, np.zeros(BEAMS)]))


def made(mapper: LocalMapper) -> tuple[LocalMap, list[Floats], Floats]:
    """A local map of thirty keyframes on a curve, `SCANS` clouds from beside it, and where odometry has these."""
    angle = np.linspace(0.0, 2.0, 30)
    trajectory = poses.from_planar(2.5 * np.cos(angle), 2.0 * np.sin(angle), angle + 1.6)
    s = config.Slam()
    clouds = [scan.thin(seen_from(pose, seed), s.input.cell, POINTS) for seed, pose in enumerate(trajectory)]
    local_map = mapper.build(trajectory, clouds)
    rng = np.random.default_rng(0)
    at = rng.uniform(0.2, 1.8, SCANS)
    truth = poses.from_planar(2.5 * np.cos(at), 2.0 * np.sin(at), at + 1.6)
    queries = [scan.thin(seen_from(pose, 1000 + seed), s.input.cell, POINTS) for seed, pose in enumerate(truth)]
    x, y, turn = rng.normal(0.0, [[0.03], [0.03], [0.02]], (3, SCANS))
    off = poses.from_planar(x, y, turn)
    return local_map, queries, poses.compose(truth, off)


def run(repeats: int) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """The median over scans of the best of ``repeats``; AssertionError where the two sides do not agree."""
    s = config.Slam()
    mapper = LocalMapper(s.registration, s.input, planar=True)
    local_map, queries, starts = made(mapper)
    rough, exact = (jax.device_put(padded(table)) for table in (local_map.coarse, local_map.fine))
    register = program(local_map.coarse.size, local_map.fine.size)
    prior = np.diag(np.array([0.03, 0.03, 1.0, 1.0, 1.0, 0.02]) ** -2.0)
    planar = prior[np.ix_(mapper.axes, mapper.axes)]
    flat = np.column_stack([starts[:, :2], poses.yaw(starts)])
    fixed = np.full((SCANS, POINTS, 2), FAR)
    for k, query in enumerate(queries):
        fixed[k, : len(query)] = query[:, :2]
    ours, theirs = np.full(SCANS, np.inf), np.full(SCANS, np.inf)
    for repeat in range(repeats + 1):  # the first one compiles
        for k, (query, start) in enumerate(zip(queries, starts, strict=True)):
            own, match = stopwatch(partial(mapper.register, local_map, query, start[None], start, prior))
            given = (rough, exact, fixed[k], flat[k], planar, mapper.inlier_distance)
            other, found = stopwatch(lambda given=given: jax.block_until_ready(register(*given)))  # type: ignore[misc]
            there = poses.from_planar(*np.asarray(found[0]).tolist())
            off = np.abs(poses.log(poses.between(match.pose, there))).max()
            if off > AGREE:
                raise AssertionError(f"scan {k}: the two sides' poses are {off:.1e} apart")
            if repeat:
                ours[k], theirs[k] = min(ours[k], own), min(theirs[k], other)
    what = "a scan matched: Numba, and the same in JAX"
    row = Row("registration", "hall", what, 1e3 * float(np.median(ours)), 1e3 * float(np.median(theirs)), "ms", 1.0)
    yield [row], {"numba_ms": (1e3 * ours).tolist(), "jax_ms": (1e3 * theirs).tolist()}
