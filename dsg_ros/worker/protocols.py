"""What the worker needs of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dsg_ros.effect import Effect
from dsg_ros.interface import Estimate, Frame, GridUpdate, RunResult, SavedMap
from dsg_ros.state import State


class Pipeline(Protocol):
    """What the worker needs of `dsg_ros.pipeline.Slam`: ``catch_up`` follows each ``estimate``."""

    def warm_up(self, planar: bool) -> None: ...
    def estimate(self, frame: Frame) -> Estimate: ...
    def catch_up(self) -> None: ...
    def grid_changes(self, since: int) -> GridUpdate: ...
    def result(self) -> RunResult: ...
    def finish(self) -> RunResult: ...
    def saved_map(self) -> SavedMap: ...


@runtime_checkable
class Maps(Protocol):
    """What it needs of a pipeline that makes a map, besides."""

    def state(self) -> State: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...
    def about(self) -> dict[str, int]: ...
    def take_up(self) -> None: ...
    def optimize(self) -> Estimate: ...
    def switch_learning(self, on: bool) -> None: ...


@runtime_checkable
class Localises(Protocol):
    """What it needs of a pipeline that localises in a finished map, besides."""

    def hint(self, pose: NDArray[np.float64], radius: float, turn: float) -> None: ...


@runtime_checkable
class Foretells(Protocol):
    """What it needs of a pipeline whose graph theta moves, besides."""

    def what_if(self, parameter: str, change: str) -> Effect: ...
