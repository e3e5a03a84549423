"""What a keyframe costs in time and memory, from the first fifth of a drive's keyframes to the last.

The pipeline in a process of its own, fed as ``run`` feeds it.  A keyframe's seconds are those of its scan and of the
scans after it until the next, `Slam.estimate` and `Slam.catch_up`; the processor's are of all threads.  Solves of the
whole graph, which grow with it, are told apart too.  Memory is what is resident, and what the map's parts say they
have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import apart
from benchmarks.runs import logs_of
from benchmarks.table import Row
from dsg_ros.io.ahead import reading
from dsg_ros.io.records import Topics
from dsg_ros.log_settings import settings_for
from dsg_ros.memory import resident_bytes
from dsg_ros.pipeline import Slam

FIFTHS = 5
GROWTH = 1.3
"""Goal: the last fifth's figure over the first's."""
GRAPH = "graph"
"""The stopwatch's phase of solving the whole graph."""

Array = NDArray[np.float64]
Statistic = Callable[[Array], np.floating]


@dataclass(frozen=True)
class Costs:
    """Of each of n keyframes, with the scans until the next: ``wall`` and ``processor`` (n,) seconds, ``scans`` (n,),
    the resident ``memory`` (n,) [bytes] after them, ``phases``, the seconds (n,) of each of the stopwatch's, and
    ``parts``, the bytes (n,) of each part of the map (`GrowingMap.memory`).
    """

    wall: Array
    processor: Array
    scans: NDArray[np.int64]
    memory: NDArray[np.int64]
    phases: dict[str, Array]
    parts: dict[str, NDArray[np.int64]]

    @property
    def fifths(self) -> list[slice]:
        """Where the fifths of the keyframes are."""
        ends = np.linspace(0, len(self.wall), FIFTHS + 1).round().astype(int)
        return [slice(*pair) for pair in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]

    @property
    def whole(self) -> NDArray[np.int64]:
        """Bytes (n,) of all parts of the map."""
        return np.sum(list(self.parts.values()), axis=0)

    @staticmethod
    def grown(memory: NDArray[np.int64], fifth: slice) -> float:
        """Bytes a keyframe by which ``memory`` (n,) grew in a fifth; before the first one's scans it is not known."""
        first = max(fifth.start - 1, 0)
        return float(memory[fifth.stop - 1] - memory[first]) / (fifth.stop - 1 - first)

    def leaps(self, most: int = 6) -> list[tuple[int, float, bool]]:
        """The keyframes at which memory grew most, by how much [MiB] and whether the whole graph was solved there."""
        grown = np.diff(self.memory, prepend=self.memory[:1]) / 2**20
        solved = self.phases[GRAPH] > 0 if GRAPH in self.phases else np.zeros(len(grown), bool)
        largest = np.sort(np.argsort(-grown)[:most])
        return [(int(k), float(grown[k]), bool(solved[k])) for k in largest]


def run(folder: Path, names: Sequence[str] | None = None) -> Iterator[list[Row]]:
    """Rows of the recordings named, or of fr-clinic; what each phase takes is printed before."""
    for name, log in logs_of(names, "fr-clinic"):
        costs = apart(measure, log)
        print(profile(name, costs), flush=True)
        yield rows(name, costs)


def measure(log: Path) -> Costs:
    """The costs of a log's keyframes; for a process of its own."""
    topics = Topics()
    settings = settings_for(log, topics)
    slam = Slam(settings)
    stopwatch = slam._stopwatch
    taken: list[tuple[float, float, int]] = []
    memory: list[int] = []
    totals: list[dict[str, float]] = []
    parts: list[dict[str, int]] = []
    with reading(log, topics, settings.input) as stream:
        for frame in stream:
            if not taken:
                slam.warm_up(frame.planar)
            began, worked = time.perf_counter(), time.process_time()
            keyframe = slam.estimate(frame).keyframe
            slam.catch_up()
            seconds, processor = time.perf_counter() - began, time.process_time() - worked
            if keyframe or not taken:
                taken.append((0.0, 0.0, 0))
                memory.append(0)
                totals.append({})
                parts.append(slam._map.memory())
            wall, work, scans = taken[-1]
            taken[-1] = wall + seconds, work + processor, scans + 1
            memory[-1], totals[-1] = resident_bytes(), stopwatch.totals()
    walls, works, counts = (np.array(column) for column in zip(*taken, strict=True))
    phases = {name: np.diff([each.get(name, 0.0) for each in totals], prepend=0.0) for name in sorted(totals[-1])}
    of_parts = {name: np.array([each[name] for each in parts]) for name in parts[-1]}
    return Costs(walls, works, counts, np.array(memory), phases, of_parts)


