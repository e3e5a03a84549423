"""Where each row's Hessian goes in the sparse lower triangle: worked out once a structure, by blocks of variables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.chunks import Chunks
from dsg_ros.core.factors import base


class Pattern:
    """Compressed columns of the lower triangle over the free numbers of the tangent (N of them).

    ``free`` (N,) are their places in the tangent; ``rows``, ``columns`` (nnz,) the entries in column order;
    ``pointers`` (N+1,) the columns' starts; ``diagonal`` (N,) the entries on the diagonal.
    """

    def __init__(self, chunks: Chunks) -> None:
        self._signature = _signature(chunks)
        self.free = np.flatnonzero(chunks.free)
        self.size = len(self.free)
        starts, dims, block_of = _blocks(chunks)
        count = len(starts)

        # Every pair of free variables that shares a row, and every variable with itself, as column * count + row.
        pairs = [np.arange(count) * (count + 1)]
        for rows in chunks.rows:
            blocks = np.maximum.reduceat(block_of[rows.local], _first_numbers(rows.cls), axis=1)
            for a in range(blocks.shape[1]):
                for b in range(a, blocks.shape[1]):
                    low, high = np.minimum(blocks[:, a], blocks[:, b]), np.maximum(blocks[:, a], blocks[:, b])
                    pairs.append((low * count + high)[low >= 0])
        self._pairs = np.unique(np.concatenate(pairs))
        column, row = np.divmod(self._pairs, max(count, 1))

        height = np.bincount(column, weights=dims[row], minlength=count).astype(np.int64)
        before = np.cumsum(dims[row]) - dims[row]
        self._offset = before - (np.cumsum(height) - height)[column]
        triangle = dims * (dims - 1) // 2
        sizes = height * dims - triangle
        self._base, self._height = np.cumsum(sizes) - sizes, height
        self.nnz = int(sizes.sum())

        self.rows, self.columns = np.empty(self.nnz, np.int64), np.empty(self.nnz, np.int64)
        for r in range(6):
            for c in range(6):
                used = (r < dims[row]) & (c < dims[column]) & ((row != column) | (r >= c))
                place = self._place(np.flatnonzero(used), column[used], r, c)
                self.rows[place] = starts[row[used]] + r
                self.columns[place] = starts[column[used]] + c
        self.pointers = np.concatenate([[0], np.cumsum(np.bincount(self.columns, minlength=self.size))])
        self.diagonal = self.pointers[:-1]
        self._scatter = [self._destinations(rows.local, block_of, starts, chunks, count) for rows in chunks.rows]

    def fits(self, chunks: Chunks) -> bool:
        """Whether the structure is still this one."""
        ours, theirs = self._signature, _signature(chunks)
        return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))

    def assemble(self, hessians: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Values (nnz,) of the sum of the rows' Hessians (n, d, d), one array a factor type."""
        values = np.zeros(self.nnz + 1)
        for scatter, hessian in zip(self._scatter, hessians, strict=True):
            values += np.bincount(scatter, weights=hessian.ravel(), minlength=self.nnz + 1)
        return values[:-1]

    def _place(self, pair: NDArray[np.int64], column: NDArray[np.int64], r: int, c: int) -> NDArray[np.int64]:
        # Column c of a block column starts after c shorter and shorter ones, and lacks the c numbers above its
        # diagonal.
        return self._base[column] + c * self._height[column] - c * (c - 1) // 2 + self._offset[pair] + r - c

    def _destinations(
        self,
        local: NDArray[np.int64],
        block_of: NDArray[np.int64],
        starts: NDArray[np.int64],
        chunks: Chunks,
        count: int,
    ) -> NDArray[np.int64]:
        """Entry (flat, over (n, d, d)) that each number of the rows' Hessians adds to; nnz (past the end) for none."""
        out = np.full((*local.shape, local.shape[1]), self.nnz, np.int64)
        order = np.cumsum(chunks.free) - 1
        blocks = block_of[local]
        within = order[local] - starts[blocks]
        for a in range(local.shape[1]):
            for b in range(local.shape[1]):
                row, column = blocks[:, a], blocks[:, b]
                lower = (column >= 0) & ((row > column) | ((row == column) & (within[:, a] >= within[:, b])))
                r, c = within[lower, a], within[lower, b]
                row, column = row[lower], column[lower]
                pair = np.searchsorted(self._pairs, column * count + row)
                out[lower, a, b] = (
                    self._base[column] + c * self._height[column] - c * (c - 1) // 2 + self._offset[pair] + r - c
                )
        return out.ravel()


def _signature(chunks: Chunks) -> list[NDArray[np.int64]]:
    return [chunks.free, *(rows.local for rows in chunks.rows)]


def _first_numbers(cls: type[base.Factor]) -> NDArray[np.int64]:
    """Where each variable's numbers start in a row's local tangent."""
    dofs = np.array([kind.dof for kind in base.kinds(cls)])
    return np.cumsum(dofs) - dofs


def _blocks(chunks: Chunks) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First free number and size of every free variable, and the variable of each place in the tangent (-1: held)."""
    poses = chunks.poses
    variable = np.concatenate([np.repeat(np.arange(poses), 6), poses + np.arange(chunks.dof - 6 * poses) // 3])
    used, block = np.unique(variable[chunks.free], return_inverse=True)
    block_of = np.full(chunks.dof, -1, np.int64)
    block_of[chunks.free] = block
    dims = np.bincount(block, minlength=len(used)).astype(np.int64)
    return np.cumsum(dims) - dims, dims, block_of
