"""MATLAB files with wheel speeds and true poses, in the manner of the UTIAS data sets (Barfoot, "State estimation for
robotics", 2017; Leung et al., IJRR 2011).

Variables, one column each: ``t`` [s], ``v`` [m/s] and ``om`` [rad/s] as the odometry told them, ``x_true``, ``y_true``
[m], ``th_true`` [rad], and ``true_valid``, nonzero where these three count.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.matlab import variables
from dsg_ros.io.motions import Motions, most_malformed

_log = logging.getLogger(__name__)

NAMES = ("t", "v", "om", "x_true", "y_true", "th_true")
_VALID = "true_valid"
_LONGEST_GAP = 20.0
"""Samples further apart than this many usual intervals do not follow each other."""
_FASTEST, _FASTEST_TURN = 60.0, 30.0
"""No wheeled robot is faster [m/s, rad/s]: numbers beyond are in other units."""


def read_utias(path: Path, data: bytes) -> Motions:
    """The steps between samples; the speeds of a sample hold until the next one."""
    columns = _columns(path, data)
    counts: Counter[str] = Counter()
    t, v, om, x, y, th = (columns[name] for name in NAMES)
    if not np.isfinite(t).all():
        raise UserError(f"{path}: t is not finite at sample {int(np.argmin(np.isfinite(t))) + 1}")
    forward = np.concatenate([[True], np.diff(t) > 0])
    if not forward.all():
        counts["repeated_stamps"] = int((~forward).sum())
        _log.warning("%s: %d samples do not come after the one before; left out", path, counts["repeated_stamps"])
        most_malformed(path, counts["repeated_stamps"], len(t), "stamps")
        keep = t > np.concatenate([[-np.inf], np.maximum.accumulate(t)[:-1]])
        t, v, om, x, y, th = (column[keep] for column in (t, v, om, x, y, th))
        columns[_VALID] = columns[_VALID][keep]
    told = np.isfinite(v) & np.isfinite(om)
    known = (columns[_VALID] != 0) & np.isfinite(x) & np.isfinite(y) & np.isfinite(th)
    counts["odometry_not_finite"] = int((~told).sum())
    counts["reference_not_finite"] = int(((columns[_VALID] != 0) & ~known).sum())
    for cause in ("odometry_not_finite", "reference_not_finite"):
        if counts[cause]:
            _log.warning("%s: %d of %d samples are left out: %s", path, counts[cause], len(t), cause.replace("_", " "))
    most_malformed(path, counts["odometry_not_finite"] + counts["reference_not_finite"], len(t), "samples")
    _check_units(path, v[told], om[told])
    seconds = np.diff(t)
    _check_degrees(path, om[:-1] * seconds, np.diff(th), known[:-1] & known[1:])
    inputs = np.zeros((len(seconds), 6))
    inputs[:, 0], inputs[:, 5] = v[:-1] * seconds, om[:-1] * seconds
    # What is not told over a step stays NaN: no window leads across it.
    inputs[seconds > _LONGEST_GAP * np.median(seconds)] = np.nan
    return Motions(
        source=str(path),
        kind="body",
        planar=True,
        inputs=inputs,
        seconds=seconds,
        stamps=t,
        stamp_unit="s",
        trajectory=poses.from_planar(np.nan_to_num(x), np.nan_to_num(y), np.nan_to_num(th)),
        known=known,
        counts={cause: count for cause, count in counts.items() if count},
    )


def _columns(path: Path, data: bytes) -> dict[str, NDArray[np.float64]]:
    found = variables(path, data)
    if missing := [name for name in NAMES if name not in found]:
        raise UserError(
            f"{path}: the variables {', '.join(missing)} are missing (it has {', '.join(found) or 'none'}); "
            f"expected are {', '.join(NAMES)} and {_VALID}"
        )
    columns: dict[str, NDArray[np.float64]] = {}
    for name in (*NAMES, _VALID):
        if name not in found:
            columns[name] = np.ones_like(columns["t"])
            continue
        value = found[name]
        if value.dtype.kind not in "fiub" or value.size != max(value.shape, default=0):
            raise UserError(f"{path}: {name} has shape {value.shape}, {value.dtype}; expected one column of numbers")
        columns[name] = value.astype(np.float64).ravel()
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise UserError(f"{path}: the columns have different lengths: {lengths}")
    if lengths["t"] < 3:
        raise UserError(f"{path}: {lengths['t']} samples are too few to calibrate with")
    return columns


def _check_units(path: Path, v: NDArray[np.float64], om: NDArray[np.float64]) -> None:
    if len(v) and (largest := np.abs(v).max()) > _FASTEST:
        raise UserError(f"{path}: v reaches {largest:g} m/s: is it in millimetres? Expected is m/s")
    if len(om) and (largest := np.abs(om).max()) > _FASTEST_TURN:
        raise UserError(f"{path}: om reaches {largest:g} rad/s: is it in degrees? Expected is rad/s")


def _check_degrees(
    path: Path, told: NDArray[np.float64], turned: NDArray[np.float64], known: NDArray[np.bool_]
) -> None:
    """`UserError` where the true heading turns tens of times as far as the odometry's."""
    turning = known & (np.abs(told) > 3e-3)
    if turning.sum() < 20:
        return
    slope = float(np.median(turned[turning] / told[turning]))
    if abs(slope) > 10:
        raise UserError(f"{path}: th_true turns by {slope:.3g} where om tells 1 rad: is it in degrees? Expected is rad")
