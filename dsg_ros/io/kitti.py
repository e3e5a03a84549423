"""KITTI odometry poses: a 3x4 matrix a line, row by row, of the camera in the frame of the first one; 10 Hz.

The camera looks along +z, x is to its right and y down (Geiger et al., CVPR 2012).  Here poses are in the axes of
REP-103: x forward, y left, z up.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dsg_ros.errors import UserError
from dsg_ros.io.motions import Motions, body_motions
from dsg_ros.io.textfile import read_bytes

RATE = 10.0
"""Poses a second."""
BODY_FROM_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_ROTATION = 1e-2
"""How far from a rotation a matrix may be: files are written with few digits."""


def is_kitti(first_line: bytes) -> bool:
    """Whether a file that begins with ``first_line`` holds such poses."""
    return _numbers(first_line) == 12


def _numbers(line: bytes) -> int:
    try:
        return len([float(word) for word in line.split()])
    except ValueError:
        return 0


def read_poses(path: Path, data: bytes) -> NDArray[np.float64]:
    """Poses (n, 7); `UserError` names the line of what is none."""
    rows = []
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            row = np.array(list(map(float, words)))
            if row.shape != (12,):
                raise ValueError(f"{len(words)} numbers instead of 12")
            if not np.isfinite(row).all():
                raise ValueError("not all numbers are finite")
            turn = row.reshape(3, 4)[:, :3]
            if np.abs(turn @ turn.T - np.eye(3)).max() > _ROTATION or np.linalg.det(turn) < 0:
                raise ValueError("the first three columns are no rotation")
        except ValueError as error:
            raise UserError(f"{path}:{number}: not a KITTI pose: {error}") from error
        rows.append(row)
    if len(rows) < 3:
        raise UserError(f"{path}: {len(rows)} poses are too few to calibrate with")
    table = np.array(rows).reshape(-1, 3, 4)
    turned = Rotation.from_matrix(BODY_FROM_CAMERA @ table[:, :, :3] @ BODY_FROM_CAMERA.T)
    return np.concatenate([table[:, :, 3] @ BODY_FROM_CAMERA.T, turned.as_quat()], axis=1)


def read_kitti(path: Path, data: bytes, reference: Path) -> Motions:
    """Steps between the poses of an odometry, with those of the ground truth ``reference``, frame by frame."""
    odometry = read_poses(path, data)
    truth_data = read_bytes(reference)
    if not is_kitti(truth_data.split(b"\n", 1)[0]):
        raise UserError(f"{reference}: not a KITTI pose file; the reference of {path} is one of the same frames")
    truth = read_poses(reference, truth_data)
    if len(truth) != len(odometry):
        raise UserError(
            f"{reference} has {len(truth)} poses and {path} has {len(odometry)}: they are not of the same frames; "
            "give the ground truth of the same sequence"
        )
    if np.array_equal(odometry, truth):
        raise UserError(f"{reference} holds the same poses as {path}: nothing can be learned from a copy")
    stamps = np.arange(len(odometry)) / RATE
    return body_motions(str(path), odometry, truth, stamps=stamps, stamp_unit="s", planar=False)
