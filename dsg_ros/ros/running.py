"""From the process's arguments to a spinning node and, when asked to end, to a saved map and exit code 0."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from dsg_ros.config import ConfigError
from dsg_ros.memory import frozen
from dsg_ros.ros.node import HeroNode
from dsg_ros.ros.signals import on_signals
from dsg_ros.ros.transitions import primary_state

SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread that computes lets another one have the interpreter (Python's default: 5 ms)."""

IMPATIENCE = 2.0
"""A second Ctrl-C this many seconds after the first gives up saving; one that follows sooner is the same one, which a
terminal and a launcher may both deliver."""


class Spinner:
    """An executor in a thread of its own, so that the main thread can wait for signals.

    rclpy's own handlers would shut the context down at once, and nothing could be published or saved any more.  Of
    the two executors of Jazzy this is the single-threaded one: `rclpy.experimental.EventsExecutor` (7.1) keeps the
    interpreter's lock when it spins beside other threads, and the process freezes.
    """

    def __init__(self, node: Node) -> None:
        self.ended = threading.Event()
        self.failed = False
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, name="executor", daemon=True)

    def start(self) -> None:
        """Begin to run callbacks."""
        self._thread.start()

    def stop(self) -> None:
        """Run no further callback; returns when the one in progress is done."""
        self._executor.shutdown()
        self._thread.join()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return
        except Exception:  # noqa: BLE001 - a callback failed: end in order, and say why
            traceback.print_exc()
            self.failed = True
        finally:
            self.ended.set()


def run(args: Sequence[str] | None, make: Callable[[], HeroNode]) -> int:
    """Run the node that ``make`` makes; 0 after a signal, 1 when a callback failed, 2 when an argument or parameter is
    refused.
    """
    asked: float | None = None
    spinner: Spinner | None = None
    node: HeroNode | None = None

    def end(number: int) -> None:
        nonlocal asked
        now = time.monotonic()
        if asked is None:
            asked = now
            if spinner:
                spinner.ended.set()
        elif number == signal.SIGINT and now - asked > IMPATIENCE and node:
            node.abandon_saving()

    sys.setswitchinterval(SWITCH_INTERVAL)
    on_signals(end)
    try:
        try:
            arguments = None if args is None else ["hero_node", *args]
            rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
            node = make()
        except (ConfigError, RuntimeError) as error:
            print(f"hero_node: {error}", file=sys.stderr)
            return 2
        # A full collection holds the interpreter's lock for 40 ms, nearly all of it for modules that will never go.
        with frozen():
            spinner = Spinner(node)
            if node.config.autostart:
                node.trigger_configure()
            spinner.start()
            while asked is None and not spinner.ended.wait(3600.0):
                continue
            spinner.stop()
        if primary_state(node) != "finalized":  # by somebody's word already
            node.trigger_shutdown()
        return 1 if spinner.failed else 0
    finally:
        if node:
            node.destroy_node()
        try_shutdown()
