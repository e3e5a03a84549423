"""Sparse Cholesky on the host, over any structure: CHOLMOD (supernodal, through cvxopt), or SuperLU where that is not
wanted.

Systems are scaled to a unit diagonal, as in `dsg_ros.core.solvers.linear`.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.chunks import Chunks
from dsg_ros.core.solvers.linear import SMALLEST_PIVOT
from dsg_ros.core.solvers.pattern import Pattern

Array = NDArray[np.float64]
Backend = Literal["cholmod", "superlu"]


class SingularError(ArithmeticError):
    """The matrix is not positive definite.  Internal: solves answer with a result code."""


class _Engine(Protocol):
    """A factorisation of matrices of one pattern; holds the latest."""

    def factorise(self, values: Array) -> float:
        """Factorise the lower triangle with these values; returns the smallest pivot, or raises SingularError."""

    def solve(self, right: Array) -> Array:
        """For (N, K), by the latest factorisation."""


class _Cholmod:
    """cvxopt's CHOLMOD: ordering and symbolic analysis once a pattern."""

    def __init__(self, pattern: Pattern) -> None:
        import cvxopt
        from cvxopt import cholmod

        self._cvxopt, self._cholmod = cvxopt, cholmod
        # Supernodal: LL^T in dense panels, several times faster than the simplicial code here, and its diagonal is
        # readable.
        cholmod.options["supernodal"] = 2
        ones = cvxopt.matrix(np.where(pattern.rows == pattern.columns, 1.0, 0.0))
        rows, columns = cvxopt.matrix(pattern.rows), cvxopt.matrix(pattern.columns)
        self._matrix = cvxopt.spmatrix(ones, rows, columns, (pattern.size, pattern.size))
        self._factor = cholmod.symbolic(self._matrix, uplo="L")

    def factorise(self, values: Array) -> float:
        self._matrix.V = self._cvxopt.matrix(values)
        try:
            self._cholmod.numeric(self._matrix, self._factor)
        except ArithmeticError as error:
            raise SingularError from error
        return float(np.min(np.asarray(self._cholmod.diag(self._factor))) ** 2)

    def solve(self, right: Array) -> Array:
        columns = self._cvxopt.matrix(right)
        self._cholmod.solve(self._factor, columns)
        return np.array(columns).reshape(right.shape)


class _SuperLU:
    """scipy's SuperLU on the full matrix: about five times slower; for platforms without cvxopt's CHOLMOD (GPL)."""

    def __init__(self, pattern: Pattern) -> None:
        # Here, not above: it is half a second of start-up that CHOLMOD's users need not wait for.
        import scipy.sparse
        import scipy.sparse.linalg

        self._scipy = scipy.sparse
        self._pattern = pattern
        self._lu: Any = None

    def factorise(self, values: Array) -> float:
        p = self._pattern
        lower = self._scipy.csc_array((values, p.rows, p.pointers), shape=(p.size, p.size))
        full = self._scipy.csc_array(lower + self._scipy.tril(lower, -1).T)
        options = {"SymmetricMode": True}
        try:
            self._lu = self._scipy.linalg.splu(full, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
        except RuntimeError as error:
            raise SingularError from error
        pivot = float(np.min(self._lu.U.diagonal()))
        if not pivot > 0:
            raise SingularError
        return pivot

    def solve(self, right: Array) -> Array:
        return np.asarray(self._lu.solve(right))


_ENGINES: dict[str, type[_Cholmod] | type[_SuperLU]] = {"cholmod": _Cholmod, "superlu": _SuperLU}


class SparseCholesky:
    """Keeps pattern and symbolic analysis while the structure of the graph stays the same.  Not for two threads at
    once.
    """

    def __init__(self, backend: Backend = "cholmod") -> None:
        if backend not in _ENGINES:
            raise ValueError(f"backend {backend!r} is not one of {', '.join(_ENGINES)}")
        self.backend = backend
        self.analyses = 0
        self._pattern: Pattern | None = None
        self._engine: _Engine | None = None
        self._current: SparseFactor | None = None

    def pattern(self, chunks: Chunks) -> Pattern:
        """The pattern of these rows: the kept one where it fits."""
        if self._pattern is None or not self._pattern.fits(chunks):
            self._pattern = Pattern(chunks)
            self._engine, self._current = None, None
            self.analyses += 1
        return self._pattern

    def factorise(self, pattern: Pattern, values: Array, damping: float) -> SparseFactor:
        """Factorise the lower triangle (nnz,), scaled, plus ``damping``; raises SingularError."""
        if self._engine is None or self._pattern is not pattern:
            self._pattern, self._engine = pattern, _ENGINES[self.backend](pattern)
        diagonal = values[pattern.diagonal]
        scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled = values * scale[pattern.rows] * scale[pattern.columns]
        scaled[pattern.diagonal] += damping
        factor = SparseFactor(self, pattern, scaled, scale)
        self.load(factor)
        return factor

    def load(self, factor: SparseFactor) -> _Engine:
        """The engine holding this factor's numbers: factorised again if another solve has used it since."""
        if self._engine is None or self._pattern is not factor.pattern:
            self._pattern, self._engine, self._current = factor.pattern, _ENGINES[self.backend](factor.pattern), None
        if self._current is not factor:
            self._current = None
            factor.pivot = self._engine.factorise(factor.values)
            self._current = factor
        return self._engine


class SparseFactor:
    """A factorisation over the free numbers; `solve` speaks the whole tangent."""

    def __init__(self, owner: SparseCholesky, pattern: Pattern, values: Array, scale: Array) -> None:
        self.pattern, self.values, self.scale = pattern, values, scale
        self.pivot = 0.0
        self._owner = owner

    @property
    def healthy(self) -> bool:
        """No pivot is mere rounding."""
        return self.pivot > SMALLEST_PIVOT

    def solve(self, right: Any) -> Array:
        """``H^-1 right`` for (D,) or (D, K); zero where held."""
        right = np.asarray(right, float)
        out = np.zeros(right.shape)
        free = self.pattern.free
        if len(free):
            columns = self.scale[:, None] * right[free].reshape(len(free), -1)
            solved = self.scale[:, None] * self._owner.load(self).solve(columns)
            out[free] = solved.reshape(out[free].shape)
        return out
