"""Shortest paths over the chain of keyframes and its closures, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Floats = NDArray[np.float64]


@compiled
def path_lengths(steps: Floats, ends: NDArray[np.int64], bridge: float) -> Floats:
    """Lengths (k,) of the shortest paths from the last keyframe to every one.

    ``steps`` (k - 1,) are the lengths from one keyframe to the next; closures join the keyframes ``ends`` (l, 2) and
    are ``bridge`` long.  Sweeps along the chain (Bellman 1958): one more than the closures on the longest way.
    """
    lengths = np.full(len(steps) + 1, np.inf)
    lengths[-1] = 0.0
    changed = True
    while changed:
        for i in range(len(steps) - 1, -1, -1):
            lengths[i] = min(lengths[i], lengths[i + 1] + steps[i])
        for i in range(len(steps)):
            lengths[i + 1] = min(lengths[i + 1], lengths[i] + steps[i])
        changed = False
        for i in range(len(ends)):
            a, b = ends[i, 0], ends[i, 1]
            if lengths[a] + bridge < lengths[b]:
                lengths[b], changed = lengths[a] + bridge, True
            elif lengths[b] + bridge < lengths[a]:
                lengths[a], changed = lengths[b] + bridge, True
    return lengths


@compiled
def within(travel: Floats, ends: NDArray[np.int64], bridge: float, most: float) -> NDArray[np.bool_]:
    """Which keyframes (k,) have a path from the last one, as in `path_lengths`, that is at most so long.

    ``travel`` (k,) was driven until every keyframe.  The work grows with those, but for a pass over all closures: it is
    for every keyframe, where `path_lengths` sweeps over the whole chain several times.
    """
    count = len(travel)
    # Closures by keyframe: those of i are joined[first[i]:first[i + 1]].
    first, joined = np.zeros(count + 2, np.int64), np.empty(2 * len(ends), np.int64)
    for i in range(len(ends)):
        first[ends[i, 0] + 2] += 1
        first[ends[i, 1] + 2] += 1
    for i in range(2, count + 2):
        first[i] += first[i - 1]
    for i in range(len(ends)):
        for side in range(2):
            at = ends[i, side]
            joined[first[at + 1]] = ends[i, 1 - side]
            first[at + 1] += 1
    lengths, queued = np.full(count, np.inf), np.zeros(count, np.bool_)
    queue = np.empty(count, np.int64)  # a ring: none is in it twice
    lengths[count - 1], queued[count - 1], queue[0] = 0.0, True, count - 1
    head, waiting = 0, 1
    while waiting > 0:
        here = queue[head]
        head, waiting, queued[here] = (head + 1) % count, waiting - 1, False
        for j in range(first[here] - 2, first[here + 1]):
            if j < first[here]:
                other = here - 1 if j == first[here] - 1 else here + 1
                if other < 0 or other >= count:
                    continue
                length = lengths[here] + abs(travel[other] - travel[here])
            else:
                other, length = joined[j], lengths[here] + bridge
            if length < lengths[other] and length <= most:
                lengths[other] = length
                if not queued[other]:
                    queued[other] = True
                    queue[(head + waiting) % count] = other
                    waiting += 1
    return lengths <= most
