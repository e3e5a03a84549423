"""Change an elimination tree at the top: take out the fronts that new rows touch, and eliminate their variables anew.

What lies below stays, with what it left to the fronts taken out: each such orphan enters the new ordering as a clique
over its separator (Kaess et al., "iSAM2: Incremental smoothing and mapping using the Bayes tree", IJRR 31, 2012; here
with Cholesky fronts in place of QR cliques).

What a front left to the one above is most of the memory, and of use only if that one is taken out.  Fronts that nothing
has touched for long give it back, all but one in `MOST`; where it is wanted after all, those few are done again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.elimination import Fronts, fronts_of
from dsg_ros.core.native.multifrontal import Tree, _back
from dsg_ros.core.native.ordering import minimum_degree
from dsg_ros.core.native.plan import neighbours_of
from dsg_ros.core.native.rows import cost_of, finish, moved, relative_error, relative_row, scratch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLASSES = 160
RECENT = 256
"""Variables that no new row has touched for so many updates are eliminated before others.  Without that they stay with
the root for good, and every update pays for them: on a simulated city of 6000 poses it took 5.3 ms instead of 0.8.
"""
FEW = 4
"""Where every update closes loops, so many recent variables make a dense root: then only those of the last few updates
are kept for last."""
PATIENCE = 1.5
"""So many times the work of the order with `FEW` is spent now on that with `RECENT`, whose next updates are cheaper.
City10000, as a whole: 69 s with `RECENT` alone, 30 s with `FEW` alone, 33 s with the choice; sphere2500 13.6, 18.1 and
13.4 s.
"""
LITTLE = 1e4
"""Multiplications of blocks below which there is no choice to be made: ordering costs more than elimination."""
RETIRED = 4 * RECENT
"""Fronts whose variables, and those of the front above, nothing has touched for so many updates give back what they
left to it."""
MOST = 24
"""Fronts, at most, that are done again to have what one of them left."""
UNDECIDED, KEPT = 0, -1
"""States of a front's ``worth``; positive, the number of fronts to be done again for it."""
FRONTS, MEMBERS, POOL, SPARE = 0, 1, 2, 3
"""Places in ``ends``: fronts ever used, ends of the two stores, and how many numbers of dead fronts wait for use."""


class Store(NamedTuple):
    """Where the next matrices and members go: ``ends`` (4,) as above, ``spare`` numbers of fronts, and by size class
    the heads of the chains of pieces given back (-1: none).
    """

    ends: Ints
    spare: Ints
    free_pool: Ints
    free_members: Ints


class Top(NamedTuple):
    """The part to be eliminated anew: ``variables`` and their new ``fronts`` in local numbers, the ``order``, rows and
    orphans, and how much room the fronts need: fronts, members, pool.
    """

    variables: Ints
    order: Ints
    fronts: Fronts
    rows: Ints
    orphans: Ints
    need: Ints


@compiled
def _class(size: int) -> int:
    """Size class: pieces are up to a quarter larger than asked for."""
    return 0 if size <= 8 else math.ceil(math.log(size / 8.0) / math.log(1.25) - 1e-9)


@compiled
def _room(size: int) -> int:
    return math.ceil(8.0 * 1.25 ** _class(size))


@compiled
def chain(ends: Ints, incident: Ints, next_incident: Ints, first: int) -> None:
    """Put rows numbered from ``first`` on between ``ends`` (n, 2) at the head of the chains of both poses."""
    for k in range(len(ends)):
        for side in range(2):
            next_incident[first + k, side] = incident[ends[k, side]]
        for side in range(2):
            incident[ends[k, side]] = first + k


@compiled
def move_origins(
    variables: Ints, pose_of: Ints, axes: Ints, poses: Floats, delta: Floats, told: Floats, incident: Ints, ends: Ints,
    next_incident: Ints, mark: Ints, stamp: int,
) -> Ints:  # fmt: skip
    """Move the poses of ``variables`` to where they are estimated, ``delta`` (by variable) to zero; returns the rows
    that touch them, but for those marked with ``stamp``, and marks them.
    """
    out, count = np.empty(64, np.int64), 0
    tangent, moved_pose = np.empty(6), np.empty(7)
    for k in range(len(variables)):
        v = variables[k]
        key = pose_of[v]
        tangent[:] = 0.0
        for i in range(len(axes)):
            tangent[axes[i]] = delta[v, i]
            delta[v, i] = told[v, i] = 0.0
        moved(poses[key], tangent, moved_pose)
        poses[key] = moved_pose
        r = incident[key]
        while r >= 0:
            if mark[r] != stamp:
                mark[r] = stamp
                if count == len(out):
                    out = np.concatenate((out, np.empty_like(out)))
                out[count] = r
                count += 1
            r = next_incident[r, 1 if ends[r, 1] == key else 0]
    return np.sort(out[:count])


