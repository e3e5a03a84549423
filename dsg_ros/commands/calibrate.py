"""``python -m dsg_ros calibrate FILE --model MODEL``: what a recorded drive says of a robot's calibration."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typing_extensions import Doc
from tyro.conf import Positional, UseAppendAction, arg

from dsg_ros import __version__
from dsg_ros.errors import UserError
from dsg_ros.io.atomic import destination
from dsg_ros.io.learned import write_learned
from dsg_ros.io.motion_files import read_motions
from dsg_ros.report.summary import entry

if TYPE_CHECKING:
    from dsg_ros.commands._calibrate_motions import Outcome

log = logging.getLogger(__name__)

FILE = arg(metavar="FILE")


@dataclass(frozen=True)
class Options:
    """Calibrate a robot from one recording, with standard deviations; true = parameter x measured, in m, rad and s.

    FILE is read by its content. diff_drive (axle, wheel diameters, laser pose) takes Khepera tuples of wheel speeds and
    laser motions. linear (scale, rotation gain, turn per metre, lever arm) takes a .mat file with v, om and true poses;
    KITTI poses or a TUM trajectory against --reference; a log with laser scans or a bag against --reference or, without
    one, against its own scans, matched. What the drive does not show is told as unobservable and stays at its start.
    """

    file: Positional[Path]
    """The recording."""
    model: Annotated[Literal["diff_drive", "linear"], Doc("Which parameters")]
    reference: Annotated[
        Path | None,
        FILE,
        Doc("True poses: a KITTI file for KITTI poses, else a TUM trajectory or a CARMEN log with corrected poses"),
    ] = None
    initial: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        Doc("Where parameters start, and stay if they are not observable; default: neutral, or a closed form"),
        arg(metavar="NAME=VALUE"),
    ] = ()
    hold: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        Doc("Parameters that are known: they stay where they start, so that others need not be told apart from them"),
        arg(metavar="NAME"),
    ] = ()
    freeze: Annotated[
        Path | None, FILE, Doc("A learned.yaml, of --out or of a run: judge its parameters, learn nothing")
    ] = None
    out: Annotated[
        Path | None, FILE, Doc("Write what was learned, for --freeze here and, with linear, run --freeze-theta")
    ] = None
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


def main(options: Options) -> int:
    """Read, calibrate, tell; 0, also where nothing can be learned."""
    if options.out is not None:
        destination(options.out)
    if options.freeze is not None and options.hold:
        raise UserError("--freeze with --hold: with --freeze nothing is learned, all are held")
    if options.freeze is not None and options.initial:
        raise UserError("--freeze with --initial: with --freeze nothing is learned, so nothing starts anywhere")
    initial = _assignments(options)
    hold = tuple(name for group in options.hold for name in group)
    motions = read_motions(options.file, options.reference)
    if options.model == "diff_drive" and (motions is None or motions.kind != "wheels"):
        raise UserError(f"{options.file} tells no wheel speeds: --model diff_drive needs tuples of them; take linear")
    if options.model == "linear" and motions is not None and motions.kind == "wheels":
        raise UserError(f"{options.file} tells wheel speeds, not the body's motion: take --model diff_drive")
    # JAX is imported here: what is wrong with the files has been told by now.
    from dsg_ros.commands._calibrate_motions import calibrate_motions, judge, known_names, settings_of
    from dsg_ros.commands._calibrate_scans import motions_from_scans

    if motions is None:
        known_names(options.model, initial, hold)
        motions = motions_from_scans(options.file)
    settings = settings_of(options.model, motions, initial, hold)
    outcome = calibrate_motions(settings) if options.freeze is None else judge(settings, options.freeze)
    if options.out is not None:
        write_learned(options.out, outcome.parameters(keys=True), _provenance(options, outcome))
    _tell(options, outcome)
    return 0


def _assignments(options: Options) -> dict[str, float]:
    """``--initial`` by name; `UserError` for what is no number."""
    found: dict[str, float] = {}
    for assignment in (each for group in options.initial for each in group):
        name, equals, text = assignment.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not equals or not abs(value) < float("inf"):
            raise UserError(f"--initial {assignment}: expected NAME=VALUE with a finite number, such as scale=0.98")
        if name.strip() in found:
            raise UserError(f"--initial {assignment}: {name.strip()} is given twice")
        found[name.strip()] = value
    return found


def _provenance(options: Options, outcome: Outcome) -> dict[str, Any]:
    return {
        "log": options.file.name,
        "reference": None if options.reference is None else options.reference.name,
        "model": options.model,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "metres": outcome.metres,
        "loss_before": outcome.held_out_before,
        "loss_after": outcome.held_out_after,
        "held_out": outcome.held_out,
        "versions": {"dsg_ros": __version__},
    }


def _tell(options: Options, outcome: Outcome) -> None:
    """The outcome on stdout: a line a parameter for people, and with --json one object as the last line."""
    parameters = outcome.parameters()
    for p in parameters:
        unit = "" if p.unit == "ratio" else f" {p.unit}"
        print(
            f"{p.name:<20} {p.value:12.6g} +- {p.sigma:.2g}{unit}  {p.status}" + (f" ({p.reason})" if p.reason else "")
        )
    print(
        f"held out ({outcome.held_out}): {outcome.held_out_before:.4g} -> {outcome.held_out_after:.4g}, about 1 where "
        f"model and noise are right; {outcome.metres:.1f} m in {outcome.windows} windows"
    )
    if outcome.drift is not None:
        (before, turn_before), (after, turn_after) = outcome.drift
        print(f"drift: {before:.2f} % {turn_before:.2f} deg/100 m -> {after:.2f} % {turn_after:.2f} deg/100 m")
    if options.json:
        found: dict[str, Any] = {
            "parameters": {p.name: entry(p) for p in parameters},
            "held_out_before": outcome.held_out_before,
            "held_out_after": outcome.held_out_after,
            "metres": outcome.metres,
            "held_out": outcome.held_out,
            "windows": outcome.windows,
            "counts": outcome.counts,
        }
        if outcome.drift is not None:
            names = ("translation_percent", "rotation_deg_per_100m")
            found |= {
                f"drift_{when}": dict(zip(names, each, strict=True))
                for when, each in zip(("before", "after"), outcome.drift, strict=True)
            }
        print(json.dumps(found, allow_nan=False))
    sys.stdout.flush()
