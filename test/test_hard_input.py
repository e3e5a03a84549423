"""What a sensor or a crowd can do to a run: each simulated, with what the pipeline says and does."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import worlds
from documents import ROOT, read
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import Frame, RunResult
from dsg_ros.pipeline import Slam

Array = NDArray[np.float64]
Drive = tuple[Array, list[Frame]]  # true poses (n, 7) and a frame for each

STILL_RIGHT = 0.15
"""Metres that the map may be off anywhere, on a way on which no loop closes; the odometry alone is off by metres."""


@pytest.fixture(scope="module")
def drive() -> Drive:
    truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 0.75))
    odometry = worlds.biased(truth, scale=1.03, turn_per_metre=0.02)
    return truth, list(worlds.frames(worlds.block(), truth, odometry))


def mapped(frames: Iterable[Frame]) -> RunResult:
    slam = Slam(config.Slam())
    for frame in frames:
        slam.process(frame)
    return slam.finish()


def worst(result: RunResult, truth: Array) -> float:
    """How far the trajectory is from the truth [m], both from the first pose on, where it is worst."""
    away = result.trajectory[:, :3] - poses.between(truth[0], truth)[:, :3]
    return float(np.linalg.norm(away, axis=1).max())


def seeing(frame: Frame, points: Array) -> Frame:
    return replace(frame, points=points.astype(np.float32))


def later(frame: Frame, seconds: int) -> Frame:
    track = replace(frame.odometry, stamps=frame.odometry.stamps + seconds * worlds.SECOND)
    return replace(frame, stamp=frame.stamp + seconds * worlds.SECOND, odometry=track)


def stuck(frame: Frame, _: int) -> Frame:
    """One beam always reads the same."""
    return seeing(frame, np.vstack([frame.points, [[0.8, 0.3, 0.0]]]))


def accompanied(frame: Frame, number: int) -> Frame:
    """A tenth of the points lie on a person who walks beside the robot, and hides what is behind."""
    angle = np.linspace(0.0, 2.0 * np.pi, len(frame.points) // 10)
    x, y = 0.2 + 0.3 * np.sin(number / 9.0), 0.9
    person = np.column_stack([x + 0.2 * np.cos(angle), y + 0.2 * np.sin(angle), np.zeros(len(angle))])
    bearing = np.arctan2(frame.points[:, 1], frame.points[:, 0])
    return seeing(frame, np.vstack([frame.points[np.abs(bearing - np.arctan2(y, x)) > 0.25], person]))


@pytest.mark.parametrize(("change", "beams"), [(stuck, 1), (accompanied, 0)])
def test_the_map_stays_right(drive: Drive, change: Callable[[Frame, int], Frame], beams: int) -> None:
    truth, frames = drive
    result = mapped(change(frame, number) for number, frame in enumerate(frames))
    off = worst(result, truth)
    assert off < STILL_RIGHT
    assert result.counts["beams_stuck"] == beams
    assert np.linalg.norm(frames[-1].odometry.poses[0, :2] - poses.between(truth[0], truth[-1])[:2]) > 10 * off


def test_two_sensors_take_turns_on_one_topic(drive: Drive) -> None:
    """One looks ahead and one back, each with its own extrinsic: no scan sees what the one before it saw."""
    truth, frames = drive
    mounts = poses.from_planar(0.2, 0.0, 0.0), poses.from_planar(-0.2, 0.05, np.pi)
    taken = []
    for number, frame in enumerate(frames):
        mount = mounts[number % 2]
        points = worlds.scan(worlds.block(), poses.compose(truth[number], mount), noise=0.01, seed=number)
        taken.append(replace(seeing(frame, points), base_from_sensor=mount))
    assert worst(mapped(taken), truth) < STILL_RIGHT


def test_scans_of_invalid_ranges_follow_the_odometry_and_are_counted(drive: Drive) -> None:
    truth, frames = drive
    blind = range(100, 130)
    result = mapped(seeing(f, f.points[:0]) if n in blind else f for n, f in enumerate(frames))
    assert result.counts["scans_on_odometry_alone"] == len(blind)
    off = worst(result, truth)
    assert off < 2 * STILL_RIGHT
    assert len(result.trajectory) == len(frames)


def test_every_second_scan_may_be_blind(drive: Drive) -> None:
    """As of two sensors on one topic, one of them covered: a keyframe that saw nothing would take over what the match
    after it says of two steps.
    """
    truth, frames = drive
    result = mapped(seeing(f, f.points[:0]) if n % 2 else f for n, f in enumerate(frames))
    assert worst(result, truth) < STILL_RIGHT
    assert len(result.trajectory) == len(frames)


def test_a_map_begins_where_something_is_seen(drive: Drive) -> None:
    """Blind at first, whatever tells of the way: what comes then is not held against an empty map."""
    truth, frames = drive
    for settings, first in (({}, 30), ({"input.odometry": "none"}, 3)):
        slam = Slam(config.replace(config.Slam(), settings))
        for number, frame in enumerate(frames[:150]):
            slam.process(seeing(frame, frame.points[:0]) if number < first else frame)
        result = slam.finish()
        assert result.counts["scans_fitting_nowhere"] == result.counts["restarts_tried"] == 0
        assert result.counts["scans_not_resumed"] == 0
        assert len(result.trajectory) == 150
        away = poses.between(result.trajectory[first], result.trajectory[first:])[:, :3]
        assert np.abs(away - poses.between(truth[first], truth[first:150])[:, :3]).max() < STILL_RIGHT


def test_what_comes_after_a_long_way_blind_is_mapped_where_odometry_leads(drive: Drive) -> None:
    truth, frames = drive
    result = mapped(seeing(f, f.points[:0]) if 100 <= n < 230 else f for n, f in enumerate(frames))
    assert result.counts["scans_on_odometry_alone"] == 130
    assert len(result.trajectory) == len(frames)
    assert worst(result, truth) < 3 * STILL_RIGHT


def test_a_map_in_which_nothing_was_seen_is_begun_anew_when_it_is_gone_on_with(
    drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    _, frames = drive
    blind = Slam(config.Slam())
    for frame in frames[:20]:
        blind.process(seeing(frame, frame.points[:0]))
    slam = Slam(config.Slam())
    slam.restore(blind.state())
    with caplog.at_level(logging.WARNING, "dsg_ros"):
        slam.take_up()
    assert "none of the 20 scans before has seen anything: a new map begins" in caplog.text
    estimates = [slam.process(frame) for frame in frames[200:230]]
    assert estimates[-1].counts["scans"] == 30
    assert estimates[-1].counts["keyframes"] > 5


def test_a_scanner_that_never_sees_leaves_the_odometry(drive: Drive) -> None:
    _, frames = drive
    result = mapped(seeing(frame, frame.points[:0]) for frame in frames)
    # Where the first one is no odometry tells: it is where the map begins.
    assert result.counts["scans_on_odometry_alone"] == len(frames) - 1
    np.testing.assert_allclose(result.trajectory, result.odometry, atol=1e-6)
    assert {p.status for p in result.parameters if p.name.startswith("odometry")} == {"unobservable"}


@pytest.mark.parametrize("every", [1, 10], ids=["100 Hz", "1 Hz"])
def test_any_rate_will_do(every: int) -> None:
    route, step = worlds.laps(worlds.BLOCK_ROUTE, 0.75 if every > 1 else 0.3), 0.1 if every > 1 else 0.01
    truth = worlds.drive(route, step=step, turn=step)[::every]
    odometry = worlds.biased(truth, scale=1.03, turn_per_metre=0.02)
    frames = list(worlds.frames(worlds.block(), truth, odometry))
    period = worlds.SECOND if every > 1 else worlds.SECOND // 100
    paced = [
        replace(f, stamp=n * period, odometry=replace(f.odometry, stamps=np.array([n * period])))
        for n, f in enumerate(frames)
    ]
    assert worst(mapped(paced), truth) < STILL_RIGHT


def test_a_minute_without_data_is_bridged_by_the_odometry(drive: Drive) -> None:
    truth, frames = drive
    kept = np.r_[0:150, 180 : len(frames)]
    result = mapped(frames[n] if n < 150 else later(frames[n], 60) for n in kept)
    assert worst(result, truth[kept]) < STILL_RIGHT


@pytest.mark.parametrize(
    ("mirror", "count", "said"),
    [
        ((1, -1, 1), "sensor_upside_down", "scans turn left where the odometry turns right"),
        ((-1, -1, 1), "sensor_backwards", "scans go back where the odometry goes ahead"),
    ],
)
def test_a_sensor_mounted_the_wrong_way_round_is_told_once(
    drive: Drive, caplog: pytest.LogCaptureFixture, mirror: tuple[int, int, int], count: str, said: str
) -> None:
    _, frames = drive
    with caplog.at_level(logging.WARNING, "dsg_ros"):
        result = mapped(seeing(frame, frame.points * np.array(mirror)) for frame in frames)
    assert result.counts[count] == 1
    assert result.counts["sensor_upside_down"] + result.counts["sensor_backwards"] == 1
    assert sum(said in record.message for record in caplog.records) == 1


def test_a_sensor_as_its_extrinsic_says_is_not_told_of(drive: Drive) -> None:
    result = mapped(drive[1])
    assert result.counts["sensor_upside_down"] == result.counts["sensor_backwards"] == 0


def test_every_case_of_the_table_has_a_test() -> None:
    """docs/trust.md, *A sensor in trouble*."""
    section = read("docs/trust.md").split("## A sensor in trouble")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "test").rglob("test_*.py"))
    assert len(rows) == 10
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert [name for name in named if f"def {name}(" not in code] == []
