"""Which voxels a window takes, compiled: many small steps over a few hundred sightings, at every keyframe."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Choice(NamedTuple):
    """``voxels`` (v,) sorted, which of them are ``free``; sightings (r,) of them by their numbers, and their ``keys``
    (r, 2): keyframe, counted from the window's oldest, and place among the voxels.
    """

    voxels: Ints
    free: Bools
    sightings: Ints
    keys: Ints


@compiled
def choose(keys: Ints, first_seen: NDArray[np.int32], oldest: int, most: int, most_seen: int) -> Choice:
    """Voxels that tie keyframes together: free ones, seen by several of them, and held ones, known from before.

    ``keys`` (n, 2) are keyframe and voxel of every sighting, ``first_seen`` (v,) the keyframes that saw the world's
    voxels first.  Where there are more than ``most`` voxels or ``most_seen`` sightings of them, those seen most often
    are taken, of several the one with the lowest number.
    """
    ordered = np.sort(keys[:, 1])
    voxels, counts, known = np.empty(len(ordered), np.int64), np.zeros(len(ordered), np.int64), 0
    for i in range(len(ordered)):
        if i == 0 or ordered[i] != ordered[i - 1]:
            voxels[known] = ordered[i]
            known += 1
        counts[known - 1] += 1
    place, taken, seen, full = np.full(known, -1, np.int64), 0, 0, False
    often = counts[:known].max() if known else 0
    while often > 0 and not full:
        for i in range(known):
            if counts[i] != often or (often == 1 and first_seen[voxels[i]] >= oldest):
                continue
            full = taken == most or seen + often > most_seen
            if full:
                break
            place[i] = 0
            taken, seen = taken + 1, seen + often
        often -= 1
    out = Choice(
        np.empty(taken, np.int64), np.empty(taken, np.bool_), np.empty(seen, np.int64), np.empty((seen, 2), np.int64)
    )
    taken = 0
    for i in range(known):
        if place[i] == 0:
            place[i], out.voxels[taken], out.free[taken] = taken, voxels[i], first_seen[voxels[i]] >= oldest
            taken += 1
    row = 0
    for i in range(len(keys)):
        number = place[np.searchsorted(voxels[:known], keys[i, 1])]
        if number >= 0:
            out.sightings[row], out.keys[row, 0], out.keys[row, 1] = i, keys[i, 0] - oldest, number
            row += 1
    return out
