"""`hero_node`: odometry and points in; map->odom, path, voxels and learned parameters out.

A lifecycle node that by default configures itself and, once the worker has compiled everything, activates itself.  This
process imports no JAX.  Threads: the executor (callbacks convert and enqueue), ``tf`` (map->odom at a steady rate),
``map`` (path, voxels and grid), ``report`` (diagnostics and status.json), and the two of the worker's connection.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from dsg_ros import config as cfg
from dsg_ros import worker_session as session
from dsg_ros.effect import Effect
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, GridUpdate
from dsg_ros.io.learned import read_learned
from dsg_ros.io.map_folder import read_map
from dsg_ros.io.records import MalformedMessage
from dsg_ros.ros import convert, frames, initial_pose, parameters, services, status
from dsg_ros.ros.inputs import Throttle
from dsg_ros.ros.output import Output, World
from dsg_ros.ros.outputs import OUTPUTS
from dsg_ros.ros.sensors import Sensors
from dsg_ros.ros.tf_broadcaster import Correction, TfBroadcaster
from dsg_ros.ros.ticker import Ticker
from dsg_ros.ros.voxel_store import VoxelStore
from dsg_ros.worker import Event, WorkerProcess

Transition = Callable[["HeroNode", LifecycleState], TransitionCallbackReturn]


def told(transition: Transition) -> Transition:
    """A transition whose exceptions are logged: rclpy turns them into an ERROR result without a word."""

    @functools.wraps(transition)
    def run(self: HeroNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception:  # noqa: BLE001 - whatever it was, the operator must learn of it
            self.get_logger().error(f"{transition.__name__} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return run


def _folders(command: session.Save) -> str:
    return " and ".join(filter(None, (command.folder, command.map_folder)))


class HeroNode(LifecycleNode):
    """The node; `ConfigError` from the constructor when a parameter is unknown or refused."""

    pipeline = session.SLAM
    """What the worker runs, as module:callable."""

    def __init__(self, name: str = "hero") -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True)
        self.config = parameters.declare(self, cfg.Node())
        self.state = "stopped"
        self._estimate: Estimate | None = None
        self._before: status.Figures | None = None
        self._outputs: list[Output] = []
        self._tickers: list[Ticker] = []
        self._worker: WorkerProcess | None = None
        self._initial_pose: Subscription | None = None
        self._tf_publisher = self.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._throttled = Throttle(self.say)
        self.tf = TfBroadcaster(
            self._broadcast,
            self._now,
            rate=lambda: self.config.tf_rate,
            tolerance=lambda: self.config.transform_tolerance,
            on_error=self._tf_trouble,
        )
        self.frames = frames.listen(self)
        self._patient = ReentrantCallbackGroup()
        self._ready = self.create_guard_condition(self._activate_when_ready)
        self.add_on_set_parameters_callback(self._change)
        for topic, handle in (("save", self._save), ("load", self._load), ("reset", self._reset)):
            self.create_service(Trigger, f"~/{topic}", handle, callback_group=self._patient)

    @told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and advertise what will be published."""
        try:
            pipeline = self._pipeline()
        except UserError as error:
            self.get_logger().error(f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        self.state = "warming up"
        self.world = World(
            self.config.map_frame,
            VoxelStore(self.config.chunk),
            self._now,
            self._ask_grid,
            lambda: self.config.grid_rate,
            self._ask_what_if,
        )
        self._outputs = [output(self, self.world) for output in OUTPUTS]
        worker = WorkerProcess(
            self.config, self._take, self._event, self.config.queue, pipeline, self.config.sensors != "points"
        )
        self.sensors = Sensors(lambda: self.config, self.frames, worker.submit, self._odometry, self._jumped, self.say)
        self._worker = worker
        worker.start()
        self._tickers = [
            Ticker("map", lambda: 1.0 / self.config.map_rate, self._publish_map, self._trouble),
            Ticker("report", lambda: 1.0, self.report, self._trouble),
        ]
        for ticker in self._tickers:
            ticker.start()
        self.get_logger().info("starting the worker; data is accepted when it has compiled everything")
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen and publish."""
        super().on_activate(state)
        self._publish_again()  # what was published while inactive reached nobody
        self.tf.start()
        self.sensors.subscribe(self)
        if self.config.localisation:
            self._initial_pose = self.create_subscription(
                PoseWithCovarianceStamped, "initialpose", self._take_initial_pose, 10
            )
        topics = ", ".join(source.topic for source in self.sensors.inputs.values())
        self.get_logger().info(f"active: listening to {topics}")
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Fall silent; the map is kept."""
        self.sensors.unsubscribe(self)
        self._forget_initial_pose()
        self.tf.stop()
        return super().on_deactivate(state)

    @told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Save where an output folder is set, then forget everything."""
        self._end()
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As deactivate and cleanup, from whatever state."""
        if state.label == "active":
            self.on_deactivate(state)
        self._end()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed: leave nothing running, be unconfigured again."""
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    def say(self, level: str, text: str) -> None:
        """Log ``text`` at the level of this name."""
        log = self.get_logger()
        # One call a level: rclpy remembers the severity of each place that logs, and refuses another one from there.
        if level == "error":
            log.error(text)
        elif level == "warning":
            log.warning(text)
        else:
            log.info(text)

    def report(self) -> None:
        """Publish /diagnostics, write status.json, and say what is missing."""
        figures = self.figures()
        name = self.get_fully_qualified_name()
        self._diagnostics.publish(status.diagnostics(figures, self._before, name, self._now()))
        self._before = figures
        if self.config.output_folder:
            status.write(figures, Path(self.config.output_folder))
        if self.state == "ready":
            self.sensors.complain()

    def figures(self) -> status.Figures:
        """Everything the node knows about how it is doing."""
        assert self._worker is not None
        figures = status.figures(self.state, self.sensors, self._worker.status(), self.tf, self._estimate)
        if self.config.localisation and self._estimate is None:
            figures["localisation"] = "localising"
        return figures

    def abandon_saving(self) -> None:
        """Have a save in progress fail: the worker is ended without its answer."""
        if self._worker is not None:
            self._worker.stop(timeout=0.0)

    def _take(self, estimate: Estimate) -> None:
        """Publish an estimate; called on the thread that reads from the worker."""
        if self.state == "ready":
            self.state = "running"
        self._estimate = estimate
        if estimate.known:
            self.tf.set(Correction(self.config.map_frame, self.sensors.odom_frame, estimate.map_from_odom))
        try:
            if estimate.voxels is not None:
                self.world.voxels.update(estimate.voxels)
            for output in self._outputs:
                output.take(estimate)
        except Exception as error:  # noqa: BLE001 - the next estimate may fare better; this thread must live
            self._trouble(error)

    def _event(self, event: Event) -> None:
        severe = event.level >= logging.ERROR
        self.say("error" if severe else "warning" if event.level >= logging.WARNING else "info", event.text)
        if event.kind == "ready":
            if self.state == "warming up":
                self.state = "ready"
            self._ready.trigger()
        elif event.kind == "died":
            self.state = "warming up"
            self._forget()
        elif event.kind == "failed":
            self.state = "failed"

    def _activate_when_ready(self) -> None:
        if self.config.autostart and self._state_machine.current_state[1] == "inactive":
            self.trigger_activate()

    def _odometry(self, stamp: int, pose: NDArray[np.float64]) -> None:
        if self.config.publish_odom_tf:
            transform = convert.transform(self.sensors.odom_frame, self.sensors.base_frame, stamp, pose)
            self._tf_publisher.publish(TFMessage(transforms=[transform]))

    def _broadcast(self, correction: Correction, stamp: int) -> None:
        transform = convert.transform(correction.parent, correction.child, stamp, correction.pose)
        self._tf_publisher.publish(TFMessage(transforms=[transform]))

    def _publish_map(self) -> None:
        for output in self._outputs:
            output.publish()

    def _publish_again(self) -> None:
        for output in self._outputs:
            output.again()

    def _jumped(self, reset: bool) -> None:
        """The clock jumped back: rviz has forgotten the map, so it gets a new one or the same again."""
        if reset:
            self._restart()
        else:
            self._publish_again()

    def _ask_grid(self, since: int) -> Future[GridUpdate]:
        assert self._worker is not None
        return self._worker.request(session.Grid(since))

    def _ask_what_if(self, parameter: str, change: str) -> Future[Effect]:
        assert self._worker is not None
        return self._worker.request(session.WhatIf(parameter, change))

    def _restart(self) -> Future[Any]:
        """Start a new map; outputs are cleared when the worker has done so, after the last estimate of the old one."""
        assert self._worker is not None
        future = self._worker.request(session.Reset())
        future.add_done_callback(lambda done: self._forget())
        return future

    def _forget(self) -> None:
        self._estimate = None
        self.tf.set(None)
        self.world.voxels.clear()
        for output in self._outputs:
            output.clear()

    async def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._worker is None:
            return services.refuse(response, "the node is not configured")
        return await services.answer(response, self._restart(), "a new map begins", self._wake)

    async def _save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        command = self._saving()
        if command is None or self._worker is None:
            folders = "the parameters output_folder and map_folder are empty: nowhere to save to"
            return services.refuse(response, "the node is not configured" if command else folders)
        future = self._worker.request(command)
        return await services.answer(response, future, f"saved to {_folders(command)}", self._wake)

    async def _load(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._worker is None:
            return services.refuse(response, "the node is not configured")
        if not self.config.localisation:
            why = "a map is being made, and loading would lose it: start the node with localisation:=true to load one"
            return services.refuse(response, why)
        future = self._worker.request(session.Load())
        future.add_done_callback(lambda done: None if done.exception() else self._forget())
        return await services.answer(response, future, f"loaded {self.config.map_folder}", self._wake)

    def _saving(self, refine: bool = False) -> session.Save | None:
        """What there is to be saved, None if nothing; a map that is only localised in is not written again."""
        map_folder = "" if self.config.localisation else self.config.map_folder
        folder = self.config.output_folder
        return session.Save(folder, refine, map_folder) if folder or map_folder else None

    def _pipeline(self) -> str:
        """What the worker is to run; `UserError` where it is to localise and the map is not whole, or to start from
        learned parameters that cannot be read."""
        if not self.config.localisation:
            if self.config.learning.start:
                read_learned(Path(self.config.learning.start))
            return self.pipeline
        if not self.config.map_folder:
            raise UserError("localisation is on and the parameter map_folder is empty: no map to localise in")
        read_map(Path(self.config.map_folder))
        return session.LOCALISATION

    def _take_initial_pose(self, message: PoseWithCovarianceStamped) -> None:
        """Somebody, most often in rviz, says where the robot is."""
        try:
            hint = initial_pose.hint(message, self.config.map_frame)
        except MalformedMessage as error:
            self.say("warning", f"initialpose: refused: {error}")
            return
        if self._worker is not None:
            self._worker.request(hint)
            self.say("info", f"initialpose: looking for the robot within {hint.radius:.1f} m of it")

    def _forget_initial_pose(self) -> None:
        if self._initial_pose is not None:
            self.destroy_subscription(self._initial_pose)
            self._initial_pose = None

    def _change(self, changed: list[Parameter]) -> SetParametersResult:
        self.config, result = parameters.change(self.config, changed)
        return result

    def _end(self) -> None:
        if self._worker is None:
            return
        self.sensors.flush()
        command = self._saving(refine=True)
        if command and self.sensors.inputs["odom"].received and self._worker.status().submitted:
            self.state = "saving"
            self.get_logger().info(f"final refinement, then saving to {_folders(command)}")
            try:
                self._worker.request(command).result()
                self.state = "saved"
                self.get_logger().info(f"saved to {_folders(command)}")
            except Exception as error:  # noqa: BLE001 - a failed save must not keep the process from ending in order
                self.state = "save failed"
                self.get_logger().error(f"not saved: {error}")
            self.report()
        self._tear_down()

    def _tear_down(self) -> None:
        """Nothing runs, listens or is remembered any more; from whatever state."""
        self.tf.stop()
        for ticker in self._tickers:
            ticker.stop()
        self._tickers = []
        if self._worker is not None:
            self.sensors.unsubscribe(self)
            self._forget_initial_pose()
            self._worker.stop()
            self._worker = None
        # The worker is gone: no late estimate can bring the old map's transform back.
        self.tf.set(None)
        self._estimate = self._before = None
        for output in self._outputs:
            output.destroy()
        self._outputs = []

    def _trouble(self, error: Exception) -> None:
        self.get_logger().error("".join(traceback.format_exception(error)))

    def _tf_trouble(self, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        self._throttled("error", "tf", f"cannot broadcast map->odom:\n{trace}")

    def _wake(self) -> None:
        if self.executor is not None:
            self.executor.wake()

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds
