"""`hero_simulator`, which shows one of two worlds by its parameter ``world``: tutorial or building."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from dsg_ros.config import ConfigError
from dsg_ros.ros.running import Spinner
from dsg_ros.ros.signals import on_signals
from dsg_ros.ros.tutorial import HeroSimulator

if TYPE_CHECKING:
    from dsg_ros.ros.robot import RobotSimulator as BuildingSimulator

WORLDS = ("tutorial", "building")


def run(args: Sequence[str] | None) -> int:
    """Run the simulator until a signal, or the end of a drive; 0, 1 when a callback failed, 2 when an argument or
    parameter is refused.
    """
    ended = threading.Event()
    on_signals(lambda number: ended.set())
    node: HeroSimulator | BuildingSimulator | None = None
    try:
        try:
            arguments = None if args is None else ["hero_simulator", *args]
            rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
            if _world() == "tutorial":
                node = HeroSimulator()
            else:
                from dsg_ros.ros.robot import RobotSimulator  # here: it imports JAX

                node = RobotSimulator(ended)
        except (ConfigError, InvalidParameterTypeException, InvalidParameterValueException, RuntimeError) as error:
            print(f"hero_simulator: {error}", file=sys.stderr)
            return 2
        spinner = Spinner(node)
        node.start()
        spinner.start()
        while not ended.is_set() and not spinner.ended.is_set():
            ended.wait(0.2)
        spinner.stop()
        node.stop()
        return 1 if spinner.failed or node.failed else 0
    finally:
        if node:
            node.destroy_node()
        try_shutdown()


def _world() -> str:
    """What the parameter ``world`` was given as; the nodes of the worlds have different parameters beside it."""
    probe = rclpy.create_node("hero_simulator", enable_rosout=False, start_parameter_services=False)
    try:
        world = str(probe.declare_parameter("world", WORLDS[0]).value)
    finally:
        probe.destroy_node()
    if world not in WORLDS:
        raise ConfigError(f"world: {world!r} is not one of {', '.join(WORLDS)}")
    return world
