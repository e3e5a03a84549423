"""What the page is told, by a process that has better things to do than to draw: plain immutable records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros.interface import Parameter, Path, VoxelUpdate


@dataclass(frozen=True)
class Settings:
    """Where the page is served (``port`` 0: a free one), and the ``chunk`` [m] in which voxels are sent."""

    host: str
    port: int
    chunk: float


@dataclass(frozen=True)
class Sample:
    """One keyframe, for the curves: its ``stamp`` [ns], ``pose`` (7,) in map and ``odometry`` (7,) in odom, theta with
    its deviations and the held-out losses by name.
    """

    stamp: int
    pose: NDArray[np.float64]
    odometry: NDArray[np.float64]
    parameters: tuple[Parameter, ...]
    losses: Mapping[str, float]


@dataclass(frozen=True)
class Health:
    """How the inputs are kept up with: ``seconds`` since the start, ``rates`` [1/s] by name, totals of what was
    ``dropped`` by cause.
    """

    seconds: float
    rates: Mapping[str, float]
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Update:
    """What has changed since the last one; what has not is None or empty.

    ``restarted``: a new map was begun, and nothing of the old one is shown any more.  ``whole``: ``voxels`` are all
    there are.
    """

    restarted: bool = False
    pose: NDArray[np.float64] | None = None
    path: Path | None = None
    voxels: VoxelUpdate | None = None
    whole: bool = False
    samples: tuple[Sample, ...] = ()
    health: Health | None = None
    counts: Mapping[str, int] | None = None
    localisation: str = ""
