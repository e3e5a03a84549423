"""Maps of real logs and of a simulated building, each made by ``dsg_ros run`` as a user starts it, beside their goals.

final is ``trajectory.tum``, causal ``trajectory_causal.tum`` (each scan matched to earlier keyframes only, on the final
keyframes), live ``trajectory_live.tum`` (as published at the time); the peer is the log's own odometry, but where a
row names another.  Relations are scored by ``relations_error.py`` of the folder beside the recordings'.

The closing gap is the distance from the first pose of the corrected log to its last, where the robot is back: 0.55 m
in the corrected log, 21.5 m by the odometry; told is by how much ours differs from the corrected log's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import FEW
from benchmarks.relations_graph import FALSE_DISTANCE, FALSE_TURN, Drive
from benchmarks.runs import KILLIAN, LOGS, SCORES, TRACKS, Run, log_of, output, recordings, scorer, there
from benchmarks.table import Row
from benchmarks.walls import walls
from benchmarks.worsening import at
from dsg_ros.errors import UserError
from dsg_ros.io.g2o import write_reference
from dsg_ros.io.map_folder import IN_RUN, read_map
from dsg_ros.io.reference import read_reference
from dsg_ros.io.trajectories import read_tum

BESIDE = Path(__file__).resolve().parents[1]

HALF = 0.5
"""A relative error is to be so much of the odometry's."""
PATH_SHARE = 0.1
"""Percent of its path that a trajectory in the simulated building may be off (ATE RMSE)."""
BENT, DOUBLE = 3.0, 0.5
"""Proposed here, as nothing is published of it: degrees within which nine tenths of the Killian Court's walls are
parallel to one another, and percent of them that are double."""
HAND_HELD = ("--scale", "1.03", "--turn-per-metre", "0.02", "--noise", "0.02", "0.01", "--seed", "0")
"""What is put into the poses that come with hku_balm, to be its odometry."""


GOALS = {
    "intel": {"final": 0.0133, "final turn": 0.215, "causal": 0.0142, "causal turn": 0.23, "seconds": 30.0},
    "aces": {"final": 0.0346, "final turn": 0.33, "causal": 0.0367, "causal turn": 0.37},
    "mit-csail": {"final": 0.09, "closing gap": 0.05},
    KILLIAN: {"final": 0.85},
    "fr-clinic": {"final": 5.2},
}
"""By recording and what is told of it [m], [deg], [s]."""
TRUTH = {
    "intel": "intel.relations",
    "aces": "aces.relations",
    "mit-csail": "mit-csail.corrected.log.xz",
    "fr-clinic": "fr-clinic.relations_graph.toro.xz",
}
"""What a recording is held to, in the same folder."""


def run(folder: Path, names: Sequence[str] | None = None) -> Iterator[list[Row]]:
    """Rows of each of the recordings named, or of all, made in ``folder``; `UserError` for one that there is not."""
    if unknown := set(names or ()) - set(MAPPED):
        raise UserError(f"maps: no recording {', '.join(sorted(unknown))}; there are {', '.join(MAPPED)}")
    for name in names or MAPPED:
        if found := list(MAPPED[name](name, folder)):
            yield found


def of_relations(name: str, folder: Path) -> Iterator[Row]:
    """Against relations that were verified by hand."""
    path, truth, goals = recordings() / LOGS[name], recordings() / TRUTH[name], GOALS[name]
    if not there(path, truth, scorer()):
        return
    run = Run.of(name, path, folder, runs=FEW if "seconds" in goals else 1)
    found = {what: _scored(run.out / f"{track}.tum", truth) for what, track in _tracks().items()}
    dead = found.pop("odometry")
    for what, errors in found.items():
        note = f"{errors['relations']} relations, median {errors['trans_median_m']:.4f}"
        metres, degrees = (errors[figure] for figure in ("trans_mean_m", "rot_mean_deg"))
        yield run.row(f"relations, {what}", metres, "m", goals.get(what), dead["trans_mean_m"], note)
        yield run.row(f"relations' turn, {what}", degrees, "deg", goals.get(f"{what} turn"), dead["rot_mean_deg"])
    yield _double(run)
    yield run.whole(goals.get("seconds"))


def _double(run: Run) -> Row:
    """Of the walls, beside those of the same scans at the odometry's poses."""
    saved = read_map(run.out / IN_RUN)
    ours, dead = (walls(track, saved.clouds).share for track in (saved.poses, saved.odometry))
    return run.row("walls that are double", 100 * ours, "%", peer=100 * dead)


def _tracks() -> dict[str, str]:
    """Files of a run by what they are, its odometry last."""
    return {**TRACKS, "odometry": "odometry"}


def _scored(track: Path, relations: Path) -> dict[str, Any]:
    """What the scorer says."""
    found: dict[str, Any] = json.loads(output([sys.executable, str(scorer()), str(track), str(relations), "--json"]))
    return found


def of_corrected(name: str, folder: Path) -> Iterator[Row]:
    """Against a corrected log, and how well the round closes."""
    path, truth, goals = recordings() / LOGS[name], recordings() / TRUTH[name], GOALS[name]
    if not there(path, truth):
        return
    run = Run.of(name, path, folder, truth)
    yield from run.ate(goals)
    reference = read_reference(truth)
    ends, wanted = reference.stamps[[0, -1]], closing_gap(reference.poses)
    gaps = {what: closing_gap(at(*read_tum(run.out / f"{track}.tum"), ends)) for what, track in _tracks().items()}
    dead = gaps.pop("odometry")
    for what, gap in gaps.items():
        goal = goals["closing gap"] if what == "final" else None
        note = f"gaps {gap:.3f}, corrected log {wanted:.3f}, odometry {dead:.1f}"
        yield run.row(f"closing gap, {what}", abs(gap - wanted), "m", goal, abs(dead - wanted), note)
    yield _double(run)
    yield run.whole()


