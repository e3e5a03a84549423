"""`hero_node`: odometry and points in; map->odom, path, voxels and learned parameters out.

A lifecycle node that by default configures itself and, once the worker has compiled everything, activates itself; this
file is its life.  What comes in is `sensors`, what goes out `map_outputs`, `transforms` and `reporting`, what can be
asked of it `services`.

This process imports no JAX.  Threads: the executor (callbacks convert and enqueue), ``tf`` (map->odom at a steady
rate), ``map`` (path, voxels and grid), ``report`` (diagnostics and status.json), and the two of the worker's
connection.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, wait
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from dsg_ros import config as cfg
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame
from dsg_ros.ros import beginning, checkpoints, frame_names, frames, parameters, qos, saving, services, status, web_view
from dsg_ros.ros.initial_pose import InitialPose
from dsg_ros.ros.latencies import Answers
from dsg_ros.ros.manager_bond import Bond
from dsg_ros.ros.map_outputs import MapOutputs
from dsg_ros.ros.reference_input import ReferenceInput
from dsg_ros.ros.reporting import Reporter
from dsg_ros.ros.sensors import Sensors
from dsg_ros.ros.ticker import Ticker
from dsg_ros.ros.transforms import Transforms
from dsg_ros.ros.transitions import guard, primary_state, told
from dsg_ros.throttle import Traces
from dsg_ros.view.web import NoView, WebView
from dsg_ros.worker import messages
from dsg_ros.worker.backend import Event
from dsg_ros.worker.process import WorkerProcess
from dsg_ros.worker.standby import Standby


class HeroNode(LifecycleNode):
    """The node; `ConfigError` from the constructor when a parameter is unknown or refused."""

    pipeline = messages.SLAM
    """What the worker runs, as module:callable."""

    def __init__(self, name: str = "hero", standby: Standby | None = None) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True)
        self._standby = standby
        self._qos_given = qos.take_overrides(self)
        self.config = parameters.declare(self, cfg.Node())
        self.state = "stopped"
        self._doing, self._warming_up_since = "", 0.0
        self._estimate: Estimate | None = None
        self._answers = Answers()
        self._view: WebView | NoView = NoView()
        self._trouble = Traces(self.say)
        self.worker: WorkerProcess | None = None
        """From configure to cleanup, as are ``sensors`` and what goes out."""
        self.frames = frames.listen(self, self.say)
        self.tf = Transforms(
            self, lambda: self.config, lambda: self.sensors, self.frames.others, self._now, self._trouble, self.say,
        )  # fmt: skip
        self._reporter = Reporter(self, lambda: self.config, lambda: self._view, self._now, self.say)
        self._ready = self.create_guard_condition(self._activate_when_ready)
        self.add_on_set_parameters_callback(self._change)
        self._offered = services.Services(self)
        guard(self)
        self._bond = Bond(self, self.config.bond_heartbeat_period)

    @property
    def active(self) -> bool:
        """Whether the node listens and publishes."""
        return primary_state(self) == "active"

    @told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and advertise what will be published."""
        try:
            pipeline = beginning.pipeline(self.config, self.pipeline)
            resume = beginning.resumed(self.config, self.say)
            self._view = web_view.started(self.config, self.say)
        except UserError as error:
            self.get_logger().error(f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        self._warm_up()
        worker = WorkerProcess(
            self.config, self.take, self._event, self.config.queue, pipeline, self.config.sensors != "points", resume,
            self._standby,
        )  # fmt: skip

        def submit(frame: Frame) -> None:
            self._answers.ask(frame.stamp)
            worker.submit(self._reference.attached(frame))

        self._reference = ReferenceInput(lambda: self.config, self.frames, lambda: self.sensors.base_frame, self.say)
        self.sensors = Sensors(
            lambda: self.config, self.frames, submit, self.tf.odometry, self._jumped, self.say,
        )  # fmt: skip
        self._initial_pose = InitialPose(frame_names.map_frame(self.config), worker.request, self.say)
        self._outputs = MapOutputs(self, lambda: self.config, self._now, worker.request, self._trouble, self.say)
        self._checkpoints = checkpoints.Checkpoints(lambda: self.config, worker.request, self.say)
        self._reports = Ticker("report", lambda: 1.0, self.report, self._trouble)
        self.worker = worker
        worker.start()
        self._outputs.start()
        self._reports.start()
        self.get_logger().info("starting the worker; data is accepted when it has compiled everything")
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen and publish."""
        super().on_activate(state)
        self._outputs.again()  # what was published while inactive reached nobody
        self.tf.start()
        self.sensors.subscribe(self)
        if self.config.localisation:
            self._initial_pose.subscribe(self)
        self._reference.subscribe(self)
        self._bond.open()
        qos.complain(self, self._qos_given, self.say)
        topics = ", ".join(source.topic for source in self.sensors.inputs.values())
        self.get_logger().info(f"active: listening to {topics}")
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Fall silent; the map is kept."""
        self._bond.close()
        self.sensors.unsubscribe(self)
        self._initial_pose.unsubscribe(self)
        self._reference.unsubscribe(self)
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
        """Have the state kept if it is time, say what is missing, publish /diagnostics and write status.json."""
        if self.state == "running":
            self._checkpoints.tick()  # first: nothing that goes wrong below may keep it from being done
        if self.state in ("ready", "running"):
            self.sensors.complain()
        self._reporter.tell(self.figures())

    def figures(self) -> status.Figures:
        """Everything the node knows about how it is doing."""
        assert self.worker is not None
        state = self.state
        if state in ("ready", "running"):
            state = "clock jumped" if self.sensors.halted else "paused" if self.sensors.paused else state
        figures = status.figures(
            state, self.sensors, self._answers, self.worker.status(), self.tf.map_to_odom, self._estimate
        )
        accounts = [*self.frames.accounts, *self._outputs.accounts, self._initial_pose.account]
        accounts += [self._reference.account] if self._reference.wanted else []
        figures["other_inputs"] = {account.topic: account.figures() for account in accounts}
        figures["services"] = self._offered.figures()
        if self._checkpoints.on:
            figures["checkpoint"] = self._checkpoints.figures()
        if self.state == "warming up":
            since = round(time.monotonic() - self._warming_up_since)
            figures["worker"] |= {"doing": self._doing, "warming_up_for_s": since}
        if self.config.view != "none":
            figures["view"] = self._view.url
        if self.config.localisation and self._estimate is None:
            figures["localisation"] = "localising"
        return figures

    def counts(self) -> dict[str, int]:
        """What came in, and by its cause what was dropped or refused; nothing of a node that is not configured."""
        return status.counts(self.sensors, self.worker.status()) if self.worker is not None else {}

    def abandon_saving(self) -> None:
        """Have a save in progress fail: the worker is ended without its answer."""
        if self.worker is not None:
            self.worker.stop(timeout=0.0)

    def take(self, estimate: Estimate) -> None:
        """Publish an estimate; called on the thread that reads from the worker."""
        if self.state == "ready":
            self.state = "running"
        self._estimate = estimate
        self.tf.take(estimate)
        self._answers.told(estimate.stamp)
        self._outputs.take(estimate)
        self._view.take(estimate)

    def restart(self) -> Future[Any]:
        """Start a new map; outputs are cleared when the worker has done so, after the last estimate of the old one."""
        assert self.worker is not None
        self._reference.clear()
        self.sensors.halted = False
        future = self.worker.request(messages.Reset(self.config.map_folder if self._checkpoints.on else ""))
        future.add_done_callback(lambda done: self.forget())
        return future

    def forget(self) -> None:
        """The map is gone: nothing of it is shown any more."""
        self._estimate = None
        self.tf.forget()
        self._outputs.clear()
        self._view.clear()

    def _warm_up(self) -> None:
        self.state, self._warming_up_since = "warming up", time.monotonic()

    def _event(self, event: Event) -> None:
        severe = event.level >= logging.ERROR
        self.say("error" if severe else "warning" if event.level >= logging.WARNING else "info", event.text)
        self._doing = event.text
        if event.kind == "ready":
            if self.state == "warming up":
                self.state = "ready"
            self._ready.trigger()
        elif event.kind == "died":
            self._warm_up()
            self.forget()
        elif event.kind == "failed":
            self.state = "failed"

    def _activate_when_ready(self) -> None:
        if self.config.autostart and primary_state(self) == "inactive":
            self.trigger_activate()

    def _jumped(self, reset: bool) -> None:
        """The clock jumped back: rviz has forgotten the map, so it gets a new one or the same again."""
        self._reference.clear()
        if reset:
            self.restart()
        else:
            self._outputs.again()

    def _change(self, changed: list[Parameter]) -> SetParametersResult:
        before = self.config.learning.enabled
        self.config, result = parameters.change(self.config, changed)
        if self.config.learning.enabled is not before and self.worker is not None:
            self.worker.request(messages.Learning(self.config.learning.enabled))
        return result

    def _end(self) -> None:
        if self.worker is None:
            return
        self.sensors.flush()
        if self._checkpoints.on and self.state == "running":
            wait([self._checkpoints.ask()], checkpoints.LAST_WAIT)
        command = saving.command(self.config, refine=True, counts=self.counts())
        if command and self.sensors.heard and self.worker.status().submitted:
            self.state = "saving"
            self.state = saving.last(command, self.worker.request, self.say)
            self._reports.stop()  # the last word is the one below
            try:
                self.report()
            except Exception as error:  # noqa: BLE001 - what follows has to be torn down all the same
                self._trouble(error)
        self._tear_down()

    def _tear_down(self) -> None:
        """Nothing runs, listens or is remembered any more; from whatever state."""
        self._bond.close()
        self.tf.stop()
        if self.worker is not None:
            self._reports.stop()
            self._outputs.stop()
            self.sensors.unsubscribe(self)
            self._initial_pose.unsubscribe(self)
            self._reference.unsubscribe(self)
            self.worker.stop()
            self.worker = None
            self._outputs.destroy()
        self._view.stop()
        self._view = NoView()
        # The worker is gone: no late estimate can bring the old map's transform back.
        self.tf.forget()
        self._reporter.forget()
        self._estimate = None

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds
