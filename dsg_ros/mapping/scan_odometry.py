"""Motion as scans tell it: a robot is taken to go on as the last of them have seen it move."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain, se3
from dsg_ros.interface import Frame, OdometryTrack
from dsg_ros.state import State

SPAN = 0.5
"""Seconds over which a velocity is taken at least: the noise of single matches fades, and that of unsteady stamps."""
LONGEST = 2.0
"""Seconds between two scans beyond which the velocity before them is forgotten."""

MOST = 100
"""Steps remembered, whatever the stamps say."""


class Step(NamedTuple):
    """The ``motion`` (7,) between two scans, ``took`` [s] apart, as they were matched.

    Not ``seen`` where the second was not matched, and the motion is what was foretold.
    """

    motion: NDArray[np.float64]
    took: float
    seen: bool = True


NO_STEP = Step(plain(poses.IDENTITY), math.inf, seen=False)
"""How the robot has moved was not seen, nor for how long."""
PLACED = NO_STEP._replace(seen=True)
"""Where it is was seen just now, not how it moves."""


class ScanOdometry:
    """Constant velocity, which accelerations change at random (Bar-Shalom, Li and Kirubarajan 2001, 6.2.2).

    What was foretold is no sign of motion: while none is seen the velocity is the last one, the less sure the longer,
    and after `LONGEST` none.
    """

    def __init__(self, settings: config.Odometry) -> None:
        self._accelerations = np.repeat([settings.acceleration, settings.angular_acceleration], 3)
        self._floors = np.repeat([settings.sigma_translation, settings.sigma_rotation], 3)
        self._steps: deque[tuple[NDArray[np.float64], float]] = deque(maxlen=MOST)
        self.unseen = 0.0
        """Seconds since scans last saw how the robot moves; infinite where nothing is known of them."""

    def saw(self, step: Step) -> None:
        """The motion between the last two scans."""
        self.unseen = 0.0 if step.seen else self.unseen + step.took
        if step.took > LONGEST or self.unseen > LONGEST:
            self._steps.clear()
        elif step.seen:
            self._remember(step)

    def _remember(self, step: Step) -> None:
        self._steps.append((se3.log(step.motion), step.took))
        while len(self._steps) > 1 and self._reach - self._steps[0][1] >= SPAN:
            self._steps.popleft()

    @property
    def _reach(self) -> float:
        return sum(took for _, took in self._steps)

    @property
    def velocity(self) -> NDArray[np.float64]:
        """Of the base in its own frame (6,) [m/s, rad/s]; smaller than it is until it was seen to move for `SPAN`."""
        return sum((step for step, _ in self._steps), np.zeros(6)) / max(SPAN, self._reach)

    def track(self, before: NDArray[np.float64], seconds: float, frame: Frame) -> OdometryTrack:
        """The way during the scan of ``frame``, stamped ``seconds`` after the base was at ``before`` (7,)."""
        velocity, stamps = self.velocity, _stamps(frame)
        pose = se3.compose(before, se3.exp(velocity * min(seconds, LONGEST)))
        way = [se3.compose(pose, se3.exp(velocity * ((stamp - frame.stamp) * 1e-9))) for stamp in stamps]
        return OdometryTrack(np.array(stamps, np.int64), np.array(way))

    def sigmas(self, seconds: float) -> NDArray[np.float64]:
        """Deviations (6,) [m, rad] of the motion told over ``seconds``, from a velocity that is the mean of a while."""
        reach = max(self._reach, SPAN) if self.unseen else self._reach  # a velocity that is forgotten is no surer
        found: NDArray[np.float64] = self._floors + self._accelerations * seconds * (seconds + 0.5 * reach)
        return found

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        steps = np.array([np.append(step, took) for step, took in self._steps]).reshape(-1, 7)
        return {"steps": steps, "unseen": np.array([self.unseen])}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        self._steps = deque(((plain(row[:6]), float(row[6])) for row in np.array(state["steps"])), MOST)
        self.unseen = float(state["unseen"][0])


def _stamps(frame: Frame) -> list[int]:
    """When the first and the last of a scan's points were measured [ns], and what it is stamped."""
    if frame.times is None or not len(frame.times):
        return [frame.stamp]
    ends = (frame.stamp + round(1e9 * float(end)) for end in (frame.times.min(), frame.times.max()))
    return sorted({frame.stamp, *ends})
