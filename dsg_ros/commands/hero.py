"""``python -m dsg_ros hero``: the tutorial, in its own settings or with the product's solver and optimiser."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from typing_extensions import Doc

from dsg_ros.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The tutorial: 6 poses, 6 voxels; odometry and observations are learned through the solver.

    The defaults are the tutorial's own settings. With --inner levenberg_marquardt --outer gauss_newton the product's
    solver and a second-order outer step reach the supervised state in a few steps.
    """

    inner: Annotated[
        Literal["gradient_descent", "levenberg_marquardt"], Doc("Inner loop, from measurements to poses and voxels")
    ] = "gradient_descent"
    outer: Annotated[
        Literal["gradient_descent", "gauss_newton", "adam"], Doc("Outer loop, from the loss to measurements")
    ] = "gradient_descent"
    steps: Annotated[int, Doc("Outer steps")] = 30
    json: Annotated[bool, Doc("Print one JSON object as the last line")] = False


def main(options: Options) -> int:
    """Run the tutorial; returns 0, or 1 if the loss is not finite."""
    if not 1 <= options.steps <= 10_000:
        raise UserError(f"--steps {options.steps}: expected 1 to 10000")
    from dsg_ros.experiments import hero

    begin = time.perf_counter()
    progress = []
    for number, evaluation in enumerate(
        hero.learn(hero.build_hybrid_graph(), options.inner, options.outer, options.steps)
    ):
        progress.append(evaluation)
        if not options.json and (number % 5 == 0 or number == options.steps):
            print(f"step {number:3d}   loss {evaluation.loss:.6e}   x5 {np.asarray(evaluation.state.poses)[-1, 0]:.6f}")
    seconds = time.perf_counter() - begin
    last = progress[-1]
    voxels = np.asarray(last.state.voxels)
    if options.json:
        print(json.dumps(_summary(progress, seconds)))
    else:
        print(f"voxels x  {'  '.join(f'{x:.5f}' for x in voxels[:, 0])}")
        print(f"voxels y  {'  '.join(f'{y:.5f}' for y in voxels[:, 1])}")
        print(f"odom dx   {'  '.join(f'{x:.5f}' for x in np.asarray(last.theta.odom)[:, 0])}")
        print(f"{seconds:.2f} s")
    return 0 if math.isfinite(last.loss) else 1


def _summary(progress: list[Any], seconds: float) -> dict[str, Any]:
    last = progress[-1]
    return {
        "losses": [evaluation.loss for evaluation in progress[:-1]],
        "final_loss": last.loss,
        "x5": float(np.asarray(last.state.poses)[-1, 0]),
        "voxels": np.asarray(last.state.voxels).tolist(),
        "theta": {"odom": np.asarray(last.theta.odom).tolist(), "obs": np.asarray(last.theta.obs).tolist()},
        "seconds": seconds,
    }
