"""Write everything a run leaves behind into one folder, whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dsg_ros.errors import UserError
from dsg_ros.interface import RunResult
from dsg_ros.io.atomic import check_destination
from dsg_ros.io.learned import write_learned
from dsg_ros.io.map_image import write_map
from dsg_ros.io.pointfile import write_ply
from dsg_ros.io.reference import Reference, read_reference
from dsg_ros.io.trajectories import read_tum, write_tum
from dsg_ros.report import drawing, evaluation, html
from dsg_ros.report.drawing import Draw, Images
from dsg_ros.report.summary import finite, summarise

log = logging.getLogger(__name__)

TRAJECTORIES = {
    "trajectory": "trajectory.tum",
    "causal": "trajectory_causal.tum",
    "live": "trajectory_live.tum",
    "odometry": "odometry.tum",
}
"""Field of `RunResult` -> file."""

REPORT = "report.json"
GRID = ("map.pgm", "map.yaml")
"""The occupancy grid; absent where nothing was seen."""

FILES = frozenset({*TRAJECTORIES.values(), *html.FIGURES, *GRID, "map.ply", "learned.yaml", "report.html", REPORT})
"""Every file that `save` may write; a later run into the same folder replaces or removes exactly these."""


def save(
    result: RunResult,
    folder: str | Path,
    config: Any,
    reference: str | Path | Reference | None = None,
    draw: Draw = drawing.here,
    begun: Callable[[], Images] | None = None,
    sensitivity: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write trajectories, map, learned parameters, figures and report of ``result``; returns what report.json holds.

    ``config`` is the `dsg_ros.config` instance the run used.  ``reference`` is what to compare with, or a file
    of it, as `dsg_ros.io.reference` reads it; one that does not fit is told in the report and the log, and costs none
    of the other files.  ``draw`` draws the figures (`dsg_ros.report.drawing`); those of the run may have been ``begun``
    before.  ``sensitivity`` is what `run` found of each parameter's effect.  All files are complete before the first of
    them takes its place in ``folder``.  Raises `UserError` when
    ``folder`` cannot be written.
    """
    folder = Path(folder)
    of_run = begun or draw(drawing.of_run, result)
    report = summarise(result, config) | {"sensitivity": sensitivity}
    with _staged(folder) as stage:
        for field, name in TRAJECTORIES.items():
            write_tum(stage / name, result.stamps, getattr(result, field))
        write_ply(stage / "map.ply", result.voxels)
        write_learned(stage / "learned.yaml", result.parameters, _provenance(report))
        if result.grid is not None:
            write_map(stage / GRID[0], result.grid)
        of_errors = None if reference is None else _evaluate(report, stage, reference, draw)
        images = of_run()
        if of_errors is not None:
            images |= of_errors()
        _write_report(stage, report, images)
    for stale in FILES - set(report["files"]):
        (folder / stale).unlink(missing_ok=True)
    return report


def amend(
    folder: str | Path,
    reference: str | Path | None = None,
    source: str = "",
    metrics: Mapping[str, float] = MappingProxyType({}),
    counts: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """Add to the report of the run saved in ``folder`` what only its caller knows; returns what report.json now holds.

    ``reference`` is a file to compare with, as for `save`, ``source`` names the recording, ``metrics`` and ``counts``
    add to the run's own.  Raises `UserError` where no run was saved.
    """
    folder = Path(folder)
    report = load_report(folder)
    if report is None:
        raise UserError(f"{folder}: no {REPORT} of a run; was it saved?")
    report["source"] = source or report["source"]
    report["metrics"].update(metrics)
    report["counts"].update(counts)
    images = {name: (folder / name).read_bytes() for name in html.FIGURES if (folder / name).exists()}
    with _staged(folder) as stage:
        images |= drawing.of_timings(report["metrics"])
        if reference is not None:
            images.pop("errors.png", None)
            of_errors = _evaluate(report, folder, reference, drawing.here)
            images |= of_errors() if of_errors else {}
        _write_report(stage, report, images)
    return report


def load_report(folder: str | Path) -> dict[str, Any] | None:
    """report.json of a run in ``folder``, or None where there is none of this program."""
    try:
        report = json.loads((Path(folder) / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and report.get("program") == "dsg_ros" else None


def check_folder(folder: str | Path) -> None:
    """`UserError` unless ``folder`` is free to be written to: absent, empty, or holding a run of this program; and
    unless a file can be made where it is or is to be.
    """
    folder = Path(folder)
    check_destination(folder)
    if folder.exists() and any(folder.iterdir()) and load_report(folder) is None:
        raise UserError(f"{folder} holds files that are not a run of dsg_ros; name an empty or new folder")


def _evaluate(
    report: dict[str, Any], folder: Path, reference: str | Path | Reference, draw: Draw
) -> Callable[[], Images] | None:
    """Score the trajectories lying in ``folder``, and begin the figure; a comparison that fails is written down with
    its reason.
    """
    source = reference.source if isinstance(reference, Reference) else reference
    report["evaluation"] = {"reference": Path(source).name, "scores": {}, "error": ""}
    try:
        told = reference if isinstance(reference, Reference) else read_reference(Path(reference))
        truth = evaluation.Track(told.stamps, told.poses)
        names = ("odometry", "live", "causal", "trajectory")
        tracks = {name: evaluation.Track(*read_tum(folder / TRAJECTORIES[name])) for name in names}
        scores = [(name, evaluation.score(track, truth)) for name, track in tracks.items()]
    except UserError as error:
        log.error("%s", error)
        report["evaluation"]["error"] = str(error)
        return None
    report["evaluation"]["scores"] = evaluation.as_table(scores)
    return draw(drawing.of_errors, scores, truth)


def _write_report(stage: Path, report: dict[str, Any], images: Images) -> None:
    """Figures, report.html and report.json (last) into ``stage``; ``report`` becomes what report.json holds."""
    written = {*TRAJECTORIES.values(), "map.ply", "learned.yaml", "report.html", REPORT, *images}
    written |= {name for name in GRID if (stage / name).exists() or name in report.get("files", ())}
    report["files"] = sorted(written)
    clean = finite(report)
    report.clear()
    report.update(clean)
    for name, image in images.items():
        (stage / name).write_bytes(image)
    (stage / "report.html").write_text(html.render(report, images), encoding="utf-8")
    (stage / REPORT).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _provenance(report: dict[str, Any]) -> dict[str, Any]:
    """Where learned parameters come from: what learned.yaml tells beside their values."""
    accepted = [step for step in report["learning"]["steps"] if step["accepted"]]
    return {
        "log": report["source"],
        "created": report["created"],
        "metres": report["summary"]["metres"],
        "updates": report["learning"]["updates"],
        "loss_before": accepted[0]["loss_before"] if accepted else None,
        "loss_after": accepted[-1]["loss_after"] if accepted else None,
        "versions": report["versions"],
    }


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder inside ``folder`` whose files move up, each atomically, once all of them are written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        yield stage
        # The report goes first: from then on the folder is known as a run of this program.
        for path in sorted(stage.iterdir(), key=lambda p: (p.name != REPORT, p.name)):
            os.replace(path, folder / path.name)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
