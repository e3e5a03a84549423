"""The worker's own side: a pipeline, what may be asked of it, and the messages that pass between the two processes.

Nothing at the top of this module imports JAX: the parent shares the message types.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import pickle
import signal
import struct
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config as cfg
from dsg_ros.effect import Effect
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame, GridUpdate, Hint, RunResult, SavedMap
from dsg_ros.state import State
from dsg_ros.worker_checkpoints import Checkpoints

SLAM = "dsg_ros.pipeline:Slam"
LOCALISATION = "dsg_ros.localisation:from_folder"
log = logging.getLogger("worker")

NICENESS = 10
"""The worker yields to the node when cores are scarce: a late solve is late, a late callback loses messages."""


class Pipeline(Protocol):
    """What the worker needs of `dsg_ros.pipeline.Slam`."""

    def warm_up(self, planar: bool) -> None: ...
    def process(self, frame: Frame) -> Estimate: ...
    def grid_changes(self, since: int) -> GridUpdate: ...
    def result(self) -> RunResult: ...
    def finish(self) -> RunResult: ...
    def saved_map(self) -> SavedMap: ...


@runtime_checkable
class Maps(Protocol):
    """What it needs of a pipeline that makes a map, besides."""

    def state(self) -> State: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...
    def about(self) -> dict[str, int]: ...
    def take_up(self) -> None: ...
    def optimize(self) -> Estimate: ...
    def switch_learning(self, on: bool) -> None: ...


@runtime_checkable
class Localises(Protocol):
    """What it needs of a pipeline that localises in a finished map, besides."""

    def hint(self, pose: NDArray[np.float64], radius: float, turn: float) -> None: ...


@runtime_checkable
class Foretells(Protocol):
    """What it needs of a pipeline whose graph theta moves, besides."""

    def what_if(self, parameter: str, change: str) -> Effect: ...


@dataclass(frozen=True)
class Setup:
    """How to build the pipeline: ``factory`` is ``module:callable``; ``planar`` the kind of scan to expect.

    With ``resume`` it goes on from the checkpoint in that map folder; ``uninterrupted``: the odometry went on
    meanwhile, and nothing but the scans since then is missing.
    """

    factory: str
    config: cfg.Slam
    planar: bool = True
    resume: str = ""
    uninterrupted: bool = False

    def with_learning(self, on: bool) -> Setup:
        """The same with learning on or off."""
        return dataclasses.replace(self, config=cfg.replace(self.config, {"learning.enabled": on}))


@dataclass(frozen=True)
class Reset:
    """Forget the map and the trajectory; learned parameters start from the configuration again.

    The checkpoint in ``map_folder``, where one is named, is of the map that is forgotten, and is removed.
    """

    map_folder: str = ""


@dataclass(frozen=True)
class Save:
    """Write the run's files to ``folder`` and the map to ``map_folder``, where they are named.

    ``refine`` runs the final refinement first.  Answers with the folders.
    """

    folder: str
    refine: bool = False
    map_folder: str = ""


@dataclass(frozen=True)
class Load:
    """Build the pipeline anew, with the map that the configuration names; where that fails the present one stays."""


@dataclass(frozen=True)
class Grid:
    """Answers with the `GridUpdate` of the tiles that changed after version ``since``; 0: all of them."""

    since: int = 0


@dataclass(frozen=True)
class WhatIf:
    """Answers with the `Effect` of changing ``parameter`` by ``change``, as people write it, on the present graph."""

    parameter: str
    change: str


@dataclass(frozen=True)
class Optimize:
    """Solve the whole graph and refine it, now; answers with the `Estimate` of the last scan after that."""


@dataclass(frozen=True)
class Learning:
    """Switch learning on or off, for this map and those that follow."""

    on: bool


@dataclass(frozen=True)
class Checkpoint:
    """Keep the whole state in ``map_folder``, while frames go on; answers with a `Checkpointed`."""

    map_folder: str


Command = Reset | Save | Load | Hint | Grid | WhatIf | Optimize | Learning | Checkpoint

AT_ONCE = (Optimize, Learning, Checkpoint)
"""Commands that do not wait for the frames handed over before."""


@dataclass(frozen=True)
class Call:
    """A command to be answered by the `Reply` of the same number."""

    number: int
    command: Command


@dataclass(frozen=True)
class Stop:
    """End of the conversation."""


@dataclass(frozen=True)
class Ready:
    """The pipeline is built and warmed up, ``seconds`` after the process began."""

    seconds: float


@dataclass(frozen=True)
class Log:
    """A line of the worker's log, for the parent's."""

    level: int
    text: str


@dataclass(frozen=True)
class Reply:
    """Answer to a `Call`: a value, or the error as text (an exception object may not survive pickling)."""

    number: int
    value: Any = None
    error: str = ""


class Channel:
    """One end of the conversation: whole objects, sent from any thread, received by one."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Send one object; the memory of its arrays goes out of band, without a copy in pickle (PEP 574)."""
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        sizes = [view.nbytes for view in views]
        with self._sending:
            self._connection.send_bytes(struct.pack(f"<{len(sizes)}Q", *sizes))
            self._connection.send_bytes(head)
            for view in views:
                if view.nbytes:
                    self._connection.send_bytes(view)

    def receive(self) -> Any:
        """Read what `send` sent; arrays come back writable.  `EOFError` or `OSError` when the other side is gone."""
        table = self._connection.recv_bytes()
        sizes = struct.unpack(f"<{len(table) // 8}Q", table)
        head = self._connection.recv_bytes()
        buffers = [bytearray(size) for size in sizes]
        for buffer in buffers:
            if buffer:
                self._connection.recv_bytes_into(buffer)
        return pickle.loads(head, buffers=buffers)


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory (VmRSS) of a process, 0 where /proc does not say."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:")), 0)
    except OSError:
        return 0


