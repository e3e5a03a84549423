"""What a pipeline does before data is accepted: every kernel is compiled, or fetched from the cache on disk."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from dsg_ros import config
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.sensitivity import Sensitivity
from dsg_ros.mapping import warm_up
from dsg_ros.mapping.local_map import LocalMapper

_log = logging.getLogger(__name__)


def compile_all(settings: config.Slam, mapper: LocalMapper, calibration: Calibration, planar: bool) -> None:
    """Run everything once, for scans that are ``planar`` or not, so that nothing compiles while they come in."""

    def graph() -> None:
        made_up = warm_up.compile_back_end(settings, mapper.axes, calibration.theta)
        Sensitivity(made_up, calibration.theta, ()).effect("odometry.scale")

    stages = {
        "registration and voxels": lambda: warm_up.compile_mapping(settings, mapper),
        "the graph's solvers": graph,
        "the occupancy grid": lambda: warm_up.compile_grid(settings.grid, planar=planar),
    }
    # Learning is XLA's, which lets other threads have the interpreter; the others are mostly Numba's.
    with ThreadPoolExecutor(1, thread_name_prefix="warm-up") as beside:
        learning = beside.submit(calibration.warm_up, planar)
        for number, (name, compile_) in enumerate(stages.items(), 1):
            _log.info("compiling, or fetching from the cache, %d of %d: %s", number, len(stages) + 1, name)
            compile_()
        _log.info("compiling, or fetching from the cache, %d of %d: learning", len(stages) + 1, len(stages) + 1)
        learning.result()
