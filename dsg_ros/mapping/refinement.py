"""After the run: every scan once more, now against keyframes on both sides of it in time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config
from dsg_ros.mapping.keyframes import Keyframes, ScanLog
from dsg_ros.mapping.local_map import LocalMapper


def refine(
    settings: config.Refinement,
    mapper: LocalMapper,
    keyframes: Keyframes,
    scans: ScanLog,
    trajectory: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Poses (n, 7) of all scans, base in map, for optimised keyframes at ``trajectory`` (k, 7).

    Keyframes stay where the graph put them.  A scan between them is registered to the map of the keyframes around, from
    where it hangs on its keyframe and held loosely to that; a match with few inliers leaves it there.
    """
    out = scans.on(trajectory)
    prior = np.diag(1.0 / np.repeat([settings.sigma_translation, settings.sigma_rotation], 3) ** 2)
    for keyframe, members in _groups(scans.keyframe.values):
        others = members[1:]  # the first scan on a keyframe is the keyframe itself
        if not len(others):
            continue
        around = slice(max(0, keyframe - settings.keyframes), keyframe + settings.keyframes + 1)
        local_map = mapper.build(trajectory[around], keyframes.clouds[around])
        for index in others:
            cloud = scans.clouds[index].astype(np.float64)
            if len(cloud) < settings.least_points:
                continue
            match = mapper.register(local_map, cloud, out[index][None], out[index], prior)
            if match.inliers >= settings.least_inliers:
                out[index] = match.pose
    return out


def _groups(keyframe: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Keyframe numbers and the indices of the scans that hang on them; scans come in order of their keyframes."""
    borders = np.nonzero(np.diff(keyframe))[0] + 1
    for members in np.split(np.arange(len(keyframe)), borders):
        if len(members):
            yield int(keyframe[members[0]]), members