def closing_gap(track: NDArray[np.float64]) -> float:
    """Distance [m] between the first and the last of poses (n, 7)."""
    return float(np.linalg.norm(track[-1, :3] - track[0, :3]))


def of_killian(name: str, folder: Path) -> Iterator[Row]:
    """Against the published poses, which are no truth; and its walls, beside those of the same scans at these poses."""
    log, published = log_of(name), folder / "published.tum"
    write_reference(log, published)
    run = Run.of(name, log, folder, published)
    yield from run.ate(GOALS[name])
    saved, reference = read_map(run.out / IN_RUN), read_reference(published)
    ours = walls(saved.poses, saved.clouds)
    theirs = walls(at(reference.stamps, reference.poses, saved.stamps), saved.clouds)
    dead = walls(saved.odometry, saved.clouds)
    note = f"peer: the published poses; odometry {dead.bend:.1f}"
    yield run.row("nine tenths of the walls are parallel within", ours.bend, "deg", BENT, theirs.bend, note)
    note = f"peer: the published poses; odometry {100 * dead.share:.1f}"
    yield run.row("walls that are double", 100 * ours.share, "%", DOUBLE, 100 * theirs.share, note)
    yield run.whole()


def of_graph(name: str, folder: Path) -> Iterator[Row]:
    """Against a graph of relations without stamps."""
    path, truth, goals = recordings() / LOGS[name], recordings() / TRUTH[name], GOALS[name]
    if not there(path, truth):
        return
    run, drive = Run.of(name, path, folder), Drive.of(path, truth)
    tracks = {what: read_tum(run.out / f"{track}.tum")[1] for what, track in _tracks().items()}
    dead = tracks.pop("odometry")
    for what, track in tracks.items():
        yield run.row(f"positions, {what}", drive.by_way(track), "m", goals.get(what), drive.by_way(dead), "by way")
        yield run.row(f"positions, {what}, aligned", drive.by_scans(track), "m", None, drive.by_scans(dead))
    for what, track in tracks.items():
        off, by_odometry = drive.off(track), drive.off(dead)
        note = f"{len(off.metres)} relations, median {np.median(off.metres):.3f}"
        yield run.row(f"relations, {what}", float(off.metres.mean()), "m", None, float(by_odometry.metres.mean()), note)
        turn, turned = (float(np.degrees(each.radians.mean())) for each in (off, by_odometry))
        yield run.row(f"relations' turn, {what}", turn, "deg", None, turned)
    closures = drive.closures(read_map(run.out / IN_RUN))
    false = (closures.metres > FALSE_DISTANCE) | (closures.radians > FALSE_TURN)
    note = f"of {len(false)}: over {FALSE_DISTANCE:g} m or {np.degrees(FALSE_TURN):g} deg from the nearest relation"
    note += f"; at most {closures.metres.max():.2f} m, {np.degrees(closures.radians.max()):.1f} deg"
    yield run.row("false closures", float(false.sum()), "", 0.0, note=note)
    yield run.whole()


def of_hku_balm(name: str, folder: Path) -> Iterator[Row]:
    """Real clouds of a handheld lidar; its odometry is the poses that come with them, with known errors put in."""
    source, bag = recordings().parent / "lidar3d" / "hku_balm", folder / "hku_balm"
    if there(source):
        output([sys.executable, str(BESIDE / "tools" / "hku_balm.py"), str(source), str(bag), *HAND_HELD])
        yield from _spatial(Run.of(name, bag, folder, bag.with_name("hku_balm.tum")), None)


def of_building(name: str, folder: Path) -> Iterator[Row]:
    """A simulated robot with a 16-beam lidar in a building with ramps, with exact poses."""
    bag = folder / "simulated"
    output([sys.executable, "-m", "dsg_ros", "--quiet", "simulate", str(bag)])
    yield from _spatial(Run.of(name, bag, folder, bag.with_name("simulated.tum")), PATH_SHARE)


def _spatial(run: Run, goal: float | None) -> Iterator[Row]:
    """Rows of clouds: ATE, with the ``goal`` in percent of the path, and the relative error."""
    scores, metres = run.scores(), run.told["metres"]
    dead = scores["odometry"]
    yield from run.ate({"final": round(0.01 * goal * metres, 3)} if goal else {})
    for what, name in SCORES.items():
        for figure, unit in (("translation_median", "%"), ("rotation_median", "deg/m")):
            # Where it gains least on the odometry.
            pairs = list(zip(scores[name]["relative"], dead["relative"], strict=True))
            mine, its = max(pairs, key=lambda pair: pair[0][figure] / pair[1][figure])
            note = f"over {mine['length']:.1f} m, the worst of {len(pairs)} lengths"
            label, most = f"relative {figure.split('_')[0]}, {what}", HALF if what == "final" else None
            yield Row("processes", run.name, label, mine[figure], its[figure], unit, most, note)
    yield run.whole()


MAPPED: dict[str, Callable[[str, Path], Iterator[Row]]] = {
    "intel": of_relations,
    "aces": of_relations,
    "mit-csail": of_corrected,
    KILLIAN: of_killian,
    "fr-clinic": of_graph,
    "hku-balm": of_hku_balm,
    "building": of_building,
}
