"""The rows of a growing pose graph: relative poses, their ends, and the chain of rows that each pose touches."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsg_ros.core.checks import pose_row, pose_rows
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.native import regrowth
from dsg_ros.core.native.multifrontal import RowHessians, Tree
from dsg_ros.core.tables import Column

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

ROOTS = 1024
"""Square roots of information matrices that are told from each other; a further one is kept for every row anew."""


class RelativeRows:
    """Rows of error ``e = log(measured^-1 first^-1 second)``, along ``axes`` of each pose.

    By row: ``ends`` (r, 2) poses and ``keys`` (r, 2) their variables (-1: held), ``next_row`` in the chain of the
    elimination front that has it, ``next_incident`` (r, 2) in the chains of the two poses, and ``mark``, scratch.
    """

    def __init__(self, axes: Ints) -> None:
        self._axes = axes
        self._ends, self._keys = Column((2,), np.int64), Column((2,), np.int64)
        self._measured, self._root_of, self._roots = Column((7,)), Column((), np.int64), Column((6, 6))
        self._weights, self._kernels, self._widths = Column((), fill=1), Column((), np.int32), Column((), fill=1)
        self._slot, self._next_row = Column((), np.int64, fill=-1), Column((), np.int64, fill=-1)
        self._mark, self._next_incident = Column((), np.int64, fill=-1), Column((2,), np.int64, fill=-1)
        self._local = Column((2,), np.int64, fill=(0, len(axes)))
        self._same_root: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._ends)

    ends = property(lambda self: self._ends.view)
    keys = property(lambda self: self._keys.view)
    next_row = property(lambda self: self._next_row.view)
    next_incident = property(lambda self: self._next_incident.view)
    mark = property(lambda self: self._mark.view)

    def add(
        self, ends: Ints, keys: Ints, measured: ArrayLike, sqrt_info: ArrayLike, kernel: Kernel, kernel_width: float,
        incident: Ints,
    ) -> int:  # fmt: skip
        """Add rows between ``ends`` (n, 2); returns the number of the first.

        ``incident`` (by pose) has the first row of each pose's chain, and is brought up to date.  ValueError as
        `Incremental.add_relatives` says, and then nothing is added.
        """
        count, before = len(ends), len(self)
        relative = pose_row(measured)[None] if np.shape(measured) == (7,) else pose_rows(measured)
        if relative.shape != (count, 7):
            raise ValueError(f"measured: shape {relative.shape}, expected {(count, 7)}")
        if not 0 < kernel_width < math.inf:
            raise ValueError(f"kernel_width: not a positive number: {kernel_width}")
        roots = self._root_numbers(sqrt_info, count)
        self._ends.extend(ends)
        self._keys.extend(keys)
        self._measured.extend(relative)
        self._root_of.extend(roots)
        for column in (self._weights, self._kernels, self._widths, self._slot, self._next_row, self._mark, self._local):
            column.grow(count)
        if kernel is not Kernel.NONE:
            self._kernels.view[before:], self._widths.view[before:] = int(kernel), kernel_width
        self._next_incident.grow(count)
        regrowth.chain(ends, incident, self._next_incident.view, before)
        return before

    def linearised(self, tree: Tree, ids: Ints, poses: Array) -> RowHessians:
        """The rows of fronts, linearised at ``poses`` (p, 7)."""
        hessian, gradient = regrowth.linearised_below(
            tree, ids, poses, self._ends.view, self._measured.view, self._root_of.view, self._roots.view,
            self._weights.view, self._kernels.view, self._widths.view, self._axes, self._slot.view,
        )  # fmt: skip
        return RowHessians(self._keys.view, self._local.view, hessian, gradient, self._slot.view)

    def cost(self, poses: Array) -> float:
        """Of all rows, at ``poses`` (p, 7)."""
        cost: float = regrowth.cost_at(
            poses, self._ends.view, self._measured.view, self._root_of.view, self._roots.view, self._weights.view,
            self._kernels.view, self._widths.view,
        )  # fmt: skip
        return cost

    def _root_numbers(self, sqrt_info: ArrayLike, count: int) -> Ints:
        """Where the roots of ``count`` rows are kept: many have the same.  ValueError unless they are (6, 6) and
        finite.
        """
        roots = np.ascontiguousarray(sqrt_info, np.float64)
        roots = roots[None] if roots.ndim == 2 else roots
        if roots.shape not in {(1, 6, 6), (count, 6, 6)}:
            raise ValueError(f"sqrt_info: shape {np.shape(sqrt_info)}, expected (6, 6) or {(count, 6, 6)}")
        if not np.isfinite(roots).all():
            raise ValueError("sqrt_info: not finite")
        places = np.array([self._place_of(root) for root in roots], np.int64)
        return places if len(places) == count else np.repeat(places, count)

    def _place_of(self, root: Array) -> int:
        name = root.tobytes()
        if (place := self._same_root.get(name)) is not None:
            return place
        self._roots.extend(root[None])
        place = len(self._roots) - 1
        if len(self._same_root) < ROOTS:
            self._same_root[name] = place
        return place
