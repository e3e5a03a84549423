"""What commands on recordings take alike: settings, from a file and one by one, and the topics of a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typing_extensions import Doc
from tyro.conf import UseAppendAction, arg

FILE = arg(metavar="FILE")
TOPIC = arg(metavar="TOPIC")

ParameterFile = Annotated[
    Path | None,
    FILE,
    Doc("Parameter file as the node takes it; default: hero.yaml or, for clouds, lidar3d.yaml of config/"),
]
Assignments = Annotated[
    UseAppendAction[tuple[str, ...]],
    Doc("One setting by its parameter name; may be repeated"),
    arg(metavar="NAME=VALUE"),
]
OdomTopic = Annotated[str, TOPIC, Doc("Topic of the odometry in a bag; default: the first of its type")]
ScanTopic = Annotated[str, TOPIC, Doc("Topic of the laser scans in a bag; default: the first of its type")]
PointsTopic = Annotated[str, TOPIC, Doc("Topic of the point clouds in a bag; default: the first of its type")]
