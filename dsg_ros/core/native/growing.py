"""What a growing pose graph and its elimination tree are made of, as compiled kernels take it.

Every array has room for more than is in use, and kernels are told how much that is: so the arrays, and the `Graph` of
them, stay the same objects from one update to the next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.tree import Tree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLASSES = 160
"""Sizes of pieces of the two stores that are told apart (`front_store`)."""
FRONTS, MEMBERS, POOL, SPARE, FAR = 0, 1, 2, 3, 4
"""Places in `Store.ends`: fronts ever used, ends of the two stores, how many numbers of dead fronts wait for use, and
how many variables are listed as far from where their rows were linearised."""
UNDECIDED, KEPT = 0, -1
"""States of a front's ``worth``; positive, the number of fronts to be done again for it (`retiring`)."""


class Poses(NamedTuple):
    """By pose: the ``origin`` (p, 7) at which its rows are linearised, the number of its ``variable`` (-1: held), and
    the first of its rows in the chain `Rows.next_incident`.
    """

    origin: Floats
    variable: Ints
    incident: Ints


class Variables(NamedTuple):
    """By variable: its pose, and ``home``, ``offset`` and ``dims`` as in `tree.Tree`.

    ``touched`` is the update that brought its newest row.  ``forward`` (v, d) is the right-hand side after forward
    substitution, ``delta`` (v, d) the estimate in the tangent of its origin, and ``told`` what ``delta`` was when
    those below were last told.  ``far`` lists variables, in its first `FAR` places, and ``listed`` says which.
    ``changed`` has the stamp of the substitution that last changed it.  ``number`` and ``place`` are scratch, and
    ``undamped`` (v, d) is zero.
    """

    pose_of: Ints
    home: Ints
    offset: Ints
    dims: Ints
    touched: Ints
    far: Ints
    listed: NDArray[np.bool_]
    changed: Ints
    number: Ints
    place: Ints
    forward: Floats
    delta: Floats
    told: Floats
    undamped: Floats


class Rows(NamedTuple):
    """By row of error ``e = log(measured^-1 first^-1 second)``: ``ends`` (r, 2) poses and ``keys`` (r, 2) their
    variables (-1: held), ``root_of`` where `Roots` has its square root, its ``kernel`` and that one's ``width``.

    ``next_row`` follows in the chain of the front that has it, ``next_incident`` (r, 2) in those of the two poses.
    ``slot`` and ``local`` are those of `tree.RowHessians`, ``mark`` is scratch.
    """

    ends: Ints
    keys: Ints
    measured: Floats
    root_of: Ints
    kernel: NDArray[np.int32]
    width: Floats
    next_row: Ints
    next_incident: Ints
    slot: Ints
    local: Ints
    mark: Ints


class Roots(NamedTuple):
    """Square roots (n, 6, 6) of information matrices, each with the next one of the same hash (-1: none)."""

    matrix: Floats
    following: Ints


class FrontColumns(NamedTuple):
    """By front: what `tree.Tree` has, and ``mark`` and ``seen``, stamps of the regrowth that took it out and of
    the substitution that came to it; ``worth`` and the update it was ``born`` at (`retiring`).

    ``spare`` has, in its first `SPARE` places, numbers of fronts that are gone.
    """

    starts: Ints
    counts: Ints
    widths: Ints
    panel: Ints
    update: Ints
    parents: Ints
    child: Ints
    sibling: Ints
    first_row: Ints
    mark: Ints
    seen: Ints
    worth: Ints
    born: Ints
    spare: Ints


class Store(NamedTuple):
    """Where the next matrices and members go: ``ends`` (5,) as above, and by size class the heads of the chains of
    pieces given back (-1: none).  ``need`` (3,) is how far `FRONTS`, `MEMBERS` and `POOL` must reach.
    """

    ends: Ints
    need: Ints
    free_pool: Ints
    free_members: Ints


class Graph(NamedTuple):
    """All of it, with the ``axes`` along which poses move."""

    axes: Ints
    poses: Poses
    variables: Variables
    rows: Rows
    roots: Roots
    fronts: FrontColumns
    members: Ints
    pool: Floats
    store: Store


_NONE, _ZERO = np.array(-1, np.int64), np.array(0, np.int64)
_TWO = np.full(2, -1, np.int64)

NEW_POSE = Poses(np.zeros(7), _NONE, _NONE)
NEW_ROOT = Roots(np.zeros((6, 6)), _NONE)
NEW_FRONT = FrontColumns(_NONE, _TWO, _TWO, *[_NONE] * 11)


def new_variable(width: int) -> Variables:
    """The row that a new variable of ``width`` numbers begins with."""
    numbers = np.zeros(width)
    return Variables(
        pose_of=_ZERO, home=_NONE, offset=_ZERO, dims=np.array(width, np.int64), touched=_NONE, far=_NONE,
        listed=np.array(False), changed=_NONE, number=_NONE, place=_NONE, forward=numbers, delta=numbers, told=numbers,
        undamped=numbers,
    )  # fmt: skip


def new_row(width: int) -> Rows:
    """The row that a new row between variables of ``width`` numbers begins with."""
    pair = np.zeros(2, np.int64)
    return Rows(
        ends=pair, keys=pair, measured=np.zeros(7), root_of=_ZERO, kernel=np.array(0, np.int32), width=np.array(1.0),
        next_row=_NONE, next_incident=_TWO, slot=_NONE, local=np.array([0, width], np.int64), mark=_NONE,
    )  # fmt: skip


def new_store() -> Store:
    """A store of nothing."""
    heads = np.full((2, CLASSES), -1, np.int64)
    return Store(np.zeros(5, np.int64), np.zeros(3, np.int64), heads[0], heads[1])


@compiled
def tree_of(graph: Graph) -> Tree:
    """The elimination tree of a graph."""
    f, v = graph.fronts, graph.variables
    return Tree(
        f.starts, f.counts, f.widths, f.panel, f.update, f.parents, f.child, f.sibling, f.first_row, graph.members,
        graph.pool, v.home, v.offset, v.dims, graph.rows.next_row,
    )  # fmt: skip
