"""The rows of a problem at one theta, linearised on the host: what sparse and incremental solvers work on.

Rows whose type has a `Factor.host_form` are linearised by compiled loops, a few microseconds a row; all others by JAX,
in chunks.  Variables are numbered through: the poses that may move, then the voxels that may.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.chunks import Chunks
from dsg_ros.core.factors import base
from dsg_ros.core.native import plain
from dsg_ros.core.native import rows as native
from dsg_ros.core.native.multifrontal import RowHessians
from dsg_ros.core.problem import Problem
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import Kind, State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Group(Protocol):
    """Rows of one kind.  ``keys`` (n, k) are positions in the state, of the kinds ``kinds``."""

    keys: Ints
    kinds: tuple[Kind, ...]

    def linearise(self, poses: Floats, voxels: Floats, axes: Ints, hessian: Floats, gradient: Floats) -> float:
        """Fill Hessians (n, d, d) and gradients (n, d) over the rows' free directions; returns the cost."""


class CompiledGroup:
    """Rows in one of the forms of `native`."""

    def __init__(self, cls: type[base.Factor], keys: Ints, columns: dict[str, Any], form: base.HostForm) -> None:
        self.kinds, self.keys, self.form = base.kinds(cls), keys, form
        self._data: list[Floats] = [plain(np.asarray(part, float)) for part in form]
        self._weights = plain(np.asarray(columns["weight"], float))
        self._kernels = np.ascontiguousarray(columns["kernel"], np.int32)
        self._widths = plain(np.asarray(columns["kernel_width"], float))
        self._all = np.arange(len(keys))
        self.costs = np.zeros(len(keys))

    def linearise(self, poses: Floats, voxels: Floats, axes: Ints, hessian: Floats, gradient: Floats) -> float:
        measured, roots = self._data
        told = (measured, roots, self._weights, self._kernels, self._widths)
        out = (self._all, hessian, gradient, self.costs)
        if isinstance(self.form, base.RelativePoses):
            native.relative_poses(poses, self.keys, *told, axes, *out)
        elif isinstance(self.form, base.PosesKnown):
            native.pose_priors(poses, self.keys, *told, axes, *out)
        elif isinstance(self.form, base.VoxelsSeen):
            native.voxels_from_poses(poses, voxels, self.keys, *told, axes, *out)
        else:
            native.voxel_priors(voxels, self.keys, *told, *out)
        return float(self.costs.sum())


class _Chunked:
    """Rows that only JAX can linearise."""

    def __init__(self, problem: Problem, factor: base.Factor, theta: Theta) -> None:
        self._chunks = Chunks(dataclasses.replace(problem, factors=(factor,)))
        (rows,) = self._chunks.rows
        self.kinds, self.keys = base.kinds(rows.cls), rows.keys
        self._theta = theta

    def linearise(self, poses: Floats, voxels: Floats, axes: Ints, hessian: Floats, gradient: Floats) -> float:
        state: Any = (poses, voxels)
        cost, hessians, gradients = self._chunks.row_linearise(self._theta, State(*state))
        columns, start = [], 0
        for kind in self.kinds:
            columns.append(start + (axes if kind is Kind.POSE else np.arange(3)))
            start += kind.dof
        used = np.concatenate(columns)
        hessian[:, : len(used), : len(used)] = hessians[:, used[:, None], used]
        gradient[:, : len(used)] = gradients[:, used]
        return cost


