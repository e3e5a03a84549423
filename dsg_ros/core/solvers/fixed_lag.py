"""A fixed-lag smoother: the newest poses with the voxels seen from them, solved together as they come; the oldest pose
leaves into a prior on the others (`window.marginalise`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsg_ros.core.checks import pose_rows, voxel_rows
from dsg_ros.core.factors import Factor
from dsg_ros.core.factors.base import kinds
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers import window
from dsg_ros.core.solvers.held_rows import HeldRows, rows_at
from dsg_ros.core.solvers.lag_derivative import Dependence, LagDerivative, prior_slopes
from dsg_ros.core.solvers.window import Prior, System, WindowSolution
from dsg_ros.core.theta import Mask, Theta
from dsg_ros.core.variables import Kind

Array = NDArray[np.float64]
Keys = NDArray[np.int64]


class FixedLag:
    """Poses and voxels under keys that grow as they are added, and the rows between them.

    Poses move along ``axes``.  ``prior`` says what is known of them from before: without one the map is free to move
    as a whole, and a solve says so.  What a row is to the solver is made once and kept until theta is another object;
    so an update costs what it adds, and the solve.

    With numbers of theta that are ``learned``, what these did to rows that have left is kept in the prior's slopes, and
    `derivative` tells how the estimates change with them.
    """

    def __init__(self, axes: Sequence[int], prior: Prior | None = None, learned: Mask | None = None) -> None:
        self.axes = tuple(axes)
        self.prior = prior
        self._learned = learned
        self.pose_keys, self.poses = np.zeros(0, np.int64), np.zeros((0, 7))
        self.voxel_keys, self.voxels = np.zeros(0, np.int64), np.zeros((0, 3))
        self._links, self._seen = HeldRows(), HeldRows()

    def add_poses(self, keys: ArrayLike, values: ArrayLike) -> None:
        """Poses (n, 7) under ``keys`` (n,), base in map.

        ValueError unless the keys grow, and are larger than those there, and the poses are finite with unit
        quaternions; then nothing is added.
        """
        poses, grown = pose_rows(np.asarray(values, float).reshape(-1, 7)), _appended(self.pose_keys, keys)
        self.poses, self.pose_keys = _matched(self.poses, poses, grown), grown

    def add_voxels(self, keys: ArrayLike, values: ArrayLike) -> None:
        """Voxel centres (n, 3) in map [m], likewise."""
        centres, grown = voxel_rows(np.asarray(values, float).reshape(-1, 3)), _appended(self.voxel_keys, keys)
        self.voxels, self.voxel_keys = _matched(self.voxels, centres, grown), grown

    def add(self, stack: Factor) -> None:
        """Rows between two poses, or of voxels seen from poses (`WorldModel.stack`), all of them in the window when it
        is solved.
        """
        held = self._seen if Kind.VOXEL in kinds(type(stack)) else self._links
        held.add(stack)

    def solve(self, theta: Theta, max_iterations: int, tolerance: float, damping: float = 1e-9) -> WindowSolution:
        """Minimise the cost from the values here on, and take the answer over, unless it diverged or is not determined.

        Nearly undamped from the start: all but the newest pose and its voxels have been solved for before.

        KeyError for a row about a variable that is not in the window, TypeError for one of another form, ValueError for
        a prior about a pose that is not there.
        """
        found = window.solve(self._system(theta), self.axes, max_iterations, tolerance, damping)
        if found.result not in (Result.DIVERGED, Result.SINGULAR):
            self.poses, self.voxels = found.poses, found.voxels
        return found

    def drop_oldest(self, theta: Theta) -> Keys:
        """Marginalise the first pose; returns the keys of the voxels that leave with it, which must not be seen again
        under these keys.

        ValueError where there are not two poses: the last one has none to leave to what is known of it.  Otherwise as
        `solve`.
        """
        system = self._system(theta)
        prior, gone = window.marginalise(system, self.axes)
        links, seen, voxels = window.used_up(system)
        if self._learned is not None:
            dependence = Dependence(theta, self._learned, self.prior)
            prior = replace(prior, slopes=prior_slopes(dependence, self._anew(system, links, seen), self.axes))
        self.prior = prior
        poses, left = np.arange(len(self.pose_keys)) - 1, ~voxels
        self._links.keep(~links, (poses, poses))
        self._seen.keep(~seen, (poses, np.cumsum(left) - 1))
        self.pose_keys, self.poses = self.pose_keys[1:], self.poses[1:]
        self.voxel_keys, self.voxels = self.voxel_keys[left], self.voxels[left]
        return gone

    def derivative(self, theta: Theta) -> LagDerivative:
        """Derivatives of the estimates, which are the optimum after a `solve` that has converged, in the numbers of
        theta that are learned.

        ValueError where none are, and where the rows do not determine the window.
        """
        if self._learned is None:
            raise ValueError("no derivative: FixedLag was made without numbers of theta that are learned")
        system = self._system(theta)
        anew = self._anew(system, np.ones(len(system.links.keys), bool), np.ones(len(system.seen.keys), bool))
        return LagDerivative(Dependence(theta, self._learned, self.prior), system, self.axes, anew)

    def _anew(
        self, system: System, links: NDArray[np.bool_], seen: NDArray[np.bool_]
    ) -> Callable[[Theta, Prior | None], System]:
        """The system of some of its rows, by the theta and the prior that it would have."""
        poses, voxels = self.pose_keys, self.voxel_keys
        stacks = self._links.stacks_of(links), self._seen.stacks_of(seen)

        def made(theta: Theta, prior: Prior | None) -> System:
            rows = rows_at(stacks[0], theta, (poses, poses)), rows_at(stacks[1], theta, (poses, voxels))
            return system._replace(links=rows[0], seen=rows[1], prior=prior)

        return made

    def _system(self, theta: Theta) -> System:
        poses, voxels = self.pose_keys, self.voxel_keys
        return System(
            poses, self.poses, np.ones(len(poses), bool), voxels, self.voxels, np.ones(len(voxels), bool),
            self._links.at(theta, (poses, poses)), self._seen.at(theta, (poses, voxels)), self.prior,
        )  # fmt: skip


def _appended(keys: Keys, new: ArrayLike) -> Keys:
    out = np.concatenate([keys, np.atleast_1d(np.asarray(new, np.int64))])
    if (np.diff(out[max(len(keys) - 1, 0) :]) <= 0).any():
        raise ValueError("keys of a window must grow")
    return out


def _matched(values: Array, new: Array, keys: Keys) -> Array:
    """``values`` and ``new``; ValueError unless there are as many as ``keys``."""
    out = np.concatenate([values, new])
    if len(out) != len(keys):
        raise ValueError(f"{len(keys) - len(values)} keys for {len(new)} values")
    return out
