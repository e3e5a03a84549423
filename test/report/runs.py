"""Runs made up for the report's tests: a robot in a room or in a long corridor ring, with biased odometry."""

from __future__ import annotations

import dataclasses

import numpy as np

from dsg_ros import poses
from dsg_ros.interface import LearningStep, OccupancyGrid, Parameter, Path, RunResult, VoxelMap

METRICS = {
    "seconds_run.start_up": 2.1,
    "seconds_run.processing": 31.0,
    "seconds.register": 0.004,
    "seconds_total.register": 12.0,
    "seconds_p50.register": 0.002,
    "seconds_p99.register": 0.009,
    "seconds_total.graph": 17.0,
    "seconds_p50.graph": 0.6,
    "seconds_p99.graph": 1.4,
    "metres": 54.0,
}
START = 1_031_745_824_658_000_000


def parameters(scale: float, sigma: float) -> tuple[Parameter, ...]:
    return (
        Parameter("odometry_scale", scale, sigma, "", "learned"),
        Parameter("turn_per_metre", 0.01 * (scale - 1) / 0.03, sigma / 10, "rad/m", "learned"),
        Parameter("lever_x", 0.0, 0.1, "m", "unobservable", "sd 0.97 of the prior's"),
        Parameter("lateral_slip", 0.0, 0.05, "", "frozen", "--freeze-theta"),
    )


def room(edge: float = 8.0, laps: int = 2, scans: int = 400, seed: int = 3) -> RunResult:
    """A robot driving ``laps`` rounded squares of ``edge`` metres; its odometry over-reads and turns too little."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0.0, 2 * np.pi * laps, scans)
    squircle = (np.abs(np.cos(angle)) ** 6 + np.abs(np.sin(angle)) ** 6) ** (-1 / 6)
    x, y = 0.5 * edge * squircle * np.cos(angle), 0.4 * edge * squircle * np.sin(angle)
    yaw = np.unwrap(np.arctan2(np.gradient(y), np.gradient(x)))
    truth = poses.from_planar(x, y, yaw)
    truth = poses.compose(poses.inverse(truth[0]), truth)
    increments = poses.log(poses.between(truth[:-1], truth[1:]))
    increments[:, 0] *= 1.03
    increments[:, 5] *= 0.985
    odometry = [poses.from_planar(100.0, -20.0, 0.7)]
    for step in poses.exp(increments):
        odometry.append(poses.compose(odometry[-1], step))
    noise = np.zeros((scans, 6))
    noise[:, [0, 1, 5]] = rng.normal(0.0, [0.002, 0.002, 0.0005], (scans, 3)) * edge
    trajectory = poses.compose(truth, poses.exp(noise))
    stamps = START + (np.arange(scans) * 2e8).astype(np.int64)
    keyframes = np.arange(0, scans, 4)
    lap = len(keyframes) // laps
    loops = np.array([(i, i + lap) for i in range(0, len(keyframes) - lap, 5)], np.int32).reshape(-1, 2)
    driven = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(truth[:, :3], axis=0), axis=1))])
    learning = tuple(
        LearningStep(int(stamps[k]), float(driven[k]), 3.0 / (i + 1) + 0.5, 2.5 / (i + 1) + 0.5, i % 7 != 5, theta, 1.0)
        for i, k in enumerate(keyframes[10::8])
        for theta in [parameters(1 - 0.03 * (1 - np.exp(-i / 3)), 0.05 / np.sqrt(i + 1))]
    )
    return RunResult(
        stamps=stamps,
        trajectory=trajectory,
        causal=trajectory,
        live=poses.compose(trajectory, poses.exp(2 * noise)),
        odometry=np.array(odometry),
        path=Path(stamps[keyframes], trajectory[keyframes], loops),
        voxels=walls(truth, stamps, 0.1 if edge < 50 else 0.3, rng),
        parameters=learning[-1].parameters if learning else (),
        learning=learning,
        metrics=METRICS | {"not_a_number": float("nan")},
        counts={"scans": scans, "keyframes": len(keyframes), "loops": len(loops), "scans_without_odometry": 1},
        source="killian.g2o.zip",
        grid=OccupancyGrid(rng.choice(np.array([-1, 0, 100], np.int8), (40, 60)), (-20, 12), 0.05),
    )


def walls(trajectory: np.ndarray, stamps: np.ndarray, size: float, rng: np.random.Generator) -> VoxelMap:
    """Voxels on both sides of the path, one pair a scan, with normals towards it and some clutter without."""
    means, normals, seen = [], [], []
    for pose, stamp in zip(trajectory, stamps, strict=True):
        for side in (-1.0, 1.0):
            along = rng.uniform(-1, 1, 4) * max(1.0, 10 * size)
            lateral = side * (1.5 + 5 * size) + rng.normal(0.0, 0.01, 4)
            local = np.column_stack([along, lateral, np.zeros(4)])
            means.append(poses.transform(pose, local))
            normals.append(np.tile(poses.rotate(pose[3:], np.array([0.0, -side, 0.0])), (4, 1)))
            seen.append(np.full(4, stamp))
    stacked = np.concatenate(normals)
    stacked[rng.random(len(stacked)) < 0.1] = 0.0
    n = len(stacked)
    counts = rng.integers(1, 80, n).astype(np.int32)
    ids, none = np.arange(n, dtype=np.int64), np.zeros(0, np.int64)
    seen_at = np.concatenate(seen).astype(np.int64)
    places, known = np.concatenate(means).astype(np.float32), np.full(n, 0.01, np.float32)
    spread = np.tile(np.float32([1e-4, 0, 0, 1e-2, 0, 0]), (n, 1))
    return VoxelMap(size, ids, places, stacked.astype(np.float32), counts, known, seen_at, none, seen_at.copy(), spread)


def empty() -> RunResult:
    """A run that was stopped before its first scan."""
    no_poses, no_stamps = np.zeros((0, 7)), np.zeros(0, np.int64)
    nothing = np.zeros((0, 3), np.float32)
    no_counts, unknown = np.zeros(0, np.int32), np.zeros(0, np.float32)
    spread = np.zeros((0, 6), np.float32)
    voxels = VoxelMap(0.1, no_stamps, nothing, nothing, no_counts, unknown, no_stamps, no_stamps, no_stamps, spread)
    path = Path(no_stamps, no_poses, np.zeros((0, 2), np.int32))
    return RunResult(no_stamps, no_poses, no_poses, no_poses, no_poses, path, voxels, parameters(1.0, 0.05), (), {}, {})


def with_trajectory(run: RunResult, trajectory: np.ndarray) -> RunResult:
    return dataclasses.replace(run, trajectory=trajectory)


def cut(run: RunResult, n: int) -> RunResult:
    """The first ``n`` scans of ``run``, before anything was learned."""
    path = Path(run.path.stamps[:1], run.path.poses[:1], np.zeros((0, 2), np.int32))
    arrays = {name: getattr(run, name)[:n] for name in ("stamps", "trajectory", "causal", "live", "odometry")}
    return dataclasses.replace(run, **arrays, path=path, learning=())