class HostRows:
    """All rows with weight of ``problem``, their theta given.

    ``axes`` are the directions in which free poses move: the same for all of them (ValueError otherwise).
    ``pose_number`` and ``voxel_number`` are variables by position in the state, -1 where held.  ``free``
    (N,) are the places in the state's tangent of the variables' scalars, in the variables' order; ``dims`` the
    variables' sizes, ``keys`` (R, k) the rows' variables, -1 where held.
    """

    def __init__(self, problem: Problem, theta: Theta) -> None:
        free = np.asarray(problem.free_poses)
        self.moving: NDArray[np.bool_] = np.any(free, axis=1)
        self.free_voxels = np.asarray(problem.free_voxels)
        self.axes = np.flatnonzero(free.any(axis=0)) if free.any() else np.arange(6)
        if not np.array_equal(free, self.moving[:, None] & np.isin(np.arange(6), self.axes)):
            raise ValueError("every free pose must be free in the same directions")
        poses, voxels = int(self.moving.sum()), int(self.free_voxels.sum())
        width = len(self.axes)
        self.dims = np.concatenate([np.full(poses, width), np.full(voxels, 3)]).astype(np.int64)
        self.pose_number = np.where(self.moving, np.cumsum(self.moving) - 1, -1)
        self.voxel_number = np.where(self.free_voxels, poses + np.cumsum(self.free_voxels) - 1, -1)
        places = np.flatnonzero(self.moving)[:, None] * 6 + self.axes
        border = len(self.moving) * 6
        voxel_places = border + np.flatnonzero(self.free_voxels)[:, None] * 3 + np.arange(3)
        self.free = np.concatenate([places.ravel(), voxel_places.ravel()]).astype(np.int64)
        # Where a pose's scalars begin in a step over the free ones.
        self.pose_offset = np.where(self.moving, self.pose_number * width, -1).astype(np.int64)
        self._groups = list(_groups(problem, theta))
        self._gather(width)

    def _gather(self, width: int) -> None:
        numbers = {Kind.POSE: self.pose_number, Kind.VOXEL: self.voxel_number}
        count = sum(len(group.keys) for group in self._groups)
        most = max((len(group.kinds) for group in self._groups), default=1)
        self.keys = np.full((count, most), -1, np.int64)
        self.local = np.zeros((count, most), np.int64)
        largest, start = 1, 0
        self._parts: list[slice] = []
        for group in self._groups:
            part = slice(start, start + len(group.keys))
            at = 0
            for i, kind in enumerate(group.kinds):
                self.keys[part, i] = numbers[kind][group.keys[:, i]]
                self.local[part, i] = at
                at += width if kind is Kind.POSE else 3
            largest, start = max(largest, at), part.stop
            self._parts.append(part)
        self.hessian, self.gradient = np.zeros((count, largest, largest)), np.zeros((count, largest))

    @property
    def compiled_groups(self) -> list[CompiledGroup]:
        """The groups whose rows are in a `base.HostForm`."""
        return [group for group in self._groups if isinstance(group, CompiledGroup)]

    @property
    def count(self) -> int:
        """Variables that may move."""
        return len(self.dims)

    def linearise(self, state: State) -> tuple[float, RowHessians]:
        """Cost at ``state`` (NumPy), and the rows there; these numbers hold until the next call."""
        poses, voxels = plain(np.asarray(state.poses)), plain(np.asarray(state.voxels))
        cost = 0.0
        for group, part in zip(self._groups, self._parts, strict=True):
            cost += group.linearise(poses, voxels, self.axes, self.hessian[part], self.gradient[part])
        return cost, RowHessians(self.keys, self.local, self.hessian, self.gradient)

    def moved(self, state: State, step: Floats) -> State:
        """``state`` moved by ``step`` (N,) over the free scalars."""
        poses = np.empty_like(state.poses)
        native.retract(plain(np.asarray(state.poses)), self.axes, step, self.pose_offset, poses)
        voxels = np.array(state.voxels)
        voxels[self.free_voxels] += step[len(step) - 3 * int(self.free_voxels.sum()) :].reshape(-1, 3)
        out: Any = (poses, voxels)
        return State(*out)


def _groups(problem: Problem, theta: Theta) -> list[Group]:
    groups: list[Group] = []
    for factor in problem.factors:
        used = np.flatnonzero(np.asarray(factor.weight) > 0)
        if not len(used):
            continue
        cls = type(factor)
        keys = np.stack([np.asarray(getattr(factor, f.name))[used] for f in base.key_fields(cls)], axis=1)
        columns: dict[str, Any] = {name: np.asarray(getattr(factor, name))[used] for name in base.data_fields(cls)}
        named: dict[str, Any] = {f.name: keys[:, i] for i, f in enumerate(base.key_fields(cls))}
        stack = cls(**named, **columns)
        form = stack.host_form(theta)
        if form is None:
            groups.append(_Chunked(problem, factor, theta))
        else:
            groups.append(CompiledGroup(cls, keys.astype(np.int64), columns, form))
    return groups
