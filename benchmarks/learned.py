"""Recordings of real robots that calibrate themselves, in one pass and without ground truth: what is learned, after how
many metres, what good it does, and whether a change of the robot shows.

The same code with nominal parameters, or with what was learned given from the start, is the other side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import graphs, scores
from benchmarks.simulated_drive import SETTLE
from benchmarks.table import Row
from benchmarks.truth import error, errors
from benchmarks.worsened import FOLDER, SOURCES
from benchmarks.worsening import Recording, chained, increments, read
from dsg_ros import config, poses
from dsg_ros.interface import Estimate, Parameter, RunResult
from dsg_ros.io.logs import frames
from dsg_ros.learning.guards import LEARNED
from dsg_ros.learning.increments import IncrementModel
from dsg_ros.learning.parameters import starting_theta
from dsg_ros.pipeline import Slam

Array = NDArray[np.float64]

JUMPS = (0.04, -0.04)
"""Share by which the wheels tell more from halfway on."""
ALARM, OFF, WORSE = 60, 0.15, 1.05
"""Keyframes until a jump is noticed; error of the scale `SETTLE` keyframes after it, as a share of the jump; map error
over that with the parameters given.
"""
SHARE = 0.1
"""A number has settled where it stays within this share of its way from the start to the end."""
SHORT = 10.0
"""Seconds that a relation may take to be a short one."""


@dataclass(frozen=True)
class Known:
    """What is known of a robot: ranges of parameters, metres until they may settle, ``nis`` of the second half at most,
    and of dead reckoning over the second half under what the first has taught, errors [m, deg] over short relations
    and over all; or else by how much short ones may be ``worse`` than nominal.
    """

    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    settle: Mapping[str, float] = dataclasses.field(default_factory=dict)
    nis: float | None = None
    short: tuple[float, float] | None = None
    long: tuple[float, float] | None = None
    worse: float | None = None


KNOWN = {
    "intel": Known(
        ranges={
            "odometry.scale": (0.955, 0.980), "odometry.rotation_gain": (0.965, 0.980),
            "odometry.turn_per_metre": (0.054, 0.060), "odometry.lever.x": (0.080, 0.095),
        },
        settle={
            "odometry.scale": 120.0, "odometry.rotation_gain": 120.0, "odometry.turn_per_metre": 40.0,
            "odometry.lever.x": 40.0,
        },
        nis=1.1,
        short=(0.0165, 1.05),
        long=(1.0, 5.2),
    ),
    "aces": Known(worse=1.02),
    "mit-csail": Known(worse=0.95),
}  # fmt: skip


@dataclass(frozen=True)
class Pass:
    """One pass over a recording: its estimates at keyframes, which these are among the scans, and what it came to."""

    keyframes: Sequence[Estimate]
    scans: NDArray[np.int64]
    result: RunResult


def run(names: Sequence[str] | None) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows of each recording named, or of all at hand."""
    folder = graphs.folder().parent / FOLDER
    for name in names or KNOWN:
        source, known = SOURCES[name], KNOWN[name]
        if not source.at_hand(folder):
            continue
        truth = folder / source.truth
        recording = read(folder / source.log)
        whole = driven(recording)
        yield _values(name, known, whole), _details(name, "as it is", whole)
        given = driven(recording, whole.result.parameters, learning=False)
        yield [_map(name, truth, whole, given)], _details(name, "given", given)
        half = len(recording) // 2
        first = driven(recording.some(slice(0, half)))
        yield _reckoned(name, known, truth, recording.some(slice(half, None)), first), _details(name, "half", first)
        for jump in JUMPS:
            changed = driven(jumped(recording, half, jump))
            yield _change(name, half, jump, whole, changed), _details(name, f"jump {jump:+g}", changed)


def driven(recording: Recording, parameters: Sequence[Parameter] = (), *, learning: bool = True) -> Pass:
    """The pipeline's pass over a recording, with the settings as they are."""
    settings: config.Slam = config.replace(config.Slam(), {"learning.enabled": learning})
    slam, told, at = Slam(settings, parameters), [], []
    for number, frame in enumerate(frames(recording, settings.input)):
        estimate = slam.process(frame)
        if estimate.keyframe:
            told.append(estimate)
            at.append(number)
    return Pass(told, np.array(at), slam.finish())


def jumped(told: Recording, half: int, jump: float) -> Recording:
    """Odometry that tells so much more way from scan ``half`` on."""
    steps = increments(told.odometry)
    steps[half:, :2] *= 1.0 + jump
    return dataclasses.replace(told, odometry=chained(told.odometry[0], steps))


def settled(steps: Sequence[tuple[float, float]], start: float) -> float:
    """Metres after which a number, as (metres, value) of all updates, stays within `SHARE` of its whole way."""
    metres, values = np.array(steps).T
    away = np.flatnonzero(np.abs(values - values[-1]) > SHARE * abs(values[-1] - start))
    return float(metres[away[-1] + 1]) if len(away) else float(metres[0])


