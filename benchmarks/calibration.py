"""A simulated robot that calibrates itself, drive after drive: is what it tells true, and are its deviations honest?

Each seed is a drive through its own world: `benchmarks.simulated_drive` has the robot and its errors.  The pipeline
starts from nominal parameters and from deviations that are told wrong, and sees every scan once.  There is no peer.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import numpy as np
from scipy.stats import chi2

from benchmarks.log_level import at_level
from benchmarks.measuring import THREADS, cores
from benchmarks.simulated_drive import SETTLE, Case, Learned, Outcome, drive
from benchmarks.table import Row
from dsg_ros.learning.guards import FROZEN, LEARNED, UNOBSERVABLE
from dsg_ros.progress import progress

METRES = {"office": 200.0, "corridor": 60.0}
"""Of a drive, where nothing else is asked for."""
HIDDEN = ("odometry.rotation_gain", "odometry.lever.x", "odometry.lever.y")
"""What a straight drive cannot show."""
ERRORS = {"m": 0.005, "rad": float(np.deg2rad(0.1)), "s": 0.010}
"""How far off the parameters of these units may be: of the extrinsic, and of the time offset."""
BEYOND, WITHIN_NIS, WITHIN_NEES, WITHIN_NOISE = 0.05, 0.1, 0.2, 0.15
"""Share of the drives that may be beyond three sigmas; how far from 1 the mean NIS, NEES and noise may be."""
ALARM, SETTLED, WORSE = 60, 0.15, 1.05
"""Keyframes until a jump is noticed; error of the scale `SETTLE` keyframes after it; ATE over that with the truth."""


def cases(options: argparse.Namespace) -> list[Case]:
    """What the options ask for, a case a seed."""
    metres = METRES[options.world] if options.metres is None else options.metres
    return [
        Case(
            seed, options.world, metres, options.told, options.jump, tuple(options.set), tuple(options.robot),
            options.fixes, options.fix_rate, options.fix_memory,
        )
        for seed in range(options.seeds)
    ]  # fmt: skip


def run(options: argparse.Namespace) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows over all drives, with each of them behind."""
    outcomes = driven(cases(options), cores())
    print(table(outcomes), flush=True)
    asked = ("world", "told", "jump", "set", "robot", "fixes", "fix_rate", "fix_memory")
    details = {
        "options": {name: getattr(options, name) for name in asked},
        "drives": [dataclasses.asdict(outcome) for outcome in outcomes],
    }
    found = positions if options.fixes else rows
    yield found(options.world, outcomes, jumped=bool(options.jump)), details


def driven(wanted: Sequence[Case], workers: int, one: Callable[[Case], Outcome] = drive) -> list[Outcome]:
    """All cases, in their order, by so many processes of one thread each."""
    with at_level("dsg_ros.progress", logging.INFO):
        return _driven(wanted, workers, one)


def _driven(wanted: Sequence[Case], workers: int, one: Callable[[Case], Outcome]) -> list[Outcome]:
    title = f"{len(wanted)} drives of {wanted[0].metres:.0f} m" if wanted else "no drives"
    if workers == 1:
        with progress(title, len(wanted)) as advance:
            found = []
            for case in wanted:
                found.append(one(case))
                advance(len(found))
        return found
    os.environ.update(dict.fromkeys(THREADS, "1"))  # for the children, whose libraries are not loaded yet
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(one, case) for case in wanted]
        with progress(title, len(futures)) as advance:
            for count, done in enumerate(as_completed(futures), 1):
                done.result()
                advance(count)
        return [future.result() for future in futures]


def rows(world: str, outcomes: Sequence[Outcome], *, jumped: bool) -> list[Row]:
    """What the drives come to, against what they should."""
    if world == "corridor":
        return [*_hidden(world, outcomes), *_false_alarms(world, outcomes, jumped)]
    if jumped:
        return [*_jump(world, outcomes), *_false_alarms(world, outcomes, jumped)]
    found = []
    for name in outcomes[0].parameters:
        each = [outcome.parameters[name] for outcome in outcomes]
        beyond = sum(not parameter.within for parameter in each) / len(each)
        found.append(_row(world, f"{name}: beyond 3 sigmas", beyond, BEYOND, note=_states(each)))
        if name.startswith(("odometry.lever", "odometry.time")):
            worst = max(abs(parameter.error) for parameter in each)
            found.append(_row(world, f"{name}: worst error", worst, ERRORS[each[0].unit], each[0].unit))
    noises = [
        _away(world, f"noise of {kind}: told / true", [outcome.noise[kind] for outcome in outcomes], WITHIN_NOISE)
        for kind in outcomes[0].noise
    ]
    return [
        *found,
        _theta_nees(world, outcomes),
        _away(world, "NIS / 3", [outcome.nis for outcome in outcomes], WITHIN_NIS),
        _away(world, "NIS / 3, second half", [outcome.nis_second_half for outcome in outcomes], WITHIN_NIS),
        _away(world, "NEES / 3 of poses", [outcome.pose_nees for outcome in outcomes], WITHIN_NEES),
        *noises,
        *_ate(world, outcomes),
        *_false_alarms(world, outcomes, jumped),
    ]


def positions(world: str, outcomes: Sequence[Outcome], *, jumped: bool) -> list[Row]:
    """`rows` of drives that positions alone have taught."""
    found = []
    for name in outcomes[0].parameters:
        each = [outcome.parameters[name] for outcome in outcomes]
        beyond = sum(not parameter.within for parameter in each if parameter.status == LEARNED) / len(each)
        found.append(_row(world, f"{name}: beyond 3 sigmas", beyond, BEYOND, note=_states(each)))
    away = [abs(outcome.parameters["odometry.scale"].error) for outcome in outcomes]
    found.append(_row(world, "odometry.scale: mean error", float(np.mean(away)), None, note=f"worst {max(away):.4f}"))
    nis = [outcome.nis_second_half for outcome in outcomes]
    found.append(_row(world, "NIS, second half", float(np.mean(nis)), None, note=f"{min(nis):.2f} to {max(nis):.2f}"))
    return [*found, _theta_nees(world, outcomes), *_false_alarms(world, outcomes, jumped)]


