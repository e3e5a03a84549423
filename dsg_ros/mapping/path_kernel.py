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
