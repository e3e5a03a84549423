"""One pose at a time: each update with the estimate of the newest pose, timed one by one.

Times are those that passed; the processor's time, which other programs disturb less, stands beside them.

The poses of a graph arrive in the order of their keys, each with all its edges to earlier poses and an initial value
from that to the pose before.  iSAM2 runs with its defaults and with relinearizeSkip=1; the faster of those that end
within `WITHIN` of the batch optimum is the one to beat.  Where it takes long its times are kept on disk
(`benchmarks.peer_cache`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from benchmarks import graphs, ours, peers_gtsam
from benchmarks.graphs import Arrival
from benchmarks.measuring import stopwatch
from benchmarks.peer_cache import Kept, PeerCache
from benchmarks.peers_gtsam import Batch, Method
from benchmarks.peers_isam2 import VARIANTS, ISam2
from benchmarks.table import Row
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, PoseGraph

GRAPHS = ("sphere2500", "parking-garage", "torus3D", "city10000", "city-1k", "city-3k")
WITHIN = 1e-3
"""How far the final cost may be above the batch optimum, relative to it."""
DISTURBED = 0.1
"""So much of the time may go to other programs before the figures are called disturbed."""
GOALS = {"total": 0.5, "p99": 1.0, "max": 1.0}


class Smoother(Protocol):
    """A side under test.  Only `update` is timed."""

    def prepare(self, arrival: Arrival, initial: Floats) -> Any:
        """What `update` takes."""

    def update(self, prepared: Any) -> Any:
        """Take one pose and its edges into account, and estimate it."""

    def newest(self, answer: Any) -> Floats:
        """That estimate (7,)."""

    def poses(self) -> Floats:
        """All estimates (P, 7)."""


class Ours:
    """This project's solver as a `Smoother`: it takes arrays as they are, so that there is nothing to prepare."""

    def __init__(self, planar: bool) -> None:
        self._solver = ours.Incremental(planar)

    def prepare(self, arrival: Arrival, initial: Floats) -> tuple[Arrival, Floats]:
        """The arguments of `benchmarks.ours.Incremental.add`."""
        return arrival, initial

    def update(self, prepared: tuple[Arrival, Floats]) -> Floats:
        """Add the pose."""
        arrival, initial = prepared
        return self._solver.add(arrival.pose, initial, arrival.edges)

    def newest(self, answer: Floats) -> Floats:
        """The estimate as it came."""
        return answer

    def poses(self) -> Floats:
        """All estimates."""
        return self._solver.poses()

    def fill(self) -> int:
        """`benchmarks.ours.Incremental.fill`."""
        return self._solver.fill()


@dataclass(frozen=True)
class Played:
    """Seconds (P,) of each update, the final cost, and the processor's seconds in all updates together."""

    seconds: Floats
    cost: float
    processor: float

    @property
    def figures(self) -> dict[str, float]:
        """Total [s]; median, p99 and max of an update [ms]."""
        return {
            "total": float(self.seconds.sum()),
            "median": 1e3 * float(np.median(self.seconds)),
            "p99": 1e3 * float(np.percentile(self.seconds, 99)),
            "max": 1e3 * float(self.seconds.max()),
        }

    @property
    def disturbed(self) -> str:
        """What to tell where other programs took the core away: the time passed is then not this side's own."""
        lost = 1 - self.processor / float(self.seconds.sum())
        return f"{lost:.0%} of the time went to other programs" if lost > DISTURBED else ""

    def as_json(self) -> dict[str, Any]:
        """For the cache: seconds to the microsecond."""
        return {"seconds": self.seconds.round(6).tolist(), "cost": self.cost, "processor": self.processor}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Played:
        """The inverse of `as_json`."""
        return Played(np.array(fields["seconds"]), float(fields["cost"]), float(fields["processor"]))


