"""The outcome of a run on stdout."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dsg_ros.commands._run_clock import Clock
from dsg_ros.interface import RunResult

if TYPE_CHECKING:
    from dsg_ros.commands.run import Options


def tell(options: Options, result: RunResult, report: dict[str, Any], clock: Clock, interrupted: bool) -> None:
    """A few lines for people, and with --json one object as the last line."""
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
            "estimate_ms": _percentiles(clock.estimates),
            "scan_ms": _percentiles(clock.scans),
            "compilations_after_warm_up": int(result.metrics["compilations_after_warm_up"]),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "parameters": {p["name"]: {k: v for k, v in p.items() if k != "name"} for p in report["parameters"]},
            "counts": report["counts"],
            "ate": ate or None,
        }
        print(json.dumps(found, allow_nan=False))
    sys.stdout.flush()


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    return {f"p{q}": 1e3 * float(np.percentile(seconds, q)) for q in (50, 90, 99, 100)}
