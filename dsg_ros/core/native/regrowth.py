"""One update of a growing graph: take out the fronts that new rows touch, eliminate their variables anew, substitute.

What lies below stays, with what it left to the fronts taken out (Kaess et al., "iSAM2: Incremental smoothing and
mapping using the Bayes tree", IJRR 31, 2012).  All of it is one call: Numba takes some ten microseconds to pass as many
arrays as a `Graph` has, and half of the updates take less than 0.3 ms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.growing import FAR, FRONTS, MEMBERS, POOL, Graph, tree_of
from dsg_ros.core.native.growing_rows import linearised_below
from dsg_ros.core.native.installing import install
from dsg_ros.core.native.manifold import moved
from dsg_ros.core.native.multifrontal import factorise
from dsg_ros.core.native.retiring import revive, wanting
from dsg_ros.core.native.top_plan import fronts_above, plan_top
from dsg_ros.core.native.tree import RowHessians
from dsg_ros.core.native.wildfire import is_finite, substitute_from

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SOLVED, SINGULAR, DIVERGED, NO_ROOM = 0, 1, 2, 3


class Regrown(NamedTuple):
    """The new fronts ``ids``, how it went, and how many fronts back substitution ``visited``."""

    ids: Ints
    outcome: int
    visited: int


@compiled
def far_variables(graph: Graph, beyond: float) -> Ints:
    """Those listed that are still further than ``beyond`` from where their rows were linearised, in order; the list is
    empty from here on.
    """
    variables, ends = graph.variables, graph.store.ends
    out, count = np.empty(ends[FAR], np.int64), 0
    for i in range(ends[FAR]):
        v = variables.far[i]
        variables.listed[v] = False
        if np.abs(variables.delta[v]).max() > beyond:
            out[count] = v
            count += 1
    ends[FAR] = 0
    return np.sort(out[:count])


@compiled
def move_origins(graph: Graph, moving: Ints, row_count: int, stamp: int) -> Ints:
    """Move the origins of variables to where they are estimated; returns those of the first ``row_count`` rows that
    touch them, in order.
    """
    poses, variables, rows, axes = graph.poses, graph.variables, graph.rows, graph.axes
    out, count = np.empty(64, np.int64), 0
    tangent, moved_pose = np.empty(6), np.empty(7)
    for k in range(len(moving)):
        v = moving[k]
        key = variables.pose_of[v]
        tangent[:] = 0.0
        for i in range(len(axes)):
            tangent[axes[i]] = variables.delta[v, i]
            variables.delta[v, i] = variables.told[v, i] = 0.0
        moved(poses.origin[key], tangent, moved_pose)
        poses.origin[key] = moved_pose
        r = poses.incident[key]
        while r >= 0:
            if r < row_count and rows.mark[r] != stamp:
                rows.mark[r] = stamp
                if count == len(out):
                    out = np.concatenate((out, np.empty_like(out)))
                out[count] = r
                count += 1
            r = rows.next_incident[r, 1 if rows.ends[r, 1] == key else 0]
    return np.sort(out[:count])


@compiled
def _factorise(graph: Graph, ids: Ints, least_pivot: float) -> bool:
    """Factorise fronts, children before parents; whether their variables are determined."""
    hessian, gradient = linearised_below(graph, ids)
    variables = graph.variables
    rows = RowHessians(graph.rows.keys, graph.rows.local, hessian, gradient, graph.rows.slot)
    _, singular = factorise(
        tree_of(graph), rows, ids, variables.undamped.reshape(-1), variables.forward.reshape(-1), variables.place,
        least_pivot,
    )  # fmt: skip
    return singular < 0


@compiled
def _seeds(graph: Graph, touched: Ints, new_rows: Ints, retry: Ints, now: int) -> Ints:
    """Variables that rows touch, and those to be tried again, in order; those of new rows become `Variables.touched`
    by the update ``now``.
    """
    keys, stamps = graph.rows.keys, graph.variables.touched
    out, count = np.empty(2 * (len(touched) + len(new_rows)) + len(retry), np.int64), len(retry)
    out[:count] = retry
    for i in range(len(touched) + len(new_rows)):
        is_new = i >= len(touched)
        r = new_rows[i - len(touched)] if is_new else touched[i]
        for side in range(2):
            v = keys[r, side]
            if v >= 0:
                out[count] = v
                count += 1
                if is_new:
                    stamps[v] = now
    return np.sort(out[:count])


@compiled
def _between_moving(graph: Graph, first: int, last: int) -> Ints:
    """Those of the rows from ``first`` on and before ``last`` that touch a variable."""
    out, count = np.empty(last - first, np.int64), 0
    for r in range(first, last):
        if graph.rows.keys[r, 0] >= 0 or graph.rows.keys[r, 1] >= 0:
            out[count] = r
            count += 1
    return out[:count]


@compiled
def _fits(graph: Graph, fronts: int, members: int, pool: int) -> bool:
    """Whether there is room for so much more; if not, `Store.need` says how far each must reach."""
    ends, need = graph.store.ends, graph.store.need
    need[FRONTS], need[MEMBERS], need[POOL] = ends[FRONTS] + fronts, ends[MEMBERS] + members, ends[POOL] + pool
    return (
        need[FRONTS] <= len(graph.fronts.starts)
        and need[MEMBERS] <= len(graph.members)
        and need[POOL] <= len(graph.pool)
    )


@compiled
def regrow(
    graph: Graph, touched: Ints, retry: Ints, first_row: int, row_count: int, first_variable: int, variable_count: int,
    now: int, stamp: int, wildfire: float, beyond: float, least_pivot: float,
) -> Regrown:  # fmt: skip
    """Work in the rows from ``first_row`` on and the variables from ``first_variable`` on: update number ``now``.

    Rows ``touched`` are linearised again, variables ``retry`` eliminated again.  ``stamp`` is another one at every
    call.  `wildfire.substitute_from` has ``wildfire`` and ``beyond``, `multifrontal.factorise` ``least_pivot``.  Where
    it is `NO_ROOM`, make room for `Store.need` and call again.
    """
    tree, mark = tree_of(graph), graph.fronts.mark
    new_rows = _between_moving(graph, first_row, row_count)
    removed = fronts_above(tree, _seeds(graph, touched, new_rows, retry, now), mark, stamp)
    nothing = np.empty(0, np.int64)
    # What is left to the fronts taken out must be there, where it had been given back.
    again, need = wanting(tree, removed, mark, stamp)
    if len(again):
        if not _fits(graph, 0, 0, need):
            return Regrown(nothing, NO_ROOM, 0)
        revive(graph, again)
        _factorise(graph, again, least_pivot)
    fresh = np.arange(first_variable, variable_count)
    top = plan_top(graph, removed, fresh, new_rows, now, stamp)
    if not _fits(graph, top.need[FRONTS], top.need[MEMBERS], top.need[POOL]):
        return Regrown(nothing, NO_ROOM, 0)
    ids = install(graph, removed, top, now)
    if not _factorise(graph, ids, least_pivot):
        return Regrown(ids, SINGULAR, 0)
    if not is_finite(graph, ids):
        return Regrown(ids, DIVERGED, 0)
    return Regrown(ids, SOLVED, substitute_from(graph, ids, stamp, wildfire, beyond))


@compiled
def estimate(origin: Floats, delta: Floats, axes: Ints, key: int, v: int) -> Floats:
    """The pose (7,) ``key``, whose variable is ``v``."""
    tangent, out = np.zeros(6), np.empty(7)
    for i in range(len(axes)):
        tangent[axes[i]] = delta[v, i]
    moved(origin[key], tangent, out)
    return out
