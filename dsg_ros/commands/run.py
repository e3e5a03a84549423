"""``python -m dsg_ros run``: map and learn from a recorded run, offline, as fast as it goes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from typing_extensions import Doc
from tyro.conf import Positional, UseAppendAction, arg

from dsg_ros import config as configuration
from dsg_ros.commands._run_sensitivity import sensitivities
from dsg_ros.commands._view import View, Watched, watching
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, Frame, ReferencePose, RunResult, SavedMap
from dsg_ros.interruption import INTERRUPTED
from dsg_ros.io.ahead import Stream, reading
from dsg_ros.io.learned import read_learned
from dsg_ros.io.map_folder import IN_RUN, check_map_folder, read_map, write_map
from dsg_ros.io.records import Topics
from dsg_ros.io.reference import read_reference
from dsg_ros.log_settings import settings_for
from dsg_ros.parameter_file import apply_assignments
from dsg_ros.progress import progress
from dsg_ros.report import timing
from dsg_ros.report.drawing import drawing_aside, of_run
from dsg_ros.report.save import check_folder, save

if TYPE_CHECKING:
    from dsg_ros.localisation import Localisation
    from dsg_ros.pipeline import Slam
    from dsg_ros.worker.protocols import Pipeline

log = logging.getLogger(__name__)

FILE = arg(metavar="FILE")
TOPIC = arg(metavar="TOPIC")


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
    config: Annotated[
        Path | None,
        FILE,
        Doc("Parameter file as the node takes it; default: hero.yaml or, for clouds, lidar3d.yaml of config/"),
    ] = None
    set: Annotated[
        UseAppendAction[tuple[str, ...]],
        Doc("One setting by its parameter name; may be repeated"),
        arg(metavar="NAME=VALUE"),
    ] = ()
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
            " the scans, or, with --set learning.teacher=both, beside them"),
    ] = None  # fmt: skip
    view: Annotated[
        View, Doc("web: watch it in a browser; where is set by view_host and view_port. It stays until Ctrl-C")
    ] = "none"
    limit: Annotated[int, Doc("Stop after this many scans; 0 takes all")] = 0
    odom_topic: Annotated[str, TOPIC, Doc("Topic of the odometry in a bag; default: the first of its type")] = ""
    scan_topic: Annotated[str, TOPIC, Doc("Topic of the laser scans in a bag; default: the first of its type")] = ""
    points_topic: Annotated[str, TOPIC, Doc("Topic of the point clouds in a bag; default: the first of its type")] = ""
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


@dataclass
class Clock:
    """Wall-clock seconds by phase, and of every scan."""

    phases: dict[str, float] = field(default_factory=dict)
    scans: list[float] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - began

    def metrics(self) -> dict[str, float]:
        """Durations as the report names them: the run's phases, and a scan through the pipeline."""
        found = {f"{timing.RUN}{name}": seconds for name, seconds in self.phases.items()}
        if self.scans:
            p50, p99 = np.percentile(self.scans, [50, 99])
            found |= {f"{timing.TOTAL}whole_scan": sum(self.scans)}
            found |= {f"{timing.P50}whole_scan": float(p50), f"{timing.P99}whole_scan": float(p99)}
        return found