def rows(name: str, costs: Costs) -> list[Row]:
    """Each figure's last fifth over its first."""
    solves = costs.phases.get(GRAPH, np.zeros(len(costs.wall)))
    told = [
        _row(name, "time a keyframe, mean", costs, 1e3 * costs.wall, GROWTH),
        _row(name, "time a keyframe, median", costs, 1e3 * costs.wall, GROWTH, np.median),
        _row(name, "the same without solves of the whole graph, mean", costs, 1e3 * (costs.wall - solves)),
        _row(name, "processor time a keyframe, mean", costs, 1e3 * costs.processor),
    ]
    whole = slice(0, len(costs.memory))
    fifths = costs.fifths[0], costs.fifths[-1]
    first, last, every = (costs.grown(costs.memory, part) / 1024 for part in (*fifths, whole))
    note = f"{last:.1f} kB over {first:.1f} kB; resident in the end {costs.memory[-1] / 2**20:.0f} MiB"
    since = f"{every:.1f} kB over {first:.1f} kB"
    in_first, in_last = (costs.grown(costs.whole, part) / 1024 for part in fifths)
    of_map = f"{in_last:.1f} kB over {in_first:.1f} kB; in the end {costs.whole[-1] / 2**20:.0f} MiB"
    return [
        *told,
        Row("processes", name, "memory a keyframe", last / first, None, "", GROWTH, note, alone=True),
        Row("processes", name, "memory a keyframe so far", every / first, None, "", GROWTH, since, alone=True),
        Row("processes", name, "bytes of the map a keyframe", in_last / in_first, None, "", None, of_map, alone=True),
    ]


def _row(
    name: str, what: str, costs: Costs, milliseconds: Array, goal: float | None = None, of: Statistic = np.mean
) -> Row:
    first, last = (float(of(milliseconds[costs.fifths[at]])) for at in (0, -1))
    note = f"{last:.2f} ms over {first:.2f} ms"
    return Row("processes", name, what, last / first, None, "", goal, note, alone=True)


def profile(name: str, costs: Costs) -> str:
    """Milliseconds a keyframe of each phase in each fifth, what grows most first; phases lie within one another."""
    lines = {
        phase: [1e3 * float(seconds[part].mean()) for part in costs.fifths] for phase, seconds in costs.phases.items()
    }
    lines |= {
        "all": [1e3 * float(costs.wall[part].mean()) for part in costs.fifths],
        "scans": [float(costs.scans[part].mean()) for part in costs.fifths],
        "resident [MiB]": [float(costs.memory[part][-1]) / 2**20 for part in costs.fifths],
    }
    lines |= {
        f"{name} [MiB]": [float(size[part][-1]) / 2**20 for part in costs.fifths] for name, size in costs.parts.items()
    }
    order = sorted(lines, key=lambda line: lines[line][0] - lines[line][-1])
    head = f"{name}: {len(costs.wall)} keyframes; milliseconds a keyframe by fifth"
    leaps = [f"{k} by {grown:.1f} MiB{' (graph solved)' if solved else ''}" for k, grown, solved in costs.leaps()]
    table = (f"  {line:16}" + "".join(f"{value:10.2f}" for value in lines[line]) for line in order)
    return "\n".join([head, *table, f"  memory grew most at keyframes {', '.join(leaps)}"])
