"""The worker keeps the state of its pipeline, and goes on from it: the two ends of a checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsg_ros import config as cfg
from dsg_ros.errors import UserError
from dsg_ros.io.checkpoint import CheckpointWriter, discard, read_checkpoint
from dsg_ros.state import State

if TYPE_CHECKING:
    from dsg_ros.worker.protocols import Maps

log = logging.getLogger("worker")


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint in ``map_folder``, of ``keyframes`` up to the scan of ``stamp`` [ns].

    Of its ``bytes`` so many were ``fresh``.  Scans waited ``held`` [s] for it, and it was there after ``seconds``; both
    are zero where nothing had changed since the one before.
    """

    map_folder: str
    keyframes: int
    stamp: int
    bytes: int
    fresh: int = 0
    held: float = 0.0
    seconds: float = 0.0


class Checkpoints:
    """Keeps the state of a pipeline, in a thread, and has another pipeline go on from it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Checkpointed] | None = None
        self._last: Checkpointed | None = None
        self._writer = CheckpointWriter()

    def keep(self, map_folder: Path, pipeline: Maps, config: cfg.Slam) -> Future[Checkpointed] | Checkpointed:
        """Take the state as it is now, and write it meanwhile."""
        if self._writing is not None and not self._writing.done():
            raise UserError("the checkpoint before is still being written: raise checkpoint_period")
        began = time.perf_counter()
        about = pipeline.about()
        last = self._last
        if last is not None and (last.map_folder, last.stamp) == (str(map_folder), about["stamp"]):
            return dataclasses.replace(last, fresh=0, held=0.0, seconds=0.0)
        if not about["keyframes"]:
            raise UserError("there is no map yet: nothing to keep")
        state = pipeline.state()
        held = time.perf_counter() - began
        self._writing = self._thread.submit(self._write, map_folder, state, config, about, held)
        return self._writing

    def _write(
        self, map_folder: Path, state: State, config: cfg.Slam, about: dict[str, int], held: float
    ) -> Checkpointed:
        began = time.perf_counter()
        written = self._writer.write(map_folder, state, compared(config), about)
        seconds = time.perf_counter() - began
        self._last = Checkpointed(
            str(map_folder), about["keyframes"], about["stamp"], written.bytes, written.fresh, held, seconds
        )
        return self._last

    def discard(self, map_folder: str) -> None:
        """Have no checkpoint any more, in ``map_folder`` if it is named; after the one that is being written."""
        if self._writing is not None:
            wait([self._writing])
        self._last = None
        if map_folder:
            try:
                discard(Path(map_folder))
            except UserError as error:
                log.error("the forgotten map's checkpoint stays: %s", error)

    def resume(self, map_folder: Path, pipeline: Maps, config: cfg.Slam, uninterrupted: bool) -> bool:
        """Have ``pipeline`` go on from the checkpoint; whether its scans are planar.  ``uninterrupted`` as in `Setup`.

        `UserError` where it is refused.
        """
        state, about = read_checkpoint(map_folder, compared(config))
        try:
            pipeline.restore(state)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise UserError(
                f"{map_folder}: the checkpoint is refused: it is none of this program's ({error})"
            ) from error
        if not uninterrupted:
            pipeline.take_up()
        log.info("going on with the map of %d keyframes in %s", about["keyframes"], map_folder)
        return bool(about["planar"])


def compared(config: cfg.Slam) -> dict[str, bool | int | float | str]:
    """Settings that a checkpoint is for: all of the pipeline's but what the state itself holds."""
    return {name: value for name, value in cfg.values(config).items() if name != "learning.enabled"}
