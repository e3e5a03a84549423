"""Growing NumPy columns: the storage under `dsg_ros.core.world` and the incremental solver."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.factors import base
from dsg_ros.core.factors.base import Factor
from dsg_ros.core.room import room
from dsg_ros.core.variables import Kind

_SLOT_BITS, _GENERATION_BITS = 36, 20

Row = TypeVar("Row", bound=tuple[Any, ...])


LEAP, LEAP_TO = 16, 1 << 20
"""How many times larger a column becomes that has no room left, and up to how many rows; beyond, it doubles.  `room`
that is not touched costs nothing, and what fits is never copied: to copy the rows of a window's sightings takes as long
as half of its solve.
"""


class Column:
    """Rows of one shape with amortised O(1) append.  Rows that are not given are ``fill``."""

    def __init__(self, shape: tuple[int, ...], dtype: Any = np.float64, fill: Any = 0) -> None:
        self._fill = fill
        self._data = np.empty((0, *shape), dtype)
        self._size = 0
        self._shared = False

    def __len__(self) -> int:
        return self._size

    @property
    def view(self) -> NDArray[Any]:
        """The rows in use; valid until the next append."""
        return self._data[: self._size]

    @property
    def shared(self) -> NDArray[Any]:
        """The rows in use, for a reader that keeps them: they stay as they are, see `owned`."""
        self._shared = True
        return self.view

    @property
    def owned(self) -> NDArray[Any]:
        """The rows in use, for changing them: copied first where somebody keeps them."""
        if self._shared:
            self._move(len(self._data), self._size)
        return self.view

    def load(self, rows: NDArray[Any]) -> None:
        """Have these rows (n, ...) and no others; ValueError where type or shape is another."""
        if rows.dtype != self._data.dtype or rows.shape[1:] != self._data.shape[1:]:
            raise ValueError(f"{rows.dtype} {rows.shape} where {self._data.dtype} {self._data.shape[1:]} is kept")
        self._size = 0
        self.extend(rows)

    def extend(self, rows: NDArray[Any]) -> None:
        """Append rows (n, ...)."""
        where = self.lengthen(len(rows))
        self._data[where] = rows

    def grow(self, count: int) -> None:
        """Append ``count`` rows of ``fill``."""
        where = self.lengthen(count)
        self._data[where] = self._fill

    def lengthen(self, count: int) -> slice:
        """Append ``count`` rows that are yet to be written; where they are."""
        before, most = self._size, len(self._data)
        self._size += count
        if self._size > most:
            self._move(max(self._size, min(LEAP * most, LEAP_TO), 2 * most, 16), before)
        return slice(before, self._size)

    def _move(self, most: int, written: int) -> None:
        """To an array of its own for ``most`` rows, of which so many are ``written``."""
        moved = room((most, *self._data.shape[1:]), self._data.dtype)
        moved[:written] = self._data[:written]
        self._data, self._shared = moved, False


class Columns(Generic[Row]):
    """Columns of one length that grow together, the fields of a named tuple; ``new`` is what a new row begins with.

    ``whole`` has the arrays with the room behind their rows, for compiled kernels: it stays the same tuple until more
    room is needed, where `Column.view` is another array at every use.
    """

    def __init__(self, new: Row) -> None:
        self._new, self._size = new, 0
        self.whole = self._of(np.empty((0, *value.shape), value.dtype) for value in new)
        self.reserve(16)

    def __len__(self) -> int:
        return self._size

    @property
    def view(self) -> Row:
        """The rows in use; valid until the next ones are appended."""
        return self._of(column[: self._size] for column in self.whole)

    def grow(self, count: int) -> None:
        """Append ``count`` new rows."""
        self.reserve(self._size + count)
        self._size += count

    def reserve(self, needed: int) -> None:
        """Have room for ``needed`` rows in all; what is behind those in use is as new."""
        room = len(self.whole[0])
        if needed > room:
            columns = list(self.whole)
            del self.whole  # so that a column's memory is free again before the next one moves
            for i, new in enumerate(self._new):
                grown = _filled((max(needed, 2 * room), *new.shape), new, new.dtype)
                grown[:room] = columns[i]
                columns[i] = grown
            self.whole = self._of(columns)

    def _of(self, columns: Iterable[NDArray[Any]]) -> Row:
        return type(self._new)(*columns)


class Table:
    """All rows of one factor type.

    A row lives in a slot; a removed row's slot is used again under the next generation, so that an id never comes to
    mean another row.  ``incident`` finds a row from the first key it touches; entries are checked when read, not when
    rows change.  It is made when `touching` is first asked for: a run never does, and it is half as large as the rows.
    """

    def __init__(self, cls: type[Factor], number: int) -> None:
        self.cls, self._number = cls, number
        self.kinds: tuple[Kind, ...] = base.kinds(cls)
        self.key_names = tuple(f.name for f in base.key_fields(cls))
        self.defaults = base.data_fields(cls)
        self.columns = {name: Column((), np.int32) for name in self.key_names}
        self.columns |= {name: Column(value.shape, value.dtype) for name, value in self.defaults.items()}
        self.alive = Column((), np.bool_)
        self._generation = Column((), np.int64)
        self._free: list[int] = []
        self._incident: dict[int, list[int]] | None = None
        self._stale = 0

    def __len__(self) -> int:
        return len(self.alive) - len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, free slots among them."""
        columns = (self.alive, self._generation, *self.columns.values())
        return sum(column.view.nbytes for column in columns)

    def insert(self, fields: dict[str, NDArray[Any]], rows: int) -> NDArray[np.int64]:
        """Store checked columns, each with a value a row or one for all; returns the rows' ids."""
        reused, before = min(rows, len(self._free)), len(self.alive)
        slots = np.arange(before - reused, before - reused + rows)
        where: Any = slice(before, before + rows)  # quicker than an array of slots, and nearly always so
        if reused:
            slots[:reused] = self._free[-reused:]
            del self._free[-reused:]
            where = slots
        self.alive.grow(rows - reused)
        self._generation.grow(rows - reused)
        self.alive.view[where] = True
        for name, column in self.columns.items():
            column.lengthen(rows - reused)
            (column.owned if reused else column.view)[where] = fields.get(name, self.defaults.get(name))
        self._index(slots)
        return self._ids(slots)

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Free the slots; their ids are dead from here on."""
        self.alive.view[slots] = False
        self._generation.view[slots] += 1
        self._free.extend(slots.tolist())
        # What the index has of removed rows stays until it is read; where most of it is of those, it is made anew then.
        self._stale += len(slots)
        if self._stale > max(len(self), 1024):
            self._incident, self._stale = None, 0

    def update(self, slots: NDArray[np.int64], fields: dict[str, NDArray[Any]]) -> None:
        """Overwrite fields of rows, keys included."""
        for name, values in fields.items():
            self.columns[name].owned[slots] = values
        if self.key_names[0] in fields:
            self._index(slots)

    def state(self) -> dict[str, NDArray[Any]]:
        """All slots, living or not, as `restore` takes them."""
        columns = {name: column.shared for name, column in self.columns.items()}
        slots = {"alive": self.alive.view.copy(), "generation": self._generation.view.copy()}
        return {**columns, **{f"slots.{k}": v for k, v in slots.items()}, "slots.free": np.array(self._free, np.int64)}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Take a state over; ValueError or KeyError for one that is none of this type."""
        for name, column in self.columns.items():
            column.load(state[name])
        self.alive.load(state["slots.alive"])
        self._generation.load(state["slots.generation"])
        self._free = state["slots.free"].tolist()
        if len({len(c) for c in (self.alive, self._generation, *self.columns.values())}) != 1:
            raise ValueError(f"{self.cls.__name__}: columns of different lengths")
        self._incident, self._stale = None, 0

    def slots(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots of living rows; KeyError naming the first id that is none."""
        slots = ids & ((1 << _SLOT_BITS) - 1)
        generation = (ids >> _SLOT_BITS) & ((1 << _GENERATION_BITS) - 1)
        known = (ids >= 0) & (slots < len(self.alive))
        safe = np.where(known, slots, 0)
        if len(self.alive):
            known &= self.alive.view[safe] & (self._generation.view[safe] % (1 << _GENERATION_BITS) == generation)
        if not known.all():
            raise KeyError(f"{self.cls.__name__}: no row has the id {int(ids[np.argmin(known)])} (removed already?)")
        return slots

    def living(self) -> NDArray[np.int64]:
        """Slots of all rows, in the order of their slots."""
        return np.flatnonzero(self.alive.view)

    def touching(self, first_keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots of the rows whose first key is among ``first_keys``; the cost is that of the answer."""
        if self._incident is None:
            self._incident = {}
            self._index(self.living())
        name, found = self.key_names[0], []
        for key in first_keys.tolist():
            entries = self._incident.get(key)
            if not entries:
                continue
            slots = np.unique(np.array(entries, np.int64))
            slots = slots[self.alive.view[slots] & (self.columns[name].view[slots] == key)]
            if len(slots) < len(entries):
                self._incident[key] = slots.tolist()
            found.append(slots)
        return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def keys(self, slots: NDArray[np.int64]) -> NDArray[np.int32]:
        """World keys (n, number of keys) that rows touch."""
        return np.stack([self.columns[name].view[slots] for name in self.key_names], axis=1)

    def ids(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids of living rows."""
        return self._ids(slots)

    def _ids(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        generation = self._generation.view[slots] % (1 << _GENERATION_BITS)
        return (np.int64(self._number) << (_SLOT_BITS + _GENERATION_BITS)) | (generation << _SLOT_BITS) | slots

    def _index(self, slots: NDArray[np.int64]) -> None:
        if self._incident is None:
            return
        keys = self.columns[self.key_names[0]].view[slots]
        if len(keys) and (keys == keys[0]).all():  # what one scan saw
            self._incident.setdefault(int(keys[0]), []).extend(slots.tolist())
            return
        for key, slot in zip(keys.tolist(), slots.tolist(), strict=True):
            self._incident.setdefault(key, []).append(slot)


def table_number(row_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which table ids belong to."""
    return row_id >> (_SLOT_BITS + _GENERATION_BITS)


def _filled(shape: tuple[int, ...], fill: Any, dtype: Any) -> NDArray[Any]:
    """Zeros come from the system without being touched."""
    return np.full(shape, fill, dtype) if np.any(fill) else np.zeros(shape, dtype)
