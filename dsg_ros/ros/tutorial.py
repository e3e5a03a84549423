"""`hero_simulator` in the world tutorial: the tutorial's six poses and voxels being learned, step by step, for rviz.

Publishes TF frames pose0 ... pose5 under the map frame, ~/path through them and ~/voxels.  The learning runs in a
process of its own; this node shows one outer step every ``step_period`` seconds, and begins again after the last.
"""

from __future__ import annotations

import subprocess
import threading
from multiprocessing.connection import Pipe

import numpy as np
from nav_msgs.msg import Path
from rclpy.node import Node
from rclpy.qos import QoSProfile
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from dsg_ros.child import interpreter
from dsg_ros.ros import cdr, convert, parameters
from dsg_ros.ros.output import MAP_QOS
from dsg_ros.ros.ticker import Ticker
from dsg_ros.worker.channel import Channel
from dsg_ros.worker.tutorial import TutorialStep

VOXEL_EDGE = 0.2
COLOUR = np.array([0.15, 0.35, 0.6, 1.0], np.float32)
TF_RATE = 20.0
OUTER_STEPS = 30
REST = 5.0
"""Seconds the result stays before learning begins again."""


class HeroSimulator(Node):
    """Shows the tutorial; parameters ``map_frame`` and ``step_period`` [s]."""

    failed = False

    def __init__(self) -> None:
        super().__init__("hero_simulator")
        self.declare_parameter("world", "tutorial")
        self._frame = str(self.declare_parameter("map_frame", "map").value)
        period = self.declare_parameter("step_period", 0.5, parameters.in_range("Seconds a step is shown", 0.01, 60.0))
        self._period = float(period.value or 0.5)
        self._tf = self.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
        self._path = self.create_publisher(Path, "~/path", MAP_QOS)
        self._voxels = self.create_publisher(MarkerArray, "~/voxels", MAP_QOS)
        self._step: TutorialStep | None = None
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._learning = threading.Thread(target=self._learn_again_and_again, name="learning", daemon=True)
        self._ticker = Ticker("tf", lambda: 1.0 / TF_RATE, self._broadcast, self._trouble)

    def start(self) -> None:
        """Begin to learn and to show it."""
        self.get_logger().info("learning the tutorial's odometry and observations; the first step takes a few seconds")
        self._learning.start()
        self._ticker.start()

    def stop(self) -> None:
        """End the learning process and the threads."""
        self._stop.set()
        if self._process is not None:
            self._process.kill()
        self._learning.join()
        self._ticker.stop()

    def _learn_again_and_again(self) -> None:
        while not self._stop.is_set():
            if not self._learn():
                return
            self._stop.wait(REST)

    def _learn(self) -> bool:
        """Show one run; False when its process failed or the node ends."""
        ours, theirs = Pipe()
        program = f"from dsg_ros.worker.tutorial import main; main({theirs.fileno()}, {OUTER_STEPS})"
        self._process = interpreter(program, theirs.fileno())
        theirs.close()
        channel = Channel(ours)
        try:
            while not self._stop.is_set():
                self._show(channel.receive())
                self._stop.wait(self._period)
        except (EOFError, OSError):
            code = self._process.wait()
            if code and not self._stop.is_set():
                self.get_logger().error(f"the learning process ended with code {code}; its output is above")
            return code == 0
        finally:
            self._process.kill()
            self._process.wait()
            ours.close()
        return False

    def _show(self, step: TutorialStep) -> None:
        self._step = step
        now = self.get_clock().now().nanoseconds
        stamps = np.full(len(step.poses), now)
        self._path.publish(cdr.path(now, self._frame, stamps, step.poses))
        cubes = cdr.Cubes(0, step.voxels, np.tile(COLOUR, (len(step.voxels), 1)))
        self._voxels.publish(cdr.cube_lists(now, self._frame, "voxels", VOXEL_EDGE, [cubes]))
        self.get_logger().info(f"step {step.number}: loss {step.loss:.6f}, pose5 at x = {step.poses[-1, 0]:.4f}")

    def _broadcast(self) -> None:
        step = self._step
        if step is not None:
            now = self.get_clock().now().nanoseconds
            transforms = [convert.transform(self._frame, f"pose{i}", now, pose) for i, pose in enumerate(step.poses)]
            self._tf.publish(TFMessage(transforms=transforms))

    def _trouble(self, error: Exception) -> None:
        self.get_logger().error(f"cannot broadcast: {error}")
