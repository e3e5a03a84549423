"""How the node is doing, as plain figures: once a second to /diagnostics and, where files are kept, to status.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from dsg_ros.interface import Estimate
from dsg_ros.memory import resident_bytes
from dsg_ros.ros import convert
from dsg_ros.ros.inputs import Input
from dsg_ros.ros.latencies import Latencies
from dsg_ros.ros.sensors import Sensors
from dsg_ros.ros.tf_broadcaster import TfBroadcaster
from dsg_ros.synchroniser import dropped_scans
from dsg_ros.worker.backend import Status

Figures = dict[str, Any]


def figures(
    state: str, sensors: Sensors, answers: Latencies, worker: Status, tf: TfBroadcaster, estimate: Estimate | None
) -> Figures:
    """Everything worth knowing, nested by subject; JSON-able.

    Scans are those of the topics scan and points together: received = processed + waiting + sum of dropped.  What was
    ``lost`` on the way never arrived and is not among the received.
    """
    inputs, silence = sensors.inputs, sensors.silence
    counts = dict(sensors.synchroniser.counts)
    metrics = dict(estimate.metrics) if estimate else {}
    return {
        "state": state,
        "scans": _scans(sensors, worker),
        "odometry": _odometry(sensors.odometry, counts)
        | {"silence": silence.text, "scans_wait": silence.blocks, "scans_alone": bool(metrics.get("scans_alone"))},
        "inputs": {
            i.name: {
                "topic": i.topic,
                "publishers": i.publishers,
                "received": i.received,
                "rate_hz": round(i.measured_rate(), 2),
                "lost": i.lost,
            }
            | ({"frame_changes": i.frame_changes} if i.frame_changes else {})
            for i in inputs.values()
        },
        "points": {k: n for k, n in (*counts.items(), *sensors.points.items()) if k.startswith("points_")},
        "clock_jumps": counts.get("clock_jumped_back", 0),
        "localisation": estimate.localisation if estimate else "",
        "keyframes": int(estimate.counts.get("keyframes", 0)) if estimate else 0,
        "loops": int(estimate.counts.get("loops", 0)) if estimate else 0,
        "parameters": [
            {"name": p.name, "value": p.value, "sigma": p.sigma, "unit": p.unit, "status": p.status, "reason": p.reason}
            for p in (estimate.parameters if estimate else ())
        ],
        "counts": dict(estimate.counts) if estimate else {},
        "metrics": metrics,
        "map_to_odom": {
            "rate_hz": round(tf.measured_rate(), 2),
            "largest_gap_s": round(tf.largest_gap, 4),
            "published": tf.published,
            "child": sensors.odom_frame,
            "other_parent": sensors.above.parent,
            "conflict": sensors.above.conflict,
        },
        "callbacks": sensors.latencies.figures(),
        "answers": answers.figures(),
        "worker": {"state": worker.state, "restarts": worker.restarts}
        | ({"told_dropped": worker.told_dropped} if worker.told_dropped else {}),
        "memory_bytes": {"node": resident_bytes(), "worker": resident_bytes(worker.pid) if worker.pid else 0},
        "compilations_after_warm_up": int(metrics.get("compilations_after_warm_up", 0)),
    }


def counts(sensors: Sensors, worker: Status) -> dict[str, int]:
    """What came in, and by its cause what was dropped, refused or lost, as the counts of a report name them."""
    scans, odometry = _scans(sensors, worker), _odometry(sensors.odometry, dict(sensors.synchroniser.counts))
    found = {f"scans_dropped_{cause}": n for cause, n in scans["dropped"].items()} | odometry["refused"]
    for name, told in (("scans", scans), ("odometry", odometry)):
        found |= {f"{name}_received": told["received"], f"{name}_lost": told["lost"]}
    return {cause: n for cause, n in found.items() if n}


def _scans(sensors: Sensors, worker: Status) -> Figures:
    scans = sensors.scans
    refused = {f"{i.name}_{cause}": n for i in scans for cause, n in i.refused.items()}
    return {
        "received": sum(i.received for i in scans),
        "processed": worker.processed,
        "waiting": worker.waiting + sensors.waiting,
        "dropped": {**refused, **dropped_scans(sensors.synchroniser.counts), **worker.dropped},
        "lost": sum(i.lost for i in scans),
        "without_points": sensors.synchroniser.counts.get("scans_without_points", 0),
    }


def _odometry(source: Input | None, counts: dict[str, int]) -> Figures:
    """What came of it; of a robot without any, nothing."""
    if source is None:
        return {"used": False, "received": 0, "refused": {}, "lost": 0}
    told = {k: n for k, n in counts.items() if k.startswith("odometry_") and k != "odometry_received"}
    return {"used": True, "received": source.received, "refused": dict(source.refused) | told, "lost": source.lost}


def write(figures: Figures, folder: Path) -> None:
    """status.json in ``folder``, replaced as a whole so that a reader never meets half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".status.json.new"
    temporary.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    os.replace(temporary, folder / "status.json")


