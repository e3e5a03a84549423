"""A robot without odometry whose pipeline is restored, or that nothing told of for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import Estimate, Frame
from dsg_ros.mapping.carried import SCANS
from dsg_ros.pipeline import Slam
from dsg_ros.state import State

Array = NDArray[np.float64]
WALLS = worlds.polygon((0, 0), (9, 0), (9, 4), (5, 4), (5, 7), (2, 7), (2, 5), (0, 5))
"""A room without symmetry."""
TRUTH = worlds.drive([(1.5, 1.5), (7.5, 2.0), (3.5, 2.5), (3.5, 6.0)])
SETTINGS = config.replace(config.Slam(), {"input.odometry": "none"})
TENTH = worlds.SECOND // 10


def frames(truth: Array, first: int = 0, walls: Array = WALLS) -> list[Frame]:
    """Scans from ``truth`` (n, 7); numbers from ``first`` make the stamps."""
    made = worlds.frames(walls, truth, np.tile(poses.IDENTITY, (len(truth), 1)))
    moved = ((frame, frame.stamp + first * TENTH) for frame in made)
    return [
        replace(frame, stamp=stamp, odometry=replace(frame.odometry, stamps=np.array([stamp])))
        for frame, stamp in moved
    ]


@pytest.fixture(scope="module")
def mapped() -> tuple[State, Array]:
    """The state after the whole of the drive, and the poses (n, 7) told."""
    slam = Slam(SETTINGS)
    told = np.array([slam.process(frame).pose for frame in frames(TRUTH)])
    return slam.state(), told


def restored(mapped: tuple[State, Array]) -> Slam:
    slam = Slam(SETTINGS)
    slam.restore(mapped[0])
    return slam


def off(estimates: Sequence[Estimate], truth: Array) -> Array:
    """Errors (n,) [m], NaN where it is not known where the robot is."""
    there = poses.between(TRUTH[0], truth)
    distance = np.linalg.norm([e.pose[:2] - t[:2] for e, t in zip(estimates, there, strict=True)], axis=1)
    return np.where([e.known for e in estimates], distance, np.nan)


def test_a_restored_run_goes_on_as_fast_as_it_did() -> None:
    whole, again, all_frames = Slam(SETTINGS), Slam(SETTINGS), frames(TRUTH[:30])
    for frame in all_frames[:20]:
        whole.process(frame)
    again.restore(
        {name: np.array(value) if not isinstance(value, tuple) else value for name, value in whole.state().items()}
    )
    for frame in all_frames[20:]:
        np.testing.assert_array_equal(again.process(frame).pose, whole.process(frame).pose)


def test_a_robot_is_found_where_it_stood_and_where_it_was_brought(mapped: tuple[State, Array]) -> None:
    """After a restart: nothing is made of a way that nobody told."""
    for route in ([(3.5, 6.0), (3.5, 4.0)], [(7.5, 2.0), (5.0, 1.5), (3.0, 2.0)]):
        slam, truth = restored(mapped), worlds.drive(route)
        slam.take_up()
        estimates = [slam.process(frame) for frame in frames(truth, first=36_000)]
        errors = off(estimates, truth)
        known = int(np.argmax(np.isfinite(errors)))
        assert np.isfinite(errors[known:]).all()
        assert np.nanmax(errors) < 0.1
        assert estimates[-1].counts["resumed"] == 1
        assert estimates[-1].metrics["compilations_after_warm_up"] == 0


def test_a_robot_that_was_not_seen_for_a_while_is_looked_for(mapped: tuple[State, Array]) -> None:
    """Blinded, or without a scan, as while it is paused; then it is somewhere else, or where it was."""
    elsewhere, back = worlds.drive([(7.0, 2.0), (4.0, 1.5)]), worlds.drive([(3.5, 6.0), (3.5, 4.0)])
    for truth in (elsewhere, back):
        for blind in (True, False):
            slam, number = restored(mapped), len(TRUTH)
            keyframes, deviations = slam.about()["keyframes"], [0.0]
            for hidden in frames(TRUTH[-1:].repeat(70, axis=0), number) if blind else []:
                last = slam.process(replace(hidden, points=hidden.points[:5]))
                if last.known:
                    deviations.append(float(np.sqrt(last.covariance[0, 0])))
                else:
                    assert last.counts["keyframes"] <= keyframes + 10  # made while it was taken to go on
            assert (np.diff(deviations) > 0.0).all()  # ever less sure
            estimates = [slam.process(frame) for frame in frames(truth, number + 70)]
            errors = off(estimates, truth)
            assert np.isfinite(errors[-1])
            assert np.nanmax(errors) < 0.1
            assert estimates[-1].counts["lost_from_sight"] == estimates[-1].counts["resumed"] == 1


def test_a_false_alarm_is_not_taken_back_by_a_way_that_nobody_told(mapped: tuple[State, Array]) -> None:
    """For three scans it sees another place: then it is where scans see it, and that is farther on."""
    slam, truth, begin = restored(mapped), TRUTH[:-60:-1], 8
    made = frames(truth, len(TRUTH))
    other = frames(poses.from_planar(np.full(SCANS, -2.0), np.zeros(SCANS), np.zeros(SCANS)), walls=worlds.room())
    for number, frame in enumerate(other, begin):
        made[number] = replace(made[number], points=frame.points)
    estimates = [slam.process(frame) for frame in made]
    counts = estimates[-1].counts
    assert counts["carried_off"] == counts["resumed"] == 1
    assert counts["carried_off_taken_back"] == 0
    errors = off(estimates, truth)[begin + SCANS :]
    assert np.isfinite(errors[15:]).all()
    assert np.nanmax(errors) < 0.1


def test_a_robot_that_was_blinded_for_a_moment_is_matched_along_its_way() -> None:
    """It has gone on farther than it was taken to; no keyframe is made of what saw nothing."""
    slam, begin, end = Slam(SETTINGS), 20, 48
    estimates = [
        slam.process(replace(frame, points=frame.points[:5]) if begin <= number < end else frame)
        for number, frame in enumerate(frames(TRUTH[:60]))
    ]
    assert not any(estimate.keyframe for estimate in estimates[begin:end])
    assert off(estimates, TRUTH[:60])[end:].max() < 0.1
    assert (estimates[-1].counts["lost_from_sight"], estimates[-1].counts["motion_not_seen"]) == (0, 1)
