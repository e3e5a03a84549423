"""The solve of a window on the host: a few poses and the voxels seen from them, in one compiled call.

`marginalise` is what makes of windows, one after the other, a fixed-lag smoother: it takes the oldest pose out of a
window, with all that is known of it, and leaves a dense prior on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from dsg_ros import poses as se3
from dsg_ros.core.native import plain
from dsg_ros.core.native.condense import Condensed, condense
from dsg_ros.core.native.schur import normal_equations
from dsg_ros.core.native.window import Answer, solve_window
from dsg_ros.core.native.window_rows import Normal, Rows, Summary, linearise
from dsg_ros.core.null_space import free_numbers
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers.window_stacks import chosen
from dsg_ros.core.sparse_matrices import assembled
from dsg_ros.core.variables import Kind

Array = NDArray[np.float64]

UNRESISTED = 1e-12
"""Eigenvalues of a pose's information, against the largest, that count as none.  Rounding leaves about 1e-15 of a
direction that no row resists, and its inverse would pass that on as information.  What is below and real is a
deviation a million times the best known one: to lose it loses nothing that the others could feel.
"""


class Slopes(NamedTuple):
    """How a prior about n numbers changes with K numbers of theta: ``information`` (K, n, n), ``gradient`` (K, n)."""

    information: Array
    gradient: Array


@dataclass(frozen=True)
class Prior:
    """What is known of poses from rows that are used up: ``0.5 d^T information d + gradient^T d + constant``.

    ``d`` (n d,) are the tangents ``log(at^-1 pose)`` along the axes; ``pose_keys`` (n,) are sorted.  ``at`` (n, 7) are
    the first estimates: where each pose was linearised when rows of it were first used up.  All Jacobians of these
    poses are taken there from then on.  Taken at newer estimates, as those of other rows, they would contradict those
    in the prior, and the sum of both would hold what no row has seen: where the map lies, and how it is turned.
    ``slopes`` are in the numbers of theta that somebody learns, None where none is, or where it does not depend on any.
    """

    pose_keys: NDArray[np.int64]
    at: Array
    information: Array
    gradient: Array
    constant: float = 0.0
    slopes: Slopes | None = None

    @staticmethod
    def of_pose(key: int, pose: Array, sigma: float, axes: Sequence[int]) -> Prior:
        """A pose (7,) known to ``sigma`` [m, rad] along the axes: a gauge to begin with."""
        d = len(axes)
        return Prior(np.array([key]), np.asarray(pose)[None], np.eye(d) / sigma**2, np.zeros(d))

    def carried(self, motion: Array) -> Prior:
        """The same after all its poses moved by ``motion`` (7,) in the map, as after a closed loop."""
        return replace(self, at=se3.compose(motion, self.at))

    def along(self, number: int, step: float) -> Prior:
        """What it would be with a number of theta, counted as its slopes are, a ``step`` larger."""
        if self.slopes is None:
            return self
        information = self.information + step * self.slopes.information[number]
        gradient = self.gradient + step * self.slopes.gradient[number]
        return replace(self, information=information, gradient=gradient)


class System(NamedTuple):
    """What is solved together, at one theta: poses (p,) and voxels (v,) with their keys in the world (sorted), some of
    them held.

    ``links`` are rows between two poses, ``seen`` of voxels seen from a pose; their keys are places among the poses and
    voxels.  ``prior`` is about some of the poses.
    """

    pose_keys: NDArray[np.int64]
    poses: Array
    free_poses: NDArray[np.bool_]
    voxel_keys: NDArray[np.int64]
    voxels: Array
    free_voxels: NDArray[np.bool_]
    links: Rows
    seen: Rows
    prior: Prior | None


@dataclass(frozen=True)
class WindowSolution:
    """Solved ``poses`` (p, 7) and ``voxels`` (v, 3), in the window's order; which voxels were free.

    ``underconstrained`` names, where the result is SINGULAR, the variables that the rows do not determine.
    """

    poses: Array
    voxels: Array
    free_voxels: NDArray[np.bool_]
    result: Result
    cost: float
    iterations: int
    underconstrained: tuple[tuple[Kind, int], ...] = ()


def solve(
    system: System, axes: Sequence[int], max_iterations: int, tolerance: float, damping: float = 1e-6
) -> WindowSolution:
    """Minimise the cost; poses move along ``axes``.

    Raises no error for an answer that is not good: see ``result``.  ValueError for a prior about a pose that is not in
    the window.
    """
    answer: Answer = solve_window(
        plain(system.poses), plain(system.voxels), system.links, system.seen, np.asarray(axes, np.int64),
        system.free_poses, system.free_voxels, _summary(system.prior, system.pose_keys), max_iterations,
        tolerance, damping,
    )  # fmt: skip
    free = _free_variables(system, answer, axes) if answer.code == Result.SINGULAR else ()
    return WindowSolution(
        answer.poses, answer.voxels, system.free_voxels, Result(answer.code), answer.cost, answer.iterations, free
    )


def _free_variables(system: System, answer: Answer, axes: Sequence[int]) -> tuple[tuple[Kind, int], ...]:
    """What moves in the null space of the normal equations at the answer; a voxel without rows takes no part."""
    whole, numbers = hessian(system._replace(poses=answer.poses, voxels=answer.voxels), axes)
    free = np.append(free_numbers(whole), False)  # the last one for those that have no number
    of_poses = system.pose_keys[free[numbers.of_poses].any(axis=1)]
    of_voxels = system.voxel_keys[free[numbers.of_voxels].any(axis=1)]
    return (*((Kind.POSE, int(key)) for key in of_poses), *((Kind.VOXEL, int(key)) for key in of_voxels))


class Numbers(NamedTuple):
    """The places of a window's numbers among those that move: of its poses (p, d) and of its voxels (v, 3), -1 for what
    is held and for voxels without rows; and how many there are, poses' before voxels'.
    """

    of_poses: NDArray[np.int64]
    of_voxels: NDArray[np.int64]
    poses: int
    all: int


def hessian(system: System, axes: Sequence[int]) -> tuple[csc_array, Numbers]:
    """The Hessian of the normal equations at the system's values."""
    normal, numbers = _linearised(system, axes)
    own, blocks = (np.tril(half) + np.swapaxes(np.tril(half, -1), -1, -2) for half in (normal.own, normal.blocks))
    whole, (pose, voxel) = np.arange(numbers.poses)[None], system.seen.keys.T
    cross = assembled(normal.cross, numbers.of_poses[pose], numbers.of_voxels[voxel], numbers.all)
    diagonal = assembled(blocks, numbers.of_voxels, numbers.of_voxels, numbers.all)
    return csc_array(assembled(own[None], whole, whole, numbers.all) + diagonal + cross + cross.T), numbers


