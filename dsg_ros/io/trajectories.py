"""Trajectories in the TUM format: ``stamp x y z qx qy qz qw`` a line, stamps in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsg_ros.errors import UserError
from dsg_ros.io.atomic import write_bytes

_SECOND = 1_000_000_000


def format_stamp(stamp: int) -> str:
    """Nanoseconds as seconds with nine decimals, exactly."""
    sign = "-" if stamp < 0 else ""
    seconds, fraction = divmod(abs(stamp), _SECOND)
    return f"{sign}{seconds}.{fraction:09d}"


def parse_stamp(word: str) -> int:
    """Nanoseconds of a decimal number of seconds, exactly where it is written without exponent."""
    whole, _, fraction = word.strip().partition(".")
    negative = whole.startswith("-")
    digits = whole.lstrip("+-") or "0"
    if digits.isdigit() and (not fraction or fraction.isdigit()):
        stamp = int(digits) * _SECOND + int(fraction[:9].ljust(9, "0"))
        return -stamp if negative else stamp
    seconds = float(word)
    if not np.isfinite(seconds):
        raise ValueError(f"stamp {word!r} is not finite")
    return round(seconds * _SECOND)


def write_tum(path: Path, stamps: ArrayLike, poses: ArrayLike) -> None:
    """Write stamps (n,) [ns] and poses (n, 7), whole or not at all."""
    stamps, poses = np.asarray(stamps, np.int64), np.asarray(poses, float)
    if poses.shape != (len(stamps), 7):
        raise ValueError(f"{len(stamps)} stamps with poses of shape {poses.shape}")
    row = "%s" + " %.9f" * 7 + "\n"
    lines = [row % (format_stamp(stamp), *pose) for stamp, pose in zip(stamps.tolist(), poses.tolist(), strict=True)]
    write_bytes(path, "".join(lines).encode())


def read_tum(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Stamps (n,) [ns] and poses (n, 7) with unit quaternions; `UserError` names file and line of what does not
    parse.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a TUM file: {error}") from error
    return parse_tum(path, text)


def parse_tum(path: Path, text: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """As `read_tum`, of a file's content."""
    stamps: list[int] = []
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            row = [float(word) for word in words[1:]]
            if len(row) != 7:
                raise ValueError(f"{len(words)} fields instead of 8")
            if not np.isfinite(row).all() or np.linalg.norm(row[3:]) < 1e-6:
                raise ValueError("the pose is not finite or its quaternion is zero")
            stamps.append(parse_stamp(words[0]))
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from error
        rows.append(row)
    poses = np.array(rows, float).reshape(-1, 7)
    poses[:, 3:] /= np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
    return np.array(stamps, np.int64), poses
