"""SciPy's sparse matrices for what is asked for once, beside the compiled factorisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import SuperLU, splu


def assembled(blocks: NDArray[np.float64], rows: NDArray[np.int64], columns: NDArray[np.int64], size: int) -> csc_array:
    """The sum (size, size) of ``blocks`` (n, a, b) at ``rows`` (n, a) and ``columns`` (n, b), of which those below
    zero, of what is held, are left out.
    """
    kept = (rows >= 0)[:, :, None] & (columns >= 0)[:, None, :]
    at = tuple(np.broadcast_to(each, kept.shape)[kept] for each in (rows[:, :, None], columns[:, None, :]))
    return csc_array(coo_array((blocks[kept], at), shape=(size, size)))


def symmetric(matrix: csc_array) -> SuperLU:
    """A positive definite matrix factorised, in an order for symmetric ones and without pivoting: COLAMD's and partial
    pivoting, SuperLU's defaults, make seven times as many numbers of a window.  RuntimeError where a pivot is zero.
    """
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
