"""The rows of a growing pose graph: relative poses between its poses, written by one compiled call."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array

from dsg_ros import poses as se3
from dsg_ros.core.checks import no_rotations, not_finite, pose_rows
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.native import growing_rows, plain
from dsg_ros.core.native import rows as kernels
from dsg_ros.core.native.growing import NEW_ROOT, Poses, new_row
from dsg_ros.core.sparse_matrices import assembled
from dsg_ros.core.tables import Columns

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


class RelativeRows:
    """Rows of error ``e = log(measured^-1 first^-1 second)``, as `growing.Rows` and `growing.Roots` have them, between
    poses that move along ``width`` axes.
    """

    def __init__(self, width: int) -> None:
        self.columns, self.roots = Columns(new_row(width)), Columns(NEW_ROOT)
        self._heads = np.full(growing_rows.ROOTS, -1, np.int64)

    def __len__(self) -> int:
        return len(self.columns)

    def add(
        self, poses: Columns[Poses], first: ArrayLike, second: ArrayLike, measured: ArrayLike, sqrt_info: ArrayLike,
        kernel: Kernel, kernel_width: float,
    ) -> int:  # fmt: skip
        """Add rows between ``poses``; returns the number of the first.  As `Incremental.add_relatives` says."""
        firsts, seconds = _numbers(first), _numbers(second)
        count, before = len(firsts), len(self)
        relative, root = _relative(measured, count), _roots(sqrt_info, count)
        if not firsts.shape == seconds.shape == (count,):
            raise ValueError(f"first and second: shapes {firsts.shape} and {seconds.shape}, expected (n,) twice")
        if not 0 < kernel_width < math.inf:
            raise ValueError(f"kernel_width: not a positive number: {kernel_width}")
        self.columns.reserve(before + count)
        self.roots.reserve(len(self.roots) + len(root))
        width = 1.0 if kernel is Kernel.NONE else float(kernel_width)
        fault, number = growing_rows.add_rows(
            poses.whole, len(poses), self.columns.whole, before, self.roots.whole, len(self.roots), self._heads,
            firsts, seconds, relative, root, int(kernel), width,
        )  # fmt: skip
        if fault != growing_rows.GOOD:
            raise _error(fault, number, relative)
        self.columns.grow(count)
        self.roots.grow(number - len(self.roots))
        return before

    def hessian(self, poses: Array, variables: int, axes: Ints) -> csc_array:
        """Normal equations (v d, v d) of all rows at ``poses`` (p, 7); v ``variables`` move along ``axes`` (d,)."""
        rows, count, d = self.columns.view, len(self), len(axes)
        blocks, gradient = np.empty((count, 2 * d, 2 * d)), np.empty((count, 2 * d))
        kernels.relative_poses(
            plain(poses), rows.ends, rows.measured, self.roots.whole.matrix[rows.root_of], np.ones(count),
            rows.kernel, rows.width, axes, np.arange(count), blocks, gradient, np.empty(count),
        )  # fmt: skip
        numbers = (rows.keys[:, :, None] * d + np.arange(d)).reshape(-1, 2 * d)
        return assembled(blocks, numbers, numbers, d * variables)

    def measurement_gradient(self, poses: Array, adjoint: Array, count: int) -> Array:
        """``sum_i adjoint_i^T d g_i / d z`` (r, 6) with g the cost's gradient in the tangents of ``poses`` (p, 7) and z
        the measured pose of each row, in its own tangent; ``adjoint`` is (p, 6).  Zero after the first ``count`` rows.

        The error of a row is that of its measured pose, as if that were estimated, to the relative one; so what couples
        the two in a row without a measurement is what is wanted, but for the second derivatives of the error, which
        Gauss-Newton leaves out.
        """
        rows, out = self.columns.view, np.zeros((len(self), 6))
        ends, chosen = rows.ends[:count], np.arange(count)
        relative = se3.between(poses[ends[:, 0]], poses[ends[:, 1]])
        blocks, gradient = np.empty((count, 12, 12)), np.empty((count, 12))
        kernels.relative_poses(
            np.concatenate([rows.measured[:count], relative]), np.stack([chosen, chosen + count], axis=1),
            np.tile(se3.IDENTITY, (count, 1)), self.roots.whole.matrix[rows.root_of[:count]], np.ones(count),
            rows.kernel, rows.width, np.arange(6), chosen, blocks, gradient, np.empty(count),
        )  # fmt: skip
        # How the relative pose moves with both ends.
        back, of_first = se3.inverse(relative), adjoint[ends[:, 0]]
        way, turn = (se3.rotate(back[:, 3:], part) for part in (of_first[:, :3], of_first[:, 3:]))
        moves = adjoint[ends[:, 1]] - np.concatenate([way + np.cross(back[:, :3], turn), turn], axis=1)
        out[:count] = np.einsum("rij,rj->ri", blocks[:, :6, 6:], moves)
        return out

    def cost(self, poses: Array) -> float:
        """Of all rows, at ``poses`` (p, 7)."""
        return float(growing_rows.cost_at(poses, self.columns.whole, len(self), self.roots.whole))


def _numbers(keys: ArrayLike) -> Ints:
    """Numbers of poses as a kernel takes them."""
    return np.array(keys, np.int64, ndmin=1, order="C")


def _relative(measured: ArrayLike, count: int) -> Array:
    """Relative poses (count, 7), of which one may come as (7,).  ValueError where the shape is another."""
    relative = plain(np.asarray(measured, float))
    if relative.shape == (7,):
        relative = relative[None]
    if relative.shape != (count, 7):
        pose_rows(relative)
        raise ValueError(f"measured: shape {relative.shape}, expected {(count, 7)}")
    return relative


def _roots(sqrt_info: ArrayLike, count: int) -> Array:
    """Square roots (count, 6, 6), or (1, 6, 6) for all.  ValueError where the shape is another."""
    root = plain(np.asarray(sqrt_info, float))
    if root.ndim == 2:
        root = root[None]
    if root.shape not in ((count, 6, 6), (1, 6, 6)):
        raise ValueError(f"sqrt_info: shape {np.shape(sqrt_info)}, expected (6, 6) or {(count, 6, 6)}")
    return root


def _error(fault: int, number: int, relative: Array) -> Exception:
    """What to raise for what `growing_rows.add_rows` found."""
    if fault == growing_rows.NO_POSE:
        return KeyError(f"no pose has the number {number}")
    if fault == growing_rows.NO_PAIR:
        return ValueError(f"a row from pose {number} to itself")
    if fault == growing_rows.NO_NUMBER:
        return not_finite(relative)
    if fault == growing_rows.NO_ROTATION:
        return no_rotations(relative)
    return ValueError("sqrt_info: not finite")
