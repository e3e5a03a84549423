"""Positions to learn from, in a file: NavSatFix messages of a bag, or ``stamp x y z`` a line."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsg_ros.errors import UserError
from dsg_ros.interface import ReferencePosition
from dsg_ros.io.bags import Mounts, choose_topic, header_stamp
from dsg_ros.io.navsat import NAVSAT, Anchor, AntennaFix, NoPosition, antenna_fix
from dsg_ros.io.rawbag import RawBag
from dsg_ros.io.records import MalformedMessage
from dsg_ros.io.trajectories import parse_stamp
from dsg_ros.throttle import to_log

_NAMED = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Positions:
    """``told`` in the order of their stamps, and ``counts`` of what was left out by cause."""

    told: Sequence[ReferencePosition]
    counts: dict[str, int]


def of_bag(path: Path, topic: str, antenna: tuple[float, float, float] | None, base: Callable[[], str]) -> Positions:
    """The fixes of the bag at ``path``, of ``topic`` or the first of its type.

    The ``antenna`` [m] is in the base; where it is not given, the bag's transforms tell it in the frame that ``base``
    names.  `UserError` where neither tells, and where the bag has no fixes.
    """
    counts: Counter[str] = Counter()
    why: dict[str, str] = {}
    fixes: list[tuple[AntennaFix, str]] = []
    with RawBag(path) as bag:
        chosen = choose_topic(bag, NAVSAT, topic, "fixes to learn from")
        for _, time, data in bag.messages([chosen]):
            try:
                message = bag.deserialize(data, NAVSAT)
                fixes.append((antenna_fix(header_stamp(message.header), message), str(message.header.frame_id)))
            except NoPosition as error:
                counts[f"fixes_{error.cause}"] += 1
                why[error.cause] = str(error)
            except (ValueError, AttributeError) as error:
                cause = "fixes_malformed" if isinstance(error, MalformedMessage) else "fixes_undecodable"
                counts[cause] += 1
                if counts[cause] <= _NAMED:
                    _log.warning("%s: %s at bag time %.6f: skipped: %s", path, chosen.name, time / 1e9, error)
        if not fixes:
            raise UserError(f"{path}: {chosen.name}: none of its {chosen.count} messages has a fix")
        places = _antennas(bag, {frame for _, frame in fixes}, antenna, base)
    anchor, told = Anchor(to_log(__name__)), []
    for fix, frame in sorted(fixes, key=lambda each: each[0].stamp):
        try:
            told.append(anchor.position(fix, places[frame]))
        except NoPosition as error:
            counts[f"fixes_{error.cause}"] += 1
            why[error.cause] = str(error)
    for cause, text in why.items():
        _log.warning("%s: %s: %d messages left out: %s", path, chosen.name, counts[f"fixes_{cause}"], text)
    return Positions(told, dict(counts))


def of_text(path: Path, text: str, antenna: tuple[float, float, float] | None) -> Positions:
    """Lines ``stamp x y z`` [s, m], in level axes of any heading, of a file's content; `UserError` names the line."""
    place, told = np.array(antenna or (0.0, 0.0, 0.0)), []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            position = np.array([float(word) for word in words[1:]])
            if position.shape != (3,) or not np.isfinite(position).all():
                raise ValueError("expected stamp x y z")
            told.append(ReferencePosition(parse_stamp(words[0]), position, antenna=place))
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from error
    return Positions(sorted(told, key=lambda each: each.stamp), {})


def _antennas(
    bag: RawBag, frames: Collection[str], given: tuple[float, float, float] | None, base: Callable[[], str]
) -> dict[str, np.ndarray]:
    """Place (3,) in the base of the antenna of each frame."""
    if given is not None:
        return dict.fromkeys(frames, np.array(given))
    name, mounts, places = base(), Mounts(bag), {}
    for frame in frames:
        there = mounts.base_from(name, frame) if name else None
        if there is None:
            missing = f"no transform from {name!r} to {frame!r}" if name else "the log does not name the base's frame,"
            raise UserError(f"{bag.path}: {missing}, where the antenna is: name its place with --antenna")
        places[frame] = there[:3]
    return places
