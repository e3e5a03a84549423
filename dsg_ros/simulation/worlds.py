"""The worlds by name: what there is to see, and the way through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsg_ros import config
from dsg_ros.errors import UserError
from dsg_ros.simulation import building, corridor, office
from dsg_ros.simulation.route import Route
from dsg_ros.simulation.scene import Scene

USUAL_LAPS = 1.25
"""Driven where no length is told: the last quarter shows places that were seen before."""


@dataclass(frozen=True)
class World:
    """A ``scene``, the ``way`` through it, and the ``sensor`` that most would map it with."""

    scene: Scene
    way: Route
    sensor: Literal["lidar", "scanner"]

    def metres(self, wanted: float) -> float:
        """Length of a drive of ``wanted`` metres, 0 for the usual; `UserError` where an open way is shorter."""
        if self.way.closed:
            return wanted or USUAL_LAPS * self.way.length
        if wanted > self.way.length:
            raise UserError(
                f"drive.metres: {wanted:g} m, but the way through this world ends after {self.way.length:g} m"
            )
        return wanted or self.way.length


def world(settings: config.Simulation) -> World:
    """The one that ``settings`` name, furnished by their seed."""
    if settings.world == "office":
        return World(office.office(settings.seed), office.way(), "scanner")
    if settings.world == "corridor":
        return World(corridor.corridor(), corridor.way(), "scanner")
    return World(building.building(settings.seed), building.way(), "lidar")
