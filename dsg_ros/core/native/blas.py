"""BLAS and LAPACK for compiled kernels: SciPy's own routines, called by address, on column-major parts of one array.

Numba's ``@`` and ``np.linalg`` take whole contiguous matrices only.  A front of a sparse factorisation is worked on in
place, in parts, so the routines themselves are wanted.  They are made known by name to LLVM, so that compiled code that
calls them can be kept on disk.  Integers of the interface are 32 bits, texts single characters.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import scipy.linalg.cython_blas
import scipy.linalg.cython_lapack
from llvmlite import binding
from numba import types
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Array = NDArray[np.float64]

_double, _int, _char = types.CPointer(types.float64), types.CPointer(types.int32), types.CPointer(types.uint8)


def _routine(module: object, name: str, *arguments: Any) -> Any:
    """A routine of a Cython module that exports it (its ``__pyx_capi__``), as compiled code can call it."""
    capsule = module.__pyx_capi__[name]  # type: ignore[attr-defined]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    symbol = f"dsg_ros_{name}"
    binding.add_symbol(symbol, api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule)))
    return types.ExternalFunction(symbol, types.void(*arguments))


_blas, _lapack = scipy.linalg.cython_blas, scipy.linalg.cython_lapack
_dpotrf = _routine(_lapack, "dpotrf", _char, _int, _double, _int, _int)
_dtrsm = _routine(
    _blas, "dtrsm", _char, _char, _char, _char, _int, _int, _double, _double, _int, _double, _int
)  # fmt: skip
_dsyrk = _routine(_blas, "dsyrk", _char, _char, _int, _int, _double, _double, _int, _double, _double, _int)
_dgemm = _routine(
    _blas, "dgemm", _char, _char, _int, _int, _int, _double, _double, _int, _double, _int, _double, _double, _int
)  # fmt: skip
_dgemv = _routine(
    _blas, "dgemv", _char, _int, _int, _double, _double, _int, _double, _int, _double, _double, _int
)  # fmt: skip
_dtrsv = _routine(_blas, "dtrsv", _char, _char, _char, _int, _double, _int, _double, _int)


def _one_thread() -> None:
    """Keep OpenBLAS, where SciPy has that, to the calling thread.

    Fronts are small, and solved thousands of times a second.  Its threads wait for each other by spinning: on two cores
    with something else to do, the incremental solve of 2000 poses took more than 200 s with them, and 6 s without.
    """
    loaded = ctypes.CDLL(_blas.__file__)
    for name in ("scipy_openblas_set_num_threads", "openblas_set_num_threads"):
        if hasattr(loaded, name):
            getattr(loaded, name)(1)


_one_thread()

LOWER, NO, YES, LEFT, RIGHT, PLAIN = (np.array([ord(c)], np.uint8) for c in "LNTLRN")


@compiled
def cholesky(n: int, a: Array, lead: int) -> int:
    """Lower Cholesky factor in place of the (n, n) at the start of ``a``; 0, or the number of the pivot that fails."""
    sizes = np.empty(3, np.int32)
    sizes[0], sizes[1], sizes[2] = n, lead, 0
    _dpotrf(LOWER.ctypes, sizes.ctypes, a.ctypes, sizes[1:].ctypes, sizes[2:].ctypes)
    return sizes[2]


@compiled
def solve_right_transposed(m: int, n: int, lower: Array, lead_lower: int, b: Array, lead_b: int) -> None:
    """``B := B L^-T`` for B (m, n) and L (n, n)."""
    sizes, one = np.empty(4, np.int32), np.ones(1)
    sizes[0], sizes[1], sizes[2], sizes[3] = m, n, lead_lower, lead_b
    _dtrsm(
        RIGHT.ctypes, LOWER.ctypes, YES.ctypes, PLAIN.ctypes, sizes.ctypes, sizes[1:].ctypes, one.ctypes,
        lower.ctypes, sizes[2:].ctypes, b.ctypes, sizes[3:].ctypes,
    )  # fmt: skip


@compiled
def solve_left(transposed: bool, m: int, n: int, lower: Array, lead_lower: int, b: Array, lead_b: int) -> None:
    """``B := L^-1 B``, or ``L^-T B``, for B (m, n) and L (m, m)."""
    sizes, one = np.empty(4, np.int32), np.ones(1)
    sizes[0], sizes[1], sizes[2], sizes[3] = m, n, lead_lower, lead_b
    way = YES if transposed else NO
    if n == 1:
        step = np.ones(1, np.int32)
        _dtrsv(
            LOWER.ctypes, way.ctypes, PLAIN.ctypes, sizes.ctypes, lower.ctypes, sizes[2:].ctypes, b.ctypes, step.ctypes
        )
        return
    _dtrsm(
        LEFT.ctypes, LOWER.ctypes, way.ctypes, PLAIN.ctypes, sizes.ctypes, sizes[1:].ctypes, one.ctypes,
        lower.ctypes, sizes[2:].ctypes, b.ctypes, sizes[3:].ctypes,
    )  # fmt: skip


@compiled
def subtract_square(n: int, k: int, a: Array, lead_a: int, c: Array, lead_c: int) -> None:
    """Lower triangle of ``C := C - A A^T`` for A (n, k) and C (n, n)."""
    sizes, scalars = np.empty(4, np.int32), np.empty(2)
    sizes[0], sizes[1], sizes[2], sizes[3] = n, k, lead_a, lead_c
    scalars[0], scalars[1] = -1.0, 1.0
    _dsyrk(
        LOWER.ctypes, NO.ctypes, sizes.ctypes, sizes[1:].ctypes, scalars.ctypes, a.ctypes, sizes[2:].ctypes,
        scalars[1:].ctypes, c.ctypes, sizes[3:].ctypes,
    )  # fmt: skip


@compiled
def multiply(
    transposed: bool, m: int, n: int, k: int, alpha: float, a: Array, lead_a: int, b: Array, lead_b: int,
    beta: float, c: Array, lead_c: int,
) -> None:  # fmt: skip
    """``C := alpha A B + beta C`` for C (m, n), B (k, n) and A (m, k), stored as (k, m) where ``transposed``."""
    sizes, scalars = np.empty(6, np.int32), np.empty(2)
    sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5] = m, n, k, lead_a, lead_b, lead_c
    scalars[0], scalars[1] = alpha, beta
    way = YES if transposed else NO
    if n == 1:
        step = np.ones(1, np.int32)
        rows, columns = (sizes[2:], sizes) if transposed else (sizes, sizes[2:])
        _dgemv(
            way.ctypes, rows.ctypes, columns.ctypes, scalars.ctypes, a.ctypes, sizes[3:].ctypes, b.ctypes, step.ctypes,
            scalars[1:].ctypes, c.ctypes, step.ctypes,
        )  # fmt: skip
        return
    _dgemm(
        way.ctypes, NO.ctypes, sizes.ctypes, sizes[1:].ctypes, sizes[2:].ctypes, scalars.ctypes, a.ctypes,
        sizes[3:].ctypes, b.ctypes, sizes[4:].ctypes, scalars[1:].ctypes, c.ctypes, sizes[5:].ctypes,
    )  # fmt: skip
