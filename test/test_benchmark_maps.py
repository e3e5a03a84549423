"""The benchmarks that map recordings: what they tell of a run is what is known of a drive that was made here."""

from __future__ import annotations

import bz2
import dataclasses
import lzma
import re
from pathlib import Path
from types import SimpleNamespace

import carmen_logs
import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from benchmarks import __main__ as command
from benchmarks import graphs, keyframes, maps, relocating, runs
from benchmarks.relations_graph import Drive, aligned, travelled
from benchmarks.walls import Walls, walls
from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.trajectories import write_tum

Array = NDArray[np.float64]
SCANS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data as they lie beside the project: mit-csail's name for a drive around the block, and where it truly went."""
    data = tmp_path_factory.mktemp("shared") / "data"
    (data / "relations_benchmark").mkdir(parents=True)
    log = carmen_logs.write_log(data / "made.clf", scans=SCANS)
    (data / "relations_benchmark" / runs.LOGS["mit-csail"]).write_bytes(bz2.compress(log.read_bytes()))
    truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1.5))[:SCANS]
    write_tum(data / "truth.tum", [round(1e9 * (1000 + 0.2 * i)) for i in range(SCANS)], truth)
    written = lzma.compress((data / "truth.tum").read_bytes())
    (data / "relations_benchmark" / maps.TRUTH["mit-csail"]).write_bytes(written)
    return data


@pytest.fixture
def at_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(graphs.VARIABLE, str(folder / "pose_graphs"))
    return folder


# Maps


def test_a_run_is_told_beside_its_goals_and_its_odometry(at_hand: Path, tmp_path: Path) -> None:
    (rows,) = maps.run(tmp_path, ["mit-csail"])
    found = {row.what: row for row in rows}
    final, gap = found["ATE RMSE, final"], found["closing gap, final"]
    assert (final.goal, gap.goal) == (0.09, 0.05)
    assert final.reached
    assert gap.reached
    assert final.peer is not None
    assert final.peer > 2 * final.ours
    assert {"ATE RMSE, causal", "ATE RMSE, live", "closing gap, live", "whole run"} < set(found)
    assert all(row.benchmark == "processes" and row.alone for row in rows)


def test_the_closing_gap_is_from_the_first_pose_to_the_last() -> None:
    track = poses.from_planar(np.array([1.0, 50.0, 4.0]), np.array([1.0, 9.0, 5.0]), np.zeros(3))
    assert maps.closing_gap(track) == pytest.approx(5.0)


def test_what_is_not_there_is_left_out_and_said(
    at_hand: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(maps.run(tmp_path, ["intel", "fr-clinic"])) == []
    assert list(relocating.run(tmp_path)) == list(keyframes.run(tmp_path)) == []
    assert capsys.readouterr().out.count("is not there") >= 4
    with pytest.raises(UserError, match="is not there"):
        list(relocating.run(tmp_path, ["intel"]))


def test_unknown_recordings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("maps", "relocalise", "keyframes"):
        assert command.main([name, "--recordings", "nowhere"]) == 2
        assert "no recording nowhere" in capsys.readouterr().err


# Relations without stamps

STEP = 5
"""Scans from one pose of the made graph to the next."""


@pytest.fixture
def drive() -> Drive:
    """A graph whose motions are those of a meandering log, off by noise and 1 %; its last pose is where it began."""
    rng = np.random.default_rng(3)
    turns = 0.25 * np.sin(np.arange(600) / 9.0) + rng.normal(0.0, 0.03, 600)
    steps = poses.from_planar(rng.uniform(0.1, 0.3, 600), np.zeros(600), turns)
    odometry = worlds.chained(poses.from_planar(2.0, 1.0, 0.4), steps)
    scans = np.arange(0, 601, STEP)
    motions = poses.between(odometry[scans[:-1]], odometry[scans[1:]])
    motions[:, :2] = 1.01 * motions[:, :2] + rng.normal(0.0, 0.005, (len(motions), 2))
    places = worlds.chained(poses.IDENTITY, motions)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(motions[:, :2], axis=1))])
    way = travelled(odometry[:, :2])
    way *= along[-1] / way[-1]
    found = aligned(motions, along, odometry, way)
    stamps = 10**9 * np.arange(len(odometry))
    ends = np.array([[2, 90], [10, 100]])
    relations = poses.between(odometry[scans[ends[:, 0]]], odometry[scans[ends[:, 1]]])
    return Drive(places, along, stamps, odometry, way, found, ends, relations)


def test_poses_of_a_graph_are_aligned_with_scans(drive: Drive) -> None:
    np.testing.assert_array_equal(drive.scans, np.arange(0, 601, STEP))


