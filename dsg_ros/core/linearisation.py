"""The rows of a problem at one theta, linearised on the host: what the sparse solver works on.

Rows whose type has a `Factor.host_form` are linearised by compiled loops, a few microseconds a row; all others by JAX,
in chunks.  Variables are numbered through: the poses that may move, then the voxels that may.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.chunks import Chunks
from dsg_ros.core.factors import base
from dsg_ros.core.native import manifold, plain
from dsg_ros.core.native import rows as native
from dsg_ros.core.native.tree import RowHessians
from dsg_ros.core.problem import Problem
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import Kind, State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Group(Protocol):
    """Rows of one kind.  ``keys`` (n, k) are positions in the state, of the kinds ``kinds``; ``places`` (n,) where the
    rows stand in the stack of their type, ``cls``.
    """

    cls: type[base.Factor]
    keys: Ints
    kinds: tuple[Kind, ...]
    places: Ints

    def linearise(self, poses: Floats, voxels: Floats, axes: Ints, hessian: Floats, gradient: Floats) -> float:
        """Fill Hessians (n, d, d) and gradients (n, d) over the rows' free directions; returns the cost."""


class Values(NamedTuple):
    """A state's ``poses`` (P, 7) and ``voxels`` (V, 3) in NumPy: a step makes new ones in a hundredth of the time that
    it takes to make a `State`.
    """

    poses: Floats
    voxels: Floats


class Edges(NamedTuple):
    """Relative poses among the rows: ``row`` (n,) which rows they are, ``ends`` (n, 2) positions in the state,
    ``numbers`` (n, 2) variables (-1: held), ``measured`` (n, 7) and ``sqrt_info`` (n, 6, 6).
    """

    row: Ints
    ends: Ints
    numbers: Ints
    measured: Floats
    sqrt_info: Floats

    def chosen(self, which: Ints) -> Edges:
        """Some of them."""
        ends, numbers = self.ends[which], self.numbers[which]
        return Edges(self.row[which], ends, numbers, self.measured[which], self.sqrt_info[which])


class CompiledGroup:
    """Rows in one of the forms of `native`, made of ``stack``; ``chosen`` are those that take part, ``costs`` (n,)
    theirs.
    """

    def __init__(self, stack: base.Factor, keys: Ints, form: base.HostForm, places: Ints) -> None:
        self.stack, self.cls, self.kinds = stack, type(stack), base.kinds(type(stack))
        self.keys, self.form, self.places = keys, form, places
        self._data: list[Floats] = [plain(np.asarray(part, float)) for part in form]
        self.weights = plain(np.asarray(stack.weight, float))
        self.kernels = np.ascontiguousarray(stack.kernel, np.int32)
        self.widths = plain(np.asarray(stack.kernel_width, float))
        self.chosen = np.arange(len(keys))
        self.costs = np.zeros(len(keys))

    @property
    def told(self) -> tuple[Floats, Floats, Floats, NDArray[np.int32], Floats]:
        """What compiled loops are told of the rows: the form's two arrays, weights, kernels and their widths."""
        measured, roots = self._data
        return measured, roots, self.weights, self.kernels, self.widths

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """`HostRows.doubtful` of this group."""
        return np.asarray(self.kernels == base.Kernel.GEMAN_MCCLURE)

    def weighted(self, weights: Floats) -> CompiledGroup:
        """`HostRows.weighted` of this group."""
        out = copy.copy(self)
        out.weights = self.weights * weights
        out.kernels = np.where(self.doubtful, base.Kernel.NONE, self.kernels).astype(np.int32)
        out.chosen = np.flatnonzero(weights > 0)
        return out

    def linearise(self, poses: Floats, voxels: Floats, axes: Ints, hessian: Floats, gradient: Floats) -> float:
        told = self.told
        out = (self.chosen, hessian, gradient, self.costs)
        if isinstance(self.form, base.RelativePoses):
            native.relative_poses(poses, self.keys, *told, axes, *out)
        elif isinstance(self.form, base.PosesKnown):
            native.pose_priors(poses, self.keys, *told, axes, *out)
        elif isinstance(self.form, base.VoxelsSeen):
            native.voxels_from_poses(poses, voxels, self.keys, *told, axes, *out)
        else:
            native.voxel_priors(voxels, self.keys, *told, *out)
        return float(self.costs[self.chosen].sum())