def diagnostics(figures: Figures, before: Figures | None, name: str, stamp: int) -> DiagnosticArray:
    """One status a subject; a warning where something was dropped or lost since ``before``, an error without a
    worker.
    """
    array = DiagnosticArray(header=convert.header(stamp, ""))
    previous = before or {}
    for subject, level, message in _judge(figures, previous):
        values = figures[subject] if isinstance(figures[subject], dict) else {subject: figures[subject]}
        status = DiagnosticStatus(level=level, name=f"{name}: {subject}", hardware_id=name, message=message)
        status.values = [KeyValue(key=key, value=_text(value)) for key, value in _flat(values)]
        array.status.append(status)
    return array


_STATES = {
    "paused": (DiagnosticStatus.WARN, "paused"),
    "clock jumped": (DiagnosticStatus.ERROR, "clock jumped: no scan is used until ~/resume or ~/reset"),
}
"""Those that somebody is to look at, and what is said of them."""

_OUTCOMES = {"refused": DiagnosticStatus.WARN, "failed": DiagnosticStatus.ERROR}
"""Of services: what was asked for in vain, and what broke."""

_SENSOR = {
    "sensor_upside_down": "the sensor seems to be mounted upside down",
    "sensor_backwards": "the sensor seems to look back",
    "sensor_tilted": "the sensor seems to be tilted",
    "beams_stuck": "beams of the scanner always tell the same range: dirt, damage, or a part of the robot in its view",
}


def _judge(figures: Figures, before: Figures) -> Iterator[tuple[str, bytes, str]]:
    ok, warn, error = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
    for subject in ("scans", "odometry"):
        now, then = figures[subject], before.get(subject, {})
        kinds, earlier = _complaints(now), _complaints(then)
        grown = [f"{n - earlier.get(k, 0)} {k}" for k, n in kinds.items() if n > earlier.get(k, 0)]
        rest = "everything is used" if now["received"] else "nothing received yet"
        if subject == "odometry" and (found := _judge_odometry(now)):
            level, rest = found
            yield subject, max(level, warn if grown else ok), ", ".join([rest, *grown])
        else:
            yield subject, warn if grown else ok, ", ".join(grown) or rest
    for subject in (
        "inputs",
        "other_inputs",
        "points",
        "metrics",
        "callbacks",
        "answers",
        "memory_bytes",
    ):
        yield subject, ok, ""
    conflict = figures["map_to_odom"]["conflict"]
    yield "map_to_odom", warn if conflict else ok, conflict
    sensor = [said for count, said in _SENSOR.items() if figures["counts"].get(count)]
    yield "counts", warn if sensor else ok, ", ".join(sensor)
    yield "parameters", ok, ", ".join(f"{p['name']} {p['status']}" for p in figures["parameters"])
    worker = figures["worker"]
    level = {"ready": ok, "warming up": warn}.get(worker["state"], error)
    doing = f" for {worker['warming_up_for_s']} s: {worker['doing']}" if "doing" in worker else ""
    yield "worker", level, f"{worker['state']}{doing}"
    yield "state", *_STATES.get(figures["state"], (ok, figures["state"]))
    if "checkpoint" in figures:
        yield "checkpoint", error if figures["checkpoint"]["error"] else ok, figures["checkpoint"]["error"]
    if services := figures.get("services"):
        latest = {name: each["latest"] for name, each in services.items()}
        words = {name: said.partition(":")[0] for name, said in latest.items()}
        levels = {name: _OUTCOMES[word] for name, word in words.items() if word in _OUTCOMES}
        vain = ", ".join(f"~/{name} {latest[name]}" for name in levels)
        yield "services", max(levels.values(), default=ok), vain
    if "status_file" in figures:
        yield "status_file", error if figures["status_file"]["error"] else ok, figures["status_file"]["error"]
    if figures["localisation"]:
        yield "localisation", ok if figures["localisation"] == "localised" else warn, figures["localisation"]
    yield "clock_jumps", ok, ""
    yield "compilations_after_warm_up", ok, ""


def _complaints(of: Figures) -> Figures:
    """What of scans, or of odometry, was not used, lost, or saw nothing, by cause."""
    causes: Figures = of.get("dropped") or of.get("refused") or {}
    return causes | {name: of[name] for name in ("lost", "without_points") if name in of}


def _judge_odometry(now: Figures) -> tuple[bytes, str] | None:
    """What stands before the messages that were refused, if there is anything to say of it."""
    if now["silence"]:
        return DiagnosticStatus.ERROR if now["scans_wait"] else DiagnosticStatus.WARN, now["silence"]
    if not now["used"]:
        return DiagnosticStatus.OK, "none is used (input.odometry none)"
    if now["scans_alone"]:
        why = "it stands still while scans see the robot move, or fell silent: mapped by scans alone until it moves"
        return DiagnosticStatus.WARN, why
    return None


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(values, list):
        for item in values:
            name = item["name"]
            yield from _flat({k: v for k, v in item.items() if k != "name"}, name)
    else:
        yield prefix, values


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
