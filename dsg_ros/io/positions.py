"""Positions to learn from, in a file: NavSatFix messages of a bag, or ``stamp x y z`` a line."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsg_ros.errors import UserError
from dsg_ros.geodesy import LocalFrame
from dsg_ros.interface import ReferencePosition
from dsg_ros.io.bags import ODOMETRY, Mounts, choose_topic, header_stamp
from dsg_ros.io.navsat import NAVSAT, AntennaFix, antenna_fix, local
from dsg_ros.io.rawbag import RawBag
from dsg_ros.io.records import MalformedMessage
from dsg_ros.io.trajectories import parse_stamp

_NAMED = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Positions:
    """``told`` in the order of their stamps, and ``counts`` of what was left out by cause."""

    told: Sequence[ReferencePosition]
    counts: dict[str, int]


def of_bag(path: Path, topic: str, antenna: tuple[float, float, float] | None) -> Positions:
    """The fixes of the bag at ``path``, of ``topic`` or the first of its type.

    The ``antenna`` [m] in the base is where the bag's transforms have it, unless it is given; `UserError` where neither
    tells, and where the bag has no fixes.
    """
    counts: Counter[str] = Counter()
    fixes: list[tuple[AntennaFix, str]] = []
    with RawBag(path) as bag:
        chosen = choose_topic(bag, NAVSAT, topic, "fixes to learn from")
        for _, time, data in bag.messages([chosen]):
            try:
                message = bag.deserialize(data, NAVSAT)
                fix = antenna_fix(header_stamp(message.header), message)
            except (ValueError, AttributeError) as error:
                counts["fixes_malformed" if isinstance(error, MalformedMessage) else "fixes_undecodable"] += 1
                if sum(counts.values()) <= _NAMED:
                    _log.warning("%s: %s at bag time %.6f: skipped: %s", path, chosen.name, time / 1e9, error)
                continue
            if fix is None:
                counts["fixes_none"] += 1
            else:
                fixes.append((fix, str(message.header.frame_id)))
        if not fixes:
            raise UserError(f"{path}: {chosen.name}: none of its {chosen.count} messages has a fix")
        places = {frame: _antenna(bag, frame, antenna) for frame in {frame for _, frame in fixes}}
    if counts["fixes_none"]:
        _log.warning("%s: %s: %d messages without a fix; left out", path, chosen.name, counts["fixes_none"])
    around = LocalFrame(fixes[0][0].geodetic)
    told = [local(fix, around, places[frame]) for fix, frame in fixes]
    return Positions(sorted(told, key=lambda each: each.stamp), dict(counts))


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


def _antenna(bag: RawBag, frame: str, given: tuple[float, float, float] | None) -> np.ndarray:
    if given is not None:
        return np.array(given)
    odometry = choose_topic(bag, ODOMETRY, "", "odometry, whose frame is the base,")
    _, _, data = next(iter(bag.messages([odometry])))
    base = str(bag.deserialize(data, ODOMETRY).child_frame_id)
    there = Mounts(bag).base_from(base, frame)
    if there is None:
        raise UserError(
            f"{bag.path}: no transform from {base!r} to {frame!r}, where the antenna is: name its place with --antenna"
        )
    return there[:3]
