"""How the node is doing, told: to /diagnostics, to the web view and, where files are kept, to status.json."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from dsg_ros import config as cfg
from dsg_ros.ros import status, web_view
from dsg_ros.ros.qos import OVERRIDING
from dsg_ros.throttle import Say, Throttle
from dsg_ros.view.web import NoView, WebView


class Reporter:
    """Tells figures, beside those it told before; ``now`` is the ROS clock [ns], ``say`` logs."""

    def __init__(
        self,
        node: Node,
        config: Callable[[], cfg.Node],
        view: Callable[[], WebView | NoView],
        now: Callable[[], int],
        say: Say,
    ) -> None:
        self._throttled = Throttle(say, period=60.0)
        self._config, self._view, self._now = config, view, now
        self._name = node.get_fully_qualified_name()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10, qos_overriding_options=OVERRIDING)
        self._before: status.Figures | None = None
        self._began = self._told = time.monotonic()

    def tell(self, figures: status.Figures) -> None:
        """All of them, everywhere, with ``status_file``: why status.json could not be written, where it is wanted."""
        now = time.monotonic()
        since, period = now - self._began, max(now - self._told, 1e-3)
        self._view().tell(web_view.health(figures, self._before, since, period))
        self._told = now
        if folder := self._config().output_folder:
            figures["status_file"] = {"error": ""}
            figures["status_file"]["error"] = self._written(figures, Path(folder))
        self._publisher.publish(status.diagnostics(figures, self._before, self._name, self._now()))
        self._before = figures

    def _written(self, figures: status.Figures, folder: Path) -> str:
        """Nothing, or why they were not: a full disk or a read-only folder must stop nothing else."""
        try:
            status.write(figures, folder)
        except OSError as error:
            self._throttled("error", "status", f"status.json is not written, everything else goes on: {error}")
            return str(error)
        return ""

    def forget(self) -> None:
        """What comes next is another worker's."""
        self._before = None
