"""A drive past voxels in a world model: what windows and fixed-lag smoothers are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsg_ros import poses
from dsg_ros.core.factors import Factor, Registration, VoxelSensorObs
from dsg_ros.core.solvers import window as windows
from dsg_ros.core.solvers.window_stacks import joined, numbered, rows_of
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.world import WorldModel

THETA = to_float64(Theta.neutral())
PLANAR, SPATIAL = (0, 1, 5), tuple(range(6))
POSES, SEEN = 14, 6
SIDE = 24
"""Voxels along the way."""


@dataclass(frozen=True)
class Window:
    """What is solved together, under the world's keys: poses (p,) and voxels (v,), some of them held.

    ``links`` are stacks of rows between two poses, ``seen`` rows of voxels seen from a pose (`WorldModel.stack`).
    ``prior`` is about some of the poses.  Both key arrays are sorted.
    """

    pose_keys: np.ndarray
    poses: np.ndarray
    free_poses: np.ndarray
    voxel_keys: np.ndarray
    voxels: np.ndarray
    free_voxels: np.ndarray
    links: Sequence[Factor]
    seen: Factor
    prior: windows.Prior | None = None

    def at(self, theta: Theta) -> windows.System:
        """The window with its rows as the solver takes them."""
        links = [rows_of(stack, theta) for stack in self.links]
        return windows.System(
            self.pose_keys, self.poses, self.free_poses, self.voxel_keys, self.voxels, self.free_voxels,
            joined([numbered(rows, self.pose_keys, self.pose_keys) for rows in links]),
            numbered(rows_of(self.seen, theta), self.pose_keys, self.voxel_keys), self.prior,
        )  # fmt: skip


class Drive:
    """A drive past voxels in a world model, and windows of it."""

    def __init__(self, axes: tuple[int, ...], noise: float, seed: int = 0) -> None:
        self.axes, rng = axes, np.random.default_rng(seed)
        moving = np.isin(np.arange(6), axes)
        step = np.array([0.5, 0.05, 0.1, 0.02, -0.03, 0.15]) * moving
        self.truth = [poses.IDENTITY]
        for _ in range(POSES - 1):
            self.truth.append(poses.compose(self.truth[-1], poses.exp(step)))
        self.world = WorldModel()
        turned = poses.exp(5 * noise * rng.normal(size=(POSES, 6)) * moving)
        self.world.add_poses(poses.compose(np.stack(self.truth), turned))
        near = np.stack(self.truth)[rng.integers(0, POSES, SIDE), :3]
        self.centres = near + rng.normal(size=(SIDE, 3)) * [1, 1, 5 not in axes or 3 in axes]
        self.world.add_voxels(self.centres + 2 * noise * rng.normal(size=(SIDE, 3)) * [1, 1, 3 in axes])
        root = np.diag(np.where(moving, 30.0, 0.0))
        self.links, self.seen, self.keys = [], [], []
        for k in range(1, POSES):
            measured = poses.compose(poses.exp(step), poses.exp(noise * rng.normal(size=6) * moving))
            row = self.world.add(Registration, first=k - 1, second=k, measured=measured, sqrt_info=root)
            self.links.append(row)
        for k in range(POSES):
            distance = np.linalg.norm(self.centres - self.truth[k][:3], axis=1)
            for v in np.argsort(distance)[:SEEN].tolist():
                point = poses.transform(poses.inverse(self.truth[k]), self.centres[v : v + 1])[0]
                point = point + noise * rng.normal(size=3) * [1, 1, 3 in axes]
                self.seen.append(self.world.add(VoxelSensorObs, pose=k, voxel=v, point=point, sqrt_info=20 * np.eye(3)))
                self.keys.append((k, v))

    def window(self, first: int, last: int, used: set[int], **more: Any) -> Window:
        """Keyframes ``first`` to ``last``, with the rows between them that are not in ``used``."""
        chosen = [r for r, (k, _) in enumerate(self.keys) if first <= k <= last and r not in used]
        voxels = np.unique([self.keys[r][1] for r in chosen])
        keys = np.arange(first, last + 1)
        return Window(
            keys, self.world.get_poses(keys), np.ones(len(keys), bool), voxels, self.world.get_voxels(voxels),
            np.ones(len(voxels), bool),
            (self.world.stack(Registration, self.links[first:last]),),
            self.world.stack(VoxelSensorObs, [self.seen[r] for r in chosen]), **more,
        )  # fmt: skip

    def spent(self, gone: np.ndarray, first: int, last: int) -> set[int]:
        """Rows that are used up with voxels ``gone`` in a window of these keyframes."""
        return {r for r, (k, v) in enumerate(self.keys) if first <= k <= last and v in gone}

    def adopt(self, window: Window, found: windows.WindowSolution) -> None:
        self.world.set_poses(window.pose_keys, found.poses)
        self.world.set_voxels(window.voxel_keys, found.voxels)

    def anchor(self) -> windows.Prior:
        return windows.Prior.of_pose(0, self.world.get_poses(np.array([0]))[0], 0.01, self.axes)
