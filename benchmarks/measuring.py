"""How things are timed: on the same cores, in turn, several times; and on which machine."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

Ours = TypeVar("Ours")
Theirs = TypeVar("Theirs")

LONG = 10.0
"""A run longer than this [s] is repeated `FEW` times at most."""
FEW = 3
ENDLESS = 60.0
"""A run longer than this [s] is not repeated."""

ENOUGH = 3.0
"""Runs are repeated for this long [s], `MANY` times at most: virtual machines change their speed by the second."""
MANY = 25

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextmanager
def confined(cores: int) -> Iterator[dict[str, str]]:
    """Processes started inside, with the environment that is yielded, get ``cores`` cores for all their threads.

    The thread pools of BLAS, Numba and XLA are made when their libraries are loaded: this must come before.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        yield os.environ | dict.fromkeys(THREADS, str(min(cores, len(allowed))))
    finally:
        os.sched_setaffinity(0, allowed)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def stopwatch(call: Callable[[], Ours]) -> tuple[float, Ours]:
    """Wall-clock seconds of a call, and what it returned."""
    began = time.perf_counter()
    value = call()
    return time.perf_counter() - began, value


def reference_loop() -> float:
    """Seconds of a fixed piece of work, the median of seven: how fast this machine is at the moment.

    Half of it is interpreted, half small dense algebra, as both sides' work is compiled code on small blocks.
    """
    matrix = np.eye(48) + 1.0 / (1.0 + np.add.outer(np.arange(48.0), np.arange(48.0)))

    def work() -> float:
        total = sum(k * k % 7 for k in range(150_000))
        for _ in range(300):
            total += np.linalg.cholesky(matrix)[-1, -1]
        return float(total)

    return median(stopwatch(work)[0] for _ in range(7))


def times(seconds: float, wanted: int) -> int:
    """How often to repeat a run of this length: ``wanted`` times, a long one less, a short one more."""
    if seconds > ENDLESS:
        return 1
    if seconds > LONG:
        return min(wanted, FEW)
    return max(wanted, min(int(ENOUGH / seconds), MANY)) if wanted > 1 else wanted


def in_turn(ours: Callable[[], Ours], theirs: Callable[[], Theirs], repeats: int) -> tuple[list[Ours], list[Theirs]]:
    """Both calls ``repeats`` times, one after the other: what slows the machine for a while slows both."""
    both = [(ours(), theirs()) for _ in range(repeats)]
    return [mine for mine, _ in both], [other for _, other in both]


def apart(function: Callable[..., Ours], *arguments: object) -> Ours:
    """The result of a call in a fresh process of its own, on the same cores."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def machine() -> str:
    """This machine's name, processor and number of cores: what a figure kept on disk was measured on."""
    return f"{platform.node()}, {_processor()}, {os.cpu_count()} cores"


def version(distribution: str) -> str:
    """The installed version of a library, or "none"."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"


def peak_memory() -> int:
    """The most resident memory [bytes] that this process has had, since `forget_peak` where that works."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # a kernel without VmHWM


def forget_peak() -> None:
    """Let `peak_memory` begin anew; where the kernel refuses, it keeps the larger figure."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
