"""A trajectory against a reference, measured by the ``evo`` package (Grupp, 2017) as the field does.

ATE: root mean square distance after a rigid SE(3) alignment (Umeyama without scale).  Relative error: the difference
between estimated and reference motion over pieces of a given length of the reference's path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.report.derived import metres_driven, nearest

Array = NDArray[np.float64]

LARGEST_STAMP_DIFFERENCE = 0.05
"""Poses further apart in time [s] are not compared."""

PIECES = 8
"""How many piece lengths the relative error is given for."""


@dataclass(frozen=True)
class Track:
    """Poses (n, 7) with their stamps (n,) in int nanoseconds."""

    stamps: NDArray[np.int64]
    poses: Array


@dataclass(frozen=True)
class RelativeError:
    """Median and 90th percentile over all pieces of one ``length`` [m]: translation in % of it, rotation in deg/m."""

    length: float
    pieces: int
    translation_median: float
    translation_p90: float
    rotation_median: float
    rotation_p90: float


@dataclass(frozen=True)
class Score:
    """One trajectory compared, pose by pose at ``stamps`` (m,).

    ``aligned`` (m, 7) in the reference's frame, ``metres`` (m,) the reference's path length there, ``error`` (m,) [m].
    """

    stamps: NDArray[np.int64]
    aligned: Array
    metres: Array
    error: Array
    ate_rmse: float
    ate_median: float
    ate_max: float
    relative: tuple[RelativeError, ...]


def score(estimate: Track, reference: Track) -> Score:
    """Compare ``estimate`` with ``reference``; `UserError` when fewer than three stamps agree or nothing moved."""
    from evo.core import metrics
    from evo.core.geometry import GeometryException

    ours, theirs = _match(estimate, reference)
    evo_ours, evo_theirs = _to_evo(ours), _to_evo(theirs)
    try:
        evo_ours.align(evo_theirs, correct_scale=False)
    except GeometryException as reason:
        raise UserError(
            f"the trajectory cannot be aligned with the reference, its poses lie on a point or line: {reason}"
        ) from None
    position = metrics.APE(metrics.PoseRelation.translation_part)
    position.process_data((evo_theirs, evo_ours))
    aligned = np.hstack([evo_ours.positions_xyz, np.roll(evo_ours.orientations_quat_wxyz, -1, axis=1)])
    error = np.asarray(position.error, float)
    return Score(
        stamps=ours.stamps,
        aligned=aligned,
        metres=metres_driven(theirs.poses),
        error=error,
        ate_rmse=float(position.get_statistic(metrics.StatisticsType.rmse)),
        ate_median=float(position.get_statistic(metrics.StatisticsType.median)),
        ate_max=float(error.max()),
        relative=relative_errors(ours.poses, theirs.poses),
    )


def relative_errors(ours: Array, theirs: Array) -> tuple[RelativeError, ...]:
    """`RelativeError` for lengths spread evenly in logarithm from 1 m (or less) to a quarter of the reference's path.

    ``ours`` and ``theirs`` are (m, 7), pose by pose at the same stamps.  Vectorised: evo's own search for pieces by
    length is quadratic in the number of poses.
    """
    path = metres_driven(theirs)
    longest = path[-1] / 4
    if longest <= 0.0:
        return ()
    found = []
    for length in np.geomspace(min(1.0, longest / 4), longest, PIECES):
        start = np.flatnonzero(path + length <= path[-1])
        end = np.searchsorted(path, path[start] + length)
        difference = poses.between(poses.between(theirs[start], theirs[end]), poses.between(ours[start], ours[end]))
        driven = path[end] - path[start]
        translation = 100.0 * np.linalg.norm(difference[:, :3], axis=1) / driven
        rotation = np.degrees(np.linalg.norm(poses.rotation_log(difference[:, 3:]), axis=1)) / driven
        found.append(
            RelativeError(
                length=float(length),
                pieces=len(start),
                translation_median=float(np.median(translation)),
                translation_p90=float(np.quantile(translation, 0.9)),
                rotation_median=float(np.median(rotation)),
                rotation_p90=float(np.quantile(rotation, 0.9)),
            )
        )
    return tuple(found)


def _match(ours: Track, theirs: Track) -> tuple[Track, Track]:
    """The poses of both tracks whose stamps agree, each reference pose used once, in order of time."""
    if len(ours.stamps) == 0 or len(theirs.stamps) == 0:
        raise UserError("nothing to compare: the trajectory or the reference holds no pose")
    partner = nearest(theirs.stamps, ours.stamps)
    gap = np.abs(theirs.stamps[partner] - ours.stamps)
    close = np.flatnonzero(gap <= int(LARGEST_STAMP_DIFFERENCE * 1e9))
    close = close[np.lexsort((gap[close], partner[close]))]
    _, first = np.unique(partner[close], return_index=True)
    chosen = close[first]
    chosen = chosen[np.argsort(theirs.stamps[partner[chosen]], kind="stable")]
    if len(chosen) < 3:
        raise UserError(
            f"the reference cannot be compared: {len(chosen)} of its {len(theirs.stamps)} stamps lie within "
            f"{LARGEST_STAMP_DIFFERENCE} s of a pose of the trajectory (trajectory: {_span(ours)}, reference: "
            f"{_span(theirs)}); are they from the same recording and clock?"
        )
    matched = partner[chosen]
    return Track(ours.stamps[chosen], ours.poses[chosen]), Track(theirs.stamps[matched], theirs.poses[matched])


def _span(track: Track) -> str:
    return f"{track.stamps.min() / 1e9:.3f} to {track.stamps.max() / 1e9:.3f} s"


def _to_evo(track: Track):  # type: ignore[no-untyped-def]  # evo is not typed, and is imported only where it is needed
    from evo.core.trajectory import PoseTrajectory3D

    return PoseTrajectory3D(
        positions_xyz=track.poses[:, :3],
        orientations_quat_wxyz=np.roll(track.poses[:, 3:], 1, axis=1),
        timestamps=track.stamps / 1e9,
    )


def as_table(scores: Sequence[tuple[str, Score]]) -> dict[str, dict[str, object]]:
    """The figures of each named score as JSON-ready mappings."""
    return {
        name: {
            "poses": len(s.stamps),
            "ate_rmse_m": s.ate_rmse,
            "ate_median_m": s.ate_median,
            "ate_max_m": s.ate_max,
            "relative": [vars(r) for r in s.relative],
        }
        for name, s in scores
    }
