"""Room for rows that are yet to come: memory that costs nothing until it is written to."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

FROM = 1 << 18
"""Bytes from which room is asked of the system itself."""


def room(shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    """Zeros, of which pages that are never written to take no memory; all of it is given back with the array.

    NumPy's own would not always be so.  From 4 MiB on it asks for huge pages, of which a byte costs 2 MiB, and a table
    has ten columns.  And once an array of that size was freed, the C library takes the next one from its heap, where
    zeros are written, and what is freed later stays with the process.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < FROM:
        return np.zeros(shape, kind)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # of a kernel that has none
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, kind).reshape(shape)
