"""Where the matrices and members of fronts lie, as fronts come and go.

Pieces that are given back wait in chains, by size class, for the next front of that size.
"""

from __future__ import annotations

import math

from dsg_ros.core.native import compiled
from dsg_ros.core.native.growing import POOL, Store
from dsg_ros.core.native.tree import Tree


@compiled
def size_class(size: int) -> int:
    """Size class: pieces are up to a quarter larger than asked for."""
    return 0 if size <= 8 else math.ceil(math.log(size / 8.0) / math.log(1.25) - 1e-9)


@compiled
def room(size: int) -> int:
    """How much a piece of ``size`` takes."""
    return math.ceil(8.0 * 1.25 ** size_class(size))


@compiled
def take_pool(tree: Tree, store: Store, size: int) -> int:
    """Where ``size`` numbers of the pool begin that are free, and no longer are."""
    kind = size_class(size)
    at = store.free_pool[kind]
    if at >= 0:
        store.free_pool[kind] = int(tree.pool[at])
        return at
    at = store.ends[POOL]
    store.ends[POOL] += room(size)
    return at


@compiled
def give_pool(tree: Tree, store: Store, at: int, size: int) -> None:
    """Give the ``size`` numbers back that `take_pool` gave."""
    kind = size_class(size)
    tree.pool[at] = float(store.free_pool[kind])
    store.free_pool[kind] = at
