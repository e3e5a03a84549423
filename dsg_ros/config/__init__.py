"""Every setting of the system, with its default, unit, range and meaning: the only place where a default value stands.

The command line (tyro), the ROS parameters with their descriptors, and config/hero.yaml all derive from these
dataclasses. A ROS parameter's name is the dotted path of the field: ``keyframes.distance``, ``qos.odom.depth``.
"""

from dsg_ros.config.finished_map import Grid, Relocalisation
from dsg_ros.config.front_end import Input, Keyframes, Odometry, Registration
from dsg_ros.config.graph import LoopClosure, Refinement, Retirement, Voxels, Window
from dsg_ros.config.learning import Learning
from dsg_ros.config.node import InputQos, Node, Qos
from dsg_ros.config.setting import ConfigError, Range, Setting, check, check_all, replace, settings
from dsg_ros.config.simulation import (
    SimulatedDrive,
    SimulatedLidar,
    SimulatedMounting,
    SimulatedReceiver,
    SimulatedScanner,
    SimulatedWheels,
    Simulation,
    SimulatorNode,
)
from dsg_ros.config.slam import Slam, values

__all__ = [
    "ConfigError",
    "Grid",
    "Input",
    "InputQos",
    "Keyframes",
    "Learning",
    "LoopClosure",
    "Node",
    "Odometry",
    "Qos",
    "Range",
    "Refinement",
    "Registration",
    "Relocalisation",
    "Retirement",
    "Setting",
    "SimulatedDrive",
    "SimulatedLidar",
    "SimulatedMounting",
    "SimulatedReceiver",
    "SimulatedScanner",
    "SimulatedWheels",
    "Simulation",
    "SimulatorNode",
    "Slam",
    "Voxels",
    "Window",
    "check",
    "check_all",
    "replace",
    "settings",
    "values",
]
