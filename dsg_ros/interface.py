"""What goes into the pipeline and what comes out: plain immutable records of NumPy arrays.

Both processes (the node, which imports no JAX, and the worker, which imports no ROS) speak only these.  Poses and
tangents are as `dsg_ros.poses` says; stamps are int nanoseconds; lengths are metres, angles radians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses

_SPAN = 120_000_000
"""Over which a velocity is told [ns]: the noise of single samples fades, a robot hardly changes its motion."""


@dataclass(frozen=True)
class OdometryTrack:
    """Odometry around one scan: ``stamps`` (k,) int64, strictly increasing, and ``poses`` (k, 7), base in odom, k
    >= 1.
    """

    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]

    def at(self, stamp: NDArray[np.int64] | int) -> NDArray[np.float64]:
        """Interpolated pose(s) at ``stamp`` (...); outside the track the nearest end is held (never extrapolated)."""
        if len(self.stamps) == 1:
            one = isinstance(stamp, int)  # several times a scan: general arrays take longer
            return self.poses[0].copy() if one else np.tile(self.poses[0], (*np.shape(stamp), 1))
        query = np.clip(np.asarray(stamp, np.int64), self.stamps[0], self.stamps[-1])
        after = np.clip(np.searchsorted(self.stamps, query), 1, len(self.stamps) - 1)
        before = after - 1
        fraction = (query - self.stamps[before]) / (self.stamps[after] - self.stamps[before])
        return poses.interpolate(self.poses[before], self.poses[after], fraction)

    def velocity(self, stamp: int, apart: int = 0) -> NDArray[np.float64]:
        """Velocity (6,) of the base in its own frame at ``stamp`` [m/s, rad/s], from the samples that enclose `_SPAN`
        around it, or around the end of the track that is nearest; zero where there is one sample alone.

        With ``apart`` [ns] it is the mean of the velocities that long before and after ``stamp``, over half the span
        each, where the track reaches so far: the samples in between have no part in it.
        """
        last, half = len(self.stamps) - 1, _SPAN // 2
        if not last:
            return np.zeros(6)
        if apart and self.stamps[0] <= stamp - apart - half and stamp + apart + half <= self.stamps[-1]:
            last_before = int(np.searchsorted(self.stamps, stamp - apart, side="right")) - 1
            first_after = int(np.searchsorted(self.stamps, stamp + apart))
            start = int(np.searchsorted(self.stamps, stamp - apart - half, side="right")) - 1
            end = int(np.searchsorted(self.stamps, stamp + apart + half))
            if start < last_before and first_after < end:
                return 0.5 * (self._between(start, last_before) + self._between(first_after, end))
        middle = min(max(stamp, int(self.stamps[0])), int(self.stamps[-1]))
        return self._mean_velocity(middle - half, middle + half)

    def _mean_velocity(self, start: int, end: int) -> NDArray[np.float64]:
        """That between the samples that enclose ``start`` to ``end`` [ns], or what the track has of it."""
        after = min(max(int(np.searchsorted(self.stamps, end)), 1), len(self.stamps) - 1)
        before = int(np.searchsorted(self.stamps, start, side="right")) - 1
        return self._between(min(max(before, 0), after - 1), after)

    def _between(self, before: int, after: int) -> NDArray[np.float64]:
        """Mean velocity (6,) from one sample to another."""
        step = poses.log(poses.between(self.poses[before], self.poses[after]))
        return step / ((self.stamps[after] - self.stamps[before]) * 1e-9)

    def beyond(self, stamp: int) -> NDArray[np.float64]:
        """Pose (7,) at ``stamp``, which may lie outside of the track: the base is taken to have gone on evenly."""
        held = min(max(stamp, int(self.stamps[0])), int(self.stamps[-1]))
        if held == stamp:
            return self.at(stamp)
        return poses.compose(self.at(held), poses.exp(self.velocity(stamp) * ((stamp - held) * 1e-9)))


@dataclass(frozen=True)
class Hint:
    """Where somebody says the robot is: ``pose`` (7,) in map, within ``radius`` [m] and ``turn`` [rad]."""

    pose: NDArray[np.float64]
    radius: float
    turn: float


@dataclass(frozen=True)
class ReferencePose:
    """Where something better than this program says the base was: ``pose`` (7,) in a frame of its own at ``stamp``
    [ns], with ``covariance`` (6, 6) in its own tangent; all zero: not told.
    """

    stamp: int
    pose: NDArray[np.float64]
    covariance: NDArray[np.float64] = field(default_factory=lambda: np.zeros((6, 6)))


@dataclass(frozen=True)
class ReferencePosition:
    """Where something better says the antenna was: ``position`` (3,) [m] east, north and up in a frame of its own at
    ``stamp`` [ns], with ``covariance`` (3, 3) in these axes; all zero: not told.  ``antenna`` (3,) is its place in the
    base frame.  ``origin`` is where on the earth the position's frame is, latitude and longitude [deg] and height [m],
    or nothing: what has another is not to be compared.
    """

    stamp: int
    position: NDArray[np.float64]
    covariance: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 3)))
    antenna: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    origin: tuple[float, ...] = ()


Told = ReferencePose | ReferencePosition
"""What teaches beside the scans, or instead of them."""


@dataclass(frozen=True)
class Frame:
    """One scan with the odometry that spans it.

    ``points`` (n, 3) float32 in the sensor frame, finite, inside the configured ranges; none where nothing was seen.
    ``times`` (n,) float32 seconds after ``stamp`` at which each point was measured, or None for an instantaneous scan.
    ``base_from_sensor`` (7,).
    ``planar``: the points come from a LaserScan, so height, roll and pitch cannot be observed from them.
    ``reference`` are poses or positions to learn from that came since the frame before; they may be of any time.
    ``heard``: odometry was; else it fell silent, and the track is the last of it, held.
    """

    stamp: int
    points: NDArray[np.float32]
    odometry: OdometryTrack
    base_from_sensor: NDArray[np.float64] = field(default_factory=poses.IDENTITY.copy)
    times: NDArray[np.float32] | None = None
    planar: bool = False
    reference: tuple[Told, ...] = ()
    heard: bool = True

    @property
    def sweep(self) -> int:
        """How far from ``stamp`` [ns] points were measured, before or after."""
        return 0 if self.times is None else round(1e9 * float(np.abs(self.times).max(initial=0.0)))


@dataclass(frozen=True)
class Parameter:
    """A learned parameter as told to the world: ``sigma`` is one standard deviation; ``status`` is learned, frozen
    or unobservable.
    """

    name: str
    value: float
    sigma: float
    unit: str
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Path:
    """Optimised keyframes: ``stamps`` (k,) int64, ``poses`` (k, 7) base in map; ``loops`` (l, 2) int32 keyframe
    indices.
    """

    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]
    loops: NDArray[np.int32]


@dataclass(frozen=True)
class VoxelUpdate:
    """Voxels that changed since the last update, by stable id, and ids that went away.

    ``ids`` (n,) int64, ``means`` (n, 3) float32 in map, ``normals`` (n, 3) float32 (zero where not planar),
    ``counts`` (n,) int32 points merged, ``deviations`` (n,) float32 how well scans tell where the voxel is, seen from
    their keyframes [m]: ``1 / sqrt(trace)`` of their information, ``last_seen`` (n,) int64 ns; ``size`` is the voxel
    edge [m].
    """

    size: float
    ids: NDArray[np.int64]
    means: NDArray[np.float32]
    normals: NDArray[np.float32]
    counts: NDArray[np.int32]
    deviations: NDArray[np.float32]
    last_seen: NDArray[np.int64]
    removed: NDArray[np.int64]


@dataclass(frozen=True)
class VoxelMap(VoxelUpdate):
    """Every voxel of a map that is kept: also when it was ``first_seen`` (n,) int64 ns, and the ``covariances`` (n, 6)
    float32 [m^2] of all points in its cell, xx, xy, xz, yy, yz, zz in map; zeros where, the map having moved, there are
    none.
    """

    first_seen: NDArray[np.int64]
    covariances: NDArray[np.float32]


@dataclass(frozen=True)
class SavedMap:
    """A map as kept in a folder (`dsg_ros.io.map_folder`): all that is needed to localise in it or to go on with it.

    By keyframe: ``stamps`` (k,) int64, ``poses`` (k, 7) base in map, raw ``odometry`` (k, 7), ``travel`` (k,) [m] and
    ``clouds``, points (n, 3) float32 in the base frame, of a planar scanner if ``planar``.  ``rows`` are the graph's
    factors by type and field, leading axis rows; ``loops`` (l, 2) int32 its closures; ``voxels`` what is shown of it.
    ``grid`` is its occupancy, whole.  ``parameters`` are theta as told, ``learned`` the names (m,) of those with the
    accumulated ``information`` (m, m).  ``configuration`` are the settings the map was made with, ``source`` the
    recording, if it was one.
    """

    planar: bool
    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]
    odometry: NDArray[np.float64]
    travel: NDArray[np.float64]
    clouds: tuple[NDArray[np.float32], ...]
    loops: NDArray[np.int32]
    rows: Mapping[str, Mapping[str, NDArray[Any]]]
    voxels: VoxelMap
    grid: GridUpdate
    parameters: tuple[Parameter, ...]
    learned: tuple[str, ...]
    information: NDArray[np.float64]
    configuration: Mapping[str, bool | int | float | str]
    source: str = ""


@dataclass(frozen=True)
class GridUpdate:
    """Tiles of the occupancy grid that changed since some version, which the next one is asked with.

    ``tiles`` (t, 2) int64 are their columns and rows, ``cells`` (t, n, n) int8 what is in them, [y, x]: 100 occupied,
    0 free, -1 not known.  Tile (i, j) begins at (i, j) * n * ``resolution`` [m] in map.  ``whole``: what was known
    before is void.
    """

    version: int
    resolution: float
    tiles: NDArray[np.int64]
    cells: NDArray[np.int8]
    whole: bool = False


@dataclass(frozen=True)
class OccupancyGrid:
    """``cells`` (height, width) int8, [y, x]: 100 occupied, 0 free, -1 not known.

    The first begins at ``corner`` * ``resolution`` [m] in map (``corner`` in cells); x goes along rows.
    """

    cells: NDArray[np.int8]
    corner: tuple[int, int]
    resolution: float

    @property
    def origin(self) -> tuple[float, float]:
        """Where the first cell's lower left corner lies in map [m]."""
        return self.corner[0] * self.resolution, self.corner[1] * self.resolution


