"""The node's services: `~/save`, `~/load`, `~/reset`, `~/pause`, `~/resume`, `~/optimize` and `~/learning`.

Each is answered within a second: by the node itself, or by the worker if that is quick, and else with the word that it
is accepted; what came of it is then in the log, and always in /diagnostics.  Waiting holds up no other callback.  What
makes no sense in the state the node is in is refused with the reason.
"""

from __future__ import annotations

import threading
import types
from collections import defaultdict
from collections.abc import Callable, Generator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from dsg_ros.errors import UserError
from dsg_ros.io.map_folder import check_map_folder
from dsg_ros.ros import saving
from dsg_ros.worker import messages
from dsg_ros.worker.backend import Busy

if TYPE_CHECKING:
    from dsg_ros.ros.node import HeroNode

PATIENCE = 0.7
"""Seconds after which a caller is told that the wish is accepted, if the worker is still busy."""

_QOS = QoSProfile(depth=1000)
"""Of requests that wait for the executor: by default the middleware keeps ten, and those it drops have no answer."""

NOT_CONFIGURED = "the node is not configured"

_NOT_READY = {
    "stopped": NOT_CONFIGURED,
    "warming up": "the worker is still starting; call again when the node says that it is ready",
    "failed": "the worker has failed, see the log; clean up the node and configure it again",
}


class Outcome:
    """What came of the calls of one service that the worker was asked for."""

    def __init__(self) -> None:
        self.asked = self.done = self.failed = 0
        self.latest = ""
        """What was said of the newest that ended."""

    def take(self, success: str, done: Future[Any]) -> None:
        """One has ended."""
        error = done.exception()
        self.done += error is None
        self.failed += error is not None
        refused = isinstance(error, UserError)  # of what was asked for, not of the node: nothing is broken
        self.latest = success if error is None else f"{'refused' if refused else 'failed'}: {error}"

    def figures(self) -> dict[str, Any]:
        """For diagnostics."""
        return {"asked": self.asked, "done": self.done, "failed": self.failed, "latest": self.latest}


