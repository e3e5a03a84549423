"""What a pipeline does before data is accepted: every kernel is compiled, or fetched from the cache on disk."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from dsg_ros import config
from dsg_ros.aside import Aside, Receive, spare_core
from dsg_ros.core import native
from dsg_ros.core.compilation import compilations, enable_cache
from dsg_ros.learning.calibration import Calibration
from dsg_ros.learning.sensitivity import Sensitivity
from dsg_ros.mapping import warm_up
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.memory import give_back

MAPPING, WINDOW, SEARCH, GRID = "registration and voxels", "the window's solver", "loop closure", "the occupancy grid"
"""What scans need from the first or second on."""
GRAPH, LEARNING = "the graph's solvers", "learning"
"""What is needed once a loop is closed, or enough was driven to learn from."""

_NUMBERED = (MAPPING, WINDOW, SEARCH, GRID, GRAPH, LEARNING)
_log = logging.getLogger(__name__)
_compiled_for: set[bool] = set()
"""Kinds of scan, planar or not, for which this process has compiled all, or fetched it."""

Stages = Mapping[str, Callable[[], None]]


class Beside:
    """A process that compiles the stages ``wanted``, one after the other, into the cache; from there they are fetched.

    It ends with this object.  One that is ended from outside costs time alone: what it did not come to is compiled
    where it is fetched.
    """

    def __init__(self, stages: Stages, wanted: Sequence[str], settings: config.Slam, planar: bool) -> None:
        self._stages = stages
        self._done = {name: threading.Event() for name in wanted}
        self._left = list(wanted)
        stack = contextlib.ExitStack()
        aside = stack.enter_context(Aside("dsg_ros.starting:compile_beside"))
        weakref.finalize(self, stack.close)
        aside.send((settings, planar, list(wanted)))
        threading.Thread(target=_listen, args=(aside, self._done), name="beside", daemon=True).start()

    @property
    def left(self) -> list[str]:
        """Stages that are not yet fetched."""
        return list(self._left)

    def fetch(self, *needed: str) -> None:
        """Fetch the stages that are compiled by now; those ``needed`` are waited for."""
        for name in self.left:
            if name in needed and not self._done[name].is_set():
                _log.info("waiting for %s, compiled beside", name)
                self._done[name].wait()
            if self._done[name].is_set():
                with _without_collections():
                    self._stages[name]()
                self._left.remove(name)


class Compiled:
    """What a pipeline has compiled: at its start, `expected` later, and ``since`` then, which nobody wanted."""

    def __init__(self) -> None:
        self.since = 0
        self._expected = 0
        self._beside: Beside | None = None
        self._planar = True

    def begin(
        self, settings: config.Slam, mapper: LocalMapper, calibration: Calibration, planar: bool, early: bool
    ) -> None:
        """`compile_all`."""
        if early and native.cold():
            _log.info(native.COMPILING)
        self._planar, self._beside = planar, compile_all(settings, mapper, calibration, planar, early)
        give_back()
        self.expected()

    @property
    def preparing(self) -> bool:
        """Whether there are stages to come."""
        return self._beside is not None

    def has(self, stage: str) -> bool:
        """Whether ``stage`` would not compile any more."""
        return self._beside is None or stage not in self._beside.left

    def fetch(self, *needed: str) -> None:
        """Fetch the stages that were compiled beside the scans by now; those ``needed`` are waited for."""
        if self._beside is not None:
            before = compilations()
            self._beside.fetch(*needed)
            self._expected += compilations() - before  # that was still the start
            if not self._beside.left:
                self._beside = None
                told_of_all(self._planar)

    def expected(self) -> None:
        """What has compiled until now was to."""
        self._expected = compilations()

    def count(self) -> None:
        """Note how much has compiled since; it goes through every kernel."""
        self.since = compilations() - self._expected


def _listen(aside: Aside, done: Mapping[str, threading.Event]) -> None:
    """Note what ``aside`` has compiled; when it has ended, nothing is to be waited for any more."""
    try:
        began = time.monotonic()
        for name in aside:
            _log.info("compiled beside after %.0f s: %s", time.monotonic() - began, name)
            done[name].set()
    except Exception as error:  # noqa: BLE001 - whatever it was, all is compiled without it
        if missing := [name for name, event in done.items() if not event.is_set()]:
            _log.info("to be compiled here, as nothing does it beside any more: %s (%s)", ", ".join(missing), error)
    finally:
        for event in done.values():
            event.set()


def compile_all(
    settings: config.Slam, mapper: LocalMapper, calibration: Calibration, planar: bool, early: bool = False
) -> Beside | None:
    """Run everything once, for scans that are ``planar`` or not, so that nothing compiles while they come in.

    With ``early``, where nothing was kept, `GRAPH` and `LEARNING` are left to the process that is returned.
    """
    stages = _stages(settings, mapper, calibration, planar)
    beside = None
    # About as much for each of the two processes, where two cores are there for them.
    here = (MAPPING, GRID) if early else (MAPPING, GRID, LEARNING)
    if native.cold() and spare_core() and planar not in _compiled_for:
        beside = Beside(stages, [name for name in stages if name not in here], settings, planar)
    with _without_collections():
        if beside is None:
            _compile_here(stages)
        else:
            for name in here:
                _tell(name)
                stages[name]()
            for name in beside.left:
                if not (early and name in (GRAPH, LEARNING)):
                    _tell(name)
                    beside.fetch(name)
    if beside is not None and beside.left:
        _log.info("scans can be mapped; still compiled beside them: %s", ", ".join(beside.left))
        return beside
    told_of_all(planar)
    return None


def told_of_all(planar: bool) -> None:
    """Say that everything is compiled for scans that are ``planar`` or not."""
    _compiled_for.add(planar)
    _log.info("everything is compiled")


def compile_beside(receive: Receive) -> Iterator[str]:
    """The process beside a cold start: the name of each stage that it was sent, once that is in the cache."""
    settings, planar, wanted = receive()
    enable_cache()
    mapper = LocalMapper(settings.registration, settings.input, planar=planar)
    stages = _stages(settings, mapper, Calibration(settings), planar)
    with _without_collections():
        for name in wanted:
            stages[name]()
            yield name


def _stages(settings: config.Slam, mapper: LocalMapper, calibration: Calibration, planar: bool) -> Stages:
    def graph() -> None:
        theta = calibration.theta
        made_up = warm_up.compile_graph(warm_up.compile_window(settings, mapper.axes, theta), theta)
        Sensitivity(made_up, theta, ()).effect("odometry.scale")

    return {
        MAPPING: lambda: warm_up.compile_mapping(settings, mapper),
        WINDOW: lambda: _nothing(warm_up.compile_window(settings, mapper.axes, calibration.theta)),
        SEARCH: lambda: warm_up.compile_search(settings, planar=planar),
        GRID: lambda: warm_up.compile_grid(settings.grid, planar=planar),
        GRAPH: graph,
        LEARNING: lambda: calibration.warm_up(planar),
    }


def _nothing(_: object) -> None:
    """Of what a stage has made up, nothing is kept."""


def _compile_here(stages: Stages) -> None:
    # Learning is XLA's, which lets other threads have the interpreter; the others are mostly Numba's, which
    # compiles for one thread at a time.
    with ThreadPoolExecutor(1, thread_name_prefix="warm-up") as pool:
        learning = pool.submit(stages[LEARNING])
        for name, compile_ in stages.items():
            _tell(name)
            if name != LEARNING:
                compile_()
        learning.result()


def _tell(name: str) -> None:
    number = _NUMBERED.index(name) + 1
    _log.info("compiling, or fetching from the cache, %d of %d: %s", number, len(_NUMBERED), name)


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