def gradient(system: System, axes: Sequence[int]) -> Array:
    """The gradient (`Numbers.all`,) of the normal equations at the system's values."""
    normal, numbers = _linearised(system, axes)
    moving = numbers.of_voxels[:, 0] >= 0
    return np.concatenate([normal.gradient, normal.pulls[moving].ravel()])


def _linearised(system: System, axes: Sequence[int]) -> tuple[Normal, Numbers]:
    d, poses = len(axes), np.flatnonzero(system.free_poses)
    voxels = np.unique(system.seen.keys[:, 1])
    voxels = voxels[system.free_voxels[voxels]]
    size = d * len(poses)
    of_poses = _places(len(system.poses), poses, d, 0)
    of_voxels = _places(len(system.voxels), voxels, 3, size)
    normal: Normal = normal_equations(len(poses), d, len(system.voxels), len(system.seen.keys))
    linearise(
        plain(system.poses), plain(system.voxels), np.ascontiguousarray(of_poses[:, 0]), system.free_voxels,
        system.links, system.seen, np.asarray(axes, np.int64), _summary(system.prior, system.pose_keys), normal,
    )  # fmt: skip
    return normal, Numbers(of_poses, of_voxels, size, size + 3 * len(voxels))


def _places(count: int, chosen: NDArray[np.int64], width: int, start: int) -> NDArray[np.int64]:
    """(count, width) numbers of the variables ``chosen``, from ``start`` on; -1 for the others."""
    out = np.full((count, width), -1)
    out[chosen] = start + np.arange(len(chosen) * width).reshape(-1, width)
    return out


