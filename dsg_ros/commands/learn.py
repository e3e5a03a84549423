"""``python -m dsg_ros learn LOG... --out learned.yaml``: one theta for several logs, and whether they agree on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc
from tyro.conf import Positional, arg

from dsg_ros import config as configuration
from dsg_ros.commands._settings import (
    FILE,
    Assignments,
    OdomTopic,
    ParameterFile,
    PointsTopic,
    ScanTopic,
)
from dsg_ros.errors import UserError
from dsg_ros.io.atomic import destination
from dsg_ros.io.learned import read_learned, write_learned
from dsg_ros.io.logs import check_log, contents
from dsg_ros.io.records import Topics
from dsg_ros.log_settings import settings_for

if TYPE_CHECKING:
    from dsg_ros.fleet.team import Team
    from dsg_ros.fleet.worker import Setup


@dataclass(frozen=True)
class Options:
    """Learn one calibration from several recorded runs of a robot, and say of each run whether it agrees.

    LOG is what `run` reads: a CARMEN log, a g2o file with laser scans, a ROS 1 bag or a ROS 2 bag. Each is matched
    once; then theta is found for all of them together, and for all but one, by which the one left out is foretold. A
    run that contradicts the others is named and left out. The file of --out serves run --freeze-theta and the node.
    """

    logs: Annotated[Positional[tuple[Path, ...]], arg(metavar="LOG")]
    """The recordings, of one robot."""
    out: Annotated[Path, FILE, Doc("Write what was learned here, a learned.yaml")]
    config: ParameterFile = None
    set: Assignments = ()
    ray: Annotated[
        str | None,
        arg(metavar="ADDRESS"),
        Doc("Share the logs among the workers of a Ray cluster: its address, auto, or local to start one here"),
    ] = None
    odom_topic: OdomTopic = ""
    scan_topic: ScanTopic = ""
    points_topic: PointsTopic = ""
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


def main(options: Options) -> int:
    """Match, learn, write, tell; 0, also where nothing can be learned from logs that can be read."""
    if not options.logs:
        raise UserError("which logs? Give the recordings of one robot: learn FIRST SECOND ... --out learned.yaml")
    destination(options.out)
    topics = Topics(options.odom_topic, options.scan_topic, options.points_topic, one_kind=True)
    settings = _settings(options, topics)
    begin = settings.learning.start
    start = read_learned(Path(begin)).parameters if begin else ()
    if options.ray is None:
        for path in options.logs:
            check_log(path)
    logs, twice = _once(options.logs)
    # JAX is imported here: what is wrong with the command line has been told by now.
    from dsg_ros.commands import _learn_report as report
    from dsg_ros.commands._learn_logs import learn_logs
    from dsg_ros.fleet.worker import Drive, Setup

    setup = Setup(settings, topics, tuple(start))
    repeated = [Drive(path, unusable=f"given twice, counted once: {first}") for path, first in twice]
    with _team(options.ray, setup) as team:
        outcome = learn_logs(team, setup, logs, repeated)
    write_learned(options.out, outcome.parameters, report.provenance(outcome))
    report.tell(outcome, options.json)
    return 0


def _settings(options: Options, topics: Topics) -> configuration.Slam:
    # With Ray logs may lie where the workers are.
    clouds = None if options.ray else next((path for path in options.logs if _of_clouds(path, topics)), None)
    settings = settings_for(clouds, topics, options.config, options.set)
    if not settings.learning.enabled:
        raise UserError("learning.enabled is off: nothing would be learned")
    if settings.learning.teacher != "scans":
        raise UserError(f"learning.teacher is {settings.learning.teacher}: of several logs the scans teach")
    return settings


def _of_clouds(path: Path, topics: Topics) -> bool:
    try:
        return contents(path, topics).clouds
    except UserError:  # told when the log is matched
        return False


def _team(address: str | None, setup: Setup) -> Team:
    if address is None:
        from dsg_ros.fleet.team import InProcess

        return InProcess(setup)
    from dsg_ros.fleet.ray_team import RayTeam

    return RayTeam(setup, address)


def _once(paths: Sequence[Path]) -> tuple[list[str], list[tuple[str, str]]]:
    """The paths that differ, and each that was given again, with the one it repeats."""
    seen: dict[Path, str] = {}
    twice = []
    for path in paths:
        if path.resolve() in seen:
            twice.append((str(path), seen[path.resolve()]))
        else:
            seen[path.resolve()] = str(path)
    return list(seen.values()), twice