class Session:
    """A pipeline being run: built, warmed up, fed, asked."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._planar = setup.planar
        self._processed = 0
        self._checkpoints = Checkpoints()
        module, _, name = setup.factory.partition(":")
        self._factory = getattr(importlib.import_module(module), name)
        self._pipeline: Pipeline = self._factory(setup.config)

    def warm_up(self) -> None:
        """Compile everything for the expected kind of scan, or go on from a checkpoint."""
        if not self._setup.resume:
            self._pipeline.warm_up(self._planar)
            return
        s = self._setup
        self._planar = self._checkpoints.resume(Path(s.resume), self._map_maker(), s.config, s.uninterrupted)
        self._processed = 1

    def process(self, frame: Frame) -> Estimate:
        """One frame; adds the process's memory to the estimate's metrics.

        A pipeline is for one kind of scan.  When the very first one is of the other kind, the expectation was wrong
        and the pipeline is built again for what comes; later ones are the pipeline's to refuse.
        """
        if not self._processed and frame.planar != self._planar:
            self._planar = frame.planar
            log.info("the first scan is %s: compiling for it", "planar" if frame.planar else "a point cloud")
            self._build()
        self._processed += 1
        estimate = self._pipeline.process(frame)
        return dataclasses.replace(
            estimate, metrics={**estimate.metrics, "worker_memory_bytes": float(resident_bytes())}
        )

    def _build(self) -> None:
        pipeline = self._factory(self._setup.config)
        pipeline.warm_up(self._planar)
        self._pipeline, self._processed = pipeline, 0

    def _save(self, command: Save) -> str:
        result = self._pipeline.finish() if command.refine else self._pipeline.result()
        if command.folder:
            from dsg_ros.report.save import save

            save(result, Path(command.folder), self._setup.config)
        if command.map_folder:
            from dsg_ros.io.map_folder import write_map

            write_map(Path(command.map_folder), self._pipeline.saved_map())
        return " and ".join(filter(None, (command.folder, command.map_folder)))

    def execute(self, command: Command) -> Any:
        """Do what is asked and return the answer; raises what the pipeline or the file system raises."""
        match command:
            case Save():
                return self._save(command)
            case Load():
                self._build()
            case Hint(pose, radius, turn):
                if not isinstance(self._pipeline, Localises):
                    raise RuntimeError("a map is being made: there is nothing to localise in")
                self._pipeline.hint(pose, radius, turn)
            case WhatIf(parameter, change):
                if not isinstance(self._pipeline, Foretells):
                    raise UserError("the map is finished, and no parameter moves it here: ask the run that made it")
                return self._pipeline.what_if(parameter, change)
            case Grid(since):
                return self._pipeline.grid_changes(since)
            case Reset(map_folder):
                self._build()
                self._checkpoints.discard(map_folder)
            case Checkpoint(map_folder):
                return self._checkpoints.keep(Path(map_folder), self._map_maker(), self._setup.config)
            case Optimize():
                return self._map_maker().optimize()
            case Learning(on):
                self._map_maker().switch_learning(on)
                self._setup = self._setup.with_learning(on)
        return None

    def _map_maker(self) -> Maps:
        if not isinstance(self._pipeline, Maps):
            raise UserError("a finished map is localised in, and none is being made")
        return self._pipeline


class _LogToParent(logging.Handler):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send(Log(record.levelno, self.format(record)))


def main(descriptor: int, load: str = "") -> None:
    """Run a session over the socket with this file descriptor until told to stop or the parent is gone; the module
    ``load`` is imported before it is known what for.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    channel = Channel(Connection(descriptor))
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", handlers=[_LogToParent(channel)])
    try:
        if load:
            importlib.import_module(load)
        _serve(channel)
    except _GONE:
        raise SystemExit(0) from None  # with the parent went everybody who could read an answer


_GONE = (EOFError, BrokenPipeError, ConnectionResetError)


def _serve(channel: Channel) -> None:
    began = time.monotonic()
    try:
        session = Session(channel.receive())
        session.warm_up()
        channel.send(Ready(time.monotonic() - began))
        while not isinstance(message := channel.receive(), Stop):
            if isinstance(message, Frame):
                channel.send(session.process(message))
            else:
                _answer(session, message, channel)
    except _GONE:
        raise
    except UserError as error:
        log.error("the pipeline cannot be built: %s", error)
        raise SystemExit(1) from None
    except Exception:
        # What the pipeline holds after an exception is unknown: say what happened, end, and let the parent start
        # afresh.
        log.exception("the pipeline failed")
        raise SystemExit(1) from None


def _answer(session: Session, call: Call, channel: Channel) -> None:
    """Send the answer now, or when it is there: what a thread is still busy with is a `Future`."""
    try:
        value = session.execute(call.command)
    except Exception as error:  # noqa: BLE001 - it is told, and sent to whoever asked
        channel.send(_refusal(call, error))
        return
    if not isinstance(value, Future):
        channel.send(Reply(call.number, value))
        return

    def tell(done: Future[Any]) -> None:
        error = done.exception()
        with contextlib.suppress(*_GONE):  # the other thread notices that as well, and ends
            channel.send(_refusal(call, error) if error else Reply(call.number, done.result()))

    value.add_done_callback(tell)


def _refusal(call: Call, error: BaseException) -> Reply:
    if isinstance(error, UserError):  # its message says all there is to say
        log.error("%s refused: %s", type(call.command).__name__, error)
        return Reply(call.number, error=f"{type(call.command).__name__} refused: {error}")
    log.error("%s failed", type(call.command).__name__, exc_info=error)
    return Reply(call.number, error=f"{type(call.command).__name__} failed: {error}")