def test_positions_and_relations_are_scored(drive: Drive) -> None:
    track = drive.odometry.copy()
    moved = poses.compose(poses.from_planar(5.0, -2.0, 0.8), track[drive.scans])
    true = dataclasses.replace(drive, places=moved)
    assert true.by_scans(track) < 1e-6
    assert true.by_way(track) < 0.1  # that the way tells the scans by
    np.testing.assert_allclose(true.off(track).metres, 0.0, atol=1e-9)
    track[drive.scans[::2], 1] += 0.6
    assert true.by_scans(track) == pytest.approx(0.3, abs=0.01)
    track[300:, 0] += 1.0
    np.testing.assert_allclose(true.off(track).metres, 1.0, atol=1e-9)


def test_false_closures_are_those_that_relations_contradict(drive: Drive) -> None:
    keyframes_at = np.array([11, 52, 449, 503])
    first, second = np.array([0, 1, 3]), np.array([2, 3, 1])
    true = poses.between(drive.odometry[keyframes_at[first]], drive.odometry[keyframes_at[second]])
    true[1] = poses.compose(true[1], poses.from_planar(0.0, 3.0, 0.5))
    rows = {"Loop": {"first": first, "second": second, "measured": true}}
    off = drive.closures(SimpleNamespace(stamps=drive.stamps[keyframes_at], rows=rows))
    np.testing.assert_allclose(off.metres[[0, 2]], 0.0, atol=1e-6)
    assert off.metres[1] > 2.5
    assert off.radians[1] == pytest.approx(0.5)


# Walls


def corridor(offset: float = 0.0, turn: float = 0.0) -> Walls:
    """That of keyframes along a corridor of 30 m, driven there and back; on the way back poses are off."""
    xs = np.concatenate([np.arange(1.0, 29.0, 1.0), np.arange(28.5, 1.0, -1.0)])
    yaws = np.where(np.arange(len(xs)) < 28, 0.0, np.pi)
    truth = poses.from_planar(xs, np.ones(len(xs)), yaws)
    believed = truth.copy()
    back = poses.from_planar(0.0, offset, 0.0)
    believed[28:] = poses.compose(poses.compose(back, poses.from_planar(0.0, 0.0, turn)), truth[28:])
    along = np.arange(0.0, 30.0, 0.04)
    sides = np.concatenate([np.column_stack([along, np.full_like(along, y), 0 * along]) for y in (0.0, 2.0)])
    clouds = []
    for pose in truth:
        seen = poses.transform(poses.inverse(pose), sides)
        clouds.append(seen[np.linalg.norm(seen, axis=1) < 6.0])
    return walls(believed, clouds)


def test_walls_are_single_and_straight_where_poses_are_right() -> None:
    found = corridor()
    assert found.share == 0.0
    assert found.bend < 0.1


def test_a_corridor_met_again_beside_itself_is_double() -> None:
    assert corridor(offset=0.4).share > 0.9


def test_a_corridor_that_is_turned_is_bent() -> None:
    assert corridor(turn=np.radians(8.0)).bend == pytest.approx(4.0, abs=0.5)


# Keyframes


def test_costs_are_of_all_scans_and_fifths_of_all_keyframes(at_hand: Path) -> None:
    costs = keyframes.measure(runs.log_of("mit-csail"))
    assert costs.scans.sum() == SCANS
    assert 40 < len(costs.wall) < SCANS
    parts = costs.fifths
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == len(costs.wall)
    spent = costs.phases["estimate"] + costs.phases["catch_up"]
    assert (spent <= costs.wall).all()
    assert spent.sum() > 0.8 * costs.wall.sum()
    assert (np.diff(costs.whole) > 0).all()


def test_growth_is_told_of_the_last_fifth_over_the_first() -> None:
    count, mega = 50, 2**20
    wall = np.repeat([1.0, 1.0, 1.0, 1.0, 1.5], 10)
    graph = np.where(np.arange(count) == 45, 2.5, 0.0)
    memory = np.cumsum(np.repeat([1, 1, 1, 1, 2], 10)) * mega
    memory[30:] += 100 * mega
    parts = {"graph": np.arange(count) * mega, "scans": np.arange(count) ** 2 * mega}
    costs = keyframes.Costs(wall + graph, wall, np.ones(count, int), memory, {"graph": graph}, parts)
    found = {row.what: row for row in keyframes.rows("made", costs)}
    assert found["time a keyframe, mean"].ours == pytest.approx(1.75)
    assert found["time a keyframe, mean"].reached is False
    assert found["time a keyframe, median"].ours == pytest.approx(1.5)
    assert found["the same without solves of the whole graph, mean"].ours == pytest.approx(1.5)
    assert found["memory a keyframe"].ours == pytest.approx(2.0)
    # Of the fifth's first keyframe what was before, too.
    assert found["bytes of the map a keyframe"].ours == pytest.approx((49**2 - 39**2 + 10) / 10 / ((9**2 + 9) / 9))
    assert re.search(r"scans \[MiB\] +81.00 +361.00 +841.00 +1521.00 +2401.00", keyframes.profile("made", costs))
    assert "30 by 101.0 MiB" in keyframes.profile("made", costs)
    assert "45 by 2.0 MiB (graph solved)" in keyframes.profile("made", costs)
