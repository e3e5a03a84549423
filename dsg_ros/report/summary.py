"""A run as one JSON-ready mapping: the content of report.json, from which report.html is laid out."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import platform
from collections.abc import Mapping
from typing import Any

import dsg_ros
from dsg_ros import config as configuration
from dsg_ros.interface import LearningStep, Parameter, RunResult
from dsg_ros.report import timing
from dsg_ros.report.derived import metres_driven

FORMAT = 1
"""Raised when a field of report.json changes its name or meaning."""

LIBRARIES = ("jax", "jaxlib", "numpy", "scipy", "jaxlie", "optax", "equinox", "numba", "evo", "rosbags", "matplotlib")


def summarise(result: RunResult, config: Any) -> dict[str, Any]:
    """Everything about ``result`` that is not a trajectory, a voxel or a picture."""
    metres = metres_driven(result.trajectory)
    stamps = result.stamps
    return {
        "program": "dsg_ros",
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": result.source,
        "summary": {
            "scans": len(stamps),
            "keyframes": len(result.path.stamps),
            "loops": len(result.path.loops),
            "voxels": len(result.voxels.ids),
            "voxel_size_m": float(result.voxels.size),
            "metres": float(metres[-1]) if len(metres) else 0.0,
            "seconds": float(stamps.max() - stamps.min()) / 1e9 if len(stamps) else 0.0,
            "first_stamp_ns": int(stamps.min()) if len(stamps) else None,
            "last_stamp_ns": int(stamps.max()) if len(stamps) else None,
        },
        "parameters": [_parameter(p) for p in result.parameters],
        "learning": _learning(result.learning),
        "counts": {name: int(value) for name, value in sorted(result.counts.items())},
        # The duration of the latest call tells a live display something, and a finished run nothing.
        "metrics": {n: float(v) for n, v in sorted(result.metrics.items()) if not n.startswith(timing.LATEST)},
        "evaluation": None,
        "configuration": {s.name: s.value for s in configuration.settings(config)},
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Version of this program, of Python and of every library whose numbers could matter."""
    found = {"dsg_ros": dsg_ros.__version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["system"] = f"{platform.system()} {platform.machine()}"
    return found


def finite(value: Any) -> Any:
    """``value`` with every number that JSON cannot hold (NaN, infinity) replaced by None, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "value": float(parameter.value),
        "sigma": float(parameter.sigma),
        "unit": parameter.unit,
        "status": parameter.status,
        "reason": parameter.reason,
    }


def _learning(steps: tuple[LearningStep, ...]) -> dict[str, Any]:
    return {
        "updates": len(steps),
        "accepted": sum(s.accepted for s in steps),
        "changes": [{"metres": float(s.metres), "what": s.change} for s in steps if s.change],
        "steps": [
            {
                "stamp_ns": int(s.stamp),
                "metres": float(s.metres),
                "loss_before": float(s.loss_before),
                "nis": float(s.nis),
                "loss_after": float(s.loss_after),
                "accepted": bool(s.accepted),
                "parameters": {p.name: [float(p.value), float(p.sigma)] for p in s.parameters},
            }
            for s in steps
        ],
    }


def entry(parameter: Parameter) -> dict[str, Any]:
    """A parameter as commands that learn tell it in JSON, under its name."""
    told = {name: getattr(parameter, name) for name in ("value", "sigma", "unit", "status")}
    return told | ({"reason": parameter.reason} if parameter.reason else {})
