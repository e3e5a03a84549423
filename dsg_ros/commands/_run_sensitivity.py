"""What `run` tells in its report of how far each parameter's change would have moved the map."""

from __future__ import annotations

import logging
from typing import Any

from dsg_ros.effect import degrees, metres
from dsg_ros.errors import UserError
from dsg_ros.interface import SavedMap

log = logging.getLogger(__name__)


def sensitivities(saved: SavedMap) -> dict[str, Any] | None:
    """The last pose's deviation, and the effect of a natural change of each calibration parameter that the run tells.

    None where the graph has nothing to be moved.  A time offset that moves nothing, as odometry told no velocity, is
    left out.
    """
    # JAX is imported here: whoever asks has it by now, but not whoever reads the command's help.
    from dsg_ros.keeping import restored_graph
    from dsg_ros.learning.sensitivity import Sensitivity

    told = {parameter.name for parameter in saved.parameters}
    try:
        graph = Sensitivity(*restored_graph(saved), saved.parameters)
        sigma = graph.deviation()
    except (UserError, ValueError) as error:  # a graph that does not determine its poses is found out by its factor
        log.warning("no sensitivity in the report: %s", error)
        return None
    effects = []
    for name in graph.calibration:
        if name in told:
            try:
                effects.append(graph.effect(name))
            except (UserError, ValueError) as error:
                log.warning("the report has no sensitivity to %s: %s", name, error)
    return {
        "last_pose_deviation_m": float(metres(sigma)),
        "last_pose_deviation_deg": float(degrees(sigma)),
        "effects": [effect.figures() for effect in effects if effect.moved.any()],
    }
