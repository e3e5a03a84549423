"""Recordings made worse: another robot's odometry, a lesser scanner, lost messages; everything else as it was recorded.

What is random is drawn from a fixed seed.  Scans that remain keep the number `Recording.recorded` of nanoseconds at
which they were taken, whatever stamps are told of them: errors are looked for there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.logs import open_log
from dsg_ros.io.records import OdometryRecord, Record, ScanRecord

SEED = 2026
MIRROR = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
"""A pose seen in the mirror of the plane y = 0."""
GAP_TRAVEL = 1.0
"""Metres that the robot drives in a gap, at least."""

Array = NDArray[np.float64]
Random = np.random.Generator


@dataclass(frozen=True)
class Recording:
    """Of every scan the stamp that is told and the true one [ns], raw odometry (7,) and ranges (b,) [m], inf for no
    return; beams go from ``start`` by ``step`` [rad] in a sensor at ``mounting`` (7,) in the base.

    It is a log as `dsg_ros.io.logs.frames` takes one.  ``base`` (7,) is the true base in the one that is told, and
    ``mirrored`` that both are seen in the mirror: `truly` undoes that.
    """

    name: str
    stamps: NDArray[np.int64]
    recorded: NDArray[np.int64]
    odometry: Array
    ranges: NDArray[np.float32]
    start: float
    step: float
    mounting: Array
    base: Array = field(default_factory=poses.IDENTITY.copy)
    mirrored: bool = False

    paired = True
    tells_odometry = True

    @property
    def counts(self) -> dict[str, int]:
        """Nothing was left out."""
        return {}

    def __len__(self) -> int:
        return len(self.stamps)

    def __iter__(self) -> Iterator[Record]:
        for stamp, pose, ranges in zip(self.stamps.tolist(), self.odometry, self.ranges, strict=True):
            yield OdometryRecord(stamp, pose)
            yield ScanRecord(stamp, ranges, self.start, self.step, 0.0, float("inf"), base_from_sensor=self.mounting)

    def truly(self, found: Array) -> Array:
        """Poses (n, 7) that were found of the told base, as those of the true one."""
        return poses.compose(found, self.base) * (MIRROR if self.mirrored else 1.0)

    def truly_between(self, measured: Array) -> Array:
        """Relative poses (n, 7) that were measured between told bases, as between the true ones."""
        turned = poses.compose(poses.inverse(self.base), poses.compose(measured, self.base))
        return turned * (MIRROR if self.mirrored else 1.0)

    def some(self, which: NDArray[np.bool_] | slice) -> Recording:
        """Some of its scans."""
        return replace(
            self, stamps=self.stamps[which], recorded=self.recorded[which], odometry=self.odometry[which],
            ranges=self.ranges[which],
        )  # fmt: skip

    def beams(self, which: slice) -> Recording:
        """Some of its beams."""
        left = range(self.ranges.shape[1])[which]
        return replace(
            self, ranges=self.ranges[:, which], start=self.start + left.start * self.step, step=self.step * left.step
        )


def read(path: Path, seconds: float = math.inf) -> Recording:
    """The scans of a log in the plane, ``seconds`` of them; `UserError` where they are not of one kind."""
    scans: list[tuple[Array, ScanRecord]] = []
    for record in open_log(path):
        if isinstance(record, OdometryRecord):
            pose = record.pose
        elif isinstance(record, ScanRecord):
            scans.append((pose, record))
    kinds = {(len(scan.ranges), scan.angle_min, scan.angle_increment) for _, scan in scans}
    if len(kinds) != 1:
        raise UserError(f"{path}: scans of {len(kinds)} kinds; of one only are they made worse here")
    (_, start, step), first = kinds.pop(), scans[0][1]
    stamps = np.array([scan.stamp for _, scan in scans])
    mounting = poses.IDENTITY if first.base_from_sensor is None else first.base_from_sensor
    found = Recording(
        path.name, stamps, stamps, np.array([pose for pose, _ in scans]),
        np.array([scan.ranges for _, scan in scans]), start, step, mounting,
    )  # fmt: skip
    return found.some(stamps <= stamps[0] + min(seconds, 1e9) * 1e9)


def at(stamps: NDArray[np.int64], found: Array, wanted: NDArray[np.int64]) -> Array:
    """Poses (m, 7) at the stamps ``wanted`` (m,) [ns], between those ``found`` (n, 7) at ``stamps`` (n,), in any order;
    beyond them the nearest end.  Unlike those of an `OdometryTrack` these stamps may repeat.
    """
    order = np.argsort(stamps, kind="stable")
    stamps, found = stamps[order], found[order]
    after = np.clip(np.searchsorted(stamps, wanted), 1, len(stamps) - 1)
    span = np.maximum(stamps[after] - stamps[after - 1], 1)
    share = np.clip((wanted - stamps[after - 1]) / span, 0.0, 1.0)
    return poses.interpolate(found[after - 1], found[after], share)


def increments(odometry: Array) -> Array:
    """Planar steps (n - 1, 3) [m, m, rad] between the poses (n, 7), each in the frame of the former."""
    return poses.log(poses.between(odometry[:-1], odometry[1:]))[:, [0, 1, 5]]


def chained(first: Array, steps: Array) -> Array:
    """The inverse of `increments`: poses (n, 7) from the ``first`` (7,)."""
    tangents = np.zeros((len(steps), 6))
    tangents[:, [0, 1, 5]] = steps
    found = [first]
    for step in poses.exp(tangents):
        found.append(poses.compose(found[-1], step))
    return np.array(found)


def gained(told: Recording, scale: float = 1.0, turn: float = 1.0) -> Recording:
    """Odometry that tells so many times the way, and the turn."""
    steps = increments(told.odometry) * [scale, scale, turn]
    return replace(told, odometry=chained(told.odometry[0], steps))


def noisier(told: Recording, random: Random) -> Recording:
    """Odometry that walks away at random: by 0.018 m and 0.012 rad after a metre, and by a tenth of every turn."""
    steps = increments(told.odometry)
    way, turn = np.hypot(steps[:, 0], steps[:, 1]), np.abs(steps[:, 2])
    along, about = 0.018 * np.sqrt(way) + 0.02 * turn, 0.012 * np.sqrt(way) + 0.1 * turn
    steps += np.stack([along, 0.3 * along, about], axis=1) * random.normal(size=steps.shape)
    return replace(told, odometry=chained(told.odometry[0], steps))


def late(told: Recording, seconds: float) -> Recording:
    """Odometry that tells where the robot was ``seconds`` before."""
    return replace(told, odometry=at(told.stamps, told.odometry, told.stamps - round(seconds * 1e9)))


def standing(told: Recording) -> Recording:
    """Odometry that never moves."""
    return replace(told, odometry=np.repeat(told.odometry[:1], len(told), axis=0))


def within(told: Recording, opening: float) -> Recording:
    """Only beams within an ``opening`` [rad], half of it to either side."""
    angles = told.start + told.step * np.arange(told.ranges.shape[1])
    seen = np.flatnonzero(np.abs(angles) <= 0.5 * opening + 1e-6)
    return told.beams(slice(int(seen[0]), int(seen[-1]) + 1))


def near(told: Recording, most: float) -> Recording:
    """No returns from beyond ``most`` [m]."""
    return _measuring(told, np.where(told.ranges > most, np.inf, told.ranges))


def noisy(told: Recording, random: Random, sigma: float) -> Recording:
    """Ranges with more noise, of deviation ``sigma`` [m]."""
    return _measuring(told, np.maximum(told.ranges + sigma * random.normal(size=told.ranges.shape), 0.01))


def blind(told: Recording, random: Random, share: float) -> Recording:
    """A ``share`` of the beams returns nothing."""
    return _measuring(told, np.where(random.random(told.ranges.shape) < share, np.inf, told.ranges))


def cluttered(told: Recording, random: Random, share: float) -> Recording:
    """A ``share`` of the beams measures anything from 0.3 to 8 m."""
    anything = random.uniform(0.3, 8.0, told.ranges.shape)
    return _measuring(told, np.where(random.random(told.ranges.shape) < share, anything, told.ranges))


def turned(told: Recording, angle: float) -> Recording:
    """The sensor is mounted ``angle`` [rad] further to the left, and so it is told; the same beams see the same."""
    mounting = poses.compose(told.mounting, poses.from_planar(0.0, 0.0, angle))
    return replace(told, mounting=mounting, start=told.start - angle)


def mistold(told: Recording, angle: float) -> Recording:
    """The sensor is told to be mounted ``angle`` [rad] further to the left than it is."""
    wrong = poses.compose(told.mounting, poses.from_planar(0.0, 0.0, angle))
    return replace(told, mounting=wrong, base=poses.compose(wrong, poses.inverse(told.mounting)))


def mirrored(told: Recording) -> Recording:
    """Left is right."""
    end = told.start + told.step * (told.ranges.shape[1] - 1)
    return replace(
        told, ranges=told.ranges[:, ::-1], start=-end, odometry=told.odometry * MIRROR, mounting=told.mounting * MIRROR,
        mirrored=not told.mirrored,
    )  # fmt: skip


def jittery(told: Recording, random: Random, sigma: float) -> Recording:
    """Stamps with noise of deviation ``sigma`` [s]."""
    return replace(told, stamps=told.stamps + np.round(1e9 * sigma * random.normal(size=len(told))).astype(np.int64))


def interrupted(told: Recording, seconds: float) -> Recording:
    """Nothing is heard for ``seconds`` in which the robot drives on, the first time after two fifths of the scans."""
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*increments(told.odometry).T[:2]))])
    for first in range(2 * len(told) // 5, len(told)):
        lost = (told.stamps >= told.stamps[first]) & (told.stamps < told.stamps[first] + seconds * 1e9)
        if np.ptp(way[lost]) > GAP_TRAVEL:
            return told.some(~lost)
    raise UserError(f"{told.name}: it never drives {GAP_TRAVEL:g} m in {seconds:g} s after two fifths of its scans")


def backwards(told: Recording) -> Recording:
    """As if it had been driven the other way round, backwards."""
    found = told.some(slice(None, None, -1))
    return replace(found, stamps=told.stamps[0] + told.stamps[-1] - found.stamps)


def _measuring(told: Recording, ranges: NDArray[np.floating]) -> Recording:
    return replace(told, ranges=ranges.astype(np.float32))


def _coarser(told: Recording) -> Recording:
    """Every second beam of 180; of more, so many that as many are left."""
    return told.beams(slice(None, None, max(2, round(told.ranges.shape[1] / 90))))


WORSE: dict[str, Callable[[Recording, Random], Recording]] = {
    "odometry's scale x 0.93": lambda told, random: gained(told, scale=0.93),
    "odometry's scale x 1.07": lambda told, random: gained(told, scale=1.07),
    "odometry's turns x 0.93": lambda told, random: gained(told, turn=0.93),
    "odometry's turns x 1.05": lambda told, random: gained(told, turn=1.05),
    "odometry noisier": noisier,
    "odometry 0.1 s late": lambda told, random: late(told, 0.1),
    "odometry stands still": lambda told, random: standing(told),
    "every third scan": lambda told, random: told.some(slice(None, None, 3)),
    "a tenth of the scans lost": lambda told, random: told.some(random.random(len(told)) >= 0.1),
    "5 s lost while driving": lambda told, random: interrupted(told, 5.0),
    "stamps +- 20 ms": lambda told, random: jittery(told, random, 0.02),
    "90 beams": lambda told, random: _coarser(told),
    "right half of the beams": lambda told, random: told.beams(slice(0, told.ranges.shape[1] // 2)),
    "120 deg": lambda told, random: within(told, math.radians(120.0)),
    "up to 8 m": lambda told, random: near(told, 8.0),
    "ranges +- 2 cm": lambda told, random: noisy(told, random, 0.02),
    "ranges +- 5 cm": lambda told, random: noisy(told, random, 0.05),
    "5 % of the beams blind": lambda told, random: blind(told, random, 0.05),
    "5 % of the beams wrong": lambda told, random: cluttered(told, random, 0.05),
    "mounted 30 deg to the left": lambda told, random: turned(told, math.radians(30.0)),
    "mounting told 2 deg wrong": lambda told, random: mistold(told, math.radians(2.0)),
    "mirrored": lambda told, random: mirrored(told),
    "driven backwards": lambda told, random: backwards(told),
}
"""By what is worse."""


def worsened(told: Recording, how: str) -> Recording:
    """The recording made worse in one way of `WORSE`."""
    return WORSE[how](told, np.random.default_rng(SEED))
