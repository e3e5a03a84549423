"""The solve of a window on the host: a few poses and the voxels seen from them, in one compiled call.

`marginalise` is what makes of windows, one after the other, a fixed-lag smoother: it takes the oldest pose out of a
window, with all that is known of it, and leaves a dense prior on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses as se3
from dsg_ros.core.factors import Factor
from dsg_ros.core.factors.base import HostForm, RelativePoses, VoxelsSeen, key_fields
from dsg_ros.core.native import plain
from dsg_ros.core.native.window import Answer, Rows, Summary, condense, solve_window
from dsg_ros.core.solution import Result
from dsg_ros.core.theta import Theta

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """What is known of poses from rows that are used up: ``0.5 d^T information d + gradient^T d + constant``.

    ``d`` (n d,) are the tangents ``log(at^-1 pose)`` along the axes; ``pose_keys`` (n,) are sorted.  ``at`` (n, 7) are
    the first estimates: where each pose was linearised when rows of it were first used up.  All Jacobians of these
    poses are taken there from then on.  Taken at newer estimates, as those of other rows, they would contradict those
    in the prior, and the sum of both would hold what no row has seen: where the map lies, and how it is turned.
    """

    pose_keys: NDArray[np.int64]
    at: Array
    information: Array
    gradient: Array
    constant: float = 0.0

    @staticmethod
    def of_pose(key: int, pose: Array, sigma: float, axes: Sequence[int]) -> Prior:
        """A pose (7,) known to ``sigma`` [m, rad] along the axes: a gauge to begin with."""
        d = len(axes)
        return Prior(np.array([key]), np.asarray(pose)[None], np.eye(d) / sigma**2, np.zeros(d))

    def carried(self, motion: Array) -> Prior:
        """The same after all its poses moved by ``motion`` (7,) in the map, as after a closed loop."""
        return replace(self, at=se3.compose(motion, self.at))


@dataclass(frozen=True)
class Window:
    """What is solved together, under the world's keys: poses (p,) and voxels (v,), some of them held.

    ``links`` are stacks of rows between two poses, ``seen`` rows of voxels seen from a pose (`WorldModel.stack`).
    ``prior`` is about some of the poses.
    """

    pose_keys: NDArray[np.int64]
    poses: Array
    free_poses: NDArray[np.bool_]
    voxel_keys: NDArray[np.int64]
    voxels: Array
    free_voxels: NDArray[np.bool_]
    links: Sequence[Factor]
    seen: Factor
    prior: Prior | None = None
    _made: list[tuple[Theta, list[Rows], Rows]] = field(default_factory=list, repr=False, compare=False)

    def rows(self, theta: Theta) -> tuple[list[Rows], Rows]:
        """Links by stack, and sightings, at ``theta``; made once, also for windows that differ in values only."""
        if not self._made or self._made[0][0] is not theta:
            links = [_rows(stack, stack.host_form(theta), self.pose_keys, self.pose_keys) for stack in self.links]
            seen = _rows(self.seen, self.seen.host_form(theta), self.pose_keys, self.voxel_keys)
            self._made[:] = [(theta, links, seen)]
        return self._made[0][1:]


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
    links, seen = window.rows(theta)
    answer: Answer = solve_window(
        plain(window.poses), plain(window.voxels), _joined(links), seen, np.asarray(axes, np.int64),
        window.free_poses, window.free_voxels, _summary(window.prior, window.pose_keys, len(axes)), max_iterations,
        tolerance, damping,
    )  # fmt: skip
    return WindowSolution(
        answer.poses, answer.voxels, window.free_voxels, Result(answer.code), answer.cost, answer.iterations
    )


def marginalise(window: Window, theta: Theta, axes: Sequence[int]) -> tuple[Prior, NDArray[np.int64]]:
    """Take the first pose out, with every voxel that it sees and all their rows; returns the prior that stays of it
    and the keys of these voxels.

    Their rows, those of other poses too, and the links of the first pose are used up: they must not count again, and a
    voxel that is seen again later is a new variable.  Exact at the point of linearisation: the Schur complement
    (Sibley et al., "Sliding window filter", 2010).  Voxels that were held count as known to be where they are.
    """
    links, seen = window.rows(theta)
    gone = np.unique(seen.keys[seen.keys[:, 0] == 0, 1])
    number = np.full(len(window.voxel_keys), -1)
    number[gone] = np.arange(len(gone))
    used = _chosen(seen, number[seen.keys[:, 1]] >= 0)
    used.keys[:, 1] = number[used.keys[:, 1]]
    of_first = [_chosen(rows, (rows.keys == 0).any(axis=1)) for rows in links]
    summary: Summary = condense(
        plain(window.poses), plain(window.voxels[gone]), window.free_voxels[gone], _joined(of_first), used,
        np.asarray(axes, np.int64), _summary(window.prior, window.pose_keys, len(axes)),
    )  # fmt: skip
    return _without_first(window.pose_keys, summary, len(axes)), window.voxel_keys[gone]


def _without_first(keys: NDArray[np.int64], summary: Summary, d: int) -> Prior:
    """The summary with its first pose eliminated, of the poses that it is about."""
    information, gradient = summary.information, summary.gradient
    own, cross = information[:d, :d], information[d:, :d]
    # Directions of the pose that no row resists pass nothing on.
    inverse = np.linalg.pinv(own, rcond=1e-12, hermitian=True)
    gain = cross @ inverse
    left = information[d:, d:] - gain @ cross.T
    kept = 1 + np.nonzero(summary.known[1:])[0]
    numbers = (d * (kept[:, None] - 1) + np.arange(d)).ravel()
    return Prior(
        keys[kept],
        summary.at[kept],
        0.5 * (left + left.T)[np.ix_(numbers, numbers)],
        (gradient[d:] - gain @ gradient[:d])[numbers],
        float(summary.constant - 0.5 * gradient[:d] @ inverse @ gradient[:d]),
    )


def _summary(prior: Prior | None, keys: NDArray[np.int64], d: int) -> Summary:
    """The prior in the numbering of the window's poses."""
    count = len(keys)
    at, known = np.tile(se3.IDENTITY, (count, 1)), np.zeros(count, bool)
    information, gradient, constant = np.zeros((count * d, count * d)), np.zeros(count * d), 0.0
    if prior is not None:
        place = np.searchsorted(keys, prior.pose_keys)
        assert np.array_equal(keys[place], prior.pose_keys), "a prior is about poses of the window"
        numbers = (d * place[:, None] + np.arange(d)).ravel()
        at[place], known[place], constant = prior.at, True, prior.constant
        information[np.ix_(numbers, numbers)], gradient[numbers] = prior.information, prior.gradient
    return Summary(at, known, information, gradient, constant)


def _chosen(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    columns: list[NDArray[Any]] = [column[chosen] for column in rows]
    return Rows(*columns)


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
