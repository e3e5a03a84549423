"""A drive cut into windows: runs of steps over which the motion they add up to is compared with the reference's.

Over single steps a reference shows mostly its own noise, and noise in the odometry, which multiplies the parameters,
pulls estimates towards zero (errors in variables; Fuller, "Measurement error models", 1987, section 1.1).  Over windows
the motion grows and that noise much less.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses

Array = NDArray[np.float64]

_log = logging.getLogger(__name__)

MOST_STEPS = 256
"""Steps in a window, at most; a robot that stands begins a new one."""
JUMP_TRANSLATION, JUMP_ROTATION = 0.25, 0.25
"""A reference jumps if it disagrees with the odometry by more than this [m, rad] in one step, and ..."""
JUMP_SHARE, JUMP_SPREAD = 0.5, 20.0
"""... by more than this share of the step, and this many usual disagreements."""
_NAMED = 5


@dataclass(frozen=True)
class Windows:
    """m windows of at most L steps: ``inputs`` (m, L, k) and ``seconds`` (m, L), padded with zeros, which are no
    motion; ``reference`` (m, 7) is the motion over each."""

    inputs: Array
    seconds: Array
    reference: Array

    def __len__(self) -> int:
        return len(self.reference)


def single_steps(inputs: Array, seconds: Array, relative: Array) -> Windows:
    """A window a step: ``inputs`` (n, k) over ``seconds`` (n,), with motions ``relative`` (n, 7)."""
    return Windows(inputs[:, None], seconds[:, None], relative)


def cut(
    inputs: Array, seconds: Array, trajectory: Array, known: NDArray[np.bool_], metres: float, radians: float
) -> Windows:
    """Windows of consecutive steps, closed once they come to ``metres`` or ``radians`` of measured motion, or a mix.

    ``inputs`` (n, 6) are tangents; no window leads across one that is not finite.  ``trajectory`` (n + 1, 7) counts
    where ``known`` (n + 1,).
    """
    spans = list(_spans(inputs, known, metres, radians))
    longest = max((last - first for first, last in spans), default=1)
    padded, times = np.zeros((len(spans), longest, inputs.shape[1])), np.zeros((len(spans), longest))
    for row, (first, last) in enumerate(spans):
        padded[row, : last - first], times[row, : last - first] = inputs[first:last], seconds[first:last]
    ends = np.array(spans, int).reshape(-1, 2)
    return Windows(padded, times, poses.between(trajectory[ends[:, 0]], trajectory[ends[:, 1]]))


def _spans(inputs: Array, known: NDArray[np.bool_], metres: float, radians: float) -> Iterator[tuple[int, int]]:
    extent = np.linalg.norm(inputs[:, :3], axis=1) / metres + np.linalg.norm(inputs[:, 3:], axis=1) / radians
    first, driven = 0, 0.0
    for step, moved in enumerate(extent.tolist()):
        driven += moved
        if driven != driven or not known[first] or step + 1 - first > MOST_STEPS:  # NaN is not itself
            first, driven = step + 1, 0.0
        elif driven >= 1.0 and known[step + 1]:
            yield first, step + 1
            first, driven = step + 1, 0.0
        elif driven == 0.0:
            first = step + 1  # the robot has not set off yet


def jumps(inputs: Array, trajectory: Array, known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Steps at which the reference jumps: it disagrees with the odometry beyond all calibration."""
    reference = poses.log(poses.between(trajectory[:-1], trajectory[1:]))
    both = known[:-1] & known[1:] & np.isfinite(inputs).all(axis=1)
    out = np.zeros(len(inputs), bool)
    for part, least in ((slice(0, 3), JUMP_TRANSLATION), (slice(3, 6), JUMP_ROTATION)):
        measured = np.linalg.norm(inputs[:, part], axis=1)
        apart = np.abs(np.linalg.norm(reference[:, part], axis=1) - measured)
        usual = np.median(apart[both]) if both.any() else 0.0
        out |= both & (apart > np.maximum(least + JUMP_SHARE * measured, JUMP_SPREAD * usual))
    return np.flatnonzero(out)


def without_jumps(
    source: str, stamps: Array, unit: str, inputs: Array, trajectory: Array, known: NDArray[np.bool_]
) -> tuple[Array, int]:
    """``inputs`` with NaN where the reference jumps, so that no window leads across, and how often it does; the first
    jumps are logged."""
    found = jumps(inputs, trajectory, known)
    for step in found[:_NAMED]:
        moved = np.linalg.norm(trajectory[step + 1, :3] - trajectory[step, :3])
        _log.warning(
            "%s: the reference jumps after %s %.13g: by %.2f m where the odometry tells %.2f m; not used",
            source, unit, stamps[step], moved, np.linalg.norm(inputs[step, :3]),
        )  # fmt: skip
    if len(found) > _NAMED:
        _log.warning("%s: the reference jumps %d times in all", source, len(found))
    out = inputs.copy()
    out[found] = np.nan
    return out, len(found)


def blocks(count: int, most: int) -> NDArray[np.intp]:
    """Block numbers (count,) of neighbouring windows: at most ``most`` blocks, of equal size up to one."""
    return np.arange(count) * min(count, most) // max(count, 1)
