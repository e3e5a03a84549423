"""Sparse Cholesky on the host, over any structure: multifrontal, in compiled loops on BLAS (`dsg_ros.core.native`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.linearisation import HostRows
from dsg_ros.core.native import covariances, marginals, multifrontal, plan, row_sums, substitution
from dsg_ros.core.native.tree import RowHessians, Tree
from dsg_ros.core.solvers.linear import SMALLEST_PIVOT

Array = NDArray[np.float64]


REFINED = 1e-3
"""Refinement ends with a correction that is this share of the answer; what is left is a fraction of that, and far below
what Gauss-Newton's Hessian misses of the exact one.
"""
REFINEMENTS = 6
"""More would cost what factorising does."""
CHEAP = 6
"""Columns that are refined before the matrix itself is factorised: by then what they cost more would have paid for it.
"""


class SingularError(ValueError):
    """The matrix is not positive definite: ``variable``, by its number among those that may move, is not determined.

    Solves answer with a code.  What raises is a `SparseFactor` that turns out so when it is first asked for something.
    """

    def __init__(self, variable: int) -> None:
        super().__init__(f"the normal equations are singular: they do not determine variable {variable}")
        self.variable = variable


class SparseCholesky:
    """Keeps ordering, fronts and their memory while the structure of the graph stays the same.  Not for two threads at
    once.
    """

    def __init__(self) -> None:
        self.analyses = 0
        self._structure: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        self._tree: Tree | None = None
        self._current: SparseFactor | None = None

    def tree(self, rows: HostRows) -> Tree:
        """The elimination tree of these rows: the kept one where it fits."""
        same = self._structure is not None and all(
            a is b or np.array_equal(a, b) for a, b in zip(self._structure, (rows.keys, rows.dims), strict=True)
        )
        if self._tree is None or not same:
            self._structure = rows.keys, rows.dims
            usual = int(rows.dims.max(initial=1))
            self._tree = plan.tree_of(plan.analyse(rows.keys, rows.count, usual), rows.keys, rows.dims)
            self._current = None
            self.analyses += 1
        return self._tree

    def factorise(self, rows: HostRows, linearised: RowHessians, damping: Array) -> SparseFactor:
        """Factorise the rows' normal equations plus ``damping`` (N,) on the diagonal; raises SingularError."""
        factor = SparseFactor(self, rows, linearised, damping)
        self.load(factor)
        return factor

    def forget(self) -> None:
        """Keep nothing more: a factor and its owner know each other, and would stay until Python looks for such pairs.
        Factors that are still there work on, on a tree made anew.
        """
        self._structure = self._tree = self._current = None

    @property
    def current(self) -> SparseFactor | None:
        """The factor whose numbers the tree has."""
        return self._current

    def load(self, factor: SparseFactor) -> Tree:
        """The tree holding this factor's numbers: factorised again if another solve has used it since."""
        tree = self.tree(factor.rows)
        if self._current is not factor:
            self._current = None
            order, place = np.arange(len(tree.panel)), np.zeros(len(tree.dims), np.int64)
            _, bad = multifrontal.factorise(
                tree, factor.linearised, order, factor.damping, factor.forward, place, SMALLEST_PIVOT
            )
            if bad >= 0:
                raise SingularError(int(bad))
            self._current = factor
        return tree


