"""What `learn` leaves behind: lines for people, one JSON object, and where learned.yaml comes from."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from dsg_ros.commands._learn_logs import LogReport, Outcome
from dsg_ros.learning.joint import Estimate
from dsg_ros.report.summary import entry, finite, versions


def provenance(outcome: Outcome) -> dict[str, Any]:
    """For learned.yaml: the logs, the way driven, held-out loss before and after, date and versions."""
    return {
        "log": ", ".join(Path(report.drive.log).name for report in outcome.logs if _used(outcome, report)),
        "logs": [
            {
                "log": Path(report.drive.log).name,
                "metres": report.drive.metres,
                "blocks": report.drive.blocks,
                "used": _used(outcome, report),
            }
            for report in outcome.logs
        ],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "metres": outcome.together.metres,
        "loss_before": outcome.together.held_out_before,
        "loss_after": outcome.together.held_out_after,
        "held_out": outcome.held_out,
        "versions": versions(),
    }


def tell(outcome: Outcome, as_json: bool) -> None:
    """The outcome on stdout: a line a log and a parameter for people, and with ``as_json`` one object as the last."""
    together = outcome.together
    width = max(len(Path(report.drive.log).name) for report in outcome.logs)
    for report in outcome.logs:
        print(f"{Path(report.drive.log).name:<{width}}  {_line(outcome, report)}")
    for p in outcome.parameters:
        unit = "" if p.unit == "ratio" else f" {p.unit}"
        reason = f" ({p.reason})" if p.reason else ""
        print(f"{p.name:<35} {p.value:12.6g} +- {p.sigma:.2g}{unit}  {p.status}{reason}")
    print(
        f"held out ({outcome.held_out}): {together.held_out_before:.4g} -> {together.held_out_after:.4g}, about 1 "
        f"where model and noise are right; {together.metres:.1f} m"
    )
    if as_json:
        found = {
            "parameters": {p.name: entry(p) for p in outcome.parameters},
            "held_out_before": together.held_out_before,
            "held_out_after": together.held_out_after,
            "metres": together.metres,
            "held_out": outcome.held_out,
            "logs": [_log(outcome, report) for report in outcome.logs],
        }
        print(json.dumps(finite(found), allow_nan=False))
    sys.stdout.flush()


def _used(outcome: Outcome, report: LogReport) -> bool:
    return not report.drive.unusable and (report.found is None or report.found.used)


def _line(outcome: Outcome, report: LogReport) -> str:
    drive, found = report.drive, report.found
    if drive.unusable:
        return f"not used: {drive.unusable}"
    text = f"{drive.blocks:5d} blocks {drive.metres:8.1f} m"
    if found is None:
        return text
    by_others = "" if found.loss_others is None else f" -> {found.loss_others:.3f} by the others"
    text += f"  {found.loss_start:.3f} at the start{by_others}, {found.loss_all:.3f} by all"
    if found.test is not None:
        text += f"; {'agrees' if found.agrees else 'CONTRADICTS the others'} (p = {found.test.p_value:.2g})"
    return text if found.used else f"{text}, not used"


def _log(outcome: Outcome, report: LogReport) -> dict[str, Any]:
    drive, found = report.drive, report.found
    told: dict[str, Any] = {
        "log": drive.log,
        "used": _used(outcome, report),
        "reason": drive.unusable,
        "scans": drive.scans,
        "keyframes": drive.keyframes,
        "blocks": drive.blocks,
        "metres": drive.metres,
        "counts": dict(drive.counts),
    }
    if found is None:
        return told
    told |= {
        "held_out_start": found.loss_start,
        "held_out_others": found.loss_others,
        "held_out_all": found.loss_all,
        "agrees": found.agrees,
        "own": _values(outcome, found.own, found.own.deviation),
    }
    if found.test is not None and found.others is not None:
        told |= {
            "p_value": found.test.p_value,
            "score": found.test.statistic,
            "directions": found.test.directions,
            "others": _values(outcome, found.others, found.others.used),
        }
    return told


def _values(outcome: Outcome, estimate: Estimate, deviation: Any) -> dict[str, dict[str, float]]:
    """By name: ``own`` values as they are, those of the others as the guards let them through."""
    values = outcome.joint.physical(deviation)
    return {
        name: {"value": float(value), "sigma": float(sigma)}
        for name, value, sigma in zip(outcome.joint.names, values, estimate.sigmas, strict=True)
    }
