"""Which voxel is in a cell: a hash table that compiled kernels can read, and that forgets without being made anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.cells import EMPTY, slot_of

Keys = NDArray[np.int64]
Numbers = NDArray[np.int32]
Slots = tuple[Keys, Numbers]
"""Keys of cells, in slots as `slot_of` finds them, and the numbers of their voxels: -1 in a cell that lost its own."""

FEWEST = 1 << 12
"""Slots of an index that knows nothing yet."""


@compiled
def _found(slot_keys: Keys, slot_numbers: Numbers, keys: Keys) -> Keys:
    """Numbers (n,) of what is in the cells ``keys`` (n,); -1 where nothing is."""
    out = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        at = slot_of(slot_keys, keys[i])
        out[i] = slot_numbers[at] if slot_keys[at] == keys[i] else -1
    return out


@compiled
def _put(slot_keys: Keys, slot_numbers: Numbers, keys: Keys, numbers: Keys) -> int:
    """Have ``numbers`` (n,) in the cells ``keys`` (n,), for which there is room; how many slots that took."""
    taken = 0
    for i in range(len(keys)):
        at = slot_of(slot_keys, keys[i])
        if slot_keys[at] == EMPTY:
            slot_keys[at] = keys[i]
            taken += 1
        slot_numbers[at] = numbers[i]
    return taken


class CellIndex:
    """From the key of a cell (`voxel_map.pack`) to the number of the voxel in it.

    Open addressing, at most half full.  A cell that loses its voxel keeps its slot until the table is made larger:
    others may have been put behind it.
    """

    def __init__(self) -> None:
        self.load(np.zeros(0, np.int64), np.zeros(0, np.int64))

    def __len__(self) -> int:
        """Cells with a voxel."""
        return self._living

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return sum(column.nbytes for column in self._slots)

    @property
    def slots(self) -> Slots:
        """The table, for kernels; valid until something is put into it."""
        return self._slots

    def find(self, keys: Keys) -> Keys:
        """Numbers (n,) of the voxels in the cells ``keys`` (n,), -1 where there is none."""
        return _found(*self._slots, keys)

    def add(self, keys: Keys, numbers: Keys) -> None:
        """Have the voxels ``numbers`` (n,) in the cells ``keys`` (n,), none of which has one."""
        if 2 * (self._taken + len(keys)) > len(self._slots[0]):
            there = self._slots[1] >= 0
            known, before = self._slots[0][there], self._slots[1][there].astype(np.int64)
            self.load(np.concatenate([known, keys]), np.concatenate([before, numbers]))
        else:
            self._taken += _put(*self._slots, keys, numbers)
            self._living += len(keys)

    def drop(self, keys: Keys) -> None:
        """Have no voxel in the cells ``keys`` (n,), each of which has one."""
        _put(*self._slots, keys, np.full(len(keys), -1))
        self._living -= len(keys)

    def load(self, keys: Keys, numbers: Keys) -> None:
        """Have these and no others."""
        room = max(FEWEST, 1 << (2 * len(keys)).bit_length())
        self._slots = np.full(room, EMPTY, np.int64), np.full(room, -1, np.int32)
        self._taken = self._living = len(keys)
        _put(*self._slots, keys, numbers)
