"""The pipeline in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal

from dsg_ros import config as cfg
from dsg_ros.interface import Estimate, Frame
from dsg_ros.worker import messages
from dsg_ros.worker.backend import Backend, Event, Status
from dsg_ros.worker.session import Session


class InProcess(Backend):
    """The pipeline in the caller's thread, for offline runs, tests and debuggers."""

    def __init__(
        self,
        config: cfg.Slam,
        on_estimate: Callable[[Estimate], None],
        on_event: Callable[[Event], None] = lambda event: None,
        factory: str = messages.SLAM,
        planar: bool = True,
    ) -> None:
        super().__init__(on_estimate, on_event)
        self._setup = messages.Setup(factory, config, planar)
        self._session: Session | None = None
        self._processed = 0

    def start(self) -> None:
        self._session = Session(self._setup)
        self._session.warm_up()
        self._on_event(Event("ready", logging.INFO, "pipeline ready"))

    def submit(self, frame: Frame) -> None:
        if self._session is None:
            raise RuntimeError("submit() before start()")
        estimate = self._session.process(frame)
        self._processed += 1
        self._on_estimate(estimate)
        self._session.catch_up()

    def request(self, command: messages.Command) -> Future[Any]:
        if self._session is None:
            raise RuntimeError("request() before start()")
        future: Future[Any] = Future()
        try:
            future.set_result(self._session.execute(command))
        except Exception as error:  # noqa: BLE001 - whatever it was, the future carries it to whoever asked
            future.set_exception(error)
        return future

    def status(self) -> Status:
        state: Literal["ready", "stopped"] = "ready" if self._session else "stopped"
        return Status(state, self._processed, self._processed)

    def stop(self, timeout: float = 5.0) -> None:
        self._session = None
