"""What the two processes say to each other: how to build the pipeline, what may be asked of it, and the answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dsg_ros import config as cfg
from dsg_ros.interface import Hint

SLAM = "dsg_ros.pipeline:Slam"
LOCALISATION = "dsg_ros.localisation:from_folder"


@dataclass(frozen=True)
class Setup:
    """How to build the pipeline: ``factory`` is ``module:callable``; ``planar`` the kind of scan to expect.

    With ``resume`` it goes on from the checkpoint in that map folder; ``uninterrupted``: the odometry went on
    meanwhile, and nothing but the scans since then is missing.
    """

    factory: str
    config: cfg.Slam
    planar: bool = True
    resume: str = ""
    uninterrupted: bool = False

    def with_learning(self, on: bool) -> Setup:
        """The same with learning on or off."""
        return dataclasses.replace(self, config=cfg.replace(self.config, {"learning.enabled": on}))


@dataclass(frozen=True)
class Reset:
    """Forget the map and the trajectory; learned parameters start from the configuration again.

    The checkpoint in ``map_folder``, where one is named, is of the map that is forgotten, and is removed.
    """

    map_folder: str = ""


@dataclass(frozen=True)
class Save:
    """Write the run's files to ``folder`` and the map to ``map_folder``, where they are named.

    ``refine`` runs the final refinement first.  ``counts`` are those of whoever feeds the pipeline, for the report
    beside its own.  Answers with the folders.
    """

    folder: str
    refine: bool = False
    map_folder: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """Build the pipeline anew, with the map that the configuration names; where that fails the present one stays."""


@dataclass(frozen=True)
class Grid:
    """Answers with the `GridUpdate` of the tiles that changed after version ``since``; 0: all of them."""

    since: int = 0


@dataclass(frozen=True)
class WhatIf:
    """Answers with the `Effect` of changing ``parameter`` by ``change``, as people write it, on the present graph."""

    parameter: str
    change: str


@dataclass(frozen=True)
class Optimize:
    """Solve the whole graph and refine it, now; answers with the `Estimate` of the last scan after that."""


@dataclass(frozen=True)
class Learning:
    """Switch learning on or off, for this map and those that follow."""

    on: bool


@dataclass(frozen=True)
class Checkpoint:
    """Keep the whole state in ``map_folder``, while frames go on; answers with a `Checkpointed`."""

    map_folder: str


Command = Reset | Save | Load | Hint | Grid | WhatIf | Optimize | Learning | Checkpoint

AT_ONCE = (Optimize, Learning, Checkpoint)
"""Commands that do not wait for the frames handed over before."""

NEWEST = (Reset, Learning)
"""Commands of which the newest says all that those before it do."""

FEW = (*NEWEST, Hint, Grid, Checkpoint)
"""Commands of which few can wait, whoever asks: whose senders wait for one before they send another, and `NEWEST`."""


@dataclass(frozen=True)
class Call:
    """A command to be answered by the `Reply` of the same number."""

    number: int
    command: Command


@dataclass(frozen=True)
class Stop:
    """End of the conversation."""


@dataclass(frozen=True)
class Ready:
    """The pipeline is built and warmed up, ``seconds`` after it was told what for."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """Answer to a `Call`: a value, or the error as text (an exception object may not survive pickling)."""

    number: int
    value: Any = None
    error: str = ""
