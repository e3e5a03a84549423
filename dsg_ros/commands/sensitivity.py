"""``python -m dsg_ros sensitivity OUT``: how far a change of each parameter moves the poses of a run."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from typing_extensions import Doc
from tyro.conf import Positional, arg

from dsg_ros.effect import Effect, degrees, metres, with_margin
from dsg_ros.errors import UserError
from dsg_ros.interface import SavedMap
from dsg_ros.io.atomic import destination, write_bytes
from dsg_ros.io.map_folder import map_of, read_map

if TYPE_CHECKING:
    from dsg_ros.learning.sensitivity import Sensitivity

log = logging.getLogger(__name__)

AGREES = 0.05
"""With --check: first order and solving again may differ by this share of the last pose's displacement."""


@dataclass(frozen=True)
class Options:
    """How far a change of each parameter moves the poses of a run, by the implicit function theorem.

    OUT is the folder of a run, or a map folder. Each parameter is changed by a natural amount (1 % of a ratio, 1 cm of
    a lever), and the displacement of the keyframes at the minimum of the run's graph is told to first order; "+-" is
    how far that is off when the graph is solved again. Beside it stands what the parameter's own standard deviation
    comes to at the last pose, and how far odometry alone would have been displaced.
    """

    out: Positional[Path]
    """The folder OUT of a run."""
    parameter: Annotated[
        str, arg(metavar="NAME"), Doc("This parameter alone, such as scale, lever.x or noise.loop")
    ] = ""
    change: Annotated[
        str,
        arg(metavar="CHANGE"),
        Doc("How much it changes, such as '1 %', '-5 mm' or 0.01; default: a natural amount"),
    ] = ""
    check: Annotated[
        bool,
        Doc("Solve again for the opposite changes too; exit code 1 where the last pose differs by over 5 %"),
    ] = False
    figure: Annotated[Path | None, arg(metavar="FILE"), Doc("Draw the displacements along the way as a PNG file")] = (
        None
    )
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


def main(options: Options) -> int:
    """Read the graph, solve it, differentiate; 0, or 1 where a check fails."""
    if options.change and not options.parameter:
        raise UserError("--change: of which parameter? Name it with --parameter")
    if options.figure is not None:
        destination(options.figure)
    saved = read_map(map_of(options.out))
    began = time.perf_counter()
    # JAX is imported here: what is wrong with the folder has been told by now.
    from dsg_ros.keeping import restored_graph
    from dsg_ros.learning.sensitivity import Sensitivity

    graph = Sensitivity(*restored_graph(saved), saved.parameters)
    names = (options.parameter,) if options.parameter else graph.calibration
    effects = [graph.effect(name, options.change, check=options.check) for name in names]
    seconds = time.perf_counter() - began
    if options.figure is not None:
        from dsg_ros.report.figures.sensitivity import draw_sensitivity
        from dsg_ros.report.figures.style import to_png

        write_bytes(options.figure, to_png(draw_sensitivity(effects, saved.travel)))
    _tell(options, saved, graph, effects, seconds)
    return 1 if options.check and any(effect.disagreement > AGREES for effect in effects) else 0


def _tell(options: Options, saved: SavedMap, graph: Sensitivity, effects: Sequence[Effect], seconds: float) -> None:
    """The outcome on stdout: a table for people, and with --json one object as the last line."""
    sigma = graph.deviation()
    deviation_m, deviation_deg = float(metres(sigma)), float(degrees(sigma))
    print(
        f"{len(saved.stamps)} keyframes over {saved.travel[-1]:.0f} m; the last pose is known to {deviation_m:.3g} m, "
        f"{deviation_deg:.3g} deg with these parameters"
    )
    rows = [["parameter", "change", "last pose", "", "worst", "rms", "by its sigma", "odometry alone"]]
    rows[0] += ["solved again", "off by"] if options.check else []
    rows += [_row(effect) for effect in effects]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
    if options.json:
        found = {
            "out": str(options.out),
            "source": saved.source,
            "keyframes": len(saved.stamps),
            "metres": float(saved.travel[-1]),
            "last_pose_deviation_m": deviation_m,
            "last_pose_deviation_deg": deviation_deg,
            "parameters": {effect.name: _entry(effect) for effect in effects},
            "seconds": seconds,
        }
        print(json.dumps(found, allow_nan=False))
    sys.stdout.flush()


def _row(effect: Effect) -> list[str]:
    distance, turn = map(with_margin, effect.last, effect.margin, ("m", "deg"))
    distances = metres(effect.moved)
    row = [effect.name, effect.step, distance, turn, f"{distances[effect.worst]:.3g} m"]
    row += [f"{np.sqrt(np.mean(distances**2)):.3g} m"]
    row += [_spread(effect)]
    row += [f"{metres(effect.odometry[-1]):.3g} m"]
    if effect.opposite is not None:
        row += [f"{metres(effect.resolved[-1]):.3g} m / {metres(effect.opposite[-1]):.3g} m"]
        row += [f"{100 * effect.disagreement:.2g} %"]
    return row


def _spread(effect: Effect) -> str:
    if effect.spread is None:
        return "-"
    status = "" if effect.status == "learned" else f" ({effect.status})"
    return f"{effect.spread[0]:.2g} m, {effect.spread[1]:.2g} deg{status}"


def _entry(effect: Effect) -> dict[str, object]:
    return {name: value for name, value in effect.figures().items() if name not in ("parameter", "keyframes")}
