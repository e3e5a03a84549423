"""Stacks of factors as the rows that a window is solved with: made at a theta, numbered, joined and chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.factors import Factor
from dsg_ros.core.factors.base import RelativePoses, VoxelsSeen, key_fields
from dsg_ros.core.native import plain
from dsg_ros.core.native.window_rows import Rows
from dsg_ros.core.theta import Theta


def chosen(rows: Rows, which: NDArray[np.int64]) -> Rows:
    """Some of the rows, by their places."""
    columns: list[NDArray[Any]] = [column.take(which, axis=0) for column in rows]
    return Rows(*columns)


def joined(parts: Sequence[Rows]) -> Rows:
    """One after the other."""
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def rows_of(stack: Factor, theta: Theta) -> Rows:
    """A stack at ``theta``, under the world's keys.

    TypeError for a type whose rows are neither between poses nor of voxels seen from them.
    """
    form = stack.host_form(theta)
    if not isinstance(form, RelativePoses | VoxelsSeen):
        name = type(stack).__name__
        raise TypeError(f"{name}: a window takes rows between two poses, and of voxels seen from poses")
    keys = [np.asarray(getattr(stack, field.name), np.int64) for field in key_fields(type(stack))]
    measured, roots = form
    return Rows(
        np.stack(keys, axis=1),
        plain(np.asarray(measured)),
        plain(np.asarray(roots)),
        plain(np.asarray(stack.weight)),
        np.ascontiguousarray(stack.kernel, np.int32),
        plain(np.asarray(stack.kernel_width)),
    )


def numbered(rows: Rows, first: NDArray[np.int64], second: NDArray[np.int64]) -> Rows:
    """Rows with keys as places in the sorted ``first`` and ``second``.  KeyError for a key that is not among them."""
    columns = []
    for keys, known in zip(rows.keys.T, (first, second), strict=True):
        place = np.searchsorted(known, keys)
        if len(keys) and not (len(known) and np.array_equal(known[np.minimum(place, len(known) - 1)], keys)):
            missing = np.setdiff1d(keys, known)
            raise KeyError(f"a row is about the variable {missing[0]}, which is not in the window")
        columns.append(place)
    return rows._replace(keys=np.stack(columns, axis=1))
