"""The pipeline's settings, by group."""

from __future__ import annotations

from dataclasses import dataclass

from dsg_ros.config.finished_map import Grid, Relocalisation
from dsg_ros.config.front_end import Input, Keyframes, Odometry, Registration
from dsg_ros.config.graph import LoopClosure, Refinement, Retirement, Voxels, Window
from dsg_ros.config.learning import Learning
from dsg_ros.config.setting import settings


@dataclass(frozen=True)
class Slam:
    """The pipeline: everything that does not need ROS."""

    input: Input = Input()
    odometry: Odometry = Odometry()
    keyframes: Keyframes = Keyframes()
    registration: Registration = Registration()
    loops: LoopClosure = LoopClosure()
    voxels: Voxels = Voxels()
    retirement: Retirement = Retirement()
    window: Window = Window()
    refinement: Refinement = Refinement()
    learning: Learning = Learning()
    relocalisation: Relocalisation = Relocalisation()
    grid: Grid = Grid()


def values(config: Slam) -> dict[str, bool | int | float | str]:
    """The settings of the pipeline, by name."""
    known = {setting.name for setting in settings(Slam())}
    return {setting.name: setting.value for setting in settings(config) if setting.name in known}
