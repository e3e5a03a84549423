"""What a pipeline does before data is accepted: every kernel is compiled, or fetched from the cache on disk."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from dsg_ros import config
from dsg_ros.aside import Aside, Receive, spare_core
from dsg_ros.core import native
from dsg_ros.core.compilation import enable_cache
from dsg_ros.core.theta import Theta
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.sensitivity import Sensitivity
from dsg_ros.mapping import warm_up
from dsg_ros.mapping.local_map import LocalMapper

_log = logging.getLogger(__name__)


def compile_all(settings: config.Slam, mapper: LocalMapper, calibration: Calibration, planar: bool) -> None:
    """Run everything once, for scans that are ``planar`` or not, so that nothing compiles while they come in."""
    with contextlib.ExitStack() as stack:
        # Learning is XLA's, which lets other threads have the interpreter; the others are mostly Numba's, which
        # compiles for one thread at a time.
        beside = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="warm-up"))
        learning = beside.submit(calibration.warm_up, planar)
        helper = None
        if native.cold() and spare_core():
            helper = stack.enter_context(Aside("dsg_ros.starting:graph_aside"))
            helper.send((settings, planar))

        def graph() -> None:
            if helper is not None:
                with contextlib.suppress(RuntimeError):  # what it did not come to is compiled here
                    next(helper)
            _compile_graph(settings, mapper, calibration.theta)

        stages = {
            "registration and voxels": lambda: warm_up.compile_mapping(settings, mapper),
            "the occupancy grid": lambda: warm_up.compile_grid(settings.grid, planar=planar),
            "the graph's solvers": graph,
        }
        for number, (name, compile_) in enumerate(stages.items(), 1):
            _log.info("compiling, or fetching from the cache, %d of %d: %s", number, len(stages) + 1, name)
            compile_()
        _log.info("compiling, or fetching from the cache, %d of %d: learning", len(stages) + 1, len(stages) + 1)
        learning.result()


def graph_aside(receive: Receive) -> Iterator[None]:
    """The process beside a cold start: compiles the graph's solvers, to be fetched from the cache."""
    settings, planar = receive()
    enable_cache()
    mapper = LocalMapper(settings.registration, settings.input, planar=planar)
    _compile_graph(settings, mapper, Calibration(settings).theta)
    yield None


def _compile_graph(settings: config.Slam, mapper: LocalMapper, theta: Theta) -> None:
    made_up = warm_up.compile_back_end(settings, mapper.axes, theta)
    Sensitivity(made_up, theta, ()).effect("odometry.scale")
