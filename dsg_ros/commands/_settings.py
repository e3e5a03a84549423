"""What commands on recordings take alike: settings, from a file and one by one, and the topics of a bag."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc
from tyro.conf import UseAppendAction, arg

from dsg_ros import config as configuration
from dsg_ros.parameter_file import apply_assignments, apply_file

FILE = arg(metavar="FILE")
TOPIC = arg(metavar="TOPIC")

ParameterFile = Annotated[Path | None, FILE, Doc("Parameter file as the node takes it, such as config/hero.yaml")]
Assignments = Annotated[
    UseAppendAction[tuple[str, ...]],
    Doc("One setting by its parameter name; may be repeated"),
    arg(metavar="NAME=VALUE"),
]
OdomTopic = Annotated[str, TOPIC, Doc("Topic of the odometry in a bag; default: the first of its type")]
ScanTopic = Annotated[str, TOPIC, Doc("Topic of the laser scans in a bag; default: the first of its type")]
PointsTopic = Annotated[str, TOPIC, Doc("Topic of the point clouds in a bag; default: the first of its type")]


def node_settings(file: Path | None, assignments: Sequence[str]) -> configuration.Node:
    """The defaults with what ``file`` says, and then the ``assignments``; `UserError` for what is no setting.

    A file written for the node also holds the node's settings, hence `Node`, which is a `Slam` with more.
    """
    settings = configuration.Node()
    if file is not None:
        settings = apply_file(settings, file)
    return apply_assignments(settings, assignments)