@compiled
def fronts_above(tree: Tree, seeds: Ints, mark: Ints, stamp: int) -> Ints:
    """Fronts that eliminate ``seeds``, and all above them; marked with ``stamp``."""
    out, count = np.empty(64, np.int64), 0
    for i in range(len(seeds)):
        s = tree.home[seeds[i]]
        while s >= 0 and mark[s] != stamp:
            mark[s] = stamp
            if count == len(out):
                out = np.concatenate((out, np.empty_like(out)))
            out[count] = s
            count += 1
            s = tree.parents[s]
    return out[:count].copy()


@compiled
def plan_top(
    tree: Tree, keys: Ints, removed: Ints, fresh: Ints, new_rows: Ints, touched: Ints, now: int, mark: Ints, stamp: int,
    number: Ints, width: int,
) -> Top:  # fmt: skip
    """How to eliminate the variables of the fronts ``removed`` and the ``fresh`` ones, with ``new_rows`` on top.

    ``keys`` (r, k) are the rows' variables.  ``touched`` is the update of the newest row of each variable: those of the
    update ``now`` come last.  ``number`` is scratch (by variable).
    """
    count, row_count, orphan_count, clique_total = len(fresh), len(new_rows), 0, 0
    for k in range(len(removed)):
        s = removed[k]
        count += tree.counts[s, 0]
        r = tree.first_row[s]
        while r >= 0:
            row_count += 1
            r = tree.next_row[r]
        c = tree.child[s]
        while c >= 0:
            if mark[c] != stamp:
                orphan_count += 1
                clique_total += tree.counts[c, 1]
            c = tree.sibling[c]
    variables, rows, orphans = (
        np.empty(count, np.int64),
        np.empty(row_count, np.int64),
        np.empty(orphan_count, np.int64),
    )
    count, row_count, orphan_count = 0, 0, 0
    for k in range(len(removed)):
        s = removed[k]
        for i in range(tree.starts[s], tree.starts[s] + tree.counts[s, 0]):
            variables[count] = tree.members[i]
            number[tree.members[i]] = count
            count += 1
        r = tree.first_row[s]
        while r >= 0:
            rows[row_count] = r
            row_count += 1
            r = tree.next_row[r]
        c = tree.child[s]
        while c >= 0:
            if mark[c] != stamp:
                orphans[orphan_count] = c
                orphan_count += 1
            c = tree.sibling[c]
    for i in range(len(fresh)):
        variables[count] = fresh[i]
        number[fresh[i]] = count
        count += 1
    for i in range(len(new_rows)):
        rows[row_count] = new_rows[i]
        row_count += 1

    local = np.full((row_count, keys.shape[1]), -1, np.int64)
    for i in range(row_count):
        for a in range(keys.shape[1]):
            if keys[rows[i], a] >= 0:
                local[i, a] = number[keys[rows[i], a]]
    cliques, members, at = np.zeros(orphan_count + 1, np.int64), np.empty(clique_total, np.int64), 0
    for i in range(orphan_count):
        c = orphans[i]
        first = tree.starts[c] + tree.counts[c, 0]
        for p in range(first, first + tree.counts[c, 1]):
            members[at] = number[tree.members[p]]
            at += 1
        cliques[i + 1] = at
    ages = now - touched[variables]
    pointers, neighbours = neighbours_of(local, count)
    order = minimum_degree(pointers, neighbours, cliques, members, _stages(ages, RECENT))
    fronts = fronts_of(order, pointers, neighbours, cliques, members, width)
    work = _work(fronts)
    if work > LITTLE:
        other = minimum_degree(pointers, neighbours, cliques, members, _stages(ages, FEW))
        others = fronts_of(other, pointers, neighbours, cliques, members, width)
        if work > PATIENCE * _work(others):
            order, fronts = other, others
    need = np.zeros(3, np.int64)
    need[FRONTS] = len(fronts.fronts)
    for s in range(len(fronts.fronts)):
        wide, tall = 0, 0
        border = fronts.starts[s] + fronts.fronts[s]
        for i in range(fronts.starts[s], fronts.starts[s + 1]):
            if i < border:
                wide += tree.dims[variables[fronts.members[i]]]
            else:
                tall += tree.dims[variables[fronts.members[i]]]
        need[MEMBERS] += _room(fronts.starts[s + 1] - fronts.starts[s])
        need[POOL] += _room((wide + tall) * wide) + _room(tall * tall + tall)
    return Top(variables, order, fronts, rows, orphans, need)


