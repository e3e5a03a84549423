"""What a run has learned, and what it is worth: values, how soon they settle, and dead reckoning on what came later.

    python tools/learning_score.py OUT [--reference FILE] [--json]

OUT is a folder of `python -m dsg_ros run`, from nominal parameters.  The theta in use after the first half of the time
is frozen, and the odometry of the second half is integrated with it and with the nominal one.  FILE says where the
robot really was: hand-verified relations of the SLAM benchmark (``.relations``: stamps t1 t2, pose of t2 in t1;
Kuemmerle et al., Autonomous Robots 27, 2009), or a trajectory (``.tum``), of which poses 5 s apart are compared and
as many of any distance.  Errors are mean absolute ones, in m and degrees.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.theta import SPECS
from dsg_ros.interface import Parameter
from dsg_ros.io.trajectories import read_tum
from dsg_ros.learning.increments import IncrementModel
from dsg_ros.learning.parameters import PLACES, starting_theta

Array = NDArray[np.float64]

SHORT = 10.0
"""Relations over less than this many seconds are of short range."""

APART = 5.0
"""Seconds between two poses of a reference trajectory that are compared at short range."""

NOMINAL = {name: SPECS[leaf][i].physical(0.0) for name, (leaf, i) in PLACES.items()}

SETTLED = 0.1
"""A parameter has settled when it stays within this share of its way from where it began to where it ended."""


def metres_to_settle(steps: list[dict[str, Any]], name: str) -> float | None:
    """Metres driven until parameter ``name`` stays near its last value; None where it is where it began."""
    metres = np.array([step["metres"] for step in steps])
    values = np.array([step["parameters"][name][0] for step in steps])
    way = abs(values[-1] - NOMINAL[name])
    if not way:
        return None
    away = np.abs(values - values[-1]) > SETTLED * way
    after = int(np.flatnonzero(away)[-1]) + 1 if away.any() else 0
    return float(metres[after])


def reckoned(stamps: NDArray[np.int64], odometry: Array, parameters: Sequence[Parameter]) -> Array:
    """Poses (n, 7) of odometry (n, 7), each increment calibrated by ``parameters``."""
    model = IncrementModel(starting_theta(parameters), config.Odometry())
    out = [odometry[0]]
    for increment, seconds in zip(poses.between(odometry[:-1], odometry[1:]), np.diff(stamps) * 1e-9, strict=True):
        out.append(poses.compose(out[-1], model.predict(increment, float(seconds))[0]))
    return np.stack(out)


def planar(stamps: NDArray[np.int64], track: Array) -> Array:
    """Rows (n, 4): stamp [s], x, y [m], yaw [rad] without jumps, in the order of the stamps."""
    yaw = np.unwrap(2 * np.arctan2(track[:, 5], track[:, 6]))
    rows = np.column_stack([stamps * 1e-9, track[:, :2], yaw])
    return rows[np.argsort(rows[:, 0], kind="stable")]


def relations_of(path: Path, seed: int = 0) -> Array:
    """Rows (m, 5): two stamps [s], and x, y [m], yaw [rad] of the second pose in the first."""
    if path.suffix != ".tum":
        rows = np.loadtxt(path)
        return rows[:, [0, 1, 2, 3, 7]]
    stamps, track = read_tum(path)
    track = planar(stamps, track)
    begin = np.arange(track[0, 0], track[-1, 0] - APART, APART)
    random = np.random.default_rng(seed).uniform(track[0, 0], track[-1, 0], (len(begin), 2))
    times = np.concatenate([np.column_stack([begin, begin + APART]), random])
    return np.column_stack([times, relative(track, times)])


def relative(track: Array, times: Array) -> Array:
    """Pose (m, 3) of the second time in the first along ``track`` (n, 4), interpolated."""
    a, b = (np.column_stack([np.interp(t, track[:, 0], track[:, k]) for k in (1, 2, 3)]) for t in times.T)
    c, s = np.cos(a[:, 2]), np.sin(a[:, 2])
    x, y = (b - a)[:, :2].T
    return np.column_stack([c * x + s * y, c * y - s * x, b[:, 2] - a[:, 2]])


def errors(track: Array, relations: Array) -> dict[str, float]:
    """Mean absolute error of the relations that lie within the track: short ones, and all."""
    inside = (relations[:, :2].min(axis=1) >= track[0, 0]) & (relations[:, :2].max(axis=1) <= track[-1, 0])
    wanted = relations[inside]
    difference = relative(track, wanted[:, :2]) - wanted[:, 2:]
    metres = np.hypot(difference[:, 0], difference[:, 1])
    turn = np.degrees(np.abs((difference[:, 2] + np.pi) % (2 * np.pi) - np.pi))
    short = np.abs(wanted[:, 1] - wanted[:, 0]) < SHORT
    return {
        "short": int(short.sum()),
        "short_m": float(metres[short].mean()),
        "short_deg": float(turn[short].mean()),
        "all": len(wanted),
        "all_m": float(metres.mean()),
        "all_deg": float(turn.mean()),
    }


def score(out: Path, reference: Path | None) -> dict[str, Any]:
    """Everything that is printed."""
    report = json.loads((out / "report.json").read_text())
    steps = report["learning"]["steps"]
    last = [p for p in report["parameters"] if p["name"].startswith("odometry.")]
    found: dict[str, Any] = {
        "parameters": {p["name"]: {k: p[k] for k in ("value", "sigma", "status")} for p in last},
        "metres_to_settle": {p["name"]: metres_to_settle(steps, p["name"]) for p in last},
    }
    if reference is None:
        return found
    stamps, odometry = read_tum(out / "odometry.tum")
    half = (int(stamps[0]) + int(stamps[-1])) // 2
    by_then = [step for step in steps if step["stamp_ns"] <= half]
    frozen = [
        Parameter(name, value, sigma, "", "learned") for name, (value, sigma) in by_then[-1]["parameters"].items()
    ]
    later = stamps > half
    relations = relations_of(reference)
    for name, parameters in (("nominal", ()), ("learned", frozen)):
        track = planar(stamps[later], reckoned(stamps[later], odometry[later], parameters))
        found[name] = errors(track, relations)
    return found


def main() -> None:
    """Score the run named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = score(options.out, options.reference)
    for name, p in found["parameters"].items():
        metres = found["metres_to_settle"][name]
        when = "stays" if metres is None else f"settled after {metres:.0f} m"
        print(f"{name:26} {p['value']:8.4f} +- {p['sigma']:.4f}  {p['status']:12} {when}")
    for name in ("nominal", "learned"):
        if name in found:
            e = found[name]
            print(
                f"second half, {name}: {e['short']} relations under {SHORT:.0f} s {e['short_m']:.4f} m "
                f"{e['short_deg']:.3f} deg; all {e['all']} {e['all_m']:.3f} m {e['all_deg']:.2f} deg"
            )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
