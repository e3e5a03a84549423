"""Integer cells of space packed into one number, and the hash table that finds them, for compiled kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

OFFSET = 1 << 20
EMPTY = -1


@compiled
def pack(x: int, y: int, z: int) -> int:
    """One int64 a cell; 21 bits an axis: +-1,048,576 cells."""
    return ((x + OFFSET) << 42) | ((y + OFFSET) << 21) | (z + OFFSET)


@compiled
def slot_of(slots: NDArray[np.int64], key: int) -> int:
    """Where ``key`` is in an open-addressing table, or the empty slot where it belongs.

    ``slots`` holds keys, `EMPTY` elsewhere; its length is a power of two and it must not be full.
    """
    last = len(slots) - 1
    mixed = key ^ (key >> 21) ^ (key >> 39)
    at = ((mixed * 0x9E3779B97F4A7C1) >> 20) & last
    while slots[at] != key and slots[at] != EMPTY:
        at = (at + 1) & last
    return at
