"""A leg: links of odometry in the plane, and the positions told along it.  A block of its own length.

Positions have no heading.  So where a leg begins, ``t``, and how it lies, ``psi``, are free, and all of it is scored at
once (`dsg_ros.learning.leg_loss`): only the shape of the way and its size teach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors.odometry import noise
from dsg_ros.learning.block import Link
from dsg_ros.state import State

Vector = NDArray[np.float64]

PLANAR = np.array([0, 1, 5])
"""x, y and yaw of a tangent."""


class Fix(NamedTuple):
    """A position told while a link was driven, at ``time`` [s]: ``position`` (2,) and ``covariance`` (2, 2) [m] of the
    ``antenna`` (2,) in the base.  ``part`` (6,) is the tangent of the raw increment from the link's beginning to it,
    over ``seconds``, and ``rate`` (6,) what that gains a second when odometry is taken later at both ends.
    """

    position: Vector
    covariance: Vector
    antenna: Vector
    part: Vector
    rate: Vector
    seconds: float
    time: float = 0.0


@dataclass(frozen=True)
class Leg:
    """n links and m fixes.

    ``measured`` and ``rate`` (n, 6) are raw increments as tangents over ``duration`` (n,) [s], with the parts of their
    deviations (n, 3) as `OdomSE3` has them; ``seen`` (n, 3) what the scan matcher says of the same motions, as planar
    tangents, with ``information`` (n, 3, 3), zero where scans do not teach.  Of the fixes: ``link`` (m,), ascending, in
    which each lies, ``share`` (m,) of it that was driven, and the fields of `Fix`.  Their errors are white and, with
    ``memory`` () > 0 [s], as large ones besides that last so long.
    """

    measured: Vector
    rate: Vector
    duration: Vector
    sigma_translation: Vector
    sigma_rotation: Vector
    seen: Vector
    information: Vector
    link: NDArray[np.int64]
    share: Vector
    position: Vector
    covariance: Vector
    antenna: Vector
    part: Vector
    part_rate: Vector
    part_duration: Vector
    time: Vector
    memory: Vector

    @property
    def freedom(self) -> int:
        """Of what is scored: two numbers a fix, less where it begins and how it lies."""
        return 2 * len(self.link) - 3

    def without(self, dropped: Sequence[int]) -> Leg:
        """The same without some of its fixes, by their numbers."""
        kept = np.delete(np.arange(len(self.link)), dropped)
        return Leg(**{f.name: getattr(self, f.name)[kept] if f.name in _OF_FIXES else getattr(self, f.name)
                      for f in fields(self)})  # fmt: skip

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        return {f.name: np.array(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Leg:
        """Of a state; KeyError for what is none."""
        return cls(**{f.name: np.array(state[f.name]) for f in fields(cls)})


_OF_FIXES = ("link", "share", "position", "covariance", "antenna", "part", "part_rate", "part_duration", "time")


def make_leg(
    links: Sequence[Link], told: Sequence[tuple[int, Fix]], noises: config.Odometry, scans: bool, memory: float = 0.0
) -> Leg:
    """A leg of ``links`` with the fixes ``told``, each with the number of its link, whose errors last for ``memory``
    [s]; ``scans`` teach too.
    """
    measured = np.stack([link.measured for link in links])
    duration = np.array([link.seconds for link in links])
    number, fixes = np.array([i for i, _ in told]), [fix for _, fix in told]
    part_duration = np.array([fix.seconds for fix in fixes])
    seen = np.stack([poses.log(link.relative)[PLANAR] for link in links])
    information = np.stack([link.information[np.ix_(PLANAR, PLANAR)] for link in links])
    return Leg(
        rate=np.stack([link.rate for link in links]),
        duration=duration,
        **noise(measured, noises.translation, noises.rotation),
        seen=seen if scans else np.zeros_like(seen),
        information=0.5 * (information + information.transpose(0, 2, 1)) * scans,
        link=number,
        share=np.clip(part_duration / np.maximum(duration[number], 1e-9), 0.0, 1.0),
        position=np.stack([fix.position for fix in fixes]),
        covariance=np.stack([fix.covariance for fix in fixes]),
        antenna=np.stack([fix.antenna for fix in fixes]),
        part=np.stack([fix.part for fix in fixes]),
        part_rate=np.stack([fix.rate for fix in fixes]),
        part_duration=part_duration,
        time=np.array([fix.time for fix in fixes]),
        memory=np.array(memory),
    )
