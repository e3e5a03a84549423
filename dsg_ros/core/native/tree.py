"""What a sparse factorisation is made of: the tree of fronts with their matrices, and the linearised rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Tree(NamedTuple):
    """Fronts, with their members' numbers in ``members`` and their matrices in ``pool``.

    By front: ``starts`` of its members, ``counts`` (s, 2) of variables eliminated and left, ``widths`` (s, 2) the same
    in scalars, ``panel`` and ``update`` where its matrices begin, ``parents``, ``child`` and ``sibling`` (-1: none),
    ``first_row`` the first of its rows in the chain ``next_row``.
    By variable: ``home`` the front that eliminates it, ``offset`` of its scalars in vectors over all variables and
    ``dims`` how many there are.
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
    members: Ints
    pool: Floats
    home: Ints
    offset: Ints
    dims: Ints
    next_row: Ints


def fill(widths: Ints) -> int:
    """Numbers in a factor whose fronts have these `Tree.widths` (s, 2)."""
    own, left = widths.T
    return int((own * (own + 1) // 2 + own * left).sum())


class RowHessians(NamedTuple):
    """Linearised rows: ``keys`` (r, k) variables (-1: held, or none), ``local`` (r, k) where a key's numbers begin in
    the row's own ``hessian`` (m, d, d) and ``gradient`` (m, d), which stand at its ``slot`` (r,): empty where these are
    the rows in their order.
    """

    keys: Ints
    local: Ints
    hessian: Floats
    gradient: Floats
    slot: Ints = np.zeros(0, np.int64)


@compiled
def place_members(tree: Tree, s: int, place: Ints) -> None:
    """Where the numbers of front ``s``'s members begin among them, into ``place`` (by variable)."""
    at = 0
    first = tree.starts[s]
    for i in range(first, first + tree.counts[s, 0] + tree.counts[s, 1]):
        v = tree.members[i]
        place[v] = at
        at += tree.dims[v]