def play(graph: PoseGraph, smoother: Smoother, each: Callable[[int], None] | None = None) -> Played:
    """The whole graph, pose by pose; ``each`` is called after every update, not timed, with how many there were."""
    values = graph.poses.copy()
    seconds = np.empty(len(graph.keys))
    processor = 0.0
    for arrival in graphs.arrivals(graph):
        prepared = smoother.prepare(arrival, arrival.initial(values))
        began = time.process_time()
        seconds[arrival.pose], answer = stopwatch(lambda prepared=prepared: smoother.update(prepared))  # type: ignore[misc]
        processor += time.process_time() - began
        values[arrival.pose] = smoother.newest(answer)
        if each is not None:
            each(arrival.pose + 1)
    return Played(seconds, graphs.cost(graph, smoother.poses()), processor)


def run(names: Sequence[str], cache: PeerCache) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows for each graph, with what stands behind them."""
    ours.warm_up_incremental()
    for name in names:
        yield compare(name, graphs.load(name), cache)


def compare(name: str, graph: PoseGraph, cache: PeerCache) -> tuple[list[Row], dict[str, Any]]:
    """Both sides on one graph."""
    optimum = best_known(name, graph, cache)
    kept = {variant.name: isam2(name, graph, variant.name, cache) for variant in VARIANTS}
    theirs = {variant: Played.from_json(each.result) for variant, each in kept.items()}
    there = {variant: played for variant, played in theirs.items() if played.cost <= optimum * (1 + WITHIN)}
    chosen = min(there or theirs, key=lambda variant: theirs[variant].processor)
    peer = theirs[chosen].figures
    notes = [f"iSAM2 {chosen}"]
    if kept[chosen].note:
        notes.append(kept[chosen].note)
    if not there:
        notes.append(f"which ends {theirs[chosen].cost / optimum - 1:.1%} above the optimum")
    if theirs[chosen].disturbed:
        notes.append(f"measured while {theirs[chosen].disturbed}: run again with --fresh-peers")
    mine, smoother = None, Ours(graph.planar)
    try:
        mine = play(graph, smoother)
    except UserError as error:
        notes.append(str(error))
    if mine is not None and mine.disturbed:
        notes.append(f"ours: {mine.disturbed}")
    rows = []
    for what, unit in (("total", "s"), ("median", "ms"), ("p99", "ms"), ("max", "ms")):
        value = mine.figures[what] if mine else None
        note = ", ".join(notes) if what == "total" else ""
        rows.append(Row("incremental", name, what, value, peer[what], unit, GOALS.get(what), note))
    rows.append(Row("incremental", name, "processor", mine.processor if mine else None, theirs[chosen].processor, "s"))
    above = mine.cost / optimum - 1 if mine else None
    their_excess = theirs[chosen].cost / optimum - 1
    rows.append(Row("incremental", name, "cost above optimum", above, their_excess, "", WITHIN, alone=True))
    fill = smoother.fill() / ours.batch_fill(graph) if mine else None
    rows.append(Row("incremental", name, "numbers in the factor / in batch's", fill, None, "", alone=True))
    sides = theirs | ({"ours": mine} if mine else {})
    return rows, {
        "optimum": optimum,
        "sides": {side: played.figures | {"cost": played.cost} for side, played in sides.items()},
        "measured": {variant: each.measured() for variant, each in kept.items()},
        "seconds": {"ours": mine.as_json()["seconds"] if mine else None},
    }


def isam2(name: str, graph: PoseGraph, variant: str, cache: PeerCache) -> Kept:
    """iSAM2 on a graph: a kept `Played`."""
    parameters = next(each for each in VARIANTS if each.name == variant)
    measure = lambda: play(graph, ISam2(graph.planar, parameters)).as_json()  # noqa: E731
    return cache.get(f"iSAM2 {variant} | {name} {graphs.digest(graph)}", measure)


def best_known(name: str, graph: PoseGraph, cache: PeerCache) -> float:
    """The lowest cost at which one of GTSAM's batch methods ends."""
    methods = [Method(optimiser, chordal, "COLAMD") for chordal in (False, True) for optimiser in ("GN", "LM")]

    def measure() -> dict[str, Any]:
        peer = Batch(graph)
        answers = peer.attempts(methods)
        best = min(peers_gtsam.reaching(answers).values(), key=lambda answer: answer.cost)
        return {"cost": graphs.cost(graph, peer.poses(best))}

    return float(cache.get(f"optimum | {name} {graphs.digest(graph)}", measure, timed=False).result["cost"])
