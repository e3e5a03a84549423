"""``python -m dsg_ros run``: map and learn from a recorded run, offline, as fast as it goes."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc
from tyro.conf import Positional, arg

from dsg_ros import config as configuration
from dsg_ros.commands._run_clock import Clock
from dsg_ros.commands._run_outcome import tell
from dsg_ros.commands._run_sensitivity import sensitivities
from dsg_ros.commands._run_teaching import Teaching, read_teaching, with_teaching
from dsg_ros.commands._settings import (
    FILE,
    TOPIC,
    Assignments,
    OdomTopic,
    ParameterFile,
    PointsTopic,
    ScanTopic,
)
from dsg_ros.commands._view import View, Watched, watching
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame, SavedMap
from dsg_ros.interruption import INTERRUPTED, Interrupt
from dsg_ros.io.ahead import Stream, reading
from dsg_ros.io.learned import read_learned
from dsg_ros.io.logs import base_frame
from dsg_ros.io.map_folder import IN_RUN, check_map_folder, read_map, write_map
from dsg_ros.io.records import Topics
from dsg_ros.io.reference import Reference, read_reference
from dsg_ros.log_settings import settings_for
from dsg_ros.memory import frozen
from dsg_ros.progress import progress
from dsg_ros.report.drawing import drawing_aside, of_run
from dsg_ros.report.save import check_folder, save

if TYPE_CHECKING:
    from dsg_ros.localisation import Localisation
    from dsg_ros.pipeline import Slam
    from dsg_ros.worker.protocols import Pipeline

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Map and learn from a recorded run, offline, as fast as it goes.

    LOG is a CARMEN log, a g2o file with laser scans (also zipped), a ROS 1 bag or a ROS 2 bag. The folder OUT receives
    trajectories (TUM), map.ply, learned.yaml, figures, report.html and report.json, and in OUT/map the map to localise
    in. Ctrl-C saves what was done so far.
    """

    log: Positional[Path]
    """The recording."""
    out: Annotated[Path, Doc("Folder for the results: new, empty, or of a former run")]
    config: ParameterFile = None
    set: Assignments = ()
    freeze_theta: Annotated[
        Path | None, FILE, Doc("A learned.yaml: use its parameters as they are and learn nothing")
    ] = None
    map: Annotated[
        Path | None, arg(metavar="FOLDER"), Doc("A map to localise in, OUT/map of another run; it is not changed")
    ] = None
    reference: Annotated[
        Path | None, FILE, Doc("Reference trajectory to compare with (TUM, or a corrected CARMEN log); never an input")
    ] = None
    teach: Annotated[
        Path | None,
        FILE,
        Doc("Poses of the base from elsewhere, in a file as --reference takes, to learn the calibration from instead of"
            " the scans, or, with --set learning.teacher=both, beside them; or positions alone: a bag with NavSatFix"
            " (LOG itself, too), or a text file of stamp x y z"),
    ] = None  # fmt: skip
    teach_topic: Annotated[
        str, TOPIC, Doc("Topic of the fixes in the bag that teaches; default: the first of its type")
    ] = ""
    antenna: Annotated[
        tuple[float, float, float] | None,
        arg(metavar="X Y Z"),
        Doc("Where the antenna of such positions is in the base frame [m]; default: as the bag's transforms have it"),
    ] = None
    view: Annotated[
        View, Doc("web: watch it in a browser; where is set by view_host and view_port. It stays until Ctrl-C")
    ] = "none"
    limit: Annotated[int, Doc("Stop after this many scans; 0 takes all")] = 0
    odom_topic: OdomTopic = ""
    scan_topic: ScanTopic = ""
    points_topic: PointsTopic = ""
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


def main(options: Options) -> int:
    """Run the pipeline over the log and leave its files; 0, or 130 after Ctrl-C (with what was done so far saved)."""
    topics = Topics(options.odom_topic, options.scan_topic, options.points_topic, one_kind=True)
    settings = _settings(options, topics)
    topics = dataclasses.replace(topics, base_frame=settings.base_frame)
    _check(options, settings)
    saved = None if options.map is None else read_map(options.map)
    reference = None if options.reference is None else read_reference(options.reference)
    base = partial(base_frame, options.log, topics)
    taught = None if options.teach is None else read_teaching(options.teach, options.teach_topic, options.antenna, base)
    theta = {} if options.freeze_theta is None else {"parameters": read_learned(options.freeze_theta).parameters}
    with watching(options.view, settings) as watched, reading(options.log, topics, settings.input) as stream:
        return _run(options, settings, saved, theta, stream, watched, reference, taught)


