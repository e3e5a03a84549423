"""What a pipeline does before data is accepted: every kernel is compiled, or fetched from the cache on disk."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from dsg_ros import config
from dsg_ros.aside import Aside, Receive, spare_core
from dsg_ros.core import native
from dsg_ros.core.compilation import enable_cache
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.sensitivity import Sensitivity
from dsg_ros.mapping import warm_up
from dsg_ros.mapping.back_end import BackEnd
from dsg_ros.mapping.local_map import LocalMapper

MAPPING, GRID, LEARNING = "registration and voxels", "the occupancy grid", "learning"
WINDOW, SEARCH, GRAPH = "the window's solver", "loop closure", "the graph's solvers"
BESIDE = (WINDOW, SEARCH, GRAPH)
"""What a second process compiles where nothing is kept yet: about half."""

Stages = Mapping[str, Callable[[], object]]
_log = logging.getLogger(__name__)


def compile_all(settings: config.Slam, mapper: LocalMapper, calibration: Calibration, planar: bool) -> None:
    """Run everything once, for scans that are ``planar`` or not, so that nothing compiles while they come in."""
    stages = _stages(settings, mapper, calibration, planar)
    with _without_collections():
        if native.cold() and spare_core():
            _compile_shared(stages, settings, planar)
        else:
            _compile_here(stages)
    _log.info("everything is compiled")


def _compile_shared(stages: Stages, settings: config.Slam, planar: bool) -> None:
    """`BESIDE` is compiled by a process of its own, from whose cache it is fetched."""
    with Aside("dsg_ros.starting:compile_beside") as helper:
        helper.send((settings, planar))
        ordered = [name for name in stages if name not in BESIDE] + list(BESIDE)
        for number, name in enumerate(ordered, 1):
            _tell(number, len(stages), name)
            if name in BESIDE:
                # Of one that has ended, what it did not come to is compiled here.
                with contextlib.suppress(RuntimeError, StopIteration):
                    next(helper)
            stages[name]()


def compile_beside(receive: Receive) -> Iterator[None]:
    """The process beside a cold start: compiles `BESIDE`; an item for each that is in the cache."""
    settings, planar = receive()
    enable_cache()
    mapper = LocalMapper(settings.registration, settings.input, planar=planar)
    stages = _stages(settings, mapper, Calibration(settings), planar)
    with _without_collections():
        for name in BESIDE:
            stages[name]()
            yield None


def _stages(settings: config.Slam, mapper: LocalMapper, calibration: Calibration, planar: bool) -> Stages:
    @cache
    def window() -> BackEnd:
        return warm_up.compile_window(settings, mapper.axes, calibration.theta)

    def graph() -> None:
        theta = calibration.theta
        Sensitivity(warm_up.compile_graph(window(), theta), theta, ()).effect("odometry.scale")

    return {
        MAPPING: lambda: warm_up.compile_mapping(settings, mapper),
        WINDOW: window,
        SEARCH: lambda: warm_up.compile_search(settings, planar=planar),
        GRID: lambda: warm_up.compile_grid(settings.grid, planar=planar),
        GRAPH: graph,
        LEARNING: lambda: calibration.warm_up(planar),
    }


def _compile_here(stages: Stages) -> None:
    # Learning is XLA's, which lets other threads have the interpreter; the others are mostly Numba's, which
    # compiles for one thread at a time.
    with ThreadPoolExecutor(1, thread_name_prefix="warm-up") as pool:
        learning = pool.submit(stages[LEARNING])
        for number, (name, compile_) in enumerate(stages.items(), 1):
            _tell(number, len(stages), name)
            if name != LEARNING:
                compile_()
        learning.result()


def _tell(number: int, count: int, name: str) -> None:
    _log.info("compiling, or fetching from the cache, %d of %d: %s", number, count, name)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Without the search for cyclic garbage: compilers make millions of objects that stay, and little garbage."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
