"""How errors grow with the turn over a window: wheels slip and scans are cut short in turns more than straight on.

With one scale for all windows those in turns, which alone show a rotation gain, would look like outliers and lose
their say.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.learning.calibrators.models import Model, increments
from dsg_ros.learning.calibrators.windows import Windows

Vector = NDArray[np.float64]

STRAIGHT, TURNING = 0.5, 0.8
"""Windows up to the first quantile of turn are compared with those from the second on."""


def growth(model: Model, values: Vector, windows: Windows, e: Vector, by_reference: bool) -> Vector:
    """Factors (m, d), at least one, by which errors are larger than those of a window without turn.

    ``e`` (m, d) are the errors under the values.  The turn is the reference's or, unless ``by_reference``, the measured
    one: errors would seem to grow with a turn that is noise itself.  Deviations of translation and of rotation grow as
    ``sqrt(1 + (r turn)^2)``, each with an r that medians of straight and of turning windows tell.
    """
    m, steps, inputs = windows.inputs.shape
    if by_reference:
        turn = np.linalg.norm(poses.log(windows.reference)[:, 3:], axis=1)
    else:
        told = increments(model, values, windows.inputs.reshape(m * steps, inputs), windows.seconds.ravel())
        turn = np.linalg.norm(told[:, 3:].reshape(m, steps, 3).sum(axis=1), axis=1)
    straight, turning = turn <= np.quantile(turn, STRAIGHT), turn >= np.quantile(turn, TURNING)
    low, high = np.median(turn[straight]), np.median(turn[turning])
    out = np.ones_like(e)
    for part in (np.array(model.axes) < 3, np.array(model.axes) >= 3):
        size = np.linalg.norm(e[:, part], axis=1)
        ratio = (np.median(size[turning]) / max(np.median(size[straight]), 1e-12)) ** 2
        room = high**2 - ratio * low**2
        if ratio > 1 and room > 0:
            out[:, part] = np.sqrt(1 + (ratio - 1) / room * turn**2)[:, None]
    return out
