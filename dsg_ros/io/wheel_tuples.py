"""Wheel speeds with the laser's relative pose, JSON objects one after the other: the recordings of Censi et al.

``{"T": seconds, "phi_l": rad/s, "phi_r": rad/s, "sm": [m, m, rad]}``: over ``T`` the wheels turned at these mean
speeds, and a scan matcher saw the laser move by ``sm``, in its own frame (Censi, Franchi, Marchionni, Oriolo,
"Simultaneous calibration of odometry and sensor parameters for mobile robots", IEEE T-RO 2013).
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.motions import Motions, most_malformed
from dsg_ros.io.textfile import LineErrors

_log = logging.getLogger(__name__)

NAMES = ("T", "phi_l", "phi_r", "sm")
_FASTEST = 1e3
"""Wheels [rad/s] do not turn faster."""


def is_wheel_tuples(first_line: bytes) -> bool:
    """Whether a file that begins with ``first_line`` holds such objects."""
    return first_line.lstrip().startswith(b"{") and b'"phi_l"' in first_line


def read_wheel_tuples(path: Path, data: bytes) -> Motions:
    """The steps of the file; malformed lines and repeated ones are left out, counted and logged."""
    counts: Counter[str] = Counter()
    errors = LineErrors(path, counts, _log)
    rows: dict[tuple[float, ...], int] = {}
    lines = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        lines += 1
        try:
            # Files that were joined have two objects in the line of the seam.
            found = [_row(step) for step in _objects(line.decode())]
        except ValueError as error:
            errors.add(number, error)
            continue
        for row in found:
            if row in rows and any(row[1:]):
                # All six numbers again, to the last digit: the same measurement, which must not count twice.
                counts["repeated_steps"] += 1
                if counts["repeated_steps"] == 1:
                    _log.warning("%s:%d: repeats line %d; repeated steps are left out", path, number, rows[row])
            else:
                rows.setdefault(row, number)
    most_malformed(path, counts["malformed_lines"], lines, "lines")
    if not rows:
        raise UserError(f"{path}: no step could be read; expected lines with {', '.join(NAMES)}")
    table = np.array(list(rows), float)
    _check_units(path, table)
    return Motions(
        source=str(path),
        kind="wheels",
        planar=True,
        inputs=table[:, 1:3] * table[:, :1],
        seconds=table[:, 0],
        stamps=np.array(list(rows.values()), float),
        stamp_unit="line",
        relative=poses.from_planar(table[:, 3], table[:, 4], table[:, 5]),
        counts=dict(counts),
    )


def _objects(line: str) -> Iterator[Any]:
    decoder, rest = json.JSONDecoder(), line.strip()
    while rest:
        try:
            found, end = decoder.raw_decode(rest)
        except ValueError as error:
            raise ValueError(f"not a JSON object: {error}") from error
        yield found
        rest = rest[end:].lstrip()


def _row(step: Any) -> tuple[float, ...]:
    if not isinstance(step, dict) or (missing := [name for name in NAMES if name not in step]):
        raise ValueError(f"{', '.join(missing) if isinstance(step, dict) else 'a JSON object'} is missing")
    moved = step["sm"]
    if not isinstance(moved, list) or len(moved) != 3:
        raise ValueError(f"sm is {moved!r} instead of [x, y, theta]")
    numbers = [step["T"], step["phi_l"], step["phi_r"], *moved]
    if any(isinstance(n, bool) or not isinstance(n, int | float) or not math.isfinite(n) for n in numbers):
        raise ValueError("not all of its numbers are finite")
    if not numbers[0] > 0:
        raise ValueError(f"T = {numbers[0]:g} s is not positive")
    return tuple(map(float, numbers))


def _check_units(path: Path, table: np.ndarray) -> None:
    """`UserError` for numbers that no robot's are in SI units."""
    if (largest := np.abs(table[:, 5]).max()) > 2 * math.pi:
        raise UserError(f"{path}: the laser turns by {largest:g} in a step: are angles in degrees? Expected is rad")
    if (largest := np.abs(table[:, 1:3]).max()) > _FASTEST:
        raise UserError(f"{path}: a wheel turns at {largest:g} rad/s: are they ticks or degrees? Expected is rad/s")