class Services:
    """All of them, from the node's beginning to its end."""

    def __init__(self, node: HeroNode) -> None:
        self._node = node
        self._outcomes: defaultdict[str, Outcome] = defaultdict(Outcome)
        # An answer that waits would make every other callback of its group wait with it.
        group = ReentrantCallbackGroup()
        for handle in (self._save, self._load, self._reset, self._pause, self._resume, self._optimize):
            topic = f"~/{handle.__name__.strip('_')}"
            node.create_service(Trigger, topic, handle, qos_profile=_QOS, callback_group=group)
        node.create_service(SetBool, "~/learning", self._learning, qos_profile=_QOS, callback_group=group)

    def figures(self) -> dict[str, Any]:
        """For diagnostics, by the name of the service."""
        return {name: outcome.figures() for name, outcome in self._outcomes.items()}

    async def _save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        command = saving.command(self._node.config, counts=self._node.counts())
        if command is None:
            return refuse(response, "the parameters output_folder and map_folder are empty: nowhere to save to")
        try:
            if command.map_folder:
                check_map_folder(Path(command.map_folder))
        except UserError as error:
            return refuse(response, str(error))
        folders = saving.folders(command)
        return await self._ask(response, "save", command, f"saved to {folders}", f"saving to {folders}")

    async def _load(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._node.worker is not None and not self._node.config.localisation:
            why = "a map is being made, and loading would lose it: start the node with localisation:=true to load one"
            return refuse(response, why)
        folder = self._node.config.map_folder
        done, doing = f"loaded {folder}", f"loading {folder}"
        return await self._ask(response, "load", messages.Load(), done, doing, lambda _: self._node.forget())

    async def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if why := self._not_ready():
            return refuse(response, why)
        doing = "a new map begins as soon as the worker is free"
        return await self._answered(response, "reset", self._node.restart(), "a new map begins", doing)

    async def _optimize(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        done = "the whole graph was solved and refined"
        return await self._ask(response, "optimize", messages.Optimize(), done, "it is being solved", self._node.take)

    def _pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._switch(response, True, "scans that come are counted and not used; map->odom goes on as it is")

    def _resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        success = "scans are used again"
        if self._node.config.input.odometry == "none":
            success += "; nothing told of the way meanwhile: the robot is looked for, if that was for long"
        return self._switch(response, False, success)

    def _switch(self, response: Trigger.Response, paused: bool, success: str) -> Trigger.Response:
        node = self._node
        if node.worker is None:
            return refuse(response, NOT_CONFIGURED)
        if not node.active:
            return refuse(response, "the node is not active: it listens to nothing")
        sensors = node.sensors
        if sensors.paused if paused else not (sensors.paused or sensors.halted):
            return refuse(response, "it is paused already" if paused else "it is not paused")
        sensors.paused, sensors.halted = paused, sensors.halted and paused
        node.say("info", f"{'paused' if paused else 'resumed'}: {success}")
        response.success, response.message = True, success
        return response

    def _learning(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """As setting the parameter does, which then tells the state."""
        result = self._node.set_parameters([Parameter("learning.enabled", value=bool(request.data))])[0]
        response.success = result.successful
        response.message = f"learning is {'on' if request.data else 'off'}" if result.successful else result.reason
        return response

    async def _ask(
        self,
        response: Trigger.Response,
        name: str,
        command: messages.Command,
        success: str,
        doing: str,
        use: Callable[[Any], object] = lambda value: None,
    ) -> Trigger.Response:
        """The worker's answer to ``command``; ``use`` gets its value, on the thread that reads from the worker."""
        why, worker = self._not_ready(), self._node.worker
        if why or worker is None:
            return refuse(response, why)
        future = worker.request(command)
        if future.done() and isinstance(error := future.exception(), Busy):
            return refuse(response, str(error))
        future.add_done_callback(lambda done: None if done.exception() else use(done.result()))
        return await self._answered(response, name, future, success, doing)

    async def _answered(
        self, response: Trigger.Response, name: str, future: Future[Any], success: str, doing: str
    ) -> Trigger.Response:
        """As `answer`; whatever the caller was told, the outcome is kept, and said where it came later."""
        outcome = self._outcomes[name]
        outcome.asked += 1
        future.add_done_callback(partial(outcome.take, success))
        meanwhile = f"accepted: {doing}; the log and /diagnostics tell what comes of it"
        await answer(response, future, success, self._wake, meanwhile)
        if response.message == meanwhile:
            future.add_done_callback(partial(self._say, name, success))
        return response

    def _say(self, name: str, success: str, done: Future[Any]) -> None:
        if error := done.exception():
            self._node.say("error", f"~/{name} failed: {error}")
        else:
            self._node.say("info", f"~/{name}: {success}")

    def _not_ready(self) -> str:
        """Why the worker cannot be asked, or nothing."""
        worker = self._node.worker
        return NOT_CONFIGURED if worker is None else _NOT_READY.get(worker.status().state, "")

    def _wake(self) -> None:
        if self._node.executor is not None:
            self._node.executor.wake()


@types.coroutine
def _others() -> Generator[None, None, None]:
    """Let the executor run what else is ready."""
    yield


async def answer(
    response: Trigger.Response, future: Future[Any], success: str, wake: Callable[[], None], meanwhile: str
) -> Trigger.Response:
    """``response`` once ``future`` is done: ``success``, or its error; or ``meanwhile``, after `PATIENCE`.

    The executor of Jazzy asks a waiting coroutine again only when something else happens; ``wake`` makes it look when
    the future is done.  The service needs a reentrant callback group, or every other callback waits with it.
    """
    future.add_done_callback(lambda done: wake())
    enough = threading.Event()

    def tire() -> None:
        enough.set()
        wake()

    timer = threading.Timer(PATIENCE, tire)
    timer.daemon = True
    timer.start()
    while not (future.done() or enough.is_set()):
        await _others()
    timer.cancel()
    error = future.exception() if future.done() else None
    response.success = error is None
    response.message = str(error) if error else success if future.done() else meanwhile
    return response


def refuse(response: Trigger.Response, why: str) -> Trigger.Response:
    """``response`` that says no."""
    response.success, response.message = False, why
    return response