class Interrupt:
    """Ctrl-C as a request to stop between two scans; the second one ends the program where it stands."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        log.warning("interrupted: saving what was done so far (Ctrl-C again: leave it)")


def main(options: Options) -> int:
    """Run the pipeline over the log and leave its files; 0, or 130 after Ctrl-C (with what was done so far saved)."""
    topics = Topics(options.odom_topic, options.scan_topic, options.points_topic, one_kind=True)
    settings = _settings(options, topics)
    _check(options, settings)
    saved = None if options.map is None else read_map(options.map)
    taught = None if options.teach is None else reference_poses(options.teach)
    theta = {} if options.freeze_theta is None else {"parameters": read_learned(options.freeze_theta).parameters}
    with watching(options.view, settings) as watched, reading(options.log, topics, settings.input) as stream:
        return _run(options, settings, saved, theta, stream, watched, taught)


def _run(
    options: Options,
    settings: configuration.Slam,
    saved: SavedMap | None,
    theta: dict[str, Any],
    stream: Stream,
    watched: Watched | None,
    taught: Sequence[ReferencePose] | None,
) -> int:
    clock = Clock()
    slam: Slam | Localisation
    with clock.phase("start_up"):
        # JAX is imported here: a mistyped option has been told by now, and the log's first scans are being read.
        from dsg_ros.core.compilation import CompileCounter
        from dsg_ros.localisation import Localisation
        from dsg_ros.pipeline import Slam
    with clock.phase("reading"):
        first = next(stream, None)
    if first is None:
        raise UserError(f"{options.log}: no scan could be used: {_listed(stream.counts) or 'the log holds none'}")
    if taught and taught[-1].stamp < first.stamp:
        ends, begins = taught[-1].stamp * 1e-9, first.stamp * 1e-9
        raise UserError(f"{options.teach}: its poses end at {ends:.3f} s, before the log begins at {begins:.3f} s")
    with clock.phase("start_up"):
        slam = Slam(settings, **theta) if saved is None else Localisation(settings, saved)
        slam.warm_up(first.planar)
    doing, count = "mapping" if saved is None else "localising", min(len(stream), options.limit or len(stream))
    log.info("ready after %.1f s; %s %d scans", clock.phases["start_up"], doing, count)
    with Interrupt() as interrupt, CompileCounter() as compilations, drawing_aside() as draw:
        with clock.phase("processing"):
            scans: Iterator[Frame] = itertools.chain([first], stream)
            if taught is not None:
                scans = with_reference(scans, taught, settings.learning.reference_gap)
            _process(slam, scans, stream, options.limit, clock, interrupt, watched)
        with clock.phase("finish"):
            result = slam.result() if interrupt.asked else slam.finish()
        if taught and not result.counts["reference_poses"]:
            log.warning("%s: none of its poses is of a time within the log: nothing was learned", options.teach)
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
            counts={**stream.counts, **result.counts},
        )
        begun = draw(of_run, result)
        grown = slam.saved_map(options.log.name) if isinstance(slam, Slam) else None
        with clock.phase("sensitivity"):  # while the figures are drawn aside
            moving = None if grown is None or interrupt.asked else sensitivities(grown)
        with clock.phase("saving"):
            report = save(result, options.out, settings, options.reference, draw, begun, moving)
            if grown is not None:
                write_map(options.out / IN_RUN, grown)
    _tell(options, result, report, clock, interrupt.asked)
    if watched is not None and not interrupt.asked:
        watched.stay()
    if interrupt.asked:
        return INTERRUPTED
    return 1 if (report["evaluation"] or {}).get("error") else 0


def _settings(options: Options, topics: Topics) -> configuration.Node:
    # A file written for the node also holds the node's settings, hence `Node`, which is a `Slam` with more.
    settings = apply_assignments(settings_for(options.log, topics, options.config), options.set)
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
    check_folder(options.out)
    check_map_folder(options.out / IN_RUN)
    if options.reference is not None:
        read_reference(options.reference)


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
            began = time.perf_counter()
            estimate = slam.process(frame)
            clock.scans.append(time.perf_counter() - began)
            if watched is not None:
                watched.take(estimate, stream.counts)
            if number % 10 == 0:
                advance(number, _note(estimate))
            if interrupt.asked:
                return


def reference_poses(path: Path) -> list[ReferencePose]:
    """The poses of a file (`dsg_ros.io.reference`), of which nothing tells how sure they are."""
    told = read_reference(path)
    return [ReferencePose(stamp, pose) for stamp, pose in zip(told.stamps.tolist(), told.poses, strict=True)]


def with_reference(frames: Iterable[Frame], taught: Sequence[ReferencePose], ahead: float) -> Iterator[Frame]:
    """The frames, each with the poses up to ``ahead`` [s] after it that no frame before has."""
    waiting = deque(taught)
    for frame in frames:
        end, due = frame.stamp + frame.sweep + round(ahead * 1e9), []
        while waiting and waiting[0].stamp <= end:
            due.append(waiting.popleft())
        yield dataclasses.replace(frame, reference=tuple(due)) if due else frame


def _note(estimate: Estimate) -> str:
    if estimate.localisation:
        return f"{estimate.localisation}, {estimate.counts.get('scans_localised', 0)} scans localised"
    return f"{estimate.counts.get('keyframes', 0)} keyframes, {estimate.counts.get('loops', 0)} loops"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _tell(options: Options, result: RunResult, report: dict[str, Any], clock: Clock, interrupted: bool) -> None:
    """The outcome on stdout: a few lines for people, and with --json one object as the last line."""
    summary, scores = report["summary"], (report["evaluation"] or {}).get("scores") or {}
    ate = {name: score["ate_rmse_m"] for name, score in scores.items()}
    print(
        f"{summary['scans']} scans, {summary['metres']:.0f} m, {summary['keyframes']} keyframes, "
        f"{summary['loops']} loops, {summary['voxels']} voxels in {sum(clock.phases.values()):.1f} s"
        + (f" (start-up {clock.phases['start_up']:.1f} s)" if "start_up" in clock.phases else "")
    )
    if options.map is not None:
        scans, localised, found, lost = (
            report["counts"][n] for n in ("scans", "scans_localised", "relocalised", "lost")
        )
        print(f"localised in {options.map}: {localised} of {scans} scans; found {found} times, lost {lost} times")
    if ate:
        print(f"ATE RMSE {ate['trajectory']:.3f} m, odometry {ate['odometry']:.3f} m")
    print(f"report: {options.out / 'report.html'}")
    if options.json:
        found = {
            "log": str(options.log),
            "map": None if options.map is None else str(options.map),
            "out": str(options.out),
            "interrupted": interrupted,
            "scans": summary["scans"],
            "keyframes": summary["keyframes"],
            "loops": summary["loops"],
            "voxels": summary["voxels"],
            "metres": summary["metres"],
            "seconds": clock.phases,
            "seconds_after_start_up": sum(s for name, s in clock.phases.items() if name != "start_up"),
            "scan_ms": {f"p{q}": 1e3 * float(np.percentile(clock.scans, q)) for q in (50, 90, 99, 100)},
            "compilations_after_warm_up": int(result.metrics["compilations_after_warm_up"]),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "parameters": {p["name"]: {k: v for k, v in p.items() if k != "name"} for p in report["parameters"]},
            "counts": report["counts"],
            "ate": ate or None,
        }
        print(json.dumps(found, allow_nan=False))
    sys.stdout.flush()