def reckoned(recording: Recording, parameters: Sequence[Parameter]) -> Array:
    """Poses (n, 7) of a recording's scans by its odometry alone, under ``parameters``."""
    model = IncrementModel(starting_theta(parameters), config.Odometry())
    steps = poses.between(recording.odometry[:-1], recording.odometry[1:])
    seconds = np.maximum(np.diff(recording.stamps), 0) * 1e-9
    found = [poses.IDENTITY]
    for step, duration in zip(steps, seconds.tolist(), strict=True):
        found.append(poses.compose(found[-1], model.predict(step, duration)[0]))
    return np.array(found)


def _values(name: str, known: Known, whole: Pass) -> list[Row]:
    rows, history, unsure = [], whole.result.learning, []
    for parameter in whole.result.parameters:
        if parameter.name.startswith("noise.") or parameter.status != LEARNED:
            continue
        told = f"{parameter.value:.4f} +- {parameter.sigma:.4f}"
        if parameter.name in known.ranges:
            low, high = known.ranges[parameter.name]
            outside = max(low - parameter.value, parameter.value - high, 0.0)
            note = f"{told}, known to be {low:g} to {high:g}"
            rows.append(_row(name, f"{parameter.name}: outside by", outside, 0.0, parameter.unit, note))
        start = scores.value(parameter.name, history[0].parameters)
        metres = settled([(step.metres, scores.value(parameter.name, step.parameters)) for step in history], start)
        if abs(parameter.value - start) < parameter.sigma:
            unsure.append(parameter.name)
        limit = known.settle.get(parameter.name)
        rows.append(_row(name, f"{parameter.name}: settled after", metres, limit, "m", told))
    nis = np.array([step.nis for step in history])
    alarms = whole.result.counts[scores.CHANGES]
    return [
        *rows,
        _row(name, "learned, though within a sigma of nominal", len(unsure), 0, "", ", ".join(unsure)),
        _row(name, "NIS / 3, second half", float(nis[len(nis) // 2 :].mean()), known.nis, ""),
        _row(name, "alarms", alarms, 0, ""),
    ]


def _map(name: str, truth: Path, whole: Pass, given: Pass) -> Row:
    ours, theirs = (error(truth, one.result.stamps, one.result.trajectory) for one in (whole, given))
    return Row("learned", name, "map, learning / given", ours, theirs, "m", WORSE)


def _reckoned(name: str, known: Known, truth: Path, rest: Recording, first: Pass) -> list[Row]:
    learned, nominal = (errors(truth, rest.stamps, reckoned(rest, p)) for p in (first.result.parameters, ()))
    sides = (learned, nominal)
    rows = []
    for which, most, goal, worse in (
        (f"gap < {SHORT:g} s", SHORT, known.short, known.worse), ("all", np.inf, known.long, None)
    ):  # fmt: skip
        chosen = learned.gaps < most
        if which == "all" and (learned.gaps < SHORT).all():
            continue  # the same ones
        ours, theirs = (float(side.metres[chosen].mean()) for side in sides)
        turned, nominally = (float(np.degrees(side.radians[chosen]).mean()) for side in sides)
        alone, (way, turn) = goal is not None, goal or (worse, None)
        what = f"dead reckoning after half, {which}"
        rows += [
            Row("learned", name, f"{what}: way", ours, theirs, "m", way, alone=alone),
            Row("learned", name, f"{what}: turn", turned, nominally, "deg", turn, alone=alone),
        ]
    return rows


def _change(name: str, half: int, jump: float, whole: Pass, changed: Pass) -> list[Row]:
    after = int(np.searchsorted(changed.scans, half))
    found = scores.alarms(changed.keyframes, after) or []
    noticed = min((k for k in found if k >= 0), default=None)
    silent = "no alarm" if noticed is None else ""
    rows = [
        _row(name, f"scale {jump:+g}: keyframes to the alarm", noticed, ALARM, "", silent),
        _row(name, f"scale {jump:+g}: false alarms", sum(k < 0 for k in found), 0, ""),
    ]
    before = scores.value("odometry.scale", whole.keyframes[after].parameters)
    wanted = scores.value("odometry.scale", whole.result.parameters) / (1.0 + jump)
    then = scores.value("odometry.scale", changed.keyframes[min(after + SETTLE, len(changed.keyframes) - 1)].parameters)
    off = abs(then - wanted) / abs(before - wanted)
    return [*rows, _row(name, f"scale {jump:+g}: off {SETTLE} keyframes later, share", off, OFF, "")]


def _row(name: str, what: str, value: float | None, limit: float | None, unit: str, note: str = "") -> Row:
    return Row("learned", name, what, value, None, unit, limit, note, alone=True)


def _details(name: str, how: str, one: Pass) -> dict[str, Any]:
    learned = {p.name: {"value": p.value, "sigma": p.sigma, "status": p.status} for p in one.result.parameters}
    return {"recording": name, "how": how, "learned": learned, "counts": dict(one.result.counts)}
