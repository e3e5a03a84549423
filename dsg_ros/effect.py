"""What a change of one parameter does to a map: the answer to a what-if, and how it is told.

Displacements are (k, 6) by keyframe: of the position in map [m], and as a rotation vector in the base frame [rad].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses

Array = NDArray[np.float64]

NOTHING = 1e-6
"""A displacement [m] that solvers' tolerances reach."""


def displacement(before: Array, after: Array) -> Array:
    """Displacement (k, 6) from poses ``before`` to poses ``after``, both (k, 7)."""
    turned = poses.rotation_log(poses.between(before, after)[..., 3:])
    return np.concatenate([after[..., :3] - before[..., :3], turned], axis=-1)


def metres(moved: Array) -> Array:
    """Lengths (...) [m] of displacements (..., 6)."""
    return np.asarray(np.linalg.norm(moved[..., :3], axis=-1))


def degrees(moved: Array) -> Array:
    """Angles (...) [deg] of displacements (..., 6)."""
    return np.asarray(np.degrees(np.linalg.norm(moved[..., 3:], axis=-1)))


def with_margin(value: float, margin: float, unit: str) -> str:
    """``value`` to three digits, and its ``margin`` to as many places, rounded up."""
    places = min(9, max(0, 2 - math.floor(math.log10(value)))) if value > 0 else 6
    above = math.ceil(margin * 10**places) / 10**places
    return f"{value:.{places}f} +- {above:.{places}f} {unit}"


@dataclass(frozen=True)
class Effect:
    """The parameter ``name``, which is ``value`` (deviation ``sigma``, None where none is told) in ``unit``, changed
    by ``change``.

    ``moved`` (k, 6) is how the keyframes move to first order in the change, ``resolved`` how they do where the graph is
    solved again with the changed parameter, and ``opposite``, where that was asked for, with the opposite change.
    ``odometry`` (k, 6) is how the poses of dead reckoning from the first keyframe move.
    """

    name: str
    unit: str
    value: float
    sigma: float | None
    status: str
    change: float
    moved: Array
    resolved: Array
    odometry: Array
    opposite: Array | None = None

    @property
    def step(self) -> str:
        """From which value to which, in words."""
        unit = "" if self.unit == "ratio" else f" {self.unit}"
        return f"{self.value:.5g} -> {self.value + self.change:.5g}{unit}"

    @property
    def last(self) -> tuple[float, float]:
        """How far the last pose moves [m] and turns [deg]."""
        return float(metres(self.moved[-1])), float(degrees(self.moved[-1]))

    @property
    def margin(self) -> tuple[float, float]:
        """By how much the first order is off there [m], [deg], found by solving again."""
        left = self.resolved[-1] - self.moved[-1]
        return float(metres(left)), float(degrees(left))

    @property
    def worst(self) -> int:
        """The keyframe that moves furthest."""
        return int(np.argmax(metres(self.moved)))

    @property
    def spread(self) -> tuple[float, float] | None:
        """Deviation [m], [deg] that the parameter's own gives the last pose; None where it has none."""
        if self.sigma is None:
            return None
        share = self.sigma / abs(self.change)
        return self.last[0] * share, self.last[1] * share

    @property
    def disagreement(self) -> float:
        """How far the first order is from solving again at the last pose, as a share of the displacement there [m/m].

        Of both changes where the opposite one was solved too, the larger.  Displacements below `NOTHING` count as it.
        """
        found = [(self.resolved, 1.0)] + ([] if self.opposite is None else [(self.opposite, -1.0)])
        pairs = [(float(metres(d[-1] - s * self.moved[-1])), float(metres(d[-1]))) for d, s in found]
        return max(off / max(size, NOTHING) for off, size in pairs)

    def figures(self) -> dict[str, Any]:
        """Everything but the displacements of single keyframes, by name; JSON-able."""
        (last_m, last_deg), (margin_m, margin_deg), spread = self.last, self.margin, self.spread
        distances = metres(self.moved)
        found: dict[str, Any] = {
            "parameter": self.name,
            "value": self.value,
            "sigma": self.sigma,
            "unit": self.unit,
            "status": self.status,
            "change": self.change,
            "keyframes": len(self.moved),
            "last_pose_m": last_m,
            "last_pose_margin_m": margin_m,
            "last_pose_deg": last_deg,
            "last_pose_margin_deg": margin_deg,
            "resolved_last_pose_m": float(metres(self.resolved[-1])),
            "resolved_last_pose_deg": float(degrees(self.resolved[-1])),
            "disagreement": self.disagreement,
            "last_pose_sigma_m": None if spread is None else spread[0],
            "last_pose_sigma_deg": None if spread is None else spread[1],
            "worst_keyframe": self.worst,
            "worst_pose_m": float(distances[self.worst]),
            "rms_m": float(np.sqrt(np.mean(distances**2))),
            "odometry_alone_last_pose_m": float(metres(self.odometry[-1])),
            "odometry_alone_last_pose_deg": float(degrees(self.odometry[-1])),
        }
        if self.opposite is not None:
            found["opposite_last_pose_m"] = float(metres(self.opposite[-1]))
            found["opposite_last_pose_deg"] = float(degrees(self.opposite[-1]))
        return found

    @property
    def sentence(self) -> str:
        """The answer in words."""
        distance, turn = map(with_margin, self.last, self.margin, ("m", "deg"))
        return (
            f"{self.name} {self.step}: moves the last pose by {distance} and turns it by {turn}; by odometry alone "
            f"{metres(self.odometry[-1]):.3g} m and {degrees(self.odometry[-1]):.3g} deg"
        )
