"""The settings that a recorded run begins with: those of its kind of scans, or of a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dsg_ros import config as configuration
from dsg_ros.io.logs import contents
from dsg_ros.io.records import Topics
from dsg_ros.parameter_file import apply_assignments, apply_file

_log = logging.getLogger(__name__)

LIDAR3D: Mapping[str, Any] = MappingProxyType(
    {
        "sensors": "points",
        "input.max_range": 80.0,
        "input.max_points": 6000,
        "input.cell": 0.15,
        "keyframes.distance": 1.0,
        "registration.max_points": 1000,
        "registration.window": 12,
        "registration.coarse_voxel": 1.0,
        "registration.fine_voxel": 0.5,
        "registration.flatness": 0.05,
        "registration.restart_below": 0.3,
        "registration.restart_agreed": 0.3,
        "registration.trusted_inliers": 0.3,
        "loops.reference_keyframes": 8,
        "loops.query_keyframes": 4,
        "loops.most_candidates": 1,
        "loops.least_inliers": 0.45,
        "refinement.keyframes": 5,
        "refinement.visits": 10,
        "refinement.least_inliers": 0.3,
        "relocalisation.lost_below": 0.2,
    }
)
"""What differs from the defaults for clouds of a 3D lidar; config/lidar3d.yaml says the same to the node."""


def settings_for(
    log: Path | None, topics: Topics, file: Path | None = None, assignments: Sequence[str] = ()
) -> configuration.Node:
    """What the parameter ``file`` says, or without one the defaults, for a ``log`` of clouds with `LIDAR3D`; then the
    ``assignments``; and that there is no odometry, where the ``log`` has none.

    A file written for the node also holds the node's settings, hence `Node`, which is a `Slam` with more.  `UserError`
    for what is no setting, and without a file for a path that is no log.
    """
    settings = configuration.Node()
    holds = None if log is None else contents(log, topics)
    if file is not None:
        settings = apply_file(settings, file)
    elif holds is not None and holds.clouds:
        _log.info("%s holds clouds: taken with the settings of config/lidar3d.yaml (--config FILE: with others)", log)
        settings = configuration.replace(settings, dict(LIDAR3D))
    settings = apply_assignments(settings, assignments)
    if holds is not None and settings.input.odometry != "none" and not holds.odometry:
        _log.warning("%s has no odometry: how the robot moves is seen by its scans alone (input.odometry none)", log)
        settings = configuration.replace(settings, {"input.odometry": "none"})
    return settings
