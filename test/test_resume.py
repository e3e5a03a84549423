"""A pipeline's state, restored: the same run from there on; and a robot that is found again where it went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import Estimate, Frame, OdometryTrack
from dsg_ros.pipeline import Slam
from dsg_ros.state import State

Array = NDArray[np.float64]
Log = pytest.LogCaptureFixture
TRUTH = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1.25))
ODOMETRY = worlds.biased(TRUTH, scale=1.03, turn_per_metre=0.02)
SETTINGS = config.replace(config.Slam(), {"loops.solve_after": 3, "retirement.once": 1})


@pytest.fixture(autouse=True)
def listened(caplog: Log) -> None:
    caplog.set_level("INFO", "dsg_ros.mapping.lost")


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(worlds.frames(worlds.block(), TRUTH, ODOMETRY, followed=True))


def new() -> Slam:
    slam = Slam(SETTINGS)
    slam.warm_up(planar=True)
    return slam


def frozen(state: State) -> State:
    """A state as it is written and read: whatever the pipeline does next has no part in it."""
    return {
        name: tuple(each.copy() for each in value) if isinstance(value, tuple) else value.copy()
        for name, value in state.items()
    }


def equal(a: State, b: State) -> list[str]:
    """Names of what differs."""
    assert a.keys() == b.keys()
    return [name for name in a if not all(map(same, as_rows(a[name]), as_rows(b[name])))]


def as_rows(value: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    return value if isinstance(value, tuple) else (value,)


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


def assert_window_is_there(slam: Slam) -> None:
    """A window that was solved and waits to be adopted has no voxels that are gone since."""
    window = slam._map.back_end._window
    if window is not None:
        assert (slam._map.voxels.counts.values[window[2]] > 0).all()


def test_a_restored_run_goes_on_as_if_nothing_had_happened(frames: list[Frame]) -> None:
    """To the last bit: at every instant, a pending window and a block half full among them."""
    whole, at = new(), [0, 1, 7, len(frames) // 2, 3 * len(frames) // 4, len(frames) - 60]
    kept: dict[int, tuple[State, State]] = {}
    estimates: list[Estimate] = []
    for number, frame in enumerate(frames):
        if number in at:
            state = whole.state()
            kept[number] = state, frozen(state)
        estimates.append(whole.process(frame))
        assert_window_is_there(whole)
    assert estimates[-1].counts["graph_solves"] >= 2
    assert estimates[-1].counts["voxels_retired"] > 50
    assert len(whole.result().learning) > 5
    for number, (views, state) in kept.items():
        # What was handed out as views has not changed under the feet of whoever writes it.
        assert equal(views, state) == []
        again = new()
        again.restore(state)
        assert equal(again.state(), state) == []
        last = [again.process(frame) for frame in frames[number:]][-1]
        assert equal(again.state(), whole.state()) == []
        np.testing.assert_array_equal(last.pose, estimates[-1].pose)
        np.testing.assert_array_equal(last.covariance, estimates[-1].covariance)
        assert last.parameters == estimates[-1].parameters
        assert last.counts == estimates[-1].counts
        assert last.metrics["compilations_after_warm_up"] == 0
        assert again.result().learning == whole.result().learning
        grids = [slam.result().grid for slam in (again, whole)]
        np.testing.assert_array_equal(grids[0].cells, grids[1].cells)


def test_the_first_estimate_after_it_shows_the_whole_map(frames: list[Frame]) -> None:
    slam, number = new(), len(frames) // 2
    told = [slam.process(frame) for frame in frames[:number]]
    again = new()
    again.restore(frozen(slam.state()))
    first = again.process(frames[number])
    assert first.path is not None
    assert len(first.path.stamps) == first.counts["keyframes"]
    assert first.voxels is not None
    assert len(first.voxels.ids) >= len(slam.snapshot_map()[1].ids) - 5
    assert told[-1].counts["voxels"] == pytest.approx(first.counts["voxels"], abs=30)


def taken_up(frames: Sequence[Frame], stop: int) -> Slam:
    """A pipeline that made a map of the first frames, was ended, and is to go on."""
    slam = new()
    for frame in frames[:stop]:
        slam.process(frame)
    again = new()
    again.restore(frozen(slam.state()))
    again.take_up()
    return again


def driven(truth: Array, odometry: Array, since: int) -> list[Frame]:
    """Frames of another drive through the same place, later."""
    made = worlds.frames(worlds.block(), truth, odometry)
    return [
        Frame(f.stamp + since, f.points, OdometryTrack(f.odometry.stamps + since, f.odometry.poses), planar=True)
        for f in made
    ]


STOP = 3 * len(TRUTH) // 5
LATER = 3600 * worlds.SECOND


def moves_on(slam: Slam, frames: Sequence[Frame], truth: Array) -> list[Estimate]:
    """The estimates of ``frames`` at ``truth`` (n, 7), which all must be right once the robot is found."""
    before = len(slam.result().path.stamps)
    estimates = [slam.process(frame) for frame in frames]
    where = poses.between(TRUTH[0], truth)
    known = [(e, w) for e, w in zip(estimates, where, strict=True) if e.known]
    assert known
    for estimate, place in known:
        assert np.linalg.norm(estimate.pose[:3] - place[:3]) < 0.12
    assert all(e.known for e in estimates[len(estimates) - len(known) :])  # found once, never lost
    assert known[0][0].counts["keyframes"] == before + 1  # not one keyframe of a robot that is nowhere
    assert estimates[-1].counts["resumed"] == 1
    assert estimates[-1].counts["keyframes"] > before + 1
    assert estimates[-1].metrics["compilations_after_warm_up"] == 0
    # The graph bears it: solved as a whole, the map is where it was.
    slam.optimize()
    path = slam.snapshot_map()[0]
    index = {int(f.stamp): w for f, w in zip(frames, where, strict=True)}
    stamps = path.stamps.tolist()
    index |= {number * worlds.SECOND // 10: pose for number, pose in enumerate(poses.between(TRUTH[0], TRUTH[:STOP]))}
    errors = [np.linalg.norm(pose[:3] - index[stamp][:3]) for stamp, pose in zip(stamps, path.poses, strict=True)]
    assert max(errors) < 0.2
    return estimates


def test_a_robot_that_stood_goes_on_though_its_odometry_began_anew(frames: list[Frame], caplog: Log) -> None:
    truth = TRUTH[STOP - 1 : STOP + 60]
    estimates = moves_on(taken_up(frames, STOP), driven(truth, worlds.biased(truth), LATER), truth)
    assert estimates[0].known
    assert "found again where it was last" in caplog.text


def test_a_robot_that_drove_on_goes_on_by_its_odometry(frames: list[Frame], caplog: Log) -> None:
    """Backwards over mapped ground: that it went on is what the odometry says."""
    truth = np.concatenate([TRUTH[:STOP], TRUTH[STOP - 1 : STOP - 60 : -1], TRUTH[STOP - 60 : STOP]])
    odometry = worlds.biased(truth, scale=1.03, turn_per_metre=0.02)
    since = STOP + 50
    estimates = moves_on(taken_up(frames, STOP), driven(truth[since:], odometry[since:], LATER), truth[since:])
    assert estimates[0].known
    assert "found again where its odometry leads" in caplog.text


def test_a_robot_that_was_carried_is_looked_for_in_the_whole_map(frames: list[Frame], caplog: Log) -> None:
    truth = TRUTH[80 : 80 + 90]
    moves_on(taken_up(frames, STOP), driven(truth, worlds.biased(truth), LATER), truth)
    assert "found again by a search of the whole map" in caplog.text


def test_a_robot_out_of_the_map_is_not_believed_to_be_in_it(frames: list[Frame]) -> None:
    slam = taken_up(frames, STOP)
    before = len(slam.result().path.stamps)
    truth = worlds.drive([(-3, -2), (3, -2), (3, 2)])
    for frame in worlds.frames(worlds.room(), truth, worlds.biased(truth)):
        estimate = slam.process(frame)
        assert not estimate.known
    assert len(slam.result().path.stamps) == before
    assert estimate.counts["scans_not_resumed"] == len(truth)


def test_a_robot_that_drove_on_where_no_map_is_yet_is_followed_by_its_odometry(
    frames: list[Frame], caplog: Log
) -> None:
    """Eight metres on, while nobody mapped: too far from zero for an odometry that began anew."""
    stop, since = 100, 180
    slam = taken_up(frames, stop)
    assert np.linalg.norm(ODOMETRY[since, :3]) > 10.0
    truth = poses.between(TRUTH[0], TRUTH)
    for number in range(since, since + 40):
        estimate = slam.process(frames[number])
        assert estimate.known
        assert np.linalg.norm(estimate.pose[:3] - truth[number, :3]) < 0.5
    assert "found again by its odometry, which went on" in caplog.text
    assert estimate.counts["resumed"] == 1
