"""A pipeline being run: what the worker's process does, and `in_process` without one."""

from __future__ import annotations

import dataclasses
import importlib
import logging
from pathlib import Path
from typing import Any

from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame, Hint, RunResult
from dsg_ros.memory import resident_bytes
from dsg_ros.worker.checkpoints import Checkpoints
from dsg_ros.worker.messages import (
    Checkpoint,
    Command,
    Grid,
    Learning,
    Load,
    Optimize,
    Reset,
    Save,
    Setup,
    WhatIf,
)
from dsg_ros.worker.protocols import Foretells, Localises, Maps, Pipeline

log = logging.getLogger("worker")


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
        """One frame; adds the process's memory to the estimate's metrics.  `catch_up` is to follow.

        A pipeline is for one kind of scan.  When the very first one is of the other kind, the expectation was wrong
        and the pipeline is built again for what comes; later ones are the pipeline's to refuse.
        """
        if not self._processed and frame.planar != self._planar:
            self._planar = frame.planar
            log.info("the first scan is %s: compiling for it", "planar" if frame.planar else "a point cloud")
            self._build()
        self._processed += 1
        estimate = self._pipeline.estimate(frame)
        return dataclasses.replace(
            estimate, metrics={**estimate.metrics, "worker_memory_bytes": float(resident_bytes())}
        )

    def catch_up(self) -> None:
        """What the frame has left to be done, once its estimate was sent."""
        self._pipeline.catch_up()

    def _build(self) -> None:
        pipeline = self._factory(self._setup.config)
        pipeline.warm_up(self._planar)
        self._pipeline, self._processed = pipeline, 0

    def _save(self, command: Save) -> str:
        result = self._pipeline.finish() if command.refine else self._pipeline.result()
        result = dataclasses.replace(result, counts={**command.counts, **result.counts})
        failed, written = [], []
        for folder, write in ((command.map_folder, self._write_map), (command.folder, self._write_files)):
            if folder:
                try:
                    write(Path(folder), result)
                    written.append(folder)
                except Exception as error:  # noqa: BLE001 - one that is full or read-only must not cost the other
                    failed.append(error)
        if failed and written:
            log.info("saved to %s alone", written[0])
        if len(failed) > 1:
            raise UserError("; ".join(map(str, failed)))
        if failed:
            raise failed[0]
        return " and ".join(written)

    def _write_files(self, folder: Path, result: RunResult) -> None:
        from dsg_ros.report.save import save

        save(result, folder, self._setup.config)

    def _write_map(self, folder: Path, result: RunResult) -> None:
        from dsg_ros.io.map_folder import write_map

        write_map(folder, self._pipeline.saved_map())

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
