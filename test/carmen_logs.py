"""CARMEN logs of simulated robots in the places of `worlds`, whose odometry errs in a known way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import worlds

from dsg_ros import poses

BEARINGS = np.deg2rad(np.arange(180) - 90.0)
"""Of the 180 beams that FLASER lines have."""


def write_log(
    path: Path,
    *,
    laps: float = 1.5,
    scale: float = 1.05,
    turn_per_metre: float = 0.0,
    seed: int = 0,
    begin: float = 1000.0,
    scans: int | None = None,
) -> Path:
    """A drive around `worlds.block`, its first ``scans`` only; the odometry tells ``scale`` times the way, and a drift
    per metre.
    """
    rng = np.random.default_rng(seed)
    walls = worlds.block()
    truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, laps))[:scans]
    odometry = worlds.biased(truth, scale=scale, turn_per_metre=turn_per_metre)
    # What wheels tell is not exact either: a scatter of 1 % of each step, and a little of its turn.
    steps = worlds.increments(odometry)
    noise = rng.normal(0.0, 1.0, (len(steps), 2)) * [0.01, 0.002]
    turned = poses.yaw(steps) + noise[:, 1]
    odometry = worlds.chained(odometry[0], poses.from_planar(steps[:, 0] * (1 + noise[:, 0]), steps[:, 1], turned))
    return _write(path, walls, truth, odometry, rng, begin)


def write_standing(path: Path, scans: int = 30) -> Path:
    """A robot that stands all the time."""
    still = np.repeat(worlds.drive(worlds.BLOCK_ROUTE)[:1], scans, axis=0)
    return _write(path, worlds.block(), still, np.repeat(poses.IDENTITY[None], scans, axis=0), np.random.default_rng(0))


def _write(
    path: Path,
    walls: np.ndarray,
    truth: np.ndarray,
    odometry: np.ndarray,
    rng: np.random.Generator,
    begin: float = 1000.0,
) -> Path:
    lines = []
    for i, (pose, wheels) in enumerate(zip(truth, odometry, strict=True)):
        told = worlds.ranges(walls, pose[:2], BEARINGS + poses.yaw(pose)) + rng.normal(0.0, 0.01, len(BEARINGS))
        beams = " ".join(f"{min(r, 81.83):.3f}" for r in told)
        where = f"{wheels[0]:.6f} {wheels[1]:.6f} {float(poses.yaw(wheels)):.6f}"
        lines.append(f"FLASER 180 {beams} {where} {where} {begin + 0.2 * i:.6f} robot {0.2 * i:.6f}\n")
    path.write_text("".join(lines))
    return path
