"""Growth: an update's time and the process's memory while a simulated city grows to 100,000 poses.

One run gives the whole curve: at each of `SIZES`, median and p99 of the `WINDOW` updates before it, and the peak of the
resident memory so far.  Each run has a process of its own, so that what another left in memory is not counted.
Loops are local (`benchmarks.city`); ``city met again`` closes them to streets of any age, which is harder, and ends
where the peer does.
iSAM2 runs beside it as far as `PEER_SIZE`, once (`benchmarks.peer_cache`).

The batch curve beside it: the local city as a whole, solved once at each of the sizes up to `BATCH_SIZE`, by GTSAM too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from benchmarks import city, graphs, ours
from benchmarks.incremental import Ours, Smoother
from benchmarks.measuring import apart, forget_peak, peak_memory, stopwatch
from benchmarks.options import SIZES
from benchmarks.peer_cache import Kept, PeerCache
from benchmarks.peers_gtsam import Batch, Method, reaching
from benchmarks.peers_isam2 import VARIANTS, ISam2
from benchmarks.table import Row
from dsg_ros.core.compilation import compilations, enable_cache
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, PoseGraph

WINDOW = 1_000
PEER_SIZE = 10_000
SLOWER = 2.0
"""How much longer an update may take at the largest size than at the smallest."""
BATCH_SIZE = 30_000
BATCH_METHODS = (Method("GN", False, "COLAMD"), Method("GN", False, "METIS"))
"""GTSAM's fastest on simulated cities (`benchmarks.batch` tries them all)."""
MEMORY = 1.5
"""Peak of the resident memory up to the largest size [GiB]."""
MISFIT = 1.1
LOCAL = "city"
DRIVES = {LOCAL: city.MEMORY, "city met again": None}
"""How old the poses are that loops go back to.  The second drive ends at `PEER_SIZE`: the part of its tree that every
update changes grows with it, on either side.
"""


@dataclass(frozen=True)
class Curve:
    """At ``sizes`` poses: ``factors`` so far, median and p99 of an update [ms], and the most memory [GiB] that was
    resident in the process until then.

    ``compilations`` are those by XLA and Numba while it grew.
    ``misfit`` is twice the cost at the end over its degrees of freedom: 1, but for the noise, at the optimum.
    ``start`` is what was [GiB] before the first pose, libraries and simulated graph included.
    """

    sizes: list[int]
    factors: list[int]
    median: list[float]
    p99: list[float]
    memory: list[float]
    start: float
    compilations: int = 0
    misfit: float = np.nan

    def as_json(self) -> dict[str, Any]:
        """Its fields."""
        return dict(vars(self))


def measure(graph: PoseGraph, smoother: Smoother, sizes: Sequence[int]) -> Curve:
    """Feed a graph, pose by pose, as far as the largest of ``sizes`` that it has."""
    sizes = [size for size in sorted(sizes) if size <= len(graph.keys)]
    values = graph.poses.copy()
    seconds: Floats = np.empty(sizes[-1])
    forget_peak()  # simulating took more than the graph does
    curve = Curve(sizes, [], [], [], [], peak_memory() / 2**30)
    factors = 0
    compiled = compilations()
    for arrival in islice(graphs.arrivals(graph), sizes[-1]):
        prepared = smoother.prepare(arrival, arrival.initial(values))
        seconds[arrival.pose], answer = stopwatch(lambda prepared=prepared: smoother.update(prepared))  # type: ignore[misc]
        values[arrival.pose] = smoother.newest(answer)
        factors += len(arrival.edges)
        if (size := arrival.pose + 1) in sizes:
            recent = 1e3 * seconds[max(size - WINDOW, 0) : size]
            curve.factors.append(factors)
            curve.median.append(float(np.median(recent)))
            curve.p99.append(float(np.percentile(recent, 99)))
            curve.memory.append(peak_memory() / 2**30)
    return replace(curve, compilations=compilations() - compiled, misfit=_misfit(graph, sizes[-1], smoother.poses()))


def _misfit(graph: PoseGraph, count: int, found: Floats) -> float:
    """`Curve.misfit` of the first ``count`` poses."""
    within = (graph.first < count) & (graph.second < count)
    poses = np.concatenate([found[:count], graph.poses[count:]])
    freedom = (3 if graph.planar else 6) * (int(within.sum()) - count + 1)
    return float(graphs.errors(graph, poses)[within].sum()) / freedom


