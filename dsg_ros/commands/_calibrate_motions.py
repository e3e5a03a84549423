"""What `calibrate` does with a recording's motions: windows, start, estimation, and how far it drifts."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.interface import Parameter
from dsg_ros.io.learned import read_learned
from dsg_ros.io.motions import Motions
from dsg_ros.learning.calibrators.calibrate import HELD_OUT, Calibrated, apply, calibrate
from dsg_ros.learning.calibrators.differential import closed_form
from dsg_ros.learning.calibrators.models import DIFF_DRIVE, LINEAR, LINEAR_IN_SPACE, Model, increments
from dsg_ros.learning.calibrators.windows import Windows, cut, single_steps, without_jumps
from dsg_ros.learning.parameters import PLACES
from dsg_ros.report.drift import drift

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

WINDOW_STEPS, WINDOW_TURN = 10, 0.5
"""A window of a drive is as long as this many usual steps, or a turn of this many radians."""
STANDING_METRES, STANDING_RADIANS = 0.1, 0.1
"""A robot that stays within this did not move."""
SMALLEST_WHEEL, LARGEST_WHEEL = 2e-3, 3.0
"""Diameters [m] beyond are those of no robot."""
MOST_RATIO = 3.0
"""Odometry and reference do not tell distances this many times apart, unless units are mixed up."""
LENGTH_SIGMA, ANGLE_SIGMA = 0.5, 3.0
"""Deviations before the drive of a differential drive: of its lengths, as a share of them (of the laser's offsets, of
the axle), and of the laser's heading [rad]: it may be mounted any way."""


@dataclass(frozen=True)
class Settings:
    """Everything that estimation needs: ``start`` and ``prior`` (K,), ``neutral`` (K,) what a robot nobody calibrated
    has; those ``held`` (K,) stay at the start."""

    motions: Motions
    model: Model
    windows: Windows
    start: Array
    prior: Array
    neutral: Array
    other_starts: tuple[Array, ...]
    inputs: Array
    counts: Mapping[str, int]
    held: NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """What the command tells; ``drift`` is translation [%] and rotation [deg/100 m], before and after."""

    model: Model
    calibrated: Calibrated
    held_out: str
    metres: float
    windows: int
    counts: Mapping[str, int]
    drift: tuple[tuple[float, float], tuple[float, float]] | None

    @property
    def held_out_before(self) -> float:
        return self.calibrated.held_out_before

    @property
    def held_out_after(self) -> float:
        return self.calibrated.held_out_after

    def parameters(self, keys: bool = False) -> list[Parameter]:
        """The parameters by name, or by the ``keys`` they have in learned.yaml."""
        c = self.calibrated
        return [
            Parameter(q.key if keys else q.name, float(v), float(s), q.unit, status, reason)
            for q, v, s, status, reason in zip(
                self.model.quantities, c.values, c.sigmas, c.status, c.reason, strict=True
            )
        ]


