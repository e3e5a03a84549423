"""The map as it is published: the topics of `OUTPUTS`, and the thread for those that take their time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rclpy.lifecycle import LifecycleNode

from dsg_ros import config as cfg
from dsg_ros.interface import Estimate
from dsg_ros.ros.frame_names import map_frame
from dsg_ros.ros.inputs import Account
from dsg_ros.ros.output import World
from dsg_ros.ros.outputs import OUTPUTS
from dsg_ros.ros.ticker import Ticker
from dsg_ros.throttle import Say
from dsg_ros.voxel_store import VoxelStore
from dsg_ros.worker import messages


class MapOutputs:
    """All outputs of a node, from configure to cleanup.

    ``request`` asks the worker, ``on_error`` is told of what failed to be published, ``say`` logs.
    """

    def __init__(
        self,
        node: LifecycleNode,
        config: Callable[[], cfg.Node],
        now: Callable[[], int],
        request: Callable[[messages.Command], Future[Any]],
        on_error: Callable[[Exception], None],
        say: Say,
    ) -> None:
        self._world = World(
            map_frame(config()),
            VoxelStore(config().chunk),
            lambda: config().voxel_colour,
            now,
            lambda since: request(messages.Grid(since)),
            lambda: config().grid_rate,
            lambda parameter, change: request(messages.WhatIf(parameter, change)),
            say,
        )
        self._outputs = [output(node, self._world) for output in OUTPUTS]
        self._on_error = on_error
        self._ticker = Ticker("map", lambda: 1.0 / config().map_rate, self._publish, on_error)

    def start(self) -> None:
        """Begin to publish."""
        self._ticker.start()

    def stop(self) -> None:
        """Publish nothing more but what `take` is given."""
        self._ticker.stop()

    def destroy(self) -> None:
        """Take the topics back, after `stop`."""
        for output in self._outputs:
            output.destroy()

    @property
    def accounts(self) -> list[Account]:
        """Of the messages that are answered."""
        return [output.account for output in self._outputs if output.account is not None]

    def take(self, estimate: Estimate) -> None:
        """Note what an estimate brought, and publish what is small of it; quick, and raises nothing."""
        try:
            if estimate.voxels is not None:
                self._world.voxels.update(estimate.voxels)
            for output in self._outputs:
                output.take(estimate)
        except Exception as error:  # noqa: BLE001 - the next estimate may fare better; the thread that reads must live
            self._on_error(error)

    def again(self) -> None:
        """Publish everything once more."""
        for output in self._outputs:
            output.again()

    def clear(self) -> None:
        """The map was forgotten."""
        self._world.voxels.clear()
        for output in self._outputs:
            output.clear()

    def _publish(self) -> None:
        for output in self._outputs:
            output.publish()
