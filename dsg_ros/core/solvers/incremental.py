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
from dsg_ros.core.native import growing, manifold, marginals, regrowth, retiring, substitution, tree
from dsg_ros.core.native.damping import FLOOR
from dsg_ros.core.native.growing import Graph
from dsg_ros.core.null_space import free_numbers
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers.linear import SMALLEST_PIVOT
from dsg_ros.core.solvers.relative_rows import RelativeRows
from dsg_ros.core.tables import Columns
from dsg_ros.poses import IDENTITY

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
    beyond all numbers.  Then the estimate stays as it was, and the next update tries again;
    `Incremental.underconstrained` names what is not determined.
    """

    fronts: int
    visited: int
    relinearised: int
    result: Result


class Incremental:
    """A graph of relative poses that grows; poses are numbered from 0, as they are added.

    Poses move along ``axes``.  At every ``every``-th update, poses whose estimates are further than ``relinearise``
    [m, rad] from where their rows were linearised are linearised again; changes are not carried further down until they
    add up to more than ``wildfire``.
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
        self._relinearise, self._every, self._wildfire = float(relinearise), every, float(wildfire)
        self._updates = 0
        self._poses, self._variables = Columns(growing.NEW_POSE), Columns(growing.new_variable(self._width))
        self._rows, self._fronts = RelativeRows(self._width), Columns(growing.NEW_FRONT)
        self._members, self._pool = np.empty(1 << 20, np.int64), _reserved(RESERVED)
        self._store = growing.new_store()
        self._stamp, self._now = 0, 0
        # Fronts made at an update, with its number, and those made at it that were too young when they were looked at.
        self._young: deque[tuple[int, Ints]] = deque()
        # How many rows and variables the updates have worked in.
        self._rows_in, self._variables_in = 0, 0
        # Variables to be eliminated again at the next update, and those of them whose fronts are not factorised.
        self._retry, self._unsolved = NOTHING, NOTHING

    def __len__(self) -> int:
        return len(self._poses)

    def add_pose(self, pose: ArrayLike, *, held: bool = False) -> int:
        """Add a pose at ``pose`` (7,), base in map; returns its number.  A ``held`` one fixes the gauge.

        ValueError unless it is finite with a unit quaternion.
        """
        value, key = pose_row(pose), len(self._poses)
        self._poses.grow(1)
        self._poses.whole.origin[key] = value
        if held:
            return key
        variable = len(self._variables)
        self._variables.grow(1)
        columns = self._variables.whole
        self._poses.whole.variable[key] = variable
        columns.pose_of[variable], columns.offset[variable] = key, variable * self._width
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
        row from a pose to itself, a ``kernel_width`` that is not positive; then no row is added.
        """
        return self._rows.add(self._poses, first, second, measured, sqrt_info, kernel, kernel_width)

    def update(self) -> Update:
        """Work in what was added since the last update."""
        self._updates += 1
        moving = NOTHING
        if self._updates % self._every == 0:
            moving = regrowth.far_variables(self._graph(), self._relinearise)
        return self._work_in(moving, self._wildfire)

    def settle(self, tolerance: float = 1e-6, most: int = 20) -> tuple[Update, int]:
        """Gauss-Newton on the whole graph, from the estimates on, until a step moves no pose by more than
        ``tolerance`` [m, rad], or ``most`` steps are taken.

        Returns the last update and how many there were.  Its result is MAX_ITERATIONS where they did not do, and
        DIVERGED where a step raised the cost: that one is not taken.  There is no step control, and so no way on from
        there but that of a batch solver.
        """
        cost = self.cost()
        for count in range(1, most + 1):
            update = self._work_in(self._moving(), 0.0)
            delta = self._variables.view.delta
            if update.result is not Result.CONVERGED or np.abs(delta).max(initial=0.0) <= tolerance:
                return update, count
            before, cost = cost, self.cost()
            # Above rounding.
            if not cost <= before + 1e-9 * (before + FLOOR):
                self._retry = self._moving()
                delta[:] = 0.0  # the origins are where the step began
                return replace(update, result=Result.DIVERGED), count
        return replace(update, result=Result.MAX_ITERATIONS), most

    def _moving(self) -> Ints:
        """Variables that are estimated elsewhere than where their rows were linearised."""
        return np.nonzero(self._variables.view.delta.any(axis=1))[0]

    def _work_in(self, moving: Ints, wildfire: float) -> Update:
        """Work in what is new, with the variables ``moving`` linearised where they are estimated now."""
        touched = NOTHING
        if len(moving):
            self._stamp += 1
            touched = regrowth.move_origins(self._graph(), moving, self._rows_in, self._stamp)
        rows_now, variables_now = len(self._rows), len(self._variables)
        if not (
            len(touched) or rows_now > self._rows_in or variables_now > self._variables_in or len(self._retry)
        ):  # fmt: skip
            return Update(0, 0, 0, Result.CONVERGED)
        self._now += 1
        while True:
            self._stamp += 1
            ids, outcome, visited = regrowth.regrow(
                self._graph(), touched, self._retry, self._rows_in, rows_now, self._variables_in, variables_now,
                self._now, self._stamp, wildfire, self._relinearise, SMALLEST_PIVOT,
            )  # fmt: skip
            if outcome != regrowth.NO_ROOM:
                break
            self._make_room()
        self._rows_in, self._variables_in = rows_now, variables_now
        self._retry = self._unsolved = NOTHING
        if outcome == regrowth.SOLVED:
            self._retire(ids)
            return Update(len(ids), visited, len(moving), Result.CONVERGED)
        self._unsolved = self._retry = self._eliminated(ids)
        if outcome == regrowth.DIVERGED:
            return Update(len(ids), 0, len(moving), Result.DIVERGED)
        return Update(len(ids), 0, len(moving), Result.SINGULAR)

    def estimate(self, key: int) -> Array:
        """The pose (7,) of one number, base in map.  KeyError where there is none."""
        self._known(key)
        poses = self._poses.whole
        variable = int(poses.variable[key])
        if variable < 0:
            return poses.origin[key].copy()
        return regrowth.estimate(poses.origin, self._variables.whole.delta, self._axes, key, variable)

    def estimates(self) -> Array:
        """All poses (n, 7)."""
        poses, delta = self._poses.view, self._variables.view.delta
        out = np.empty_like(poses.origin)
        offset = np.where(poses.variable >= 0, poses.variable * self._width, -1)
        manifold.retract(poses.origin, self._axes, delta.reshape(-1), offset, out)
        return out

    def covariance(self, key: int) -> Array:
        """Marginal covariance (6, 6) of a pose in its own tangent [m, rad], by the selected inverse; zero for a held
        one, and in directions in which poses do not move.

        KeyError for a pose that is not there, ValueError for one that no update has worked in yet, or whose last update
        was SINGULAR or DIVERGED: there is no covariance.
        """
        self._known(key)
        out, variable = np.zeros((6, 6)), int(self._poses.whole.variable[key])
        if variable >= 0:
            self._check_solved(key, variable)
            block = np.empty((self._width, self._width))
            marginals.marginal(growing.tree_of(self._graph()), variable, block)
            out[np.ix_(self._axes, self._axes)] = 0.5 * (block + block.T)
        return out

    def fill(self) -> int:
        """Numbers in the factor that the updates have left: what an order of elimination costs."""
        fronts = np.unique(self._variables.view.home[: self._variables_in])
        return tree.fill(self._fronts.whole.widths[fronts])

    def underconstrained(self) -> tuple[int, ...]:
        """Numbers of the poses that the rows do not determine, where they are linearised; empty where they do.

        All of them, where an update stops at the first: by the work of a factorisation of the whole graph
        (`null_space.free_numbers`), at every call anew.
        """
        free = free_numbers(self._rows.hessian(self._poses.view.origin, len(self._variables), self._axes))
        return tuple(sorted(self._variables.view.pose_of[free.reshape(-1, self._width).any(axis=1)].tolist()))

    def measurement_vjp(self, cotangent: ArrayLike) -> Array:
        """Gradient (r, 6) in the measured pose of every row, in its own tangent [1/m, 1/rad], of a function of the
        estimates whose gradient in the tangents of the poses is ``cotangent`` (p, 6): by the implicit function theorem
        ``-(d g / d z)^T H^-1 cotangent``, one substitution with the factor at hand.

        H is Gauss-Newton's where the rows were linearised last, which `settle` brings to the estimates.  Rows and poses
        that no update has worked in have no part.  ValueError for another shape, and where the last update was SINGULAR
        or DIVERGED.
        """
        right = np.asarray(cotangent, float)
        if right.shape != (len(self), 6):
            raise ValueError(f"cotangent: shape {right.shape}, expected {(len(self), 6)}")
        if len(self._unsolved):
            raise ValueError("no derivative: the last update found no solution (Update.result)")
        pose_of, adjoint = self._variables.view.pose_of[: self._variables_in], np.zeros((len(self), 6))
        column = np.ascontiguousarray(right[pose_of][:, self._axes]).reshape(1, -1)
        substitution.solve(growing.tree_of(self._graph()), self._all_fronts(), column)
        adjoint[np.ix_(pose_of, self._axes)] = column.reshape(-1, self._width)
        return -self._rows.measurement_gradient(self.estimates(), adjoint, self._rows_in)

    def _all_fronts(self) -> Ints:
        """Children before parents."""
        parents, child, sibling = (getattr(self._fronts.whole, n).tolist() for n in ("parents", "child", "sibling"))
        waiting = [s for s in np.unique(self._variables.view.home[: self._variables_in]).tolist() if parents[s] < 0]
        order = []
        while waiting:
            order.append(waiting.pop())
            below = child[order[-1]]
            while below >= 0:
                waiting.append(below)
                below = sibling[below]
        return np.array(order[::-1], np.int64)

    def cost(self) -> float:
        """Of all rows, at the estimates: half the sum of squared whitened errors, under their kernels."""
        return self._rows.cost(self.estimates())

    def _known(self, key: int) -> None:
        if not 0 <= key < len(self):
            raise KeyError(f"no pose has the number {key}")

    def _check_solved(self, key: int, variable: int) -> None:
        """ValueError unless the fronts on the way from a variable to the root are factorised."""
        home, parents = self._variables.whole.home, self._fronts.whole.parents
        front = int(home[variable])
        if front < 0:
            raise ValueError(f"pose {key} has no covariance yet: no update has worked it in")
        unsolved = set(home[self._unsolved].tolist())
        while front >= 0 and unsolved:
            if front in unsolved:
                raise ValueError(f"pose {key} has no covariance: the last update found no solution (Update.result)")
            front = int(parents[front])

    def _eliminated(self, ids: Ints) -> Ints:
        """The variables that fronts eliminate."""
        starts, counts = self._fronts.whole.starts, self._fronts.whole.counts
        parts = [self._members[starts[s] : starts[s] + counts[s, 0]] for s in ids]
        return np.concatenate([NOTHING, *parts])

    def _retire(self, made: Ints) -> None:
        """Take back what old fronts left to those above; ``made`` are the newest."""
        self._young.append((self._now, made))
        while self._young[0][0] <= self._now - retiring.RETIRED:
            since, ids = self._young.popleft()
            later = retiring.retire(self._graph(), ids, since, self._now)
            if len(later):
                self._young.append((self._now, later))

    def _make_room(self) -> None:
        """Have as much room as `regrowth.regrow` asked for."""
        need = self._store.need
        self._fronts.reserve(int(need[growing.FRONTS]))
        self._members = _grown(self._members, int(need[growing.MEMBERS]))
        self._pool = _grown(self._pool, int(need[growing.POOL]))

    def _graph(self) -> Graph:
        return Graph(
            self._axes, self._poses.whole, self._variables.whole, self._rows.columns.whole, self._rows.roots.whole,
            self._fronts.whole, self._members, self._pool, self._store,
        )  # fmt: skip


def warm_up() -> None:
    """Call every compiled loop once, so that no update of any graph compiles one or fetches it from the disk."""
    solver = Incremental(every=1, relinearise=0.0)
    solver.add_pose(IDENTITY, held=True)
    solver.add_pose(IDENTITY)
    solver.add_relative(0, 1, np.array([1.0, 0, 0, 0, 0, 0, 1]), np.eye(6))
    for _ in range(2):  # what the first moves the second linearises again
        solver.update()
    solver.covariance(1)
    solver.estimate(1)
    solver.cost()
    retiring.retire(solver._graph(), NOTHING, 0, 0)  # otherwise not before update `retiring.RETIRED`


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
