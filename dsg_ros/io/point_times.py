"""When a sensor's points were measured: the unit in which its clouds tell it, and whether a sweep can have taken so
long.

PointCloud2 names no unit, and drivers differ: seconds, milliseconds, microseconds, nanoseconds, after the stamp or of
a clock.  A unit off by a thousand leaves a turning robot's walls smeared, or bends them by a hundred turns.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.throttle import Say, to_log

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
LONGEST_SWEEP = 2.0
"""Seconds that one message may span."""

_USUAL_PERIOD = 0.1  # seconds from sweep to sweep, until the stamps tell it
_STEPS, _ENOUGH = 31, 4
_SPANS = 5
_LONGER_THAN_PERIOD = 1.25  # stamps jitter
_COARSEST = 1e-3  # seconds: finer than what a robot moves in is not needed
_SAME_CLOCK = 86400.0  # seconds: clocks since 1970 that are set differ by less
_SINCE_1970 = 1e8, 1e10  # seconds: 1973 to 2286
_OTHER_CLOCK = 10.0  # seconds: absolute times this far from the header's stamp run on the sensor's own clock
_SENSORS = 16
_say_in_log = to_log(__name__)


class SensorTimes:
    """What is known of one sensor's times, called ``name`` in what is said of them.

    ``unit`` is one of `UNITS`, "auto" for the most likely one, "none" where what is told is not to be used.
    """

    def __init__(self, name: str = "points", unit: str = "auto", say: Say = _say_in_log) -> None:
        self._name, self._told, self._say = name, unit, say
        self._latest = 0
        self._steps: deque[int] = deque(maxlen=_STEPS)
        self._spans: deque[float] = deque(maxlen=_SPANS)
        self._said: set[str] = set()

    @property
    def period(self) -> float | None:
        """Seconds from one message to the next: the median of the latest stamps' differences, None before the fifth."""
        if len(self._steps) < _ENOUGH:
            return None
        return sorted(self._steps)[len(self._steps) // 2] * 1e-9

    def heard(self, stamp: int) -> None:
        """A message of this ``stamp`` [ns] came."""
        if self._latest and stamp > self._latest:
            self._steps.append(stamp - self._latest)
        self._latest = stamp

    def believes(self, sweep: float) -> bool:
        """Whether a scanner that turns can have taken ``sweep`` seconds; where not, that is said once.

        A next sweep begins no sooner than the one before has ended.
        """
        if self._told == "none":
            return False
        longest = min(LONGEST_SWEEP, _LONGER_THAN_PERIOD * (self.period or math.inf))
        if not abs(sweep) <= longest:
            self._warn(
                "time_increment",
                f"its time_increment makes a sweep of {abs(sweep):g} s where at most {longest:.3g} s can be (from scan "
                "to scan); it is in seconds between two beams, 0 if unknown",
            )
            return False
        return True

    def seconds(self, raw: NDArray[Any], field: str, stamp: int, dropped: dict[str, int]) -> NDArray[np.float32] | None:
        """Seconds after ``stamp`` [ns] of times (n,) as a cloud's ``field`` has them, None where they make no sense.

        The unit is the one told, else the one in the field's name ("t_us"), else that in which the times are within a
        day of a stamp since 1970, else that in which sweeps take most nearly as long as from one to the next, on a
        scale of ratios (integers are no seconds).  ``dropped`` counts: "time_refused" are spans beyond two seconds,
        numbers that are not finite, and steps too coarse for the sweep (float32 seconds since 1970); "foreign_clock"
        are absolute times of another clock than the stamp's (sensor uptime), which count from their earliest.
        """
        with np.errstate(invalid="ignore"):  # a signalling NaN warns where it is cast; it is refused below, as any NaN
            values = raw.astype(np.float64)
        if not len(values) or self._told == "none":
            return None
        low, high = float(values.min()), float(values.max())
        unit = self._unit(field, raw.dtype.kind != "f", low, high, stamp)
        if unit is None or (high - low) * UNITS[unit] > LONGEST_SWEEP:
            self._refuse(field, f"they go from {low:g} to {high:g}, no sweep in any unit", len(values), dropped)
            return None
        scale = UNITS[unit]
        largest = max(abs(low), abs(high))
        step = scale * (float(np.spacing(raw.dtype.type(largest))) if raw.dtype.kind == "f" else 1.0)
        if step > max((high - low) * scale / 4, _COARSEST):
            self._refuse(field, f"as {raw.dtype.name} they come in steps of {step:g} s", len(values), dropped)
            return None
        if high > low and self._told == "auto":
            self._tell(field, unit, (high - low) * scale)
        if largest * scale <= LONGEST_SWEEP:
            return (values * scale).astype(np.float32)
        lead = low * scale - stamp * 1e-9
        # Differences are taken before scaling: float64 holds nanoseconds since 1970 to 0.3 us.
        if abs(lead) <= _OTHER_CLOCK:
            return ((values - low) * scale + lead).astype(np.float32)
        dropped["foreign_clock"] = len(values)
        return ((values - low) * scale).astype(np.float32)

    def _unit(self, field: str, integer: bool, low: float, high: float, stamp: int) -> str | None:
        if not math.isfinite(high - low):
            return None
        if self._told in UNITS:
            return self._told
        name, _, suffix = field.rpartition("_")
        if name and suffix in UNITS:
            return suffix
        now = stamp * 1e-9
        for unit, scale in UNITS.items():
            if now > _SINCE_1970[0] and abs(low * scale - now) <= _SAME_CLOCK:
                return unit
        if high > low:
            self._spans.append(high - low)
        # Of the latest sweeps: one of few points is short.
        span = sorted(self._spans)[len(self._spans) // 2] if self._spans else 0.0
        largest = max(abs(low), abs(high))
        able = [
            unit
            for unit, scale in UNITS.items()
            if max(span, high - low) * scale <= LONGEST_SWEEP
            and largest * scale <= _SINCE_1970[1]
            and not (integer and unit == "s")
        ]
        if not able or not span:
            return next(iter(able), None)
        period = self.period or _USUAL_PERIOD
        return min(able, key=lambda unit: abs(math.log(span * UNITS[unit] / period)))

    def _tell(self, field: str, unit: str, span: float) -> None:
        key = f"{field} in {unit}"
        if key not in self._said:
            self._said.add(key)
            text = f"times of its points (field {field!r}) are in {unit}, a sweep of {span:.3g} s"
            self._say("info", f"{self._name}: {text}; input.point_time_unit sets another unit")

    def _refuse(self, field: str, why: str, count: int, dropped: dict[str, int]) -> None:
        self._warn(field, f"field {field!r}: {why}; input.point_time_unit names the unit")
        dropped["time_refused"] = count

    def _warn(self, kind: str, text: str) -> None:
        # What differs between two texts of a kind is numbers.
        if kind not in self._said:
            self._said.add(kind)
            self._say(
                "warning", f"{self._name}: times of its points are not used, all count as measured at once: {text}"
            )


class PointTimes:
    """`SensorTimes` by topic and frame, of the latest sixteen."""

    def __init__(self, unit: str = "auto", say: Say = _say_in_log) -> None:
        self._unit, self._say = unit, say
        self._sensors: OrderedDict[tuple[str, str], SensorTimes] = OrderedDict()

    def of(self, topic: str, frame: str, stamp: int) -> SensorTimes:
        """Of the sensor of this topic and frame, whose message of ``stamp`` [ns] has come."""
        key = topic, frame
        sensor = self._sensors.pop(key, None) or SensorTimes(
            f"{topic} ({frame})" if frame else topic, self._unit, self._say
        )
        self._sensors[key] = sensor
        if len(self._sensors) > _SENSORS:
            self._sensors.popitem(last=False)
        sensor.heard(stamp)
        return sensor
