"""Colours of voxels: by how many points they hold, by height, by when last seen, by how well they are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Colouring = Literal["points", "height", "age", "deviation"]
COLOURINGS: tuple[Colouring, ...] = ("points", "height", "age", "deviation")

_SPARSE = np.array([0.62, 0.76, 0.90], np.float32)
_DENSE = np.array([0.03, 0.19, 0.42], np.float32)
_MANY = 200.0
"""Points merged in a voxel that is drawn in the full colour."""
_RAMP = np.array([[0.17, 0.24, 0.63], [0.18, 0.67, 0.51], [0.94, 0.78, 0.16]], np.float32)
_BEST, _WORST = 1e-3, 0.1
"""Deviations [m] at the ends of the ramp, which is logarithmic."""
_SHORTEST = 60.0
"""Seconds that the ramp of ages spans at least."""


@dataclass(frozen=True)
class Scale:
    """What the ramp spans: heights [m] from ``low`` to ``high``, ``seconds`` since the stamp ``since`` [ns].

    Voxels sent earlier keep their colours, so a scale holds while the map grows little: it ends at powers of two.
    """

    low: float = 0.0
    high: float = 1.0
    since: int = 0
    seconds: float = _SHORTEST

    @staticmethod
    def of(heights: tuple[float, float], seen: tuple[int, int]) -> Scale:
        """One that holds lowest and highest ``heights`` [m], and the stamps [ns] first and last ``seen``."""
        step = 2.0 ** math.floor(math.log2(max(heights[1] - heights[0], 0.5)))
        low = step * math.floor(heights[0] / step)
        high = max(step * math.ceil(heights[1] / step), low + step)
        passed = max((seen[1] - seen[0]) * 1e-9, _SHORTEST)
        return Scale(low, high, seen[0], 2.0 ** math.ceil(math.log2(passed)))


def colours(
    colouring: Colouring,
    scale: Scale,
    means: NDArray[np.float32],
    counts: NDArray[np.int32],
    last_seen: NDArray[np.int64],
    deviations: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Colours (n, 4) rgba in 0..1 of voxels at ``means`` (n, 3), the rest (n,) as in `dsg_ros.interface.VoxelUpdate`.

    Points: from pale to dark, on a logarithmic scale.  Else from blue over green to yellow: from low to high, from long
    ago to just seen, from well to badly known.
    """
    if colouring == "points":
        share = np.clip(np.log1p(counts) / np.log1p(_MANY), 0.0, 1.0).astype(np.float32)[:, None]
        rgb = _SPARSE + share * (_DENSE - _SPARSE)
    elif colouring == "height":
        rgb = _ramp((means[:, 2] - scale.low) / (scale.high - scale.low))
    elif colouring == "age":
        rgb = _ramp((last_seen - scale.since) * (1e-9 / scale.seconds))
    else:
        known = np.maximum(deviations.astype(np.float64), 1e-9)
        rgb = _ramp(np.log(known / _BEST) / math.log(_WORST / _BEST))
    return np.concatenate([rgb, np.ones((len(rgb), 1), np.float32)], axis=1)


def _ramp(share: NDArray[np.floating]) -> NDArray[np.float32]:
    """Colours (n, 3) for shares (n,) of the ramp, held at its ends."""
    at = np.clip(share, 0.0, 1.0)
    return np.stack([np.interp(at, (0.0, 0.5, 1.0), _RAMP[:, k]) for k in range(3)], axis=1).astype(np.float32)