def band(numbers: int) -> tuple[float, float]:
    """Where the mean of ``numbers`` squared unit normals lies in 95 of 100 cases."""
    low, high = chi2.ppf([0.025, 0.975], numbers) / numbers
    return float(low), float(high)


def table(outcomes: Sequence[Outcome]) -> str:
    """The parameters: how many drives are within three sigmas, their states, errors, and told deviations."""
    head = (
        "parameter",
        "within 3 sigmas",
        "learned",
        "frozen",
        "unobs.",
        "truth",
        "mean |error|",
        "worst",
        "sigma",
        "",
    )
    lines: list[tuple[str, ...]] = [head]
    for name, first in outcomes[0].parameters.items():
        each = [outcome.parameters[name] for outcome in outcomes]
        errors = np.abs([parameter.error for parameter in each])
        counts = [sum(p.status == status for p in each) for status in (LEARNED, FROZEN, UNOBSERVABLE)]
        numbers = (first.truth, errors.mean(), errors.max(), np.median([parameter.sigma for parameter in each]))
        within = f"{sum(parameter.within for parameter in each)} of {len(each)}"
        lines.append((name, within, *map(str, counts), *(f"{number:.4f}" for number in numbers), first.unit))
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join(
        "  ".join(
            c.rjust(w) if 0 < k < len(head) - 1 else c.ljust(w)
            for k, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _row(world: str, what: str, ours: float | None, goal: float | None, unit: str = "", note: str = "") -> Row:
    return Row("calibration", world, what, ours, None, unit, goal, note, alone=True)


def _away(world: str, what: str, found: Sequence[float], goal: float) -> Row:
    """The distance of a mean from 1."""
    mean = float(np.mean(found))
    return _row(
        world, f"|{what} - 1|", abs(mean - 1.0), goal, note=f"mean {mean:.3f}, {min(found):.2f} to {max(found):.2f}"
    )


def _states(each: Sequence[Learned]) -> str:
    counts = [(sum(p.status == status for p in each), status) for status in (LEARNED, FROZEN, UNOBSERVABLE)]
    return ", ".join(f"{count} {status}" for count, status in counts if count)


def _theta_nees(world: str, outcomes: Sequence[Outcome]) -> Row:
    """How far the mean is outside its band, 0 inside."""
    numbers = sum(outcome.theta_numbers for outcome in outcomes)
    what = "NEES of theta: outside its 95 % band by"
    if not numbers:
        return _row(world, what, None, 0.0, note="nothing was learned")
    mean, (low, high) = sum(outcome.theta_nees for outcome in outcomes) / numbers, band(numbers)
    note = f"mean {mean:.3f} a parameter, band {low:.3f} to {high:.3f}"
    return _row(world, what, max(0.0, mean - high, low - mean), 0.0, note=note)


def _ate(world: str, outcomes: Sequence[Outcome]) -> list[Row]:
    means = {name: float(np.mean([outcome.ate[name] for outcome in outcomes])) for name in outcomes[0].ate}
    note = f"by odometry {means['odometry']:.2f} m"
    return [
        _row(world, "ATE, learned", means["learned"], None, "m", note),
        _row(world, "ATE, true calibration given", means["given"], None, "m"),
        _row(world, "ATE, learned / given", means["learned"] / means["given"], WORSE),
    ]


def _hidden(world: str, outcomes: Sequence[Outcome]) -> list[Row]:
    """Drives in which a parameter that cannot be known is told as known, or is not where it started."""
    found = []
    for name in HIDDEN:
        each = [outcome.parameters[name] for outcome in outcomes]
        wrong = sum(p.status != UNOBSERVABLE or p.value != p.start for p in each)
        found.append(_row(world, f"{name}: not unobservable, or changed", wrong, 0, f"of {len(each)}", _states(each)))
    return found


def _jump(world: str, outcomes: Sequence[Outcome]) -> list[Row]:
    settled = [outcome.settled for outcome in outcomes if outcome.settled is not None]
    worst = max(settled) if settled else None
    what = f"scale {SETTLE} keyframes after the jump: error / jump, worst"
    note = f"median {np.median(settled):.3f}" if settled else f"no drive went on for {SETTLE} keyframes"
    found = [_row(world, what, worst, SETTLED, note=note)]
    what = "keyframes from the jump to the alarm, worst"
    if any(outcome.alarms is None for outcome in outcomes):
        return [*found, _row(world, what, None, ALARM, note="the learner does not look for changes")]
    first = [min((k for k in outcome.alarms or () if k >= 0), default=None) for outcome in outcomes]
    late = [k for k in first if k is not None]
    missed = len(first) - len(late)
    note = f"missed in {missed} of {len(first)}" if missed else f"median {np.median(late):.0f}"
    return [*found, _row(world, what, None if missed else max(late), ALARM, note=note)]


def _false_alarms(world: str, outcomes: Sequence[Outcome], jumped: bool) -> list[Row]:
    """Drives with an alarm where nothing had changed: before the jump, if there is one."""
    if any(outcome.alarms is None for outcome in outcomes):
        return []
    wrong = sum(any(k < 0 or not jumped for k in outcome.alarms or ()) for outcome in outcomes)
    return [_row(world, "drives with a false alarm", wrong, 0, f"of {len(outcomes)}")]
