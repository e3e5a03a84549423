"""After the run: keyframes matched to those on all sides, then every scan once more.

In a sweep each keyframe is registered to the voxels of what its neighbours saw, where these were before.  Neighbours
are keyframes on both sides in time and, from other visits of the place, in space: while the run was on, no scan was
matched to these.  What is solved for as one problem before, `dsg_ros.mapping.joint` says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dsg_ros import config, poses
from dsg_ros.mapping.keyframes import Keyframes, ScanLog
from dsg_ros.mapping.local_map import LocalMapper

Array = NDArray[np.float64]

KEYFRAMES_A_MAP, SCANS_A_MAP = 2, 4
"""Neighbouring keyframes that share a local map, which takes longer to build than a scan to match: those that are
matched to it are not in it, those that scans hang on are.  More of them share it at some cost in precision (aces: 1 %
with 4 and 8).
"""


class Refined(NamedTuple):
    """Poses, base in map: ``keyframes`` (k, 7) and all ``scans`` (n, 7)."""

    keyframes: Array
    scans: Array


def refine(
    settings: config.Refinement, mapper: LocalMapper, keyframes: Keyframes, scans: ScanLog, trajectory: Array
) -> Refined:
    """Refine the run that hangs on optimised keyframes at ``trajectory`` (k, 7).

    Each is held loosely to where it was before; what matches with few inliers stays there.
    """
    match = _matcher(settings, mapper)
    with _threads() as pool:
        refined = _sweeps(settings, mapper, keyframes.clouds, trajectory, match, pool)
        return Refined(refined, _scans(settings, mapper, keyframes.clouds, scans, refined, match, pool))


def refine_keyframes(
    settings: config.Refinement, mapper: LocalMapper, keyframes: Keyframes, trajectory: Array
) -> Array:
    """The keyframes (k, 7) alone, as `refine` has them."""
    with _threads() as pool:
        return _sweeps(settings, mapper, keyframes.clouds, trajectory, _matcher(settings, mapper), pool)


def _threads() -> ThreadPoolExecutor:
    """Building and matching leave the interpreter to the other threads."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def _matcher(settings: config.Refinement, mapper: LocalMapper) -> Callable[..., Array]:
    prior = np.diag(1.0 / np.repeat([settings.sigma_translation, settings.sigma_rotation], 3) ** 2)
    return partial(_matched, settings, mapper, prior)


def _sweeps(
    settings: config.Refinement,
    mapper: LocalMapper,
    clouds: list[Array],
    trajectory: Array,
    match: Callable[..., Array],
    pool: ThreadPoolExecutor,
) -> Array:
    for _ in range(settings.sweeps):
        trajectory = _swept(settings, mapper, clouds, trajectory, match, pool)
    return trajectory


def _matched(
    settings: config.Refinement, mapper: LocalMapper, prior: Array, local_map: Any, cloud: Array, pose: Array
) -> Array:
    """The pose (7,) of a ``cloud`` (n, 3) at ``pose`` registered to a local map, or ``pose``."""
    if len(cloud) < settings.least_points:
        return pose
    match = mapper.register(local_map, cloud, pose[None], pose, prior)
    return match.pose if match.inliers >= settings.least_inliers else pose


def _swept(
    settings: config.Refinement,
    mapper: LocalMapper,
    clouds: list[Array],
    trajectory: Array,
    match: Callable[..., Array],
    pool: ThreadPoolExecutor,
) -> Array:
    """Every keyframe matched to its neighbours where these were before the sweep.

    The first one is the gauge, and stays.
    """
    neighbours = _Neighbours(settings, trajectory)

    def refined(block: range) -> list[Array]:
        around = neighbours.of(block)
        if not len(around):
            return list(trajectory[block])
        local_map = mapper.build(trajectory[around], [clouds[other] for other in around])
        return [match(local_map, clouds[key], trajectory[key]) for key in block]

    found: Array = np.concatenate(list(pool.map(refined, _blocks(len(trajectory), KEYFRAMES_A_MAP))))
    # A sweep may carry the map as a whole along a little.
    return poses.compose(poses.compose(trajectory[0], poses.inverse(found[0])), found)


def _scans(
    settings: config.Refinement,
    mapper: LocalMapper,
    clouds: list[Array],
    scans: ScanLog,
    trajectory: Array,
    match: Callable[..., Array],
    pool: ThreadPoolExecutor,
) -> Array:
    """All scans (n, 7): those between keyframes matched to the keyframes around the one that they hang on.

    What a robot saw again while it stood moves with the scan that is kept; what is not kept, with its keyframe.
    """
    neighbours, out, keyframe = _Neighbours(settings, trajectory), scans.on(trajectory), scans.keyframe.values
    # The first scan on a keyframe is the keyframe itself, and has no cloud; nor have those that were evicted.
    own = scans.moves_with.values == np.arange(len(scans))
    between = np.flatnonzero(np.fromiter(map(len, scans.clouds), np.int64, len(scans)))
    hangs_on = keyframe[between]

    def refined(block: range) -> None:
        members = between[slice(*np.searchsorted(hangs_on, [block.start, block.stop]))]
        if not len(members):
            return
        around = np.concatenate([neighbours.of(block), block])
        local_map = mapper.build(trajectory[around], [clouds[other] for other in around])
        for index in members:
            out[index] = match(local_map, scans.clouds[index].astype(np.float64), out[index])

    list(pool.map(refined, _blocks(len(trajectory), SCANS_A_MAP)))  # to its end: errors are raised here
    stood, relative = np.flatnonzero(~own), scans.relative.values
    kept = scans.moves_with.values[stood]
    out[stood] = poses.compose(out[kept], poses.between(relative[kept], relative[stood]))
    return out


class _Neighbours:
    """Which keyframes are around each."""

    def __init__(self, settings: config.Refinement, trajectory: Array) -> None:
        self._settings, self._positions = settings, trajectory[:, :3]
        self._tree = cKDTree(self._positions)

    def of(self, block: range) -> NDArray[np.int64]:
        """Those before and after in time and, spread over all visits, those near; not those of ``block`` themselves."""
        s, middle = self._settings, block[len(block) // 2]
        first, last = max(0, block.start - s.keyframes), min(len(self._positions), block.stop + s.keyframes)
        around = np.arange(first, last)
        near = np.array(sorted(self._tree.query_ball_point(self._positions[middle], s.radius)), np.int64)
        near = near[(near < first) | (near >= last)]
        if len(near) > s.visits:
            near = near[np.linspace(0, len(near) - 1, s.visits).astype(np.int64)]
        return np.concatenate([around[(around < block.start) | (around >= block.stop)], near])


def _blocks(count: int, size: int) -> list[range]:
    """``count`` keyframes in blocks of ``size``, in order."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
