"""What is known of a recording's true motion: relations that were verified by hand, or a corrected log."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.worsening import at
from dsg_ros import poses
from dsg_ros.io.reference import read_reference
from dsg_ros.report.evaluation import Track, score

OUTSIDE = 0.6
"""Seconds that a relation may begin before the first scan, or end after the last."""
APART = 5.0
"""Seconds between poses of a corrected log that are compared."""

Array = NDArray[np.float64]


class Errors(NamedTuple):
    """Of relations (m,): the time between their ends [s], and how far off the motion is [m], [rad]."""

    gaps: Array
    metres: Array
    radians: Array


def errors(truth: Path, stamps: NDArray[np.int64], found: Array) -> Errors:
    """Of poses (n, 7) at ``stamps`` (n,) [ns], which may be in any order, against the relations of ``truth``; where it
    is a trajectory, against its motions over `APART` seconds.
    """
    ends, told = _relations(truth)
    slack = round(OUTSIDE * 1e9)
    inside = (ends.min(axis=1) >= stamps.min() - slack) & (ends.max(axis=1) <= stamps.max() + slack)
    ends, told = ends[inside], told[inside]
    relative = poses.between(at(stamps, found, ends[:, 0]), at(stamps, found, ends[:, 1]))
    metres = np.linalg.norm((relative - told)[:, :2], axis=1)
    turned = np.linalg.norm(poses.log(poses.between(told, relative))[:, 3:], axis=1)
    return Errors(np.abs(np.diff(ends, axis=1)[:, 0]) * 1e-9, metres, turned)


def error(truth: Path, stamps: NDArray[np.int64], found: Array) -> float:
    """The figure that a map is told by [m]: mean over the relations, or the ATE's root mean square against a
    trajectory.
    """
    if truth.suffix == ".relations":
        return float(errors(truth, stamps, found).metres.mean())
    order = np.argsort(stamps, kind="stable")
    reference = read_reference(truth)
    return score(Track(stamps[order], found[order]), Track(reference.stamps, reference.poses)).ate_rmse


def _relations(truth: Path) -> tuple[NDArray[np.int64], Array]:
    """Ends (m, 2) [ns] and motions (m, 7) between them."""
    if truth.suffix == ".relations":
        rows = np.loadtxt(truth, usecols=range(8), ndmin=2)
        return np.round(rows[:, :2] * 1e9).astype(np.int64), poses.from_planar(rows[:, 2], rows[:, 3], rows[:, 7])
    reference = read_reference(truth)
    first = np.arange(reference.stamps[0], reference.stamps[-1] - round(APART * 1e9), round(APART * 1e9))
    ends = np.stack([first, first + round(APART * 1e9)], axis=1)
    begin, end = (at(reference.stamps, reference.poses, column) for column in ends.T)
    return ends, poses.between(begin, end)
