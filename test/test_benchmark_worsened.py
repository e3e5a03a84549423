"""The benchmark of recordings made worse: what is made of them, and how maps of them are scored."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import truth, worsened
from benchmarks.worsening import WORSE, Recording, chained, gained, increments, mirrored, mistold, read, turned
from benchmarks.worsening import worsened as made_worse
from dsg_ros import config, poses
from dsg_ros.errors import UserError
from dsg_ros.io.logs import frames

Array = NDArray[np.float64]
SCANS = 200


@pytest.fixture
def recording() -> Recording:
    """A tenth of a metre and two degrees a scan, five scans a second."""
    steps = np.tile([0.1, 0.0, np.deg2rad(2.0)], (SCANS - 1, 1))
    stamps = 10**18 + 200_000_000 * np.arange(SCANS)
    ranges = np.random.default_rng(0).uniform(1.0, 12.0, (SCANS, 180)).astype(np.float32)
    ranges[:, 7] = np.inf
    odometry = chained(poses.from_planar(1.0, 2.0, 0.5), steps)
    mounting = poses.from_planar(0.1, 0.0, 0.0)
    return Recording("made", stamps, stamps, odometry, ranges, -np.pi / 2, np.deg2rad(1.0), mounting)


def points_in_base(recording: Recording) -> Array:
    frame = next(iter(frames(recording, config.Input())))
    return poses.transform(frame.base_from_sensor, frame.points.astype(float))


@pytest.mark.parametrize("how", WORSE)
def test_every_way_makes_a_log_of_its_own(recording: Recording, how: str) -> None:
    before = dataclasses.replace(recording, ranges=recording.ranges.copy(), odometry=recording.odometry.copy())
    found, again = made_worse(recording, how), made_worse(recording, how)
    assert len(list(frames(found, config.Input()))) == len(found) == len(found.recorded) == len(found.odometry)
    assert set(found.recorded) <= set(recording.recorded)
    for name in ("stamps", "odometry", "ranges", "mounting"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(recording, name), getattr(before, name))
    assert any(
        np.shape(getattr(found, name)) != np.shape(getattr(recording, name))
        or not np.array_equal(getattr(found, name), getattr(recording, name))
        for name in ("stamps", "odometry", "ranges", "mounting")
    )


def test_gains_scale_way_and_turns(recording: Recording) -> None:
    steps = increments(gained(recording, scale=1.07, turn=0.93).odometry)
    np.testing.assert_allclose(steps, increments(recording.odometry) * [1.07, 1.07, 0.93], atol=1e-12)


def test_a_sensor_that_is_turned_and_told_so_sees_the_same(recording: Recording) -> None:
    np.testing.assert_allclose(points_in_base(turned(recording, 0.5)), points_in_base(recording), atol=1e-5)


def test_a_mirrored_world_is_seen_in_the_mirror(recording: Recording) -> None:
    found = mirrored(recording)
    np.testing.assert_allclose(points_in_base(found)[::-1], points_in_base(recording) * [1, -1, 1], atol=1e-5)
    np.testing.assert_allclose(found.truly(found.odometry), recording.odometry)
    steps = [poses.between(each.odometry[:-1], each.odometry[1:]) for each in (found, recording)]
    np.testing.assert_allclose(found.truly_between(steps[0]), steps[1], atol=1e-12)


def test_where_the_mounting_is_told_wrong_the_true_base_is_scored(recording: Recording) -> None:
    found = mistold(recording, 0.1)
    sensor = poses.compose(recording.odometry, recording.mounting)
    told = poses.compose(sensor, poses.inverse(found.mounting))
    np.testing.assert_allclose(found.truly(told), recording.odometry, atol=1e-12)
    steps = poses.between(told[:-1], told[1:])
    true = poses.between(recording.odometry[:-1], recording.odometry[1:])
    np.testing.assert_allclose(found.truly_between(steps), true, atol=1e-12)


def test_a_gap_needs_a_robot_that_drives(recording: Recording) -> None:
    assert len(made_worse(recording, "5 s lost while driving")) == SCANS - 25
    still = dataclasses.replace(recording, odometry=np.repeat(recording.odometry[:1], SCANS, axis=0))
    with pytest.raises(UserError, match="never drives 1 m in 5 s"):
        made_worse(still, "5 s lost while driving")


def test_a_log_is_read_as_far_as_wanted(tmp_path: Path) -> None:
    beams = " ".join(["1.0"] * 180)
    lines = [f"FLASER 180 {beams} 0 0 0 {k}.0 0 0 {k}.5 host {k}.5\n" for k in range(10)]
    (tmp_path / "some.log").write_text("".join(lines))
    found = read(tmp_path / "some.log", seconds=4.0)
    np.testing.assert_array_equal(found.stamps, 500_000_000 + 10**9 * np.arange(5))
    np.testing.assert_allclose(found.odometry[:, 0], np.arange(5.0))
    (tmp_path / "mixed.log").write_text(lines[0] + "FLASER 2 1 1 0 0 0 0 0 0 1.5 host 1.5\n")
    with pytest.raises(UserError, match="scans of 2 kinds"):
        read(tmp_path / "mixed.log")


def test_errors_are_those_of_relations_wherever_the_map_begins(recording: Recording, tmp_path: Path) -> None:
    first, second = recording.odometry[10:50], recording.odometry[60:100]
    rows = poses.between(first, second)
    ends = np.stack([recording.stamps[10:50], recording.stamps[60:100]], axis=1) * 1e-9
    told = np.zeros((len(rows), 8))
    told[:, :2], told[:, 2:4], told[:, 7] = ends, rows[:, :2], poses.yaw(rows)
    told = np.vstack([told, [0.0, 1.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0]])  # of another time
    np.savetxt(tmp_path / "some.relations", told, fmt="%.9f")
    moved = poses.compose(poses.from_planar(3.0, -1.0, 2.0), recording.odometry)
    order = np.random.default_rng(0).permutation(SCANS)
    assert truth.error(tmp_path / "some.relations", recording.stamps[order], moved[order]) < 1e-4
    longer = gained(recording, scale=1.1).odometry
    way = np.linalg.norm(rows[:, :2], axis=1).mean()
    assert truth.error(tmp_path / "some.relations", recording.stamps, longer) == pytest.approx(0.1 * way, rel=1e-3)


def test_closures_that_the_map_contradicts_are_wrong(recording: Recording) -> None:
    relative = poses.between(recording.odometry[[0, 0, 0]], recording.odometry[[150, 150, 150]])
    off = np.array([poses.from_planar(0.4, 0.0, 0.0), poses.from_planar(0.0, 0.6, 0.0), poses.from_planar(0, 0, 0.1)])
    ends = recording.stamps[np.array([[0, 150]] * 3)]
    plain = worsened.Outcome(recording.stamps, recording.odometry, recording.odometry, ends, relative, (), {})
    assert worsened.wrong_closures(plain, plain) == 0
    assert worsened.wrong_closures(dataclasses.replace(plain, closures=poses.compose(relative, off)), plain) == 2
