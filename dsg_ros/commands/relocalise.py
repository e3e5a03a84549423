"""``python -m dsg_ros relocalise``: how often the robot is found in a map, measured on the run that made it."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Doc
from tyro.conf import Positional, arg

from dsg_ros import config as configuration
from dsg_ros import poses
from dsg_ros.commands._settings import Assignments
from dsg_ros.errors import UserError
from dsg_ros.interface import Frame, SavedMap
from dsg_ros.io.logs import frames, open_log
from dsg_ros.io.map_folder import read_map
from dsg_ros.io.records import Topics
from dsg_ros.io.trajectories import read_tum
from dsg_ros.log_settings import settings_for
from dsg_ros.progress import progress

if TYPE_CHECKING:
    from dsg_ros.localisation import Localisation

log = logging.getLogger(__name__)

RIGHT_DISTANCE, RIGHT_TURN = 0.2, np.radians(2.0)
"""An accepted pose closer than this to the truth [m, rad] is right, any other is wrong."""


@dataclass(frozen=True)
class Options:
    """Draw scans of a log at random, find each in the map without a first guess, and compare with a trajectory.

    Where one scan could be from several places, those that follow it are taken in, joined by the odometry, until one
    place is left. The share found right, refused and wrong is printed, with the scans, metres and seconds it took.
    """

    map: Positional[Path]
    """The map: OUT/map of a run."""
    log: Positional[Path]
    """The recording the scans are drawn from."""
    truth: Annotated[
        Path | None,
        arg(metavar="FILE"),
        Doc("Where the scans were taken in the map (TUM); default: trajectory.tum beside the map"),
    ] = None
    trials: Annotated[int, Doc("Scans drawn")] = 200
    seed: Annotated[int, Doc("Of the draw")] = 0
    most_metres: Annotated[float, Doc("Give up after so much travel")] = 10.0
    apart: Annotated[
        float, Doc("Leave out of the map what was seen within so many seconds of the scan drawn; 0 leaves nothing out")
    ] = 0.0
    set: Assignments = ()
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


@dataclass(frozen=True)
class Trial:
    """One scan drawn: ``number`` in the log, what came of it and after how much.

    ``distance`` [m] and ``turn`` [rad] are the errors of an accepted pose; ``searches`` [s] the time of each search.
    """

    number: int
    outcome: str
    scans: int
    metres: float
    searches: tuple[float, ...]
    distance: float = 0.0
    turn: float = 0.0
    verdict: str = ""


def main(options: Options) -> int:
    """Measure; 0 unless an accepted pose was wrong, then 1."""
    if options.trials < 1 or options.most_metres < 0 or options.apart < 0:
        raise UserError("--trials must be positive, --most-metres and --apart not negative")
    saved = read_map(options.map)
    truth = _truth(options.truth or options.map.resolve().parent / "trajectory.tum")
    settings = settings_for(options.log, Topics(), assignments=options.set)
    if settings.input.odometry == "none":
        raise UserError(
            f"{options.log}: no odometry joins its scans or tells how far the robot came until it was found: there is "
            "nothing to measure by; `run --map` localises in the map without any"
        )
    source = open_log(options.log, Topics(), settings.input.point_time_unit)
    stream = [f for f in frames(source, settings.input) if f.planar == saved.planar]
    known = np.array([i for i, frame in enumerate(stream) if frame.stamp in truth], np.int64)
    if not len(known):
        raise UserError(f"{options.log}: the trajectory of truth knows none of its scans; is it of another run?")
    drawn = np.random.default_rng(options.seed).choice(known, min(options.trials, len(known)), replace=False)
    from dsg_ros.localisation import Localisation

    whole = Localisation(settings, saved)
    whole.warm_up(saved.planar)
    trials = []
    with progress("relocalising", len(drawn)) as advance:
        for count, first in enumerate(np.sort(drawn).tolist(), 1):
            inside = whole if not options.apart else _without(settings, saved, stream[first].stamp, options.apart)
            trial = _try(inside, stream, first, truth, options.most_metres)
            if trial.outcome == "wrong":
                log.warning("scan %d: accepted %.2f m, %.1f deg off", first, trial.distance, np.degrees(trial.turn))
            trials.append(trial)
            advance(count, f"{sum(t.outcome == 'right' for t in trials)} right")
    return _tell(options, trials)


def _truth(path: Path) -> dict[int, NDArray[np.float64]]:
    """Poses (7,) by stamp; stamps that stand for several scans are left out."""
    stamps, track = read_tum(path)
    counts = Counter(stamps.tolist())
    return {stamp: pose for stamp, pose in zip(stamps.tolist(), track, strict=True) if counts[stamp] == 1}


def _without(settings: configuration.Slam, saved: SavedMap, stamp: int, seconds: float) -> Localisation:
    """Localisation in what of the map was not seen around ``stamp`` [ns]."""
    from dsg_ros.localisation import Localisation

    kept = np.flatnonzero(np.abs(saved.stamps - stamp) > seconds * 1e9)
    if not len(kept):
        raise UserError(f"--apart {seconds:g}: nothing of the map is left")
    part = {name: getattr(saved, name)[kept] for name in ("stamps", "poses", "odometry", "travel")}
    return Localisation(settings, replace(saved, **part, clouds=tuple(saved.clouds[i] for i in kept)))


def _try(
    inside: Localisation, stream: Sequence[Frame], first: int, truth: dict[int, NDArray[np.float64]], most_metres: float
) -> Trial:
    """Feed scan ``first`` and those after it until they are found, ``most_metres`` are driven or the log ends."""
    localiser, searches, metres = inside.new_localiser(), [], 0.0
    before: NDArray[np.float64] | None = None
    scans = 0
    for frame in stream[first:]:
        odometry = frame.odometry.at(frame.stamp)
        if before is not None:
            metres += float(np.linalg.norm(poses.between(before, odometry)[:3]))
        if metres > most_metres:
            break
        before, scans, last = odometry, scans + 1, localiser.last
        began = time.perf_counter()
        located = localiser.track(inside.cloud(frame), odometry, frame.stamp)
        if localiser.last is not last:
            searches.append(time.perf_counter() - began)
        if located.state == "localised" and frame.stamp in truth:
            apart = poses.between(truth[frame.stamp], located.pose)
            distance = float(np.linalg.norm(apart[:3]))
            turn = float(np.linalg.norm(poses.rotation_log(apart[3:])))
            outcome = "right" if distance <= RIGHT_DISTANCE and turn <= RIGHT_TURN else "wrong"
            return Trial(first, outcome, scans, metres, tuple(searches), distance, turn)
    verdict = localiser.last.verdict.value if localiser.last else ""
    return Trial(first, "refused", scans, metres, tuple(searches), verdict=verdict)


def _tell(options: Options, trials: Sequence[Trial]) -> int:
    outcomes = Counter(trial.outcome for trial in trials)
    found = [trial for trial in trials if trial.outcome != "refused"]
    seconds = np.array([second for trial in trials for second in trial.searches])
    figures: dict[str, Any] = {
        "map": str(options.map),
        "log": str(options.log),
        "apart_s": options.apart,
        "trials": len(trials),
        "right": outcomes["right"],
        "refused": outcomes["refused"],
        "wrong": outcomes["wrong"],
        "right_share": outcomes["right"] / len(trials),
        "by_one_scan": sum(len(trial.searches) == 1 for trial in found),
        "searches": _quantiles([len(trial.searches) for trial in found]),
        "metres": _quantiles([trial.metres for trial in found]),
        "search_seconds": _quantiles(seconds),
        "error_m": _quantiles([trial.distance for trial in trials if trial.outcome == "right"]),
        "error_deg": _quantiles([float(np.degrees(trial.turn)) for trial in trials if trial.outcome == "right"]),
        "not_right": [
            {"scan": t.number, "outcome": t.outcome, "error_m": t.distance, "error_deg": float(np.degrees(t.turn)),
             "metres": t.metres, "searches": len(t.searches), "verdict": t.verdict}
            for t in trials if t.outcome != "right"
        ],
    }  # fmt: skip
    share = {name: f"{100 * outcomes[name] / len(trials):.1f} %" for name in ("right", "refused", "wrong")}
    print(
        f"{len(trials)} scans: {share['right']} right (within {RIGHT_DISTANCE} m, {np.degrees(RIGHT_TURN):.0f} deg), "
        f"{share['refused']} refused, {share['wrong']} accepted and wrong"
    )
    if found:
        s, m = figures["searches"], figures["metres"]
        print(
            f"found by the first scan alone: {figures['by_one_scan']}; with median / 90 % / most {s['p50']:.0f} / "
            f"{s['p90']:.0f} / {s['p100']:.0f} scans over {m['p50']:.1f} / {m['p90']:.1f} / {m['p100']:.1f} m"
        )
        s = figures["search_seconds"]
        print(f"a search: median {s['p50']:.2f} s, 90 % {s['p90']:.2f} s, longest {s['p100']:.2f} s")
    if options.json:
        print(json.dumps(figures, allow_nan=False))
    return 1 if outcomes["wrong"] else 0


def _quantiles(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float] | None:
    if not len(values):
        return None
    return {f"p{q}": float(np.percentile(values, q)) for q in (50, 90, 99, 100)}
