"""Recordings that were made worse, mapped with the settings as they are: does the front end hold where nobody tuned it?

Errors are those of the final trajectory against relations between its poses that were verified by hand (Kuemmerle et
al., "On measuring the accuracy of SLAM algorithms", 2009), their mean in metres, or against the corrected log, then the
ATE's root mean square.  Beside each stands that of the recording as it is, made by the same code, at the same scans:
where some are lost, what is wanted between them is interpolated.  A closure is wrong where the map of the recording as
it is says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import graphs
from benchmarks.table import Row
from benchmarks.truth import error
from benchmarks.worsening import WORSE, Recording, at, read, worsened
from dsg_ros import config, poses
from dsg_ros.interface import Parameter
from dsg_ros.io.logs import frames
from dsg_ros.pipeline import Slam

FOLDER = "relations_benchmark"
MOST = 2.0
"""Goal: the error, as a multiple of that of the recording as it is."""
WRONG_DISTANCE, WRONG_TURN = 0.5, math.radians(5.0)
"""A closure farther off than this [m, rad] is wrong."""
ALARMS = ("changes_detected", "sensor_upside_down", "sensor_backwards", "solves_refused")
"""Counts of what should not happen."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """A recording of the folder, how much of it is taken [s], and the file that it is held to."""

    log: str
    truth: str
    seconds: float = math.inf

    def at_hand(self, folder: Path) -> bool:
        """Whether both are in ``folder``; said where they are not."""
        there = all((folder / file).is_file() for file in (self.log, self.truth))
        if not there:
            print(f"left out: {folder / self.log} or {self.truth} is not there", flush=True)
        return there


SOURCES = {
    "intel": Source("intel.clf.bz2", "intel.relations", 900.0),
    "aces": Source("aces.clf.bz2", "aces.relations"),
    "mit-csail": Source("mit-csail.clf.bz2", "mit-csail.corrected.log.xz"),
}


@dataclass(frozen=True)
class Outcome:
    """Poses (n, 7) of the base at the scans' true ``stamps`` (n,) [ns], ``final`` and ``causal``; closures as measured
    (m, 7) between the stamps ``ends`` (m, 2) [ns]; what was learned, and counts.
    """

    stamps: NDArray[np.int64]
    final: Array
    causal: Array
    ends: NDArray[np.int64]
    closures: Array
    parameters: tuple[Parameter, ...]
    counts: Mapping[str, int]


def run(names: Sequence[str] | None, ways: Sequence[str] | None) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows of each recording named, or all at hand, as it is and made worse in the ``ways`` named, or all."""
    folder = graphs.folder().parent / FOLDER
    for name in names or SOURCES:
        source = SOURCES[name]
        if not source.at_hand(folder):
            continue
        recording = read(folder / source.log, source.seconds)
        plain = mapped(recording)
        yield _told(name, "as it is", folder / source.truth, plain, plain)
        for how in ways or WORSE:
            yield _told(name, how, folder / source.truth, mapped(worsened(recording, how)), plain)


def mapped(recording: Recording) -> Outcome:
    """What the pipeline makes of a recording, with the settings as they are."""
    settings = config.Slam()
    slam = Slam(settings)
    for frame in frames(recording, settings.input):
        slam.process(frame)
    result, kept = slam.finish(), slam.saved_map()
    recorded = dict(zip(recording.stamps.tolist(), recording.recorded.tolist(), strict=True))

    def when(stamps: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([recorded[stamp] for stamp in stamps.tolist()], np.int64)

    closures = kept.rows["Loop"]
    return Outcome(
        stamps=when(result.stamps),
        final=recording.truly(result.trajectory),
        causal=recording.truly(result.causal),
        ends=when(kept.stamps)[np.stack([closures["first"], closures["second"]], axis=1)],
        closures=recording.truly_between(closures["measured"]),
        parameters=result.parameters,
        counts=result.counts,
    )


def wrong_closures(outcome: Outcome, plain: Outcome) -> int:
    """How many closures of ``outcome`` the map of the recording as it is contradicts."""
    first, second = (at(plain.stamps, plain.final, ends) for ends in outcome.ends.T)
    off = poses.log(poses.between(poses.between(first, second), outcome.closures))
    far = np.linalg.norm(off[:, :3], axis=1) > WRONG_DISTANCE
    return int((far | (np.linalg.norm(off[:, 3:], axis=1) > WRONG_TURN)).sum())


def _told(name: str, how: str, truth: Path, outcome: Outcome, plain: Outcome) -> tuple[list[Row], dict[str, Any]]:
    final, causal = (error(truth, outcome.stamps, found) for found in (outcome.final, outcome.causal))
    wrong = wrong_closures(outcome, plain)
    note = f"causal {causal:.4f} m, {len(outcome.closures)} closures, {wrong} wrong"
    alarms = {name: outcome.counts[name] for name in ALARMS if outcome.counts[name]}
    note += "".join(f", {name} {count}" for name, count in alarms.items())
    peer = error(truth, outcome.stamps, at(plain.stamps, plain.final, outcome.stamps))
    row = Row("worsened", name, how, final, peer, "m", MOST, note)
    learned = {p.name: {"value": p.value, "sigma": p.sigma, "status": p.status} for p in outcome.parameters}
    return [row], {
        "recording": name, "worse": how, "final": final, "causal": causal, "closures": len(outcome.closures),
        "wrong": wrong, "learned": learned, "counts": dict(outcome.counts),
    }  # fmt: skip