def _run(
    options: Options,
    settings: configuration.Slam,
    saved: SavedMap | None,
    theta: dict[str, Any],
    stream: Stream,
    watched: Watched | None,
    reference: Reference | None,
    taught: Teaching | None,
) -> int:
    clock = Clock()
    slam: Slam | Localisation
    with clock.phase("start_up"):
        # JAX is imported here: a mistyped option has been told by now, and the log's first scans are being read.
        from dsg_ros.core import native
        from dsg_ros.core.compilation import CompileCounter
        from dsg_ros.localisation import Localisation
        from dsg_ros.pipeline import Slam
    with clock.phase("reading"):
        first = next(stream, None)
    if first is None:
        raise UserError(f"{options.log}: no scan could be used: {_listed(stream.counts) or 'the log holds none'}")
    if taught is not None:
        taught.check(first)
    with clock.phase("start_up"):
        if native.cold():
            log.info(native.COMPILING)
        slam = Slam(settings, shown=watched is not None, **theta) if saved is None else Localisation(settings, saved)
        slam.warm_up(first.planar)
    doing, count = "mapping" if saved is None else "localising", min(len(stream), options.limit or len(stream))
    log.info("ready after %.1f s; %s %d scans", clock.phases["start_up"], doing, count)
    with frozen(), Interrupt() as interrupt, CompileCounter() as compilations, drawing_aside() as draw:
        with clock.phase("processing"):
            scans: Iterator[Frame] = itertools.chain([first], stream)
            if taught is not None:
                scans = with_teaching(scans, taught.told, settings.learning.reference_gap)
            _process(slam, scans, stream, options.limit, clock, interrupt, watched)
        with clock.phase("finish"):
            result = slam.result() if interrupt.asked else slam.finish()
        if taught is not None and not result.counts["reference_poses"] + result.counts["reference_positions"]:
            log.warning("%s: nothing in it is of a time within the log: nothing was learned", options.teach)
        if watched is not None:
            watched.finish(result)
        figures = clock.metrics() | {
            "compilations_after_warm_up": float(compilations.count),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        result = dataclasses.replace(
            result,
            source=options.log.name,
            metrics={**result.metrics, **figures},
            counts={**stream.counts, **(taught.counts if taught else {}), **result.counts},
        )
        begun = draw(of_run, result)
        grown = slam.saved_map(options.log.name) if isinstance(slam, Slam) else None
        with clock.phase("sensitivity"):  # while the figures are drawn aside
            moving = None if grown is None or interrupt.asked else sensitivities(grown)
        with clock.phase("saving"):
            report = save(result, options.out, settings, reference, draw, begun, moving)
            if grown is not None:
                write_map(options.out / IN_RUN, grown)
    tell(options, result, report, clock, interrupt.asked)
    if watched is not None and not interrupt.asked:
        watched.stay()
    if interrupt.asked:
        return INTERRUPTED
    return 1 if (report["evaluation"] or {}).get("error") else 0


def _settings(options: Options, topics: Topics) -> configuration.Node:
    settings = settings_for(options.log, topics, options.config, options.set)
    if options.freeze_theta is not None:
        settings = configuration.replace(settings, {"learning.enabled": False})
    if options.teach is not None and settings.learning.teacher == "scans":
        settings = configuration.replace(settings, {"learning.teacher": "reference"})
    return settings


def _check(options: Options, settings: configuration.Node) -> None:
    """Refuse before the work starts what would fail after it."""
    if options.limit < 0:
        raise UserError(f"--limit {options.limit}: expected 0 (all) or a positive number")
    if options.map is not None and options.freeze_theta is not None:
        raise UserError("--freeze-theta with --map: a map brings its own learned parameters")
    learns = settings.learning.enabled and options.map is None
    if learns and settings.learning.teacher != "scans" and options.teach is None:
        raise UserError(f"learning.teacher is {settings.learning.teacher}: name the poses to learn from with --teach")
    if options.teach is not None and not learns:
        raise UserError("--teach with --map, --freeze-theta or learning.enabled=false: nothing is learned there")
    if options.teach is None and (options.teach_topic or options.antenna is not None):
        raise UserError("--teach-topic, --antenna: they are about what --teach names, and it names nothing")
    check_folder(options.out)
    check_map_folder(options.out / IN_RUN)


def _process(
    slam: Pipeline,
    source: Iterator[Frame],
    stream: Stream,
    limit: int,
    clock: Clock,
    interrupt: Interrupt,
    watched: Watched | None,
) -> None:
    """Every frame through the pipeline, until the log ends, ``limit`` is reached or Ctrl-C."""
    total = min(len(stream), limit or len(stream))
    with progress("mapping", total) as advance:
        for number, frame in enumerate(itertools.islice(source, limit or None), 1):
            with clock.scan() as told:
                estimate = slam.estimate(frame)
                told()
                slam.catch_up()
            if watched is not None:
                watched.take(estimate, stream.counts)
            if number % 10 == 0:
                advance(number, _note(estimate))
            if interrupt.asked:
                return


def _note(estimate: Estimate) -> str:
    if estimate.localisation:
        return f"{estimate.localisation}, {estimate.counts.get('scans_localised', 0)} scans localised"
    return f"{estimate.counts.get('keyframes', 0)} keyframes, {estimate.counts.get('loops', 0)} loops"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)
