"""The benchmark on logs that another system corrected finds the odometry behind them."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import corrected
from dsg_ros import poses
from dsg_ros.errors import UserError

STEP = poses.from_planar(0.5, 0.0, 0.2)
TURN = poses.from_planar(0.02, 0.01, 0.05)
"""What a scan corrects."""


def pose_words(pose: np.ndarray) -> str:
    return f"{pose[0]} {pose[1]} {2.0 * math.atan2(pose[5], pose[6])}"


def written(path: Path, stamps: list[str]) -> np.ndarray:
    """A log of as many scans, two odometry lines between them; the corrected poses (n, 7)."""
    here, lines, found = poses.from_planar(3.0, -1.0, 0.7), [], []
    for index, stamp in enumerate(stamps):
        if index:
            for _ in range(2):
                here = poses.compose(here, STEP)
                lines.append(f"ODOM {pose_words(here)} 0 0 0 0 pippo 0")
            here = poses.compose(here, TURN)
        lines.append(f"FLASER 3 1.0 2.0 81.9 {pose_words(here)} {pose_words(here)} {stamp} pippo {stamp}")
        lines.append("NEFF 30")
        found.append(here)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return np.array(found)


def test_odometry_is_chained_without_the_corrections(tmp_path: Path) -> None:
    path = tmp_path / "house-corrected.log.gz"
    truth = written(path, ["10.5", "11.25", "12", "13.5"])
    recording, reference = corrected.uncorrected(path)
    np.testing.assert_array_equal(recording.stamps, [10_500_000_000, 11_250_000_000, 12_000_000_000, 13_500_000_000])
    np.testing.assert_allclose(reference.poses, truth, atol=1e-12)
    both = poses.compose(STEP, STEP)
    steps = poses.between(recording.odometry[:-1], recording.odometry[1:])
    np.testing.assert_allclose(steps, np.tile(both, (3, 1)), atol=1e-9)
    np.testing.assert_allclose(recording.ranges[:, :2], [[1.0, 2.0]] * 4)
    assert np.isinf(recording.ranges[:, 2]).all()


def test_stamps_without_digits_are_counted_instead(tmp_path: Path) -> None:
    path = tmp_path / "house-corrected.log.gz"
    written(path, ["1.13486e+09"] * 4)
    recording, reference = corrected.uncorrected(path)
    np.testing.assert_array_equal(np.diff(recording.stamps), 2 * corrected.PERIOD)
    np.testing.assert_array_equal(reference.stamps, recording.stamps)


def test_a_scan_that_is_no_later_than_one_before_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "house-corrected.log.gz"
    written(path, [str(second) for second in [*range(80), 79, *range(80, 90)]])
    recording, reference = corrected.uncorrected(path)
    np.testing.assert_array_equal(recording.stamps, np.arange(90) * 1_000_000_000)
    assert len(reference.poses) == 90


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    written(tmp_path / "house-corrected.log.gz", ["1", "2", "3"])
    with pytest.raises(UserError, match="no logs barn; there are house"):
        list(corrected.run(tmp_path, ["barn"], None))
    with pytest.raises(UserError, match="--logs"):
        list(corrected.run(None, None, None))
    (tmp_path / "empty.log").write_text("ODOM 0 0 0 0 0 0 0 pippo 0\n")
    with pytest.raises(UserError, match="0 FLASER lines"):
        list(corrected.run(tmp_path, ["empty"], None))
