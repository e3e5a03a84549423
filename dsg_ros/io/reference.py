"""Reference trajectories: TUM files, and CARMEN logs that a SLAM program has corrected."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.carmen import parse_flaser, parse_robotlaser
from dsg_ros.io.textfile import LineErrors, read_bytes
from dsg_ros.io.trajectories import parse_tum

_log = logging.getLogger(__name__)

_SCANS = (b"FLASER", b"ROBOTLASER1")
ACCEPTED = "a TUM trajectory (stamp x y z qx qy qz qw) or a CARMEN log with corrected poses"


@dataclass(frozen=True)
class Reference:
    """``poses`` (n, 7) of the base at ``stamps`` (n,) [ns], strictly increasing; ``counts`` of what was left out."""

    source: str
    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]
    counts: dict[str, int]

    def at(self, stamps: NDArray[np.int64], largest_gap: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Interpolated poses (m, 7), and where they are known: between two poses at most ``largest_gap`` [s] apart,
        or at the stamp of one."""
        after = np.clip(np.searchsorted(self.stamps, stamps), 1, len(self.stamps) - 1)
        before = after - 1
        span = self.stamps[after] - self.stamps[before]
        fraction = (stamps - self.stamps[before]) / span
        inside = (fraction >= 0) & (fraction <= 1)
        known = inside & ((span <= largest_gap * 1e9) | (fraction == 0) | (fraction == 1))
        found = poses.interpolate(self.poses[before], self.poses[after], np.clip(fraction, 0.0, 1.0))
        return found, known


def read_reference(path: Path) -> Reference:
    """The reference at ``path``, recognised by its content; stamps that do not come after the one before are left out,
    counted and logged."""
    data = read_bytes(path)
    counts: Counter[str] = Counter()
    lines = data.split(b"\n")
    if any(line.startswith(_SCANS) for line in lines):
        stamps, found = _corrected(path, lines, counts)
    elif b"\0" in data[:4096]:
        raise UserError(f"{path}: a binary file; expected {ACCEPTED}")
    else:
        stamps, found = parse_tum(path, data.decode(errors="replace"))
    if len(stamps) < 3:
        raise UserError(f"{path}: {len(stamps)} poses are too few for a reference; expected {ACCEPTED}")
    forward = stamps > np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(stamps)[:-1]])
    if not forward.all():
        counts["reference_repeated_stamps"] = int((~forward).sum())
        _log.warning("%s: %d poses do not come after the one before; left out", path, int((~forward).sum()))
    return Reference(str(path), stamps[forward], found[forward], dict(counts))


def _corrected(path: Path, lines: list[bytes], counts: Counter[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Stamps and robot poses of the log's scans; where it has both kinds, of ROBOTLASER1.

    A corrected FLASER line has the corrected pose where the laser's stands, and may keep the raw odometry behind it.
    """
    errors = LineErrors(path, counts, _log)
    name = b"ROBOTLASER1" if any(line.startswith(b"ROBOTLASER1") for line in lines) else b"FLASER"
    stamps, found = [], []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0] != name:
            continue
        try:
            if name == b"FLASER":
                odometry, _ = parse_flaser(words, (0.0, 0.0, 0.0))
                x, y, theta = map(float, words[int(words[1]) + 2 : int(words[1]) + 5])
                pose = poses.from_planar(x, y, theta)
            else:
                odometry, _ = parse_robotlaser(words)
                pose = odometry.pose
            if not np.isfinite(pose).all():
                raise ValueError("the pose is not finite")
        except (ValueError, IndexError) as error:
            errors.add(number, f"{name.decode()}: {error}")
            continue
        stamps.append(odometry.stamp)
        found.append(pose)
    return np.array(stamps, np.int64), np.array(found, float).reshape(-1, 7)
