"""Recordings of simulated robots whose calibration is known, in the formats that `calibrate` reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.io import savemat

from dsg_ros import poses
from dsg_ros.io.trajectories import write_tum

ROBOT = {
    "axle": 0.30,
    "left_wheel_diameter": 0.101,
    "right_wheel_diameter": 0.099,
    "laser_x": 0.12,
    "laser_y": -0.03,
    "laser_yaw": 0.4,
}
LINEAR = {"scale": 1.04, "rotation_gain": 0.97, "turn_per_metre": 0.02, "lever_x": 0.05, "lever_y": -0.03}
NOISE_T, NOISE_R = 0.003, 0.003
"""Deviations of a step's odometry [m, rad]."""
REFERENCE = np.array([0.002, 0.002, 0, 0, 0, 0.002])
"""Deviations of a reference pose."""


def speeds(kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Forward motion [m] and turn [rad] of each step: through "rooms", "straight" on, or around a "circle"."""
    rng = np.random.default_rng(seed + 1000)
    forward, turn = np.full(count, 0.05), np.zeros(count)
    if kind == "rooms":
        turn = 0.06 * np.repeat(rng.normal(size=count // 20 + 1), 20)[:count]
        forward = np.where(np.repeat(rng.random(count // 20 + 1) < 0.15, 20)[:count], -0.04, 0.05)
    elif kind == "circle":
        turn += 0.02
    elif kind != "straight":
        raise ValueError(kind)
    return forward, turn


def tangents(forward: np.ndarray, turn: np.ndarray, sideways: np.ndarray | float = 0.0) -> np.ndarray:
    out = np.zeros((len(forward), 6))
    out[:, 0], out[:, 1], out[:, 5] = forward, sideways, turn
    return out


def chain(steps: np.ndarray) -> np.ndarray:
    """Poses (n + 1, 7) of tangents (n, 6)."""
    out = [poses.IDENTITY]
    for step in poses.exp(steps):
        out.append(poses.compose(out[-1], step))
    return np.array(out)


def wheel_tuples(
    robot: dict[str, float] = ROBOT, kind: str = "rooms", count: int = 600, seed: int = 0, outliers: float = 0.0
) -> list[dict]:
    """Steps of half a second as JSON objects."""
    rng = np.random.default_rng(seed)
    forward, turn = speeds(kind, count, seed)
    axle, left, right, x, y, yaw = robot.values()
    angles = np.stack([(2 * forward - axle * turn) / left, (2 * forward + axle * turn) / right], axis=1)
    laser = poses.from_planar(x, y, yaw)
    motion = poses.compose(poses.compose(poses.inverse(laser), poses.exp(tangents(forward, turn))), laser)
    seen = np.stack([motion[:, 0], motion[:, 1], poses.yaw(motion)], axis=1)
    seen += rng.normal(size=seen.shape) * [0.002, 0.002, 0.002]
    wild = rng.random(count) < outliers
    seen[wild] += rng.normal(size=(wild.sum(), 3)) * [0.2, 0.2, 0.3]
    return [
        {"T": 0.5, "phi_l": a[0] / 0.5, "phi_r": a[1] / 0.5, "sm": list(s)}
        for a, s in zip(angles.tolist(), seen.tolist(), strict=True)
    ]


def write_tuples(path: Path, steps: list[dict]) -> Path:
    path.write_text("".join(json.dumps(step) + "\n" for step in steps))
    return path


def measured(parameters: dict[str, float], kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Measured increments (n, 6) of a robot with these parameters, and the reference's trajectory (n + 1, 7)."""
    rng = np.random.default_rng(seed)
    forward, turn = speeds(kind, count, seed)
    body = tangents(forward, turn)
    # The reference's point moves by the lever too.
    lever = np.array([parameters["lever_x"], parameters["lever_y"], 0.0])
    true = body.copy()
    true[:, :3] += np.cross(body[:, 3:], lever)
    told = forward / parameters["scale"]
    odometry = tangents(told, (turn - parameters["turn_per_metre"] * told) / parameters["rotation_gain"])
    odometry[:, [0, 5]] += rng.normal(size=(count, 2)) * [NOISE_T, NOISE_R]
    truth = chain(true)
    return odometry, poses.compose(truth, poses.exp(rng.normal(size=(count + 1, 6)) * REFERENCE))


def write_mat(path: Path, parameters: dict[str, float] = LINEAR, kind: str = "rooms", count: int = 3000, seed: int = 0,
              **changed: np.ndarray) -> Path:  # fmt: skip
    odometry, truth = measured(parameters, kind, count, seed)
    t = 100 + 0.1 * np.arange(count + 1)
    columns = {
        "t": t,
        "v": np.append(odometry[:, 0] / 0.1, 0.0),
        "om": np.append(odometry[:, 5] / 0.1, 0.0),
        "x_true": truth[:, 0],
        "y_true": truth[:, 1],
        "th_true": poses.yaw(truth),
        "true_valid": np.ones(count + 1, np.uint8),
    } | changed  # fmt: skip
    savemat(path, {name: np.asarray(column)[:, None] for name, column in columns.items()})
    return path


def write_tum_pair(folder: Path, kind: str = "rooms", count: int = 2000, seed: int = 0) -> tuple[Path, Path]:
    odometry, truth = measured(LINEAR, kind, count, seed)
    stamps = 1_000_000_000_000 + 100_000_000 * np.arange(count + 1)
    write_tum(folder / "odometry.tum", stamps, chain(odometry))
    write_tum(folder / "truth.tum", stamps, truth)
    return folder / "odometry.tum", folder / "truth.tum"


BODY_FROM_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def kitti_lines(trajectory: np.ndarray) -> str:
    """Poses (n, 7) as KITTI writes them: 3x4 rows in the axes of a camera that looks forward."""
    matrices = poses.matrix(trajectory)
    turn = BODY_FROM_CAMERA.T @ matrices[:, :3, :3] @ BODY_FROM_CAMERA
    moved = matrices[:, :3, 3] @ BODY_FROM_CAMERA
    rows = np.concatenate([turn, moved[:, :, None]], axis=2).reshape(-1, 12)
    return "".join(" ".join(f"{value:.9e}" for value in row) + "\n" for row in rows)


def kitti_pair(folder: Path, kind: str, count: int = 400, seed: int = 0, gain: float = 1.02) -> tuple[Path, Path]:
    """A car at 10 m/s, its odometry 2 % short, and its ground truth."""
    rng = np.random.default_rng(seed)
    true = np.zeros((count, 6))
    true[:, 0] = 1.0
    if kind == "curves":
        true[:, 5] = 0.04 * np.repeat(rng.normal(size=count // 20 + 1), 20)[:count]
    told = true.copy()
    told[:, :3] /= 0.98
    told[:, 5] /= gain
    told += rng.normal(size=told.shape) * np.repeat([0.01, 0.0005], 3)
    odometry, truth = folder / "odometry.txt", folder / "truth.txt"
    odometry.write_text(kitti_lines(chain(told)))
    seen = poses.compose(chain(true), poses.exp(rng.normal(size=(count + 1, 6)) * np.repeat([0.01, 0.0003], 3)))
    truth.write_text(kitti_lines(seen))
    return odometry, truth
