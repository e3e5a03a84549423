"""A map made by the pipeline from a simulated drive and kept as a checkpoint, and how the drive goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dsg_ros import config
from dsg_ros.core.compilation import enable_cache
from dsg_ros.io.checkpoint import CheckpointWriter
from dsg_ros.io.logs import frames
from dsg_ros.io.records import Record
from dsg_ros.pipeline import Slam
from dsg_ros.simulation.robot import Robot
from dsg_ros.worker.checkpoints import compared


@dataclass(frozen=True)
class Scenario:
    """The first ``seconds`` of a drive of ``simulation`` make the map, with the pipeline's ``settings`` that differ
    from the defaults; then it goes on for ``live`` seconds.  Only one sweep in ``every`` is mapped beforehand.
    """

    simulation: config.Simulation
    seconds: float
    live: float
    settings: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    every: int = 1


@dataclass(frozen=True)
class Made:
    """What there is in the map, and what the robot senses next: records with the time [ns] at which they are known."""

    keyframes: int
    voxels: int
    live: tuple[tuple[int, Record], ...]


def make(scenario: Scenario, folder: Path) -> Made:
    """Map the first part of the drive, and keep it as the checkpoint of the map in ``folder``."""
    enable_cache()
    settings = config.replace(config.Slam(), dict(scenario.settings))
    robot, slam = Robot(scenario.simulation), Slam(settings)
    slam.warm_up(robot.planar)
    voxels = 0
    for frame in frames(_Beginning(scenario, robot), settings.input):
        voxels = slam.process(frame).counts["voxels"]
    about = slam.about()
    CheckpointWriter().write(folder, slam.state(), compared(settings), about)
    live = tuple(robot.sensed(scenario.seconds, scenario.seconds + scenario.live))
    return Made(about["keyframes"], voxels, live)


class _Beginning:
    """The first part of the drive as a `dsg_ros.io.records.Log`."""

    paired, tells_odometry, name = False, True, "simulation"

    def __init__(self, scenario: Scenario, robot: Robot) -> None:
        self._scenario, self._robot = scenario, robot
        self.counts = dict[str, int]()

    def __len__(self) -> int:
        return self._robot.sweeps

    def __iter__(self) -> Iterator[Record]:
        for _, record in self._slower().sensed(end=self._scenario.seconds):
            yield record

    def _slower(self) -> Robot:
        """The same drive, seen by a laser that turns ``every`` times slower."""
        simulation, every = self._scenario.simulation, self._scenario.every
        laser = "scanner" if self._robot.planar else "lidar"
        rate = getattr(simulation, laser).rate / every
        return Robot(config.replace(simulation, {f"{laser}.rate": rate}))