class SparseFactor:
    """A factorisation over the free numbers, computed when first asked for (SingularError where there is none); `solve`
    speaks the whole tangent.

    ``near`` is a factor of nearly the same numbers.  If the owner still holds those, the first `solve` refines what
    they give instead of factorising: on a graph of thousands of poses that takes a third of the time.  Further ones are
    quickest with a factor of their own.
    """

    def __init__(
        self,
        owner: SparseCholesky,
        rows: HostRows,
        linearised: RowHessians,
        damping: Array,
        near: SparseFactor | None = None,
    ) -> None:
        self.rows, self.linearised, self.damping = rows, linearised, damping
        self.forward = np.zeros(len(rows.free))
        self._owner, self._near, self._cheap = owner, near, CHEAP

    @property
    def scale(self) -> Array:
        """(D,) by which the matrix has a unit diagonal from both sides; zero where held."""
        out = np.zeros(self.rows.dof)
        out[self.rows.free] = 1.0 / np.sqrt(diagonal_of(self.rows, self.linearised, self._owner.tree(self.rows).offset))
        return out

    def step(self) -> Array:
        """The step (N,) that the rows' gradient asks for: ``-H^-1 g`` over the free numbers."""
        tree = self._owner.load(self)
        out = np.zeros(len(self.rows.free))
        substitution.substitute_back(tree, np.arange(len(tree.panel)), self.forward, out)
        return out

    def solve(self, right: Any) -> Array:
        """``H^-1 right`` for (D,) or (D, K); zero where held."""
        right = np.asarray(right, float)
        out = np.zeros(right.shape)
        free = self.rows.free
        if len(free):
            columns = np.ascontiguousarray(right[free].reshape(len(free), -1).T)
            found = self._refined(columns) if len(columns) <= self._cheap else None
            self._cheap -= len(columns)
            if found is None:
                self._near = None
                tree, found = self._owner.load(self), columns
                substitution.solve(tree, np.arange(len(tree.panel)), found)
            out[free] = found.T.reshape(out[free].shape)
        return out

    def precondition(self, right: Any) -> Array:
        """Nearly ``H^-1 right`` (D,): by the numbers at hand, where they are near, and otherwise `solve`."""
        tree = self._near_tree()
        if tree is None:
            return self.solve(right)
        out, columns = np.zeros(len(right)), np.asarray(right, float)[None, self.rows.free]
        substitution.solve(tree, np.arange(len(tree.panel)), columns)
        out[self.rows.free] = columns[0]
        return out

    def _near_tree(self) -> Tree | None:
        """The tree, where it has the numbers of the factor that is near."""
        tree = self._owner.tree(self.rows)  # forgets what it holds where the structure is another
        return None if self._near is None or self._owner.current is not self._near else tree

    def _refined(self, columns: Array) -> Array | None:
        """``H^-1 columns`` (k, N) by iterative refinement (Golub and Van Loan, "Matrix computations", section 3.5.3)
        with the factor that is near; None where there is none, or it is not near enough.
        """
        tree = self._near_tree()
        if tree is None:
            return None
        order, found, image = np.arange(len(tree.panel)), columns.copy(), np.empty(columns.shape[1])
        substitution.solve(tree, order, found)
        moved = np.inf
        for _ in range(REFINEMENTS):
            step = columns.copy()
            for right, vector in zip(step, found, strict=True):
                row_sums.product(self.linearised, tree.offset, self.rows.dims, vector, image)
                right -= image + self.damping * vector
            substitution.solve(tree, order, step)
            found += step
            before, largest = moved, np.abs(found).max(axis=1)
            moved = float((np.abs(step).max(axis=1) / np.where(largest > 0, largest, 1.0)).max(initial=0.0))
            if moved <= REFINED:
                return found
            if not moved < before:
                break
        return None

    def pose_covariance(self, position: int) -> Array:
        """Marginal covariance (6, 6) of the pose at ``position`` of the state; zero where it is held."""
        out = np.zeros((6, 6))
        if self.rows.moving[position]:
            axes = self.rows.axes
            out[np.ix_(axes, axes)] = self._marginal(int(self.rows.pose_number[position]))
        return out

    def voxel_covariance(self, position: int) -> Array:
        """Marginal covariance (3, 3) of the voxel at ``position`` of the state, map frame; zero where it is held."""
        if not self.rows.free_voxels[position]:
            return np.zeros((3, 3))
        return self._marginal(int(self.rows.voxel_number[position]))

    def sampled(self, noise: Array) -> Array:
        """``L^-T noise`` (N, k): vectors over the free numbers, of covariance H^-1 if those of ``noise`` are white."""
        out = np.empty(noise.shape)
        covariances.sample(self._owner.load(self), noise, out)
        return out

    def row_covariances(self) -> Array:
        """Covariance (R, d, d) of the variables of each row, laid out like its Hessian; zero where held."""
        tree = self._owner.load(self)
        out = np.zeros(self.linearised.hessian.shape)
        covariances.row_covariances(tree, self.linearised.keys, self.linearised.local, out)
        return out

    def _marginal(self, variable: int) -> Array:
        """By the selected inverse along the variable's path to the root."""
        tree = self._owner.load(self)
        size = int(tree.dims[variable])
        out = np.empty((size, size))
        marginals.marginal(tree, variable, out)
        return 0.5 * (out + out.T)


def diagonal_of(rows: HostRows, linearised: RowHessians, offset: NDArray[np.int64]) -> Array:
    """The diagonal (N,) of the rows' Hessian, 1 where it is 0."""
    out = np.empty(len(rows.free))
    row_sums.diagonal(linearised, offset, rows.dims, out)
    return np.where(out > 0, out, 1.0)
