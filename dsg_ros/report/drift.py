"""Drift as the KITTI odometry benchmark measures it (Geiger, Lenz, Urtasun, CVPR 2012, section 3.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.report.derived import metres_driven

Array = NDArray[np.float64]

LENGTHS = tuple(range(100, 900, 100))
EVERY = 10
"""Segments begin at every so-manieth frame."""


def drift(ours: Array, reference: Array) -> tuple[float, float] | None:
    """Mean error over segments of 100 to 800 m: translation [%] and rotation [deg/100 m]; None for a shorter path.

    ``ours`` and ``reference`` are (n, 7), frame by frame.
    """
    path = metres_driven(reference)
    start = np.arange(0, len(path), EVERY)
    translation, rotation = [], []
    for length in LENGTHS:
        # The first frame beyond the length, as the benchmark's own tool takes it.
        end = np.searchsorted(path, path[start] + length, side="right")
        first, last = start[end < len(path)], end[end < len(path)]
        apart = poses.between(poses.between(reference[first], reference[last]), poses.between(ours[first], ours[last]))
        translation.append(np.linalg.norm(apart[:, :3], axis=1) / length)
        rotation.append(np.linalg.norm(poses.rotation_log(apart[:, 3:]), axis=1) / length)
    if not sum(map(len, translation)):
        return None
    return 100 * float(np.concatenate(translation).mean()), 100 * float(np.degrees(np.concatenate(rotation).mean()))
