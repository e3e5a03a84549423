"""The solve of a run's window on the host: a few poses and the voxels seen from them, in one compiled call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.factors import Factor
from dsg_ros.core.factors.base import HostForm, RelativePoses, VoxelsSeen, key_fields
from dsg_ros.core.native import plain
from dsg_ros.core.native.window import Answer, Rows, solve_window
from dsg_ros.core.solution import Result
from dsg_ros.core.theta import Theta

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """What is solved together, under the world's keys: poses (p,) and voxels (v,), some of them held.

    ``links`` are stacks of rows between two poses, ``seen`` rows of voxels seen from a pose (`WorldModel.stack`).
    """

    pose_keys: NDArray[np.int64]
    poses: Array
    free_poses: NDArray[np.bool_]
    voxel_keys: NDArray[np.int64]
    voxels: Array
    free_voxels: NDArray[np.bool_]
    links: Sequence[Factor]
    seen: Factor


@dataclass(frozen=True)
class WindowSolution:
    """Solved ``poses`` (p, 7) and ``voxels`` (v, 3), in the window's order; which voxels were free."""

    poses: Array
    voxels: Array
    free_voxels: NDArray[np.bool_]
    result: Result
    cost: float
    iterations: int


def solve(
    window: Window, theta: Theta, axes: Sequence[int], max_iterations: int, tolerance: float, damping: float = 1e-6
) -> WindowSolution:
    """Minimise the window's cost; poses move along ``axes``.

    Both key arrays are sorted.  Raises no error for an answer that is not good: see ``result``.
    """
    links = [_rows(stack, stack.host_form(theta), window.pose_keys, window.pose_keys) for stack in window.links]
    answer: Answer = solve_window(
        plain(window.poses), plain(window.voxels), _joined(links),
        _rows(window.seen, window.seen.host_form(theta), window.pose_keys, window.voxel_keys),
        np.asarray(axes, np.int64), window.free_poses, window.free_voxels, max_iterations, tolerance, damping,
    )  # fmt: skip
    return WindowSolution(
        answer.poses, answer.voxels, window.free_voxels, Result(answer.code), answer.cost, answer.iterations
    )


def _rows(stack: Factor, form: HostForm | None, first: NDArray[np.int64], second: NDArray[np.int64]) -> Rows:
    """Rows with keys as positions in the sorted ``first`` and ``second``."""
    assert isinstance(form, RelativePoses | VoxelsSeen), "a window has links between poses, and voxels seen from them"
    keys = [np.asarray(getattr(stack, field.name)) for field in key_fields(type(stack))]
    measured, roots = form
    return Rows(
        np.stack([np.searchsorted(first, keys[0]), np.searchsorted(second, keys[1])], axis=1),
        plain(np.asarray(measured)),
        plain(np.asarray(roots)),
        plain(np.asarray(stack.weight)),
        np.ascontiguousarray(stack.kernel, np.int32),
        plain(np.asarray(stack.kernel_width)),
    )


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
