"""Covariances of single variables by the factor of a tree of fronts (`multifrontal`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import blas, compiled
from dsg_ros.core.native.tree import Tree, place_members

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def marginal(tree: Tree, v: int, out: Floats) -> None:
    """Covariance (d, d) of one variable: the selected inverse along its path to the root.

    Of a front with the factor ``[L1; L2]`` and ``G = L2 L1^-1``, the block of the inverse over its members follows from
    that over its separator, S: ``[L1^-T L1^-1 + G^T S G, -G^T S; -S G, S]`` (Takahashi, Fagan and Chen, 1973).
    """
    path, depth = np.empty(len(tree.parents), np.int64), 0
    s = tree.home[v]
    while s >= 0:
        path[depth] = s
        depth += 1
        s = tree.parents[s]
    place = np.full(len(tree.home), -1, np.int64)
    block = np.empty(0)  # of the front above, over all its members
    size = 0
    for step in range(depth - 1, -1, -1):
        s = path[step]
        wide, tall = tree.widths[s, 0], tree.widths[s, 1]
        lead = wide + tall
        spread = np.zeros((tall, tall))
        if tall:
            first = tree.starts[s] + tree.counts[s, 0]
            index, at = np.empty(tall, np.int64), 0
            for i in range(first, first + tree.counts[s, 1]):
                u = tree.members[i]
                for j in range(tree.dims[u]):
                    index[at] = place[u] + j
                    at += 1
            for i in range(tall):
                for j in range(tall):
                    spread[j, i] = block[index[j] * size + index[i]]
        lower = tree.pool[tree.panel[s] : tree.panel[s] + lead * wide]
        inverse = np.eye(wide)  # L1^-1, column-major as its transpose
        flat = inverse.reshape(wide * wide)
        blas.solve_left(False, wide, wide, lower, lead, flat, wide)
        whole = np.empty((lead, lead))
        top = np.dot(inverse, inverse.T)  # inverse is stored transposed: (L1^-1)^T L1^-1
        if tall:
            second = np.empty((tall, wide))
            for j in range(wide):
                for i in range(tall):
                    second[i, j] = lower[j * lead + wide + i]
            gain = np.dot(second, np.ascontiguousarray(inverse.T))
            cross = np.dot(spread, gain)
            top = top + np.dot(np.ascontiguousarray(gain.T), cross)
            whole[wide:, :wide] = -cross
            whole[:wide, wide:] = -cross.T
            whole[wide:, wide:] = spread
        whole[:wide, :wide] = top
        place_members(tree, s, place)
        block, size = whole.reshape(lead * lead), lead
    d, at = tree.dims[v], place[v]
    for i in range(d):
        for j in range(d):
            out[i, j] = block[(at + i) * size + at + j]