class _Chunked:
    """Rows that only JAX can linearise."""

    def __init__(self, problem: Problem, factor: base.Factor, theta: Theta, places: Ints) -> None:
        self._chunks = Chunks(dataclasses.replace(problem, factors=(factor,)))
        (rows,) = self._chunks.rows
        self.cls, self.kinds, self.keys, self.places = rows.cls, base.kinds(rows.cls), rows.keys, places
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
        along = free.any(axis=0)
        self.axes = np.flatnonzero(along) if along.any() else np.arange(6)
        if not np.array_equal(free, self.moving[:, None] & along):
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
        self._groups = groups_of(problem, theta)
        self._source: tuple[Any, Theta] | None = problem.factors, theta
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
        return [group for group, _ in self._compiled()]

    def groups_for(self, problem: Problem, theta: Theta) -> list[Group]:
        """`groups_of`: those of these rows, if they were made of the same stacks at the same theta."""
        same = self._source is not None and self._source[0] is problem.factors and self._source[1] is theta
        return self._groups if same else groups_of(problem, theta)

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """(R,) which rows are declared with a Geman-McClure kernel, the pull of which vanishes for large errors."""
        return self._by_row(lambda group: group.doubtful, bool)

    @property
    def widths(self) -> Floats:
        """(R,) the widths of the rows' kernels."""
        return self._by_row(lambda group: group.widths, float)

    @property
    def weights(self) -> Floats:
        """(R,) the rows' weights."""
        return self._by_row(lambda group: group.weights, float)

    @property
    def squared(self) -> Floats:
        """(R,) squared whitened errors where rows were last linearised, of those that took part and have no kernel."""
        return self._by_row(lambda group: 2 * group.costs / np.where(group.weights > 0, group.weights, np.inf), float)

    @property
    def relative(self) -> Edges:
        """The relative poses among the rows that take part."""
        none = np.zeros(0, np.int64)
        parts: list[Edges] = []
        for group, part in self._compiled():
            if isinstance(group.form, base.RelativePoses):
                row, numbers = np.arange(part.start, part.stop), self.pose_number[group.keys]
                rows = Edges(row, group.keys, numbers, group.form.measured, group.form.sqrt_info)
                # Of a large graph these are the most memory there is: not copied where all take part.
                parts.append(rows if len(group.chosen) == len(row) else rows.chosen(group.chosen))
        if not parts:
            return Edges(none, none.reshape(0, 2), none.reshape(0, 2), np.zeros((0, 7)), np.zeros((0, 6, 6)))
        return parts[0] if len(parts) == 1 else Edges(*map(np.concatenate, zip(*parts, strict=True)))

    def weighted(self, weights: Floats) -> HostRows:
        """These rows with ``weights`` (R,) times their own, those of weight 0 left out; doubtful ones without their
        kernel.

        Shares this object's memory: what `linearise` returned, and `squared`, hold until either linearises again.
        ValueError for rows that JAX linearises, unless their weight is 1.
        """
        out, groups = copy.copy(self), list[Group]()
        for group, part in zip(self._groups, self._parts, strict=True):
            if isinstance(group, CompiledGroup):
                groups.append(group.weighted(weights[part]))
            elif (weights[part] == 1).all():
                groups.append(group)
            else:
                raise ValueError(f"{group.cls.__name__}: rows without a compiled form have no other weights")
        out._groups, out._source = groups, None
        out.keys = np.where(weights[:, None] > 0, self.keys, -1)
        return out

    def by_stack(self, chosen: NDArray[np.bool_]) -> dict[type[base.Factor], Ints]:
        """Of the rows ``chosen`` (R,), where they stand in the stacks of their types."""
        pairs = zip(self._groups, self._parts, strict=True)
        return {group.cls: group.places[chosen[part]] for group, part in pairs if chosen[part].any()}

    def _compiled(self) -> Iterator[tuple[CompiledGroup, slice]]:
        for group, part in zip(self._groups, self._parts, strict=True):
            if isinstance(group, CompiledGroup):
                yield group, part

    def _by_row(self, of: Callable[[CompiledGroup], NDArray[Any]], dtype: type) -> NDArray[Any]:
        """A number a row; 0 for those that JAX linearises."""
        out: NDArray[Any] = np.zeros(len(self.keys), dtype)
        for group, part in self._compiled():
            out[part] = of(group)
        return out

    @property
    def dof(self) -> int:
        """Dimension of the state's tangent."""
        return 6 * len(self.moving) + 3 * len(self.free_voxels)

    @property
    def count(self) -> int:
        """Variables that may move."""
        return len(self.dims)

    def linearise(self, state: State | Values) -> tuple[float, RowHessians]:
        """Cost at ``state`` (NumPy), and the rows there; these numbers hold until the next call."""
        poses, voxels = plain(np.asarray(state.poses)), plain(np.asarray(state.voxels))
        cost = 0.0
        for group, part in zip(self._groups, self._parts, strict=True):
            cost += group.linearise(poses, voxels, self.axes, self.hessian[part], self.gradient[part])
        return cost, RowHessians(self.keys, self.local, self.hessian, self.gradient)

    def moved(self, state: State | Values, step: Floats) -> Values:
        """``state`` moved by ``step`` (N,) over the free scalars."""
        poses = np.empty(np.shape(state.poses))
        manifold.retract(plain(np.asarray(state.poses)), self.axes, step, self.pose_offset, poses)
        voxels = np.array(state.voxels)
        if count := int(self.free_voxels.sum()):
            voxels[self.free_voxels] += step[-3 * count :].reshape(-1, 3)
        return Values(poses, voxels)


def used_rows(factor: base.Factor) -> tuple[base.Factor, Ints, Ints] | None:
    """The rows of a stack that have weight, as NumPy arrays; their ``keys`` (n, k) and their places in it (n,).

    None where no row has.
    """
    weight = np.asarray(factor.weight)
    used = np.flatnonzero(weight > 0)
    if not len(used):
        return None
    cls, chosen = type(factor), slice(None) if len(used) == len(weight) else used
    columns = {f.name: np.asarray(getattr(factor, f.name))[chosen] for f in base.key_fields(cls)}
    keys = np.stack(list(columns.values()), axis=1).astype(np.int64)
    columns |= {name: np.asarray(getattr(factor, name))[chosen] for name in base.data_fields(cls)}
    return cls.of(columns), keys, used


def groups_of(problem: Problem, theta: Theta) -> list[Group]:
    """The rows with weight at ``theta``, a group for each stack that has any."""
    groups: list[Group] = []
    for factor in problem.factors:
        rows = used_rows(factor)
        if rows is None:
            continue
        stack, keys, used = rows
        form = stack.host_form(theta)
        if form is None:
            groups.append(_Chunked(problem, factor, theta, used))
        else:
            groups.append(CompiledGroup(stack, keys, form, used))
    return groups