def run(cache: PeerCache, sizes: Sequence[int] = SIZES) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows for each drive, with the curves."""
    for drive in DRIVES:
        within = [size for size in sizes if size <= PEER_SIZE]
        reached = list(sizes) if drive == LOCAL else within or [min(sizes)]
        kept = {variant.name: _kept(drive, variant.name, within, cache) for variant in VARIANTS if within}
        detail: dict[str, Any] = {
            "drive": drive,
            "ours": None,
            "gtsam": {variant: each.result for variant, each in kept.items()},
            "gtsam_measured": {variant: each.measured() for variant, each in kept.items()},
        }
        if drive == LOCAL:
            detail["batch"] = apart(batch_curve, [size for size in sizes if size <= BATCH_SIZE])
        try:
            curve = apart(our_curve, drive, reached)
        except UserError as error:
            yield [_update_row("median", drive, reached, None, str(error))], detail
        else:
            yield _rows(drive, curve), detail | {"ours": curve.as_json()}


def our_curve(drive: str, sizes: Sequence[int]) -> Curve:
    """This project's curve; for a process of its own."""
    enable_cache()
    ours.warm_up_incremental()
    graph = city.simulate(max(sizes), memory=DRIVES[drive])
    return measure(graph, Ours(graph.planar), sizes)


def peer_curve(drive: str, variant: str, sizes: Sequence[int]) -> Curve:
    """iSAM2's; for a process of its own."""
    parameters = next(each for each in VARIANTS if each.name == variant)
    graph = city.simulate(max(sizes), memory=DRIVES[drive])
    return measure(graph, ISam2(graph.planar, parameters), sizes)


def batch_curve(sizes: Sequence[int]) -> dict[str, list[float]]:
    """The local city as a whole at each of ``sizes``: our seconds and the peak of the memory [GiB], and GTSAM's
    seconds; for a process of its own.

    Ours runs first and in ascending order: the peak is that of the size at hand, GTSAM's graphs not being there yet.
    """
    enable_cache()
    ours.solve_batch(city.simulate(min(sizes, default=1_000)))  # compiles
    found: dict[str, list[float]] = {"sizes": sorted(map(float, sizes))}
    for name in ("seconds", "cost", "memory", "gtsam_seconds", "gtsam_cost"):
        found[name] = []
    for size in sorted(sizes):
        graph = city.simulate(size)
        forget_peak()
        solved = ours.solve_batch(graph)
        found["seconds"].append(solved.seconds)
        found["cost"].append(solved.cost)
        found["memory"].append(peak_memory() / 2**30)
    for size in sorted(sizes):
        answers = reaching(Batch(city.simulate(size)).attempts(BATCH_METHODS))
        fastest = min(answers.values(), key=lambda answer: answer.seconds)
        found["gtsam_seconds"].append(fastest.seconds)
        found["gtsam_cost"].append(fastest.cost)
    return found


def _kept(drive: str, variant: str, sizes: Sequence[int], cache: PeerCache) -> Kept:
    digest = graphs.digest(city.simulate(max(sizes), memory=DRIVES[drive]))
    name = f"iSAM2 {variant} | growth of {drive} {digest} to {', '.join(map(str, sizes))}"
    return cache.get(name, lambda: apart(peer_curve, drive, variant, list(sizes)).as_json())


def _rows(drive: str, curve: Curve) -> list[Row]:
    """Goals are those of local loops."""
    name = f"peak memory to {curve.sizes[-1]:,} poses"
    goal = MEMORY if drive == LOCAL else None
    # A side that does not solve counts for nothing.
    solved = curve.misfit <= MISFIT
    note = "" if solved else f"its cost is {curve.misfit:.2f} times what it should be"
    memory = curve.memory[-1] if solved else None
    compiled = f"compilations to {curve.sizes[-1]:,} poses"
    return [
        _update_row("median", drive, curve.sizes, curve.median[-1] / curve.median[0] if solved else None, note),
        _update_row("p99", drive, curve.sizes, curve.p99[-1] / curve.p99[0] if solved else None, note),
        Row("growth", drive, name, memory, None, "GiB", goal, note or f"{curve.factors[-1]:,} factors", alone=True),
        Row("growth", drive, compiled, curve.compilations if solved else None, None, "", 0, note, alone=True),
    ]


def _update_row(figure: str, drive: str, sizes: Sequence[int], ratio: float | None, note: str = "") -> Row:
    name = f"{figure} update at {max(sizes):,} / {min(sizes):,} poses"
    goal = SLOWER if drive == LOCAL and figure == "median" else None
    return Row("growth", drive, name, ratio, None, "", goal, note, alone=True)
