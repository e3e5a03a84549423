"""What calibration reads, whatever the format: the motion measured in each step, and what a reference says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.errors import UserError

Array = NDArray[np.float64]
Kind = Literal["body", "wheels"]


@dataclass(frozen=True)
class Motions:
    """n steps of a robot, each measured by its odometry, with a reference.

    ``inputs`` of kind "body" (n, 6) are tangents of the measured increments [m, rad]; of kind "wheels" (n, 2) the
    angles by which the left and the right wheel turned [rad].  ``seconds`` (n,) is how long a step took.

    The reference is either ``trajectory`` (n + 1, 7), its poses before and after each step, which count where
    ``known`` (n + 1,) says so, or ``relative`` (n, 7), one motion a step, of steps that need not follow each other.
    ``stamps`` (n + 1,) or (n,) name a pose or a step in messages: seconds, lines or numbers, as ``stamp_unit`` says.
    ``planar``: height, roll and pitch are not told.  ``counts`` says what was left out, by cause.
    """

    source: str
    kind: Kind
    planar: bool
    inputs: Array
    seconds: Array
    stamps: Array
    stamp_unit: str
    trajectory: Array | None = None
    known: NDArray[np.bool_] | None = None
    relative: Array | None = None
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def consecutive(self) -> bool:
        """Whether steps follow each other."""
        return self.trajectory is not None


def body_motions(
    source: str,
    odometry: Array,
    trajectory: Array,
    *,
    stamps: Array,
    stamp_unit: str,
    planar: bool,
    known: NDArray[np.bool_] | None = None,
    counts: Mapping[str, int] | None = None,
) -> Motions:
    """Motions between poses ``odometry`` (n + 1, 7), with the reference's at the same times."""
    return Motions(
        source=source,
        kind="body",
        planar=planar,
        inputs=poses.log(poses.between(odometry[:-1], odometry[1:])),
        # Stamps of some logs run backwards.
        seconds=np.maximum(np.diff(stamps), 0.0) if stamp_unit == "s" else np.full(len(stamps) - 1, 0.1),
        stamps=stamps,
        stamp_unit=stamp_unit,
        trajectory=trajectory,
        known=np.ones(len(trajectory), bool) if known is None else known,
        counts=counts or {},
    )


def most_malformed(path: object, malformed: int, total: int, what: str) -> None:
    """`UserError` if so many of ``total`` lines or samples are malformed that the file is not what it seems."""
    if malformed > 0.1 * total:
        raise UserError(f"{path}: {malformed} of {total} {what} are malformed; the file is damaged or in other units")