@compiled
def _stages(ages: Ints, recent: int) -> Ints:
    """Order of elimination: old variables, those touched in the last ``recent`` updates, those of this one."""
    stages = np.empty(len(ages), np.int64)
    for i in range(len(ages)):
        stages[i] = 2 if ages[i] == 0 else 1 if ages[i] <= recent else 0
    return stages


@compiled
def _work(fronts: Fronts) -> float:
    """Multiplications of blocks in the Cholesky factorisation of all fronts."""
    total = 0.0
    for s in range(len(fronts.fronts)):
        wide, tall = float(fronts.fronts[s]), float(fronts.separators[s])
        total += wide * (wide * wide / 3.0 + tall * (wide + tall))
    return total


@compiled
def _take_pool(tree: Tree, store: Store, size: int) -> int:
    kind = _class(size)
    at = store.free_pool[kind]
    if at >= 0:
        store.free_pool[kind] = int(tree.pool[at])
        return at
    at = store.ends[POOL]
    store.ends[POOL] += _room(size)
    return at


@compiled
def _give_pool(tree: Tree, store: Store, at: int, size: int) -> None:
    kind = _class(size)
    tree.pool[at] = float(store.free_pool[kind])
    store.free_pool[kind] = at


@compiled
def linearised_below(
    tree: Tree, ids: Ints, poses: Floats, ends: Ints, measured: Floats, root_of: Ints, roots: Floats, weights: Floats,
    kernels: NDArray[np.int32], widths: Floats, axes: Ints, slot: Ints,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Hessians and gradients of the relative poses that belong to fronts ``ids``; sets the rows' ``slot`` among them.

    Kept for all rows they would be most of the memory of a large graph; to make them again costs less than a tenth of
    the factorisation that they are for.
    """
    count = 0
    for k in range(len(ids)):
        r = tree.first_row[ids[k]]
        while r >= 0:
            slot[r] = count
            count += 1
            r = tree.next_row[r]
    columns = 2 * len(axes)
    hessian, gradient = np.empty((count, columns, columns)), np.empty((count, columns))
    room, whitened, jacobian = scratch(), np.empty(6), np.empty((6, columns))
    for k in range(len(ids)):
        r = tree.first_row[ids[k]]
        while r >= 0:
            relative_row(
                poses[ends[r, 0]], poses[ends[r, 1]], measured[r], roots[root_of[r]], axes, room, whitened, jacobian
            )  # fmt: skip
            finish(
                whitened, jacobian, 6, columns, weights[r], kernels[r], widths[r], hessian[slot[r]], gradient[slot[r]]
            )  # fmt: skip
            r = tree.next_row[r]
    return hessian, gradient


@compiled
def cost_at(
    poses: Floats, ends: Ints, measured: Floats, root_of: Ints, roots: Floats, weights: Floats,
    kernels: NDArray[np.int32], widths: Floats,
) -> float:  # fmt: skip
    """Cost of all relative poses at ``poses`` (p, 7)."""
    total, room, whitened = 0.0, scratch(), np.empty(6)
    for r in range(len(ends)):
        relative_error(poses[ends[r, 0]], poses[ends[r, 1]], measured[r], roots[root_of[r]], room, whitened)
        total += cost_of(whitened, 6, weights[r], kernels[r], widths[r])
    return total


@compiled
def wanting(tree: Tree, removed: Ints, mark: Ints, stamp: int) -> tuple[Ints, int]:
    """Fronts to be done again, children before parents, so that all orphans of ``removed`` (marked with ``stamp``) have
    what they leave; and how much room that needs.
    """
    out, count, need = np.empty(16, np.int64), 0, 0
    for k in range(len(removed)):
        c = tree.child[removed[k]]
        while c >= 0:
            if mark[c] != stamp and tree.update[c] < 0:
                at = count
                out, count = _pushed(out, count, c)
                while at < count:
                    s = out[at]
                    at += 1
                    need += _room(tree.widths[s, 1] ** 2 + tree.widths[s, 1])
                    below = tree.child[s]
                    while below >= 0:
                        if tree.update[below] < 0:
                            out, count = _pushed(out, count, below)
                        below = tree.sibling[below]
            c = tree.sibling[c]
    return out[:count][::-1].copy(), need


@compiled
def _pushed(stack: Ints, count: int, value: int) -> tuple[Ints, int]:
    if count == len(stack):
        stack = np.concatenate((stack, np.empty_like(stack)))
    stack[count] = value
    return stack, count + 1


@compiled
def revive(tree: Tree, store: Store, ids: Ints, worth: Ints) -> None:
    """Give the fronts ``ids`` room again for what they leave.  There must be as much as `wanting` said."""
    for k in range(len(ids)):
        tall = tree.widths[ids[k], 1]
        tree.update[ids[k]] = _take_pool(tree, store, tall * tall + tall)
        worth[ids[k]] = UNDECIDED


@compiled
def retire(
    tree: Tree, store: Store, ids: Ints, since: int, touched: Ints, now: int, worth: Ints, born: Ints
) -> Ints:  # fmt: skip
    """Take back what those of the fronts ``ids`` left that are old enough; returns those to be looked at again.

    A front ``born`` after the update ``since`` has taken over the number of one that is gone, and is on another list.
    """
    later, count = np.empty(len(ids), np.int64), 0
    for k in range(len(ids)):
        s = ids[k]
        if worth[s] != UNDECIDED or tree.counts[s, 0] == 0 or born[s] > since:
            continue
        again, c = 1, tree.child[s]
        while c >= 0 and worth[c] != UNDECIDED:
            again += max(worth[c], 0)
            c = tree.sibling[c]
        old = now - RETIRED
        if c >= 0 or tree.parents[s] < 0 or _newest(tree, s, touched) > old or (
            _newest(tree, tree.parents[s], touched) > old
        ):  # fmt: skip
            later[count] = s
            count += 1
            continue
        worth[s] = KEPT
        if again <= MOST:
            tall = tree.widths[s, 1]
            _give_pool(tree, store, tree.update[s], tall * tall + tall)
            tree.update[s], worth[s] = -1, again
    return later[:count].copy()


@compiled
def _newest(tree: Tree, s: int, touched: Ints) -> int:
    """The last update that touched a variable that front ``s`` eliminates."""
    newest = -1
    for i in range(tree.starts[s], tree.starts[s] + tree.counts[s, 0]):
        newest = max(newest, touched[tree.members[i]])
    return newest


@compiled
def install(
    tree: Tree, store: Store, keys: Ints, removed: Ints, top: Top, number: Ints, now: int, worth: Ints, born: Ints
) -> Ints:  # fmt: skip
    """Replace the fronts ``removed`` by those of ``top``; returns the new ones' numbers, children before parents.

    There must be room for ``top.need``; ``number`` is as `plan_top` left it.
    """
    fronts, variables = top.fronts, top.variables
    for k in range(len(removed)):
        s = removed[k]
        wide, tall = tree.widths[s, 0], tree.widths[s, 1]
        _give_pool(tree, store, tree.panel[s], (wide + tall) * wide)
        if tree.update[s] >= 0:
            _give_pool(tree, store, tree.update[s], tall * tall + tall)
        kind = _class(tree.counts[s, 0] + tree.counts[s, 1])
        tree.counts[s, 0] = 0
        tree.members[tree.starts[s]] = store.free_members[kind]
        store.free_members[kind] = tree.starts[s]
        store.spare[store.ends[SPARE]] = s
        store.ends[SPARE] += 1
    count = len(fronts.fronts)
    ids = np.empty(count, np.int64)
    for k in range(count):
        if store.ends[SPARE]:
            store.ends[SPARE] -= 1
            ids[k] = store.spare[store.ends[SPARE]]
        else:
            ids[k] = store.ends[FRONTS]
            store.ends[FRONTS] += 1
    for k in range(count):
        s, length = ids[k], fronts.starts[k + 1] - fronts.starts[k]
        kind = _class(length)
        at = store.free_members[kind]
        if at >= 0:
            store.free_members[kind] = tree.members[at]
        else:
            at = store.ends[MEMBERS]
            store.ends[MEMBERS] += _room(length)
        tree.starts[s] = at
        tree.counts[s, 0], tree.counts[s, 1] = fronts.fronts[k], fronts.separators[k]
        wide, tall = 0, 0
        for i in range(length):
            v = variables[fronts.members[fronts.starts[k] + i]]
            tree.members[at + i] = v
            if i < fronts.fronts[k]:
                wide += tree.dims[v]
                tree.home[v] = s
            else:
                tall += tree.dims[v]
        tree.widths[s, 0], tree.widths[s, 1] = wide, tall
        tree.panel[s] = _take_pool(tree, store, (wide + tall) * wide)
        tree.update[s] = _take_pool(tree, store, tall * tall + tall)
        tree.first_row[s], tree.child[s] = -1, -1
        worth[s], born[s] = UNDECIDED, now
    for k in range(count - 1, -1, -1):
        s, parent = ids[k], -1
        if fronts.parents[k] >= 0:
            parent = ids[fronts.parents[k]]
            tree.sibling[s] = tree.child[parent]
            tree.child[parent] = s
        else:
            tree.sibling[s] = -1
        tree.parents[s] = parent
    place = np.empty(len(variables), np.int64)
    for k in range(len(variables)):
        place[top.order[k]] = k
    for i in range(len(top.orphans)):
        c = top.orphans[i]
        first, least, at = tree.starts[c] + tree.counts[c, 0], len(variables), -1
        for p in range(first, first + tree.counts[c, 1]):
            k = place[number[tree.members[p]]]
            if k < least:
                least, at = k, tree.members[p]
        s = tree.home[at]
        tree.parents[c], tree.sibling[c] = s, tree.child[s]
        tree.child[s] = c
    for i in range(len(top.rows) - 1, -1, -1):
        r = top.rows[i]
        least, at = len(variables), -1
        for a in range(keys.shape[1]):
            if keys[r, a] >= 0:
                k = place[number[keys[r, a]]]
                if k < least:
                    least, at = k, keys[r, a]
        s = tree.home[at]
        tree.next_row[r] = tree.first_row[s]
        tree.first_row[s] = r
    return ids


@compiled
def _spread(
    tree: Tree, s: int, forward: Floats, delta: Floats, told: Floats, changed: Ints, stamp: int, threshold: float,
    far: Ints, count: int, beyond: float,
) -> int:  # fmt: skip
    """Back substitution in one front; marks its variables where it changed, and lists those moved ``beyond``."""
    _back(tree, s, forward, delta)
    for i in range(tree.starts[s], tree.starts[s] + tree.counts[s, 0]):
        v = tree.members[i]
        moved_on, is_far = False, False
        for j in range(tree.offset[v], tree.offset[v] + tree.dims[v]):
            moved_on |= abs(delta[j] - told[j]) > threshold
            is_far |= abs(delta[j]) > beyond
        if moved_on:
            changed[v] = stamp
            for j in range(tree.offset[v], tree.offset[v] + tree.dims[v]):
                told[j] = delta[j]
            if is_far:
                if count < len(far):
                    far[count] = v
                count += 1
    return count


@compiled
def substitute_from(
    tree: Tree, ids: Ints, forward: Floats, delta: Floats, told: Floats, changed: Ints, stamp: int, threshold: float,
    beyond: float, far: Ints, fronts_changed: Ints,
) -> tuple[int, int]:  # fmt: skip
    """Back substitution from the top ``ids`` (children before parents) down as far as anything changes.

    A front is left alone where no variable of its separator changed by more than ``threshold``.  Fills ``far`` with
    the variables whose ``delta`` is beyond ``beyond``, as many as fit, and returns how many there are, and how many
    fronts were visited.  Where ``forward`` is not finite in the top it changes nothing and returns (-1, 0): the rows'
    gradients are beyond all numbers, of which a step would be none.
    """
    for k in range(len(ids)):
        for i in range(tree.starts[ids[k]], tree.starts[ids[k]] + tree.counts[ids[k], 0]):
            v = tree.members[i]
            for j in range(tree.dims[v]):
                if not np.isfinite(forward[tree.offset[v] + j]):
                    return -1, 0
    count, visited = 0, 0
    for k in range(len(ids)):
        fronts_changed[ids[k]] = stamp
    stack, depth = np.empty(64, np.int64), 0
    for k in range(len(ids) - 1, -1, -1):
        count = _spread(tree, ids[k], forward, delta, told, changed, stamp, threshold, far, count, beyond)
        visited += 1
        c = tree.child[ids[k]]
        while c >= 0:
            if fronts_changed[c] != stamp:
                if depth == len(stack):
                    stack = np.concatenate((stack, np.empty_like(stack)))
                stack[depth] = c
                depth += 1
            c = tree.sibling[c]
    while depth:
        depth -= 1
        s = stack[depth]
        touched = False
        first = tree.starts[s] + tree.counts[s, 0]
        for i in range(first, first + tree.counts[s, 1]):
            if changed[tree.members[i]] == stamp:
                touched = True
                break
        if not touched:
            continue
        count = _spread(tree, s, forward, delta, told, changed, stamp, threshold, far, count, beyond)
        visited += 1
        c = tree.child[s]
        while c >= 0:
            if depth == len(stack):
                stack = np.concatenate((stack, np.empty_like(stack)))
            stack[depth] = c
            depth += 1
            c = tree.sibling[c]
    return count, visited
