"""Makes a ROS 2 bag of lidar3d/hku_balm: real scans of a handheld 3D lidar at 2 Hz, with poses used as odometry.

    python tools/hku_balm.py FOLDER BAG [--scale 1.03 --turn-per-metre 0.02 --noise 0.02 0.01 --seed 0]

FOLDER holds alidarPose.csv (a 4 x 4 matrix a scan, its last number the stamp in seconds) and derived_vox0.15/NNN.npz
(``xyz_mm`` (n, 3) int16).  The set has no ground truth: its poses come from lidar and IMU and are good to centimetres.
They are written to BAG.tum, and as odometry with errors put in that are known: a scale, a steady turn to the left,
and a random walk of all six numbers [m/sqrt(m)], [rad/sqrt(m)].  How much of them a run takes out again is measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.io.bagwriter import BagWriter, RunWriter
from dsg_ros.io.records import CloudRecord, OdometryRecord
from dsg_ros.io.trajectories import parse_stamp, write_tum

Array = NDArray[np.float64]


def given_poses(path: Path) -> tuple[list[int], Array]:
    """Stamps [ns] and poses (n, 7) of a file of 4 x 4 matrices, four comma-separated lines each."""
    rows = [line.strip().rstrip(",").split(",") for line in path.read_text().splitlines() if line.strip()]
    stamps = [parse_stamp(row[3]) for row in rows[3::4]]
    return stamps, np.array([from_matrix(np.array(rows[i : i + 3], float)) for i in range(0, len(rows), 4)])


def from_matrix(matrix: Array) -> Array:
    """Pose (7,) of [R | t] (3, 4), its rotation made orthonormal: the file has six digits."""
    from scipy.spatial.transform import Rotation

    u, _, vt = np.linalg.svd(matrix[:, :3])
    return np.concatenate([matrix[:, 3], Rotation.from_matrix(u @ vt).as_quat()])


def worsened(truth: Array, scale: float, turn_per_metre: float, noise: tuple[float, float], seed: int) -> Array:
    """Poses (n, 7) of odometry that errs as told, from increments of ``truth`` (n, 7)."""
    steps = poses.log(poses.between(truth[:-1], truth[1:]))
    driven = np.linalg.norm(steps[:, :3], axis=1)
    random = np.random.default_rng(seed).standard_normal(steps.shape) * np.repeat(noise, 3)
    steps[:, :3] *= scale
    steps[:, 5] += turn_per_metre * driven
    steps += random * np.sqrt(driven)[:, None]
    out = [truth[0]]
    for step in poses.exp(steps):
        out.append(poses.compose(out[-1], step))
    return np.array(out)


def main() -> None:
    """Write the bag and the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--turn-per-metre", type=float, default=0.0, help="rad/m")
    parser.add_argument("--noise", type=float, nargs=2, default=(0.0, 0.0), help="m/sqrt(m) and rad/sqrt(m)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stamps, truth = given_poses(options.folder / "alidarPose.csv")
    odometry = worsened(truth, options.scale, options.turn_per_metre, tuple(options.noise), options.seed)
    with BagWriter(options.bag, source="lidar3d/hku_balm") as bag:
        writer = RunWriter(bag, clouds=True)
        for number, stamp in enumerate(stamps):
            points = np.load(options.folder / "derived_vox0.15" / f"{number:03d}.npz")["xyz_mm"]
            writer.odometry(OdometryRecord(stamp, odometry[number]))
            cloud = CloudRecord(stamp, (1e-3 * points).astype(np.float32), None, "base_link", poses.IDENTITY)
            writer.cloud(cloud, "base_link")
        write_tum(options.bag.with_name(f"{options.bag.name}.tum"), stamps, truth)
    print(f"{options.bag}: {len(stamps)} clouds; {options.bag}.tum: the poses as given")


if __name__ == "__main__":
    main()
