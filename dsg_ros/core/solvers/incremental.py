"""Incremental smoothing of a growing pose graph: each update costs what changed, not what is there.

After Kaess et al., "iSAM2: Incremental smoothing and mapping using the Bayes tree" (IJRR 31, 2012): new rows take out
the fronts on the way from their variables to the root, which are eliminated anew in a fresh order with the newest
variables last; variables that moved beyond a threshold are linearised again, with the rows that touch them; back
substitution goes down only as far as something changes.  Deterministic.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsg_ros.core.checks import pose_row
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.native import multifrontal, regrowth, rows
from dsg_ros.core.native.multifrontal import Tree
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers.linear import SMALLEST_PIVOT
from dsg_ros.core.solvers.relative_rows import RelativeRows
from dsg_ros.core.tables import Column

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

NOTHING: Ints = np.zeros(0, np.int64)
RESERVED = 1 << 29
"""Numbers of address space for the fronts' matrices (4 GiB).  Memory that is not touched costs nothing, and what grows
within it is never copied: copying half a gigabyte took 0.4 s, in one update.
"""


@dataclass(frozen=True)
class Update:
    """What an update did: ``fronts`` eliminated anew and ``visited`` by back substitution, ``relinearised`` variables.

    ``result`` is CONVERGED; SINGULAR, where the rows do not determine all poses; or DIVERGED, where their errors are
    beyond all numbers.  Then the estimate stays as it was, and the next update tries again.  ``underconstrained``
    names, of what is not determined, the pose whose pivot failed first, and no more: it is where the factorisation
    stopped.  `Solution.underconstrained` of a batch solve names all.
    """

    fronts: int
    visited: int
    relinearised: int
    result: Result
    underconstrained: tuple[int, ...] = ()


class Incremental:
    """A graph of relative poses that grows; poses are numbered from 0, as they are added.

    Poses move along ``axes``.  At every ``every``-th update, poses whose estimates are further than ``relinearise``
    [m, rad] from where their rows were linearised are linearised again; changes below ``wildfire`` are not carried
    further down.
    """

    def __init__(
        self,
        axes: ArrayLike = tuple(range(6)),
        *,
        relinearise: float = 0.05,
        every: int = 10,
        wildfire: float = 1e-3,
    ) -> None:
        self._axes = np.asarray(axes, np.int64)
        self._width = len(self._axes)
        self._relinearise, self._every, self._wildfire = relinearise, every, wildfire
        self._updates = 0
        width = self._width
        # By pose: where its rows are linearised, the number of its variable (-1: held), the first of its rows.
        self._poses = Column((7,))
        self._variable, self._incident = Column((), np.int64, fill=-1), Column((), np.int64, fill=-1)
        self._rows = RelativeRows(self._axes)
        # By variable.
        self._pose_of, self._offset = Column((), np.int64), Column((), np.int64)
        self._dims = Column((), np.int64, fill=width)
        self._home, self._changed, self._number, self._place, self._touched = (
            Column((), np.int64, fill=-1) for _ in range(5)
        )
        self._forward, self._delta, self._told, self._undamped = (Column((width,)) for _ in range(4))
        self._by_variable = (
            self._pose_of, self._offset, self._dims, self._home, self._changed, self._number, self._place,
            self._touched, self._forward, self._delta, self._told, self._undamped,
        )  # fmt: skip
        # By front.
        self._fronts = {
            name: Column(shape, np.int64, fill=-1)
            for name, shape in {
                "starts": (), "counts": (2,), "widths": (2,), "panel": (), "update": (), "parents": (), "child": (),
                "sibling": (), "first_row": (), "mark": (), "seen": (), "spare": (), "worth": (), "born": (),
            }.items()
        }  # fmt: skip
        self._members, self._pool = np.empty(1 << 20, np.int64), _reserved(RESERVED)
        self._store = regrowth.Store(
            np.zeros(4, np.int64), np.zeros(0, np.int64), np.full(regrowth.CLASSES, -1), np.full(regrowth.CLASSES, -1)
        )
        self._stamp, self._now = 0, 0
        # Fronts made at an update, with its number, and those made at it that were too young when they were looked at.
        self._young: deque[tuple[int, Ints]] = deque()
        self._fresh: list[int] = []
        self._new_rows: list[int] = []
        self._far: list[Ints] = []
        # Variables to be eliminated again at the next update, and those of them whose fronts are not factorised.
        self._retry, self._unsolved = NOTHING, NOTHING

    def __len__(self) -> int:
        return len(self._poses)

    def add_pose(self, pose: ArrayLike, *, held: bool = False) -> int:
        """Add a pose at ``pose`` (7,), base in map; returns its number.  A ``held`` one fixes the gauge.

        ValueError unless it is finite with a unit quaternion.
        """
        value, key = pose_row(pose), len(self._poses)
        self._poses.extend(value[None])
        self._incident.grow(1)
        self._variable.grow(1)
        if held:
            return key
        variable = len(self._dims)
        self._variable.view[key] = variable
        for column in self._by_variable:
            column.grow(1)
        self._pose_of.view[variable], self._offset.view[variable] = key, variable * self._width
        self._fresh.append(variable)
        return key

    def add_relative(
        self, first: int, second: int, measured: ArrayLike, sqrt_info: ArrayLike, kernel: Kernel = Kernel.NONE,
        kernel_width: float = 1.0,
    ) -> int:  # fmt: skip
        """Add a row; returns its number.  As `add_relatives`, of one."""
        return self.add_relatives([first], [second], measured, sqrt_info, kernel, kernel_width)

    def add_relatives(
        self, first: ArrayLike, second: ArrayLike, measured: ArrayLike, sqrt_info: ArrayLike,
        kernel: Kernel = Kernel.NONE, kernel_width: float = 1.0,
    ) -> int:  # fmt: skip
        """Add rows of error ``e = log(measured^-1 first^-1 second)`` between poses ``first`` (n,) and ``second`` (n,);
        returns the number of the first, the others follow.

        ``measured`` (n, 7) is pose ``second`` in the frame of pose ``first``.  ``sqrt_info`` (n, 6, 6), or (6, 6) for
        all, whitens: W with ``W^T W`` the information of ``e``, translation [1/m] before rotation [1/rad], in the
        tangent of ``measured``, that is in the frame of pose ``second``.  ``kernel_width`` is the kernel's scale in
        standard deviations: of ``|W e|``.

        KeyError for a pose that is not there, ValueError for numbers that are not finite, a quaternion off norm 1, a
        ``kernel_width`` that is not positive; then no row is added.
        """
        ends = np.array([first, second], np.int64).T.copy()
        for key in ends.ravel().tolist():
            self._known(key)
        keys = self._variable.view[ends]
        row = self._rows.add(ends, keys, measured, sqrt_info, kernel, kernel_width, self._incident.view)
        self._new_rows.extend((row + np.flatnonzero((keys >= 0).any(axis=1))).tolist())
        return row

    def update(self) -> Update:
        """Work in what was added since the last update."""
        self._updates += 1
        return self._work_in(self._due() if self._updates % self._every == 0 else NOTHING, self._wildfire)

    def settle(self, tolerance: float = 1e-6, most: int = 20) -> tuple[Update, int]:
        """Gauss-Newton on the whole graph, from the estimates on, until a step moves no pose by more than
        ``tolerance`` [m, rad], or ``most`` steps are taken.

        Returns the last update and how many there were.  Its result is MAX_ITERATIONS where they did not do, and
        DIVERGED where a step raised the cost: that one is not taken.  There is no step control, and so no way on from
        there but that of a batch solver.
        """
        cost = self.cost()
        for count in range(1, most + 1):
            update = self._work_in(np.nonzero(self._delta.view.any(axis=1))[0], 0.0)
            if update.result is not Result.CONVERGED or np.abs(self._delta.view).max(initial=0.0) <= tolerance:
                return update, count
            before, cost = cost, self.cost()
            # Above rounding; 1e-6 for costs that reach zero, as in `damping.judge`.
            if not cost <= before + 1e-9 * (before + 1e-6):
                self._retry = np.nonzero(self._delta.view.any(axis=1))[0]
                self._delta.view[:] = 0.0  # the origins are where the step began
                return replace(update, result=Result.DIVERGED), count
        return replace(update, result=Result.MAX_ITERATIONS), most

    def _work_in(self, moved: Ints, wildfire: float) -> Update:
        """Work in what is new, with the variables ``moved`` linearised where they are estimated now."""
        touched = self._move_origins(moved)
        fresh, new_rows = np.array(self._fresh, np.int64), np.array(self._new_rows, np.int64)
        again = np.concatenate([touched, new_rows])
        if not (len(again) or len(fresh) or len(self._retry)):
            return Update(0, 0, 0, Result.CONVERGED)
        tree = self._tree()
        seeds = self._rows.keys[again].ravel()
        seeds = np.unique(np.concatenate([seeds[seeds >= 0], self._retry]))
        late = self._rows.keys[new_rows].ravel()
        self._now += 1
        self._touched.view[late[late >= 0]] = self._now
        ids = self._regrow(tree, seeds[self._home.view[seeds] >= 0], fresh, new_rows)
        self._fresh.clear()
        self._new_rows.clear()
        self._retry = self._unsolved = NOTHING
        tree = self._tree()
        bad = self._factorise(tree, ids)
        if bad >= 0:
            self._unsolved = self._retry = self._eliminated(tree, ids)
            return Update(len(ids), 0, len(moved), Result.SINGULAR, (int(self._pose_of.view[bad]),))
        far = np.empty(max(len(self._dims), 1), np.int64)
        self._stamp += 1
        count, visited = regrowth.substitute_from(
            tree, ids, self._forward.view.reshape(-1), self._delta.view.reshape(-1), self._told.view.reshape(-1), self._changed.view, self._stamp,
            wildfire, self._relinearise, far, self._fronts["seen"].view,
        )  # fmt: skip
        if count < 0:
            self._unsolved = self._retry = self._eliminated(tree, ids)
            return Update(len(ids), 0, len(moved), Result.DIVERGED)
        self._far.append(far[:count].copy())
        self._retire(ids)
        return Update(len(ids), visited, len(moved), Result.CONVERGED)

    def estimate(self, key: int) -> Array:
        """The pose (7,) of one number, base in map.  KeyError where there is none."""
        self._known(key)
        out, variable = self._poses.view[key].copy(), int(self._variable.view[key])
        if variable >= 0:
            tangent = np.zeros(6)
            tangent[self._axes] = self._delta.view[variable]
            rows.moved(self._poses.view[key].copy(), tangent, out)
        return out

    def estimates(self) -> Array:
        """All poses (n, 7)."""
        out = np.empty_like(self._poses.view)
        offset = np.where(self._variable.view >= 0, self._variable.view * self._width, -1)
        rows.retract(self._poses.view, self._axes, self._delta.view.reshape(-1), offset, out)
        return out

    def covariance(self, key: int) -> Array:
        """Marginal covariance (6, 6) of a pose in its own tangent [m, rad], by the selected inverse; zero for a held
        one, and in directions in which poses do not move.

        KeyError for a pose that is not there, ValueError for one that no update has worked in yet, or whose last update
        was SINGULAR or DIVERGED: there is no covariance.
        """
        self._known(key)
        out, variable = np.zeros((6, 6)), int(self._variable.view[key])
        if variable >= 0:
            self._check_solved(key, variable)
            block = np.empty((self._width, self._width))
            multifrontal.marginal(self._tree(), variable, block)
            out[np.ix_(self._axes, self._axes)] = 0.5 * (block + block.T)
        return out

    def cost(self) -> float:
        """Of all rows, at the estimates: half the sum of squared whitened errors, under their kernels."""
        return self._rows.cost(self.estimates())

    def _known(self, key: int) -> None:
        if not 0 <= key < len(self):
            raise KeyError(f"no pose has the number {key}")

    def _check_solved(self, key: int, variable: int) -> None:
        """ValueError unless the fronts on the way from a variable to the root are factorised."""
        front, tree = int(self._home.view[variable]), self._tree()
        if front < 0:
            raise ValueError(f"pose {key} has no covariance yet: no update has worked it in")
        unsolved = set(self._home.view[self._unsolved].tolist())
        while front >= 0 and unsolved:
            if front in unsolved:
                raise ValueError(f"pose {key} has no covariance: the last update found no solution (Update.result)")
            front = int(tree.parents[front])

    @staticmethod
    def _eliminated(tree: Tree, ids: Ints) -> Ints:
        """The variables that fronts eliminate."""
        parts = [tree.members[tree.starts[s] : tree.starts[s] + tree.counts[s, 0]] for s in ids]
        return np.concatenate([NOTHING, *parts])

    def _due(self) -> Ints:
        """Variables that are far from where their rows were linearised; from here on the list begins anew."""
        far = np.unique(np.concatenate([*self._far, NOTHING]))
        self._far.clear()
        return far[np.abs(self._delta.view[far]).max(axis=1, initial=0.0) > self._relinearise]

    def _move_origins(self, variables: Ints) -> Ints:
        """Linearise ``variables`` at their estimates from now on; returns the rows that touch them, new ones apart."""
        self._stamp += 1
        mark = self._rows.mark
        mark[np.array(self._new_rows, np.int64)] = self._stamp
        rows: Ints = regrowth.move_origins(
            variables, self._pose_of.view, self._axes, self._poses.view, self._delta.view, self._told.view, self._incident.view,
            self._rows.ends, self._rows.next_incident, mark, self._stamp,
        )  # fmt: skip
        return rows

    def _regrow(self, tree: Tree, seeds: Ints, fresh: Ints, new_rows: Ints) -> Ints:
        self._stamp += 1
        mark = self._fronts["mark"].view
        removed = regrowth.fronts_above(tree, seeds, mark, self._stamp)
        tree = self._revived(tree, removed)
        top = regrowth.plan_top(
            tree, self._rows.keys, removed, fresh, new_rows, self._touched.view, self._now, mark, self._stamp,
            self._number.view, self._width,
        )  # fmt: skip
        ends = self._store.ends
        missing = int(ends[regrowth.FRONTS] + top.need[regrowth.FRONTS]) - len(self._fronts["starts"])
        if missing > 0:
            for column in self._fronts.values():
                column.grow(missing)
        self._members = _grown(self._members, int(ends[regrowth.MEMBERS] + top.need[regrowth.MEMBERS]))
        self._pool = _grown(self._pool, int(ends[regrowth.POOL] + top.need[regrowth.POOL]))
        ids: Ints = regrowth.install(
            self._tree(), self._store_now(), self._rows.keys, removed, top, self._number.view, self._now,
            self._fronts["worth"].view, self._fronts["born"].view,
        )  # fmt: skip
        return ids

    def _revived(self, tree: Tree, removed: Ints) -> Tree:
        """The tree when what is left to the fronts ``removed`` is there, where it had been given back."""
        ids, need = regrowth.wanting(tree, removed, self._fronts["mark"].view, self._stamp)
        if not len(ids):
            return tree
        self._pool = _grown(self._pool, int(self._store.ends[regrowth.POOL]) + need)
        tree = self._tree()
        regrowth.revive(tree, self._store_now(), ids, self._fronts["worth"].view)
        self._factorise(tree, ids)
        return tree

    def _retire(self, made: Ints) -> None:
        """Take back what old fronts left to those above; ``made`` are the newest."""
        self._young.append((self._now, made))
        while self._young[0][0] <= self._now - regrowth.RETIRED:
            since, ids = self._young.popleft()
            later = regrowth.retire(
                self._tree(), self._store_now(), ids, since, self._touched.view, self._now, self._fronts["worth"].view,
                self._fronts["born"].view,
            )  # fmt: skip
            if len(later):
                self._young.append((self._now, later))

    def _store_now(self) -> regrowth.Store:
        return self._store._replace(spare=self._fronts["spare"].view)

    def _factorise(self, tree: Tree, ids: Ints) -> int:
        """Factorise fronts; returns the variable that its rows do not determine, or -1."""
        linearised = self._rows.linearised(tree, ids, self._poses.view)
        _, bad = multifrontal.factorise(
            tree, linearised, ids, self._undamped.view.ravel(), self._forward.view.reshape(-1), self._place.view,
            SMALLEST_PIVOT,
        )  # fmt: skip
        return int(bad)

    def _tree(self) -> Tree:
        f = self._fronts
        return Tree(
            f["starts"].view, f["counts"].view, f["widths"].view, f["panel"].view, f["update"].view,
            f["parents"].view, f["child"].view, f["sibling"].view, f["first_row"].view, self._members, self._pool,
            self._home.view, self._offset.view, self._dims.view, self._rows.next_row,
        )  # fmt: skip


def _reserved(count: int) -> Array:
    """Room for ``count`` numbers, or for as many as the system promises."""
    while True:
        try:
            return np.empty(count)
        except MemoryError:
            if count < 1 << 16:
                raise
            count //= 2


def _grown(array: Any, needed: int) -> Any:
    """``array``, or a larger one that begins with it: memory that is not touched costs nothing."""
    if needed <= len(array):
        return array
    out = np.empty(max(needed, 2 * len(array)), array.dtype)
    out[: len(array)] = array
    return out
