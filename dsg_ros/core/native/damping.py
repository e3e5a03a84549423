"""The step logic of Levenberg-Marquardt: its numbers, and what the loops on the host do with them.

`dsg_ros.core.solvers.damping` is the same for the jitted loop; a test compares the two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dsg_ros.core.native import compiled

GROWTH = 10.0
"""Of the damping at the first refusal of a step; twice as much at every further one."""
LARGEST = 1e8
SMALLEST = 1e-10
REGULAR = 1e-8
"""Damping that makes a singular system solvable, where a factorisation is wanted all the same."""
LITTLE = 1e-3
"""Damping up to which a step is as long as the model wants it, so that a small promise means that little is left."""
LEAST_REFUSED = 1e-6
"""Damping after a refused step, at least."""
FLOOR = 1e-6
"""Added to the cost where decreases are shares of it, for costs that reach zero."""
LOST, ROUNDING = 1e-11, 1e-13
"""Shares of the cost: a promise up to the first cannot be told from the cost's own rounding, up to the second."""
GOOD, FAIR = 0.75, 0.25
"""Shares of its promise that a step holds, above which the next one is damped `EASED` or `HALVED` times as much."""
EASED, HALVED, RAISED = 0.01, 0.5, 4.0


class Step(NamedTuple):
    """What to do with a trial step, and the damping to go on with."""

    accept: bool
    damping: float
    growth: float
    converged: bool
    stuck: bool


@compiled
def converges(cost: float, predicted: float, damping: float, tolerance: float) -> bool:
    """Whether a step that promises the decrease ``predicted`` is the last one."""
    return math.isfinite(predicted) and predicted <= tolerance * (cost + FLOOR) and damping <= LITTLE


@compiled
def judge(
    cost: float, trial_cost: float, predicted: float, damping: float, growth: float, tolerance: float
) -> Step:  # fmt: skip
    """As `dsg_ros.core.solvers.damping.judge`."""
    converged = converges(cost, predicted, damping, tolerance)
    lost = predicted <= LOST * cost and trial_cost <= cost * (1 + ROUNDING) and damping <= LITTLE
    if math.isfinite(predicted) and math.isfinite(trial_cost) and (trial_cost < cost or lost):
        held = 0.5 if lost else 0.0
        if not lost and predicted > 0.0 and math.isfinite(cost):
            held = (cost - trial_cost) / predicted
        eased = damping * (EASED if held > GOOD else HALVED if held > FAIR else RAISED)
        return Step(True, min(max(eased, SMALLEST), LARGEST), GROWTH, converged, False)
    kept = damping * growth
    return Step(False, kept, 2.0 * growth, converged, not converged and kept > LARGEST)