@dataclass(frozen=True)
class Estimate:
    """The pipeline's answer to one frame.

    ``pose`` and ``odometry`` (7,) are base in map and base in odom at the same ``stamp``; ``covariance`` (6, 6) is
    that of ``pose`` in its own tangent (right perturbation, translation first).  ``path`` and ``voxels`` are None
    unless they changed and were asked for.  ``parameters`` are theta as of now, ``metrics`` figures for diagnostics
    (seconds, losses, ratios), ``counts`` totals since the start (scans, keyframes, loops, and every kind of refusal
    by cause).  ``localisation`` is empty while mapping; in a finished map it is localising, localised or lost.
    """

    stamp: int
    pose: NDArray[np.float64]
    odometry: NDArray[np.float64]
    covariance: NDArray[np.float64]
    keyframe: bool
    path: Path | None = None
    voxels: VoxelUpdate | None = None
    parameters: tuple[Parameter, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    localisation: str = ""

    @property
    def known(self) -> bool:
        """Whether ``pose`` is in map: while mapping always, in a finished map once the robot is found there."""
        return self.localisation in ("", "localised")

    @property
    def map_from_odom(self) -> NDArray[np.float64]:
        """What TF publishes: composed from the optimised pose and the odometry of the same stamp."""
        return poses.compose(self.pose, poses.inverse(self.odometry))


@dataclass(frozen=True)
class LearningStep:
    """One outer update: when, after how many metres, the held-out loss before and after, and theta with its
    deviations.  ``nis`` is the block's normalised innovation squared per observed direction, before: on average 1
    where the told deviations are right.  ``change`` tells of the robot's own, where this block gave it away.
    """

    stamp: int
    metres: float
    loss_before: float
    loss_after: float
    accepted: bool
    parameters: tuple[Parameter, ...]
    nis: float
    change: str = ""


@dataclass(frozen=True)
class RunResult:
    """Everything a run leaves behind; `dsg_ros.report.save` writes it as files.

    ``stamps`` (n,) one per input scan, in input order.  Base poses (n, 7): ``trajectory`` after the final refinement,
    ``causal`` with each scan registered against earlier keyframes only, on the final keyframes, ``live`` as published
    at the time, ``odometry`` raw, in the odom frame.  ``voxels`` is the whole map, ``grid`` the same for navigation
    (None where it is switched off, or nothing was seen).
    """

    stamps: NDArray[np.int64]
    trajectory: NDArray[np.float64]
    causal: NDArray[np.float64]
    live: NDArray[np.float64]
    odometry: NDArray[np.float64]
    path: Path
    voxels: VoxelMap
    parameters: tuple[Parameter, ...]
    learning: tuple[LearningStep, ...]
    metrics: Mapping[str, float]
    counts: Mapping[str, int]
    source: str = ""
    grid: OccupancyGrid | None = None