def marginalise(system: System, axes: Sequence[int]) -> tuple[Prior, NDArray[np.int64]]:
    """Take the first pose out, with every voxel that it sees and all their rows; returns the prior that stays of it
    and the keys of these voxels.

    Their rows, those of other poses too, and the links of the first pose are used up: they must not count again
    (`used_up`), and a voxel that is seen again later is a new variable.  Exact at the point of linearisation: the Schur
    complement (Sibley et al., "Sliding window filter", 2010).  Voxels that were held count as known to be where they
    are.

    ValueError where there are not two poses: the last one has none to leave to what is known of it; and for a prior
    about a pose that is not in the window.
    """
    if len(system.pose_keys) < 2:
        raise ValueError(f"a window of {len(system.pose_keys)} poses has none to take out: two are needed, or more")
    links, seen, voxels = used_up(system)
    used, of_first = chosen(system.seen, np.flatnonzero(seen)), chosen(system.links, np.flatnonzero(links))
    gone, number = np.flatnonzero(voxels), np.cumsum(voxels) - 1
    used.keys[:, 1] = number[used.keys[:, 1]]
    condensed: Condensed = condense(
        plain(system.poses), plain(system.voxels[gone]), system.free_voxels[gone], of_first, used,
        np.asarray(axes, np.int64), _summary(system.prior, system.pose_keys),
    )  # fmt: skip
    return _without_first(system.pose_keys, condensed, len(axes)), system.voxel_keys[gone]


def used_up(system: System) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which links, sightings and voxels leave with the first pose."""
    (first, second), (pose, voxel) = system.links.keys.T, system.seen.keys.T
    leaves = np.zeros(len(system.voxels), bool)
    leaves[voxel[pose == 0]] = True
    return (first == 0) | (second == 0), leaves[voxel], leaves


def _without_first(keys: NDArray[np.int64], condensed: Condensed, d: int) -> Prior:
    """What is known with the first pose eliminated, of the poses that it is about."""
    information, gradient = condensed.information, condensed.gradient
    own, cross = information[:d, :d], information[d:, :d]
    # Directions of the pose that no row resists pass nothing on.
    values, vectors = np.linalg.eigh(own)
    resisted = values > UNRESISTED * values[-1]
    inverse = (vectors[:, resisted] / values[resisted]) @ vectors[:, resisted].T
    gain = cross @ inverse
    left = information[d:, d:] - gain @ cross.T
    kept = 1 + np.nonzero(condensed.known[1:])[0]
    numbers = (d * (kept[:, None] - 1) + np.arange(d)).ravel()
    return Prior(
        keys[kept],
        condensed.at[kept],
        0.5 * (left + left.T)[np.ix_(numbers, numbers)],
        (gradient[d:] - gain @ gradient[:d])[numbers],
        float(condensed.constant - 0.5 * gradient[:d] @ inverse @ gradient[:d]),
    )


def _summary(prior: Prior | None, keys: NDArray[np.int64]) -> Summary:
    """The prior in the numbering of the window's poses."""
    if prior is None:
        return Summary(np.zeros(0, np.int64), np.zeros((0, 7)), np.zeros((0, 0)), np.zeros(0), 0.0)
    place = np.searchsorted(keys, prior.pose_keys)
    missing = np.searchsorted(keys, prior.pose_keys, side="right") == place
    if missing.any():
        raise ValueError(f"the prior is about pose {prior.pose_keys[missing][0]}, which is not in the window")
    return Summary(place, plain(prior.at), plain(prior.information), plain(prior.gradient), prior.constant)
