"""`hero_simulator`, which shows one of several worlds by its parameter ``world``: the tutorial, or a robot in one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from dsg_ros.config import ConfigError, Simulation, settings
from dsg_ros.errors import UserError
from dsg_ros.ros.running import Spinner
from dsg_ros.ros.signals import on_signals
from dsg_ros.ros.tutorial import HeroSimulator

if TYPE_CHECKING:
    from dsg_ros.ros.robot import RobotSimulator

TUTORIAL = "tutorial"
WORLDS = (TUTORIAL, *next(setting.choices for setting in settings(Simulation()) if setting.name == "world"))


def run(args: Sequence[str] | None) -> int:
    """Run the simulator until a signal, or the end of a drive; 0, 1 when a callback failed, 2 when an argument or
    parameter is refused.
    """
    ended = threading.Event()
    on_signals(lambda number: ended.set())
    node: HeroSimulator | RobotSimulator | None = None
    try:
        try:
            arguments = None if args is None else ["hero_simulator", *args]
            rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
            if _world() == TUTORIAL:
                node = HeroSimulator()
            else:
                from dsg_ros.ros.robot import RobotSimulator  # here: it imports JAX

                node = RobotSimulator(ended)
        except (
            ConfigError,
            UserError,
            InvalidParameterTypeException,
            InvalidParameterValueException,
            RuntimeError,
        ) as error:
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
