"""The world model: the mutable graph on the host, from which solvers get immutable snapshots.

Nothing is cached between snapshots: a changed measurement, a re-wired or removed row is in the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsg_ros.core.checks import pose_row, pose_rows, voxel_rows
from dsg_ros.core.factors import FACTOR_TYPES, Factor
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Solution
from dsg_ros.core.tables import Column, Table, table_number
from dsg_ros.core.variables import Kind, State

Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Capacity:
    """Shapes of a snapshot: JAX compiles a program for each, so problems of one kind share one."""

    poses: int
    voxels: int = 1
    rows: Mapping[type[Factor], int] = field(default_factory=dict)

    @staticmethod
    def fitting(poses: int, voxels: int, rows: Mapping[type[Factor], int]) -> Capacity:
        """The class that holds these counts: each rounded up to a power of two (none stays none)."""
        return Capacity(_class(max(poses, 1)), _class(max(voxels, 1)), {cls: _class(n) for cls, n in rows.items()})


def _class(count: int) -> int:
    return 1 << (count - 1).bit_length() if count else 0


class WorldModel:
    """Poses, voxels and rows of factors.  Keys count up from 0 for each kind and are never used again."""

    def __init__(self) -> None:
        self._values = {Kind.POSE: Column((7,)), Kind.VOXEL: Column((3,))}
        self._local = {Kind.POSE: Column((), np.int32), Kind.VOXEL: Column((), np.int32)}
        self._tables = {cls: Table(cls, number) for number, cls in enumerate(FACTOR_TYPES)}

    @property
    def poses(self) -> NDArray[np.float64]:
        """All poses (P, 7) by key; a copy."""
        return self._values[Kind.POSE].view.copy()

    @property
    def voxels(self) -> NDArray[np.float64]:
        """All voxel centres (V, 3) by key; a copy."""
        return self._values[Kind.VOXEL].view.copy()

    @property
    def voxel_view(self) -> NDArray[np.float64]:
        """The same as they lie, to be read; valid until the next one is added."""
        return self._values[Kind.VOXEL].view

    @property
    def nbytes(self) -> dict[Kind | type[Factor], int]:
        """Bytes of the variables of each kind and of the rows of each type."""
        of: dict[Kind | type[Factor], int] = {cls: table.nbytes for cls, table in self._tables.items() if len(table)}
        return of | {kind: self._values[kind].view.nbytes + self._local[kind].view.nbytes for kind in Kind}

    def add_pose(self, pose: ArrayLike) -> int:
        """Add a pose (7,); returns its key.  ValueError unless it is finite with a unit quaternion."""
        return int(self._add(Kind.POSE, pose_row(pose)[None])[0])

    def add_poses(self, poses: ArrayLike) -> Keys:
        """Add poses (n, 7); returns their keys."""
        return self._add(Kind.POSE, pose_rows(poses))

    def add_voxel(self, centre: ArrayLike) -> int:
        """Add a voxel centre (3,); returns its key."""
        return int(self._add(Kind.VOXEL, voxel_rows(np.asarray(centre, float)[None]))[0])

    def add_voxels(self, centres: ArrayLike) -> Keys:
        """Add voxel centres (n, 3); returns their keys."""
        return self._add(Kind.VOXEL, voxel_rows(centres))

    def set_poses(self, keys: ArrayLike, values: ArrayLike) -> None:
        """Overwrite poses; KeyError for a key that is not there."""
        self._values[Kind.POSE].view[self._known(Kind.POSE, keys)] = pose_rows(np.asarray(values, float).reshape(-1, 7))

    def set_voxels(self, keys: ArrayLike, values: ArrayLike) -> None:
        """Overwrite voxel centres; KeyError for a key that is not there."""
        self._values[Kind.VOXEL].view[self._known(Kind.VOXEL, keys)] = voxel_rows(
            np.asarray(values, float).reshape(-1, 3)
        )

    def get_pose(self, key: int) -> NDArray[np.float64]:
        """Pose (7,) of one key: asked for with every scan, and too short for general arrays."""
        poses = self._values[Kind.POSE].view
        if not 0 <= key < len(poses):
            raise KeyError(f"no pose has the key {key}")
        pose: NDArray[np.float64] = poses[key].copy()
        return pose

    def get_poses(self, keys: ArrayLike) -> NDArray[np.float64]:
        """Poses (n, 7) of keys (n,)."""
        return self._values[Kind.POSE].view[self._known(Kind.POSE, keys)]

    def get_voxels(self, keys: ArrayLike) -> NDArray[np.float64]:
        """Voxel centres (n, 3) of keys (n,)."""
        return self._values[Kind.VOXEL].view[self._known(Kind.VOXEL, keys)]

    def add(self, factor: type[Factor], **fields: ArrayLike) -> int:
        """Add one row: key fields by name (all of them), data fields as wanted; the weight is 1 unless given.

        Returns the row's id.  Errors: KeyError for a variable that is not there, ValueError for a wrong field.
        """
        return int(self.add_rows(factor, **{name: np.asarray(value)[None] for name, value in fields.items()})[0])

    def add_rows(self, factor: type[Factor], **fields: ArrayLike) -> Keys:
        """Add n rows from columns with a leading axis n; a data field may also be one value for all.  Returns their
        ids.
        """
        table = self._tables[factor]
        missing = [name for name in table.key_names if name not in fields]
        if missing:
            raise ValueError(f"{factor.__name__}: which {' and '.join(missing)}?")
        rows = len(np.atleast_1d(np.asarray(fields[table.key_names[0]])))
        return table.insert({"weight": np.ones(())} | self._checked(table, fields, rows), rows)

    def set_rows(self, ids: ArrayLike, **fields: ArrayLike) -> None:
        """Overwrite fields of rows of one factor type: measurements, weights, or the variables they touch."""
        for table, chosen in self._by_table(ids):
            table.update(table.slots(chosen), self._checked(table, fields, len(chosen)))

    def remove(self, ids: ArrayLike) -> None:
        """Remove rows; O(1) each.  KeyError (and nothing removed) if one is not there, or named twice."""
        groups = [(table, table.slots(chosen)) for table, chosen in self._by_table(ids)]
        for table, slots in groups:
            if len(np.unique(slots)) < len(slots):
                raise KeyError(f"{table.cls.__name__}: a row is named twice")
        for table, slots in groups:
            table.remove(slots)

    def count(self, factor: type[Factor]) -> int:
        """Rows of one type."""
        return len(self._tables[factor])

    def rows(self, factor: type[Factor]) -> tuple[Keys, dict[str, NDArray[Any]]]:
        """Ids and columns (copies) of all rows of one type."""
        table = self._tables[factor]
        slots = table.living()
        return table.ids(slots), {name: column.view[slots] for name, column in table.columns.items()}

    def stack(self, factor: type[Factor], ids: ArrayLike) -> Factor:
        """Rows of one type as a stack of NumPy arrays, with the world's keys.  KeyError for an id that is not there."""
        return factor.of(self.columns(factor, ids, *self._tables[factor].columns))

    def columns(self, factor: type[Factor], ids: ArrayLike, *names: str) -> dict[str, NDArray[Any]]:
        """Some columns (copies) of rows of one type, in the order of their ids.  KeyError for an id that is not
        there.
        """
        table = self._tables[factor]
        slots = table.slots(np.atleast_1d(np.asarray(ids, np.int64)))
        return {name: table.columns[name].view[slots] for name in names}

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything, as `restore` takes it; rows are handed out as they lie, and copied when they are to change."""
        found = {kind.value: self._values[kind].view.copy() for kind in Kind}
        for cls, table in self._tables.items():
            if len(table.alive):
                found |= {f"{cls.__name__}.{name}": array for name, array in table.state().items()}
        return found

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take a state over, in place of what is here.

        ValueError or KeyError for what is no state of a world, or has rows of variables that are not there.
        """
        for kind in Kind:
            self._values[kind].load(state[kind.value])
            self._local[kind].load(np.full(len(self._values[kind]), -1, np.int32))
        for cls, table in self._tables.items():
            prefix = f"{cls.__name__}."
            rows = {name[len(prefix) :]: array for name, array in state.items() if name.startswith(prefix)}
            if not rows:
                continue
            for name, kind in zip(table.key_names, table.kinds, strict=True):
                self._known(kind, rows[name])
            table.restore(rows)

    def adopt(self, solution: Solution) -> None:
        """Take over a solution's poses and voxels."""
        for kind, keys, values in (
            (Kind.POSE, solution.pose_keys, solution.state.poses),
            (Kind.VOXEL, solution.voxel_keys, solution.state.voxels),
        ):
            rows = np.asarray(keys) >= 0
            self._values[kind].view[np.asarray(keys)[rows]] = np.asarray(values)[rows]

    def snapshot(
        self,
        poses: Iterable[int] | None = None,
        voxels: Iterable[int] | None = None,
        *,
        fixed: Iterable[int] = (),
        fixed_voxels: Iterable[int] = (),
        types: Iterable[type[Factor]] = FACTOR_TYPES,
        axes: Iterable[int] = range(6),
        capacity: Capacity | None = None,
    ) -> Problem:
        """The whole graph, or the part among some poses, as a problem padded to ``capacity`` (default:
        `Capacity.fitting`).

        Only rows of ``types`` take part, and poses move only in the directions ``axes`` of their tangents (x, y, yaw
        for a robot in the plane).  ``fixed`` poses and ``fixed_voxels`` take part but are held.  With ``poses`` given,
        rows count whose variables all take part, and ``voxels`` defaults to those that rows of these poses touch.  Rows
        between held variables are left out.  ValueError if the part does not fit into ``capacity``, KeyError for a key
        that is not there.
        """
        held = {Kind.POSE: self._keys(Kind.POSE, fixed), Kind.VOXEL: self._keys(Kind.VOXEL, fixed_voxels)}
        whole = poses is None and voxels is None
        free = {Kind.POSE: self._keys(Kind.POSE, poses)}
        free[Kind.VOXEL] = (
            self._seen_from(free[Kind.POSE]) if voxels is None and not whole else self._keys(Kind.VOXEL, voxels)
        )
        keys = {kind: _union(free[kind], held[kind]) for kind in Kind}
        for kind, chosen in keys.items():
            self._local[kind].view[chosen] = np.arange(len(chosen))
        try:
            movable = {kind: self._not_held(kind, keys[kind], held[kind]) for kind in Kind}
            wanted = set(types)
            parts = {
                cls: self._part(table, keys, movable, whole)
                for cls, table in self._tables.items()
                if cls in wanted and len(table)
            }
        finally:
            for kind, chosen in keys.items():
                self._local[kind].view[chosen] = -1
        counts = {cls: len(slots) for cls, (slots, _) in parts.items()}
        size = {Kind.POSE: len(keys[Kind.POSE]), Kind.VOXEL: len(keys[Kind.VOXEL])}
        room = capacity or Capacity.fitting(size[Kind.POSE], size[Kind.VOXEL], counts)
        _fits(room, size, counts)
        moving = np.zeros(6, bool)
        moving[list(axes)] = True
        return self._padded(room, keys, movable, parts, moving)

    def _not_held(self, kind: Kind, keys: Keys, held: Keys) -> NDArray[np.bool_]:
        movable = np.ones(len(keys), bool)
        movable[self._local[kind].view[held]] = False
        return movable

    def _part(
        self, table: Table, keys: dict[Kind, Keys], movable: dict[Kind, NDArray[np.bool_]], whole: bool
    ) -> tuple[Keys, NDArray[np.int32]]:
        """Slots of the rows that take part, and their keys as positions in the snapshot."""
        slots = table.living() if whole else table.touching(keys[table.kinds[0]])
        world = table.keys(slots)
        local = np.empty_like(world)
        moves = np.zeros(len(slots), bool)
        for i, kind in enumerate(table.kinds):
            local[:, i] = self._local[kind].view[world[:, i]]
            moves |= (local[:, i] >= 0) & np.append(movable[kind], False)[local[:, i]]
        inside = (local >= 0).all(axis=1) & moves
        return slots[inside], local[inside]

    def _padded(
        self,
        room: Capacity,
        keys: dict[Kind, Keys],
        movable: dict[Kind, NDArray[np.bool_]],
        parts: dict[type[Factor], tuple[Keys, NDArray[np.int32]]],
        moving: NDArray[np.bool_],
    ) -> Problem:
        sizes = {Kind.POSE: room.poses, Kind.VOXEL: room.voxels}
        touched = {kind: np.zeros(sizes[kind], bool) for kind in Kind}
        stacks = []
        for cls, table in self._tables.items():
            if not room.rows.get(cls, 0):
                stacks.append(_no_rows(cls))
                continue
            slots, local = parts.get(cls, (np.zeros(0, np.int64), np.zeros((0, len(table.kinds)), np.int32)))
            weighted = table.columns["weight"].view[slots] > 0
            fields = cls.stack(room.rows[cls])
            for i, (name, kind) in enumerate(zip(table.key_names, table.kinds, strict=True)):
                getattr(fields, name)[: len(slots)] = local[:, i]
                touched[kind][local[weighted, i]] = True
            for name in table.defaults:
                getattr(fields, name)[: len(slots)] = table.columns[name].view[slots]
            stacks.append(fields)
        named: dict[Kind, Any] = {}
        free: dict[Kind, Any] = {}
        for kind in Kind:
            chosen = keys[kind]
            named[kind] = np.full(sizes[kind], -1, np.int32)
            named[kind][: len(chosen)] = chosen
            free[kind] = touched[kind]
            free[kind][: len(chosen)] &= movable[kind]
        poses: Any = np.zeros((room.poses, 7))
        poses[:, 6] = 1.0
        poses[: len(keys[Kind.POSE])] = self._values[Kind.POSE].view[keys[Kind.POSE]]
        voxels: Any = np.zeros((room.voxels, 3))
        voxels[: len(keys[Kind.VOXEL])] = self._values[Kind.VOXEL].view[keys[Kind.VOXEL]]
        return Problem(
            State(poses, voxels),
            free[Kind.POSE][:, None] & moving,
            free[Kind.VOXEL],
            tuple(stacks),
            named[Kind.POSE],
            named[Kind.VOXEL],
        )

    def _seen_from(self, poses: Keys) -> Keys:
        """Voxels that rows of these poses touch."""
        seen = [np.zeros(0, np.int64)]
        for table in self._tables.values():
            if table.kinds[0] is Kind.POSE and Kind.VOXEL in table.kinds:
                seen.append(table.keys(table.touching(poses))[:, table.kinds.index(Kind.VOXEL)].astype(np.int64))
        return np.unique(np.concatenate(seen))

    def _keys(self, kind: Kind, keys: Iterable[int] | None) -> Keys:
        if keys is None:
            return np.arange(len(self._values[kind]))
        chosen = keys if isinstance(keys, np.ndarray) else np.array(list(keys), np.int64)
        return np.unique(self._known(kind, chosen))

    def _known(self, kind: Kind, keys: ArrayLike) -> Keys:
        chosen = np.atleast_1d(np.asarray(keys, np.int64))
        wrong = (chosen < 0) | (chosen >= len(self._values[kind]))
        if wrong.any():
            raise KeyError(f"no {kind.value} has the key {int(chosen[np.argmax(wrong)])}")
        return chosen

    def _add(self, kind: Kind, values: NDArray[np.float64]) -> Keys:
        first = len(self._values[kind])
        self._values[kind].extend(values)
        self._local[kind].extend(np.full(len(values), -1, np.int32))
        return np.arange(first, first + len(values))

    def _checked(self, table: Table, fields: Mapping[str, ArrayLike], rows: int) -> dict[str, NDArray[Any]]:
        """Fields as arrays of a value a row or one for all; the errors name type and field."""
        out: dict[str, NDArray[Any]] = {}
        kinds = dict(zip(table.key_names, table.kinds, strict=True))
        for name, value in fields.items():
            if name in kinds:
                out[name] = self._known(kinds[name], value)
                if len(out[name]) not in (1, rows):
                    raise ValueError(f"{table.cls.__name__}.{name}: {len(out[name])} keys for {rows} rows")
                continue
            if name not in table.defaults:
                raise ValueError(f"{table.cls.__name__} has no field {name!r}; it has {', '.join(table.columns)}")
            default, array = table.defaults[name], np.asarray(value)
            if array.shape not in (default.shape, (rows, *default.shape)):
                raise ValueError(f"{table.cls.__name__}.{name}: shape {array.shape}, expected {(rows, *default.shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{table.cls.__name__}.{name}: not finite")
            out[name] = array
        if (out.get("weight", np.zeros(1)) < 0).any():
            raise ValueError(f"{table.cls.__name__}.weight: negative")
        return out

    def _by_table(self, ids: ArrayLike) -> list[tuple[Table, Keys]]:
        chosen = np.atleast_1d(np.asarray(ids, np.int64))
        numbers, tables = table_number(chosen), list(self._tables.values())
        unknown = (numbers < 0) | (numbers >= len(tables))
        if unknown.any():
            raise KeyError(f"no row has the id {int(chosen[np.argmax(unknown)])}")
        return [(tables[n], chosen[numbers == n]) for n in np.unique(numbers)]


@cache
def _no_rows(cls: type[Factor]) -> Factor:
    """An empty stack: making one anew for every absent type takes longer than filling the others."""
    return jax.device_put(cls.stack(0))


def _union(free: Keys, held: Keys) -> Keys:
    return np.union1d(free, held).astype(np.int64)


def _fits(room: Capacity, size: Mapping[Kind, int], counts: Mapping[type[Factor], int]) -> None:
    wanted = [("poses", size[Kind.POSE], room.poses), ("voxels", size[Kind.VOXEL], room.voxels)]
    wanted += [(f"{cls.__name__} rows", n, room.rows.get(cls, 0)) for cls, n in counts.items()]
    for what, count, limit in wanted:
        if count > limit:
            raise ValueError(f"{count} {what} do not fit into a capacity of {limit}")