def known_names(
    model: str, initial: Mapping[str, float], hold: Collection[str], motions: Motions | None = None
) -> Model:
    """The model called ``model`` for these motions; `UserError` for a name in ``initial`` or ``hold`` that it does not
    have, or a value out of bounds."""
    found = LINEAR if motions is None or motions.planar else LINEAR_IN_SPACE
    found = DIFF_DRIVE if model == "diff_drive" else found
    for option, name in [*(("--initial", name) for name in initial), *(("--hold", name) for name in hold)]:
        if name not in found.names:
            close = difflib.get_close_matches(name, found.names, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(f"{option} {name}: unknown; {hint}{model} has {', '.join(found.names)}")
    if set(hold) == set(found.names):
        raise UserError("--hold names every parameter: nothing is left to be learned; take --freeze to judge them")
    for name, value in initial.items():
        quantity = found.quantities[found.names.index(name)]
        if (
            quantity.bound is not None
            and quantity.neutral is not None
            and abs(value - quantity.neutral) > quantity.bound
        ):
            low, high = quantity.neutral - quantity.bound, quantity.neutral + quantity.bound
            raise UserError(f"--initial {name}={value:g}: outside [{low:g}, {high:g}] {quantity.unit}; units are SI")
        if quantity.key.endswith(("axle", "diameter")) and not 0 < value < 20:
            raise UserError(f"--initial {name}={value:g}: expected metres above 0 and below 20")
        if quantity.unit == "rad" and abs(value) > 2 * np.pi:
            raise UserError(
                f"--initial {name}={value:g}: expected radians; {value:g} degrees are {np.radians(value):.4g}"
            )
    return found


def settings_of(name: str, motions: Motions, initial: Mapping[str, float], hold: Collection[str] = ()) -> Settings:
    """Model, windows and start for the motions, of which those in ``hold`` stay there; `UserError` where they do not
    move, or contradict ``initial``."""
    model = known_names(name, initial, hold, motions)
    held = np.array([quantity.name in hold for quantity in model.quantities])
    untold = [name for name in hold if name not in initial]
    if untold and motions.kind == "wheels":
        raise UserError(
            f"--hold {' '.join(untold)}: of this model a start is found from the motions, so say what is known: "
            f"--initial {' '.join(f'{each}=VALUE' for each in untold)}"
        )
    counts = dict(motions.counts)
    if motions.kind == "wheels":
        return _wheels(model, motions, initial, counts, held)
    inputs = motions.inputs
    if motions.trajectory is not None and motions.known is not None:
        _check_moves(motions)
        inputs, jumped = without_jumps(
            motions.source, motions.stamps, motions.stamp_unit, inputs, motions.trajectory, motions.known
        )
        if jumped:
            counts["reference_jumps"] = jumped
        if jumped > 0.1 * len(inputs):
            raise UserError(
                f"{motions.source}: the reference disagrees with the odometry at {jumped} of {len(inputs)} steps; "
                "is it of another drive, or in other units?"
            )
        windows = cut(inputs, motions.seconds, motions.trajectory, motions.known, _window_metres(inputs), WINDOW_TURN)
    else:
        assert motions.relative is not None
        windows = single_steps(inputs, motions.seconds, motions.relative)
    _check_lengths(motions.source, windows)
    neutral = np.array([q.neutral for q in model.quantities], float)
    start = np.array([initial.get(q.name, q.neutral) for q in model.quantities], float)
    prior = np.array([q.sigma for q in model.quantities], float)
    return Settings(motions, model, windows, start, prior, neutral, (), inputs, counts, held)


def _wheels(
    model: Model, motions: Motions, initial: Mapping[str, float], counts: dict[str, int], held: NDArray[np.bool_]
) -> Settings:
    assert motions.relative is not None
    if np.abs(motions.inputs).sum(axis=0).max() < 0.5:
        raise UserError(f"{motions.source}: nothing moves: the wheels turn by less than half a radian in all")
    tangent = poses.log(motions.relative)
    moved = np.stack([motions.relative[:, 0], motions.relative[:, 1], poses.yaw(motions.relative)], axis=1)
    if np.abs(tangent).sum(axis=0).max() < STANDING_METRES:
        raise UserError(f"{motions.source}: nothing moves: the laser stands still while the wheels turn")
    found = closed_form(motions.inputs, moved)
    if not all(SMALLEST_WHEEL < abs(diameter) < LARGEST_WHEEL for diameter in found[1:3]):
        raise UserError(
            f"{motions.source}: by these motions the wheels are {found[1]:.3g} and {found[2]:.3g} m across: are "
            "lengths in millimetres, or wheel speeds in degrees? Expected are m, rad and s"
        )
    start = np.array([initial.get(q.name, value) for q, value in zip(model.quantities, found, strict=True)])
    size = abs(found[0])
    prior = np.concatenate([LENGTH_SIGMA * np.abs(found[:3]), [size, size, ANGLE_SIGMA]])
    others = (found,) if initial else ()
    windows = single_steps(motions.inputs, motions.seconds, motions.relative)
    return Settings(motions, model, windows, start, prior, found, others, motions.inputs, counts, held)


def _window_metres(inputs: Array) -> float:
    """Length of a window: that of so many usual steps of the moving robot."""
    steps = np.linalg.norm(inputs[:, :3], axis=1)
    moving = steps[np.isfinite(steps) & (steps > 1e-4)]
    return WINDOW_STEPS * float(np.median(moving)) if len(moving) else 1.0


def _check_lengths(source: str, windows: Windows) -> None:
    told = np.linalg.norm(windows.inputs[:, :, :3], axis=2).sum(axis=1)
    moved = np.linalg.norm(windows.reference[:, :3], axis=1)
    driven = told > 0.5 * np.median(told) if len(told) else told > 0
    ratio = float(np.median(moved[driven] / told[driven])) if driven.any() and told.any() else 1.0
    if not 1 / MOST_RATIO < ratio < MOST_RATIO:
        raise UserError(
            f"{source}: the reference moves by {ratio:.3g} m where the odometry tells 1 m: are units mixed up, or is "
            "it of another drive?"
        )


def _check_moves(motions: Motions) -> None:
    """`UserError` where odometry or reference stand still."""
    assert motions.trajectory is not None
    assert motions.known is not None
    known = motions.trajectory[motions.known]
    if len(known) < 3:
        raise UserError(f"{motions.source}: the reference is known at {len(known)} stamps; nothing to learn from")
    odometry = _chain(np.nan_to_num(motions.inputs))
    if _stands(odometry):
        raise UserError(
            f"{motions.source}: nothing moves: the odometry stays within 0.1 m and 0.1 rad; drive, and turn"
        )
    if _stands(known):
        raise UserError(f"{motions.source}: nothing moves: the reference stands still while the odometry drives")


def _stands(trajectory: Array) -> bool:
    relative = poses.log(poses.between(trajectory[0], trajectory))
    return bool(
        np.ptp(trajectory[:, :3], axis=0).max() < STANDING_METRES and np.abs(relative[:, 3:]).max() < STANDING_RADIANS
    )


def _chain(tangents: Array) -> Array:
    out = [poses.IDENTITY]
    for step in poses.exp(tangents):
        out.append(poses.compose(out[-1], step))
    return np.array(out)


def calibrate_motions(settings: Settings) -> Outcome:
    """Learn from all windows."""
    metres = _metres(settings, settings.start)
    found = calibrate(
        settings.model,
        settings.windows,
        settings.start,
        settings.prior,
        settings.other_starts,
        metres,
        noisy_inputs=settings.motions.consecutive,
        held=settings.held,
    )
    return _outcome(settings, found, settings.start, HELD_OUT)


def judge(settings: Settings, learned: Path) -> Outcome:
    """How well the parameters of a learned.yaml predict these motions, next to neutral ones; nothing is learned."""
    by_key = {quantity.key: i for i, quantity in enumerate(settings.model.quantities)}
    given = read_learned(learned, known=by_key.keys() | PLACES.keys() | {q.key for q in DIFF_DRIVE.quantities})
    used = [parameter for parameter in given.parameters if parameter.name in by_key]
    missing = by_key.keys() - {parameter.name for parameter in used}
    if not used or (settings.motions.kind == "wheels" and missing):
        raise UserError(f"{learned}: it has no {', '.join(sorted(missing))}; was it learned with another --model?")
    values, sigmas = settings.neutral.copy(), np.zeros(len(by_key))
    for parameter in used:
        values[by_key[parameter.name]], sigmas[by_key[parameter.name]] = parameter.value, parameter.sigma
    found = apply(settings.model, settings.windows, settings.neutral, values, sigmas, settings.motions.consecutive)
    return _outcome(settings, found, settings.neutral, "all windows, nothing was learned from them")


def _outcome(settings: Settings, found: Calibrated, before: Array, held_out: str) -> Outcome:
    for name, status, reason in zip(settings.model.names, found.status, found.reason, strict=True):
        if reason:
            log.warning("%s: %s, %s", name, status, reason)
    return Outcome(
        settings.model,
        found,
        held_out,
        _metres(settings, found.values),
        len(settings.windows),
        settings.counts,
        _drift(settings, before, found.values),
    )


def _metres(settings: Settings, values: Array) -> float:
    """Path length under the values."""
    steps = increments(settings.model, values, np.nan_to_num(settings.motions.inputs), settings.motions.seconds)
    return float(np.linalg.norm(steps[:, :3], axis=1).sum())


def _drift(settings: Settings, *values: Array) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Drift against a reference that is known all along, under the values before and after."""
    m = settings.motions
    if m.trajectory is None or m.known is None or not m.known.all() or not np.isfinite(m.inputs).all():
        return None
    found = [drift(_chain(increments(settings.model, each, m.inputs, m.seconds)), m.trajectory) for each in values]
    return (found[0], found[1]) if found[0] is not None and found[1] is not None else None
