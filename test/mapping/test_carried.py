"""A robot that is carried off while it maps: noticed by its scans, and found again in the map."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.interface import Frame
from dsg_ros.mapping.carried import SCANS, Carried
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.mapping.resumption import Last, Resumption
from dsg_ros.pipeline import Slam

Array = NDArray[np.float64]


def rooms() -> Array:
    """A chamber of 8 by 6 m, and through a door a hall of 16 by 14 m with pillars."""
    door = [[4.0, y, 4.0, z] for y, z in ((-7.0, -0.6), (0.6, 7.0))]
    chamber = [[-4, -3, 4, -3], [-4, 3, 4, 3], [-4, -3, -4, 3]]
    hall = [[4, -7, 20, -7], [4, 7, 20, 7], [20, -7, 20, 7]]
    things = [(-3.5, -1.2, 1.0, 1.8), (0.5, 0.8, 0.5, 0.5), (8, 3, 1, 1), (12, -2, 2, 1), (16, 2, 1, 3)]
    return np.vstack([door, chamber, hall, *(worlds.box(*thing) for thing in things)])


THERE = [
    (-2.0, -2.0),
    (2.5, -2.0),
    (2.5, 2.0),
    (-2.0, 2.0),
    (-2.0, 0.0),
    (6.0, 0.0),
    (6.0, -5.0),
    (18.0, -5.0),
    (18.0, 5.0),
]
AFTER = [(-2.0, -2.0), (2.5, -2.0), (2.5, 2.0), (-2.0, 2.0)]


@pytest.fixture(scope="module")
def carried() -> tuple[Array, list[Frame], int]:
    """True poses and frames of a robot that is lifted in the hall and put down in the chamber, and when."""
    before, after = worlds.drive(THERE), worlds.drive(AFTER)
    truth = np.concatenate([before, after])
    wheels = worlds.biased(before, scale=1.02)
    onwards = poses.compose(wheels[-1], poses.between(after[0], after))
    return truth, list(worlds.frames(rooms(), truth, np.concatenate([wheels, onwards]))), len(before)


def test_a_robot_that_is_carried_off_is_found_again(
    carried: tuple[Array, list[Frame], int], caplog: pytest.LogCaptureFixture
) -> None:
    truth, frames, when = carried
    slam = Slam(config.Slam())
    with caplog.at_level(logging.INFO):
        estimates = [slam.process(frame) for frame in frames]
    assert "the robot was carried off, 3 scans ago" in caplog.text
    counts = estimates[-1].counts
    assert (counts["carried_off"], counts["resumed"]) == (1, 1)
    # From there on it is where it is, and the map has no second chamber.
    true = poses.between(truth[0], truth)
    found = np.stack([estimate.pose for estimate in estimates])
    off = np.linalg.norm((found - true)[:, :2], axis=1)
    assert off[:when].max() < 0.1
    assert off[when + SCANS + counts["scans_not_resumed"] :].max() < 0.1
    assert counts["scans_not_resumed"] < 40
    result = slam.finish()
    assert len(result.trajectory) == len(frames) - counts["scans_not_resumed"]
    kept = np.isin([frame.stamp for frame in frames], result.stamps)
    assert np.abs((result.trajectory - true[kept])[:, :2]).max() < 0.1


def test_it_is_mapped_on_where_that_is_asked_for(carried: tuple[Array, list[Frame], int]) -> None:
    _, frames, when = carried
    slam = Slam(config.replace(config.Slam(), {"relocalisation.carried": False}))
    for frame in frames[when - 60 : when + 30]:
        counts = slam.process(frame).counts
    assert (counts["carried_off"], counts["scans"]) == (0, 90)


def test_what_is_no_other_place_is_not_taken_for_one(mapper: LocalMapper) -> None:
    """A blind moment, a crowd that comes, and odometry that tells of the way itself."""
    settings = config.Registration()
    chamber = worlds.scan(worlds.room(), poses.IDENTITY, noise=0.01)
    hall = worlds.scan(rooms(), poses.from_planar(18.0, 0.0, 2.0), noise=0.01)
    rng = np.random.default_rng(0)
    crowds = [np.vstack([chamber[::3], rng.uniform(-2, 2, (150, 3)) * [1, 1, 0]]) for _ in range(4)]
    far = poses.from_planar(12.0, 3.0, 0.5)
    for scans, away, told in (
        ([chamber[:0]] * 4, poses.IDENTITY, False),
        (crowds, poses.IDENTITY, False),
        ([hall, chamber, chamber, chamber], poses.IDENTITY, False),  # one scan that went wrong
        ([hall] * 4, far, False),
        ([hall] * 4, poses.IDENTITY, True),
    ):
        carried = Carried(settings, mapper)
        said = [carried.look(chamber, poses.IDENTITY, 0.95) for _ in range(5)]
        said += [carried.look(points, away, 0.3) for points in scans]
        assert any(said) is told
        assert not carried.suspected


def test_scans_wait_until_it_is_known_where_they_are(carried: tuple[Array, list[Frame], int]) -> None:
    """A scan that went wrong is one of the run's all the same, once the next ones say so."""
    _, frames, when = carried
    slam = Slam(config.Slam())
    for frame in frames[: when - 20]:
        slam.process(frame)
    noise = np.random.default_rng(0).uniform(-9.0, 9.0, (180, 3)) * [1, 1, 0]
    wrong = replace(frames[when - 20], points=noise.astype(np.float32))
    lines = [len(slam.result().stamps)]
    for frame in (wrong, *frames[when - 19 : when - 10]):
        slam.process(frame)
        lines.append(len(slam.result().stamps))
    assert lines[-1] - lines[0] == 10
    assert lines[1] == lines[0]  # it waited


def test_a_robot_that_was_not_carried_off_is_noticed_where_its_odometry_leads(
    carried: tuple[Array, list[Frame], int], caplog: pytest.LogCaptureFixture
) -> None:
    """Scans of another place for a moment, three times: the third time nothing is made of them."""
    truth, frames, when = carried
    begin, false = when - 200, [12, 60, 85]
    slam = Slam(config.Slam())
    estimates = []
    for k, frame in enumerate(frames[begin : begin + 120]):
        elsewhere = next((frames[5 + k - start] for start in false if start <= k < start + SCANS), frame)
        estimates.append(slam.process(replace(frame, points=elsewhere.points)))
    counts = estimates[-1].counts
    assert (counts["carried_off"], counts["carried_off_taken_back"]) == (2, 2)
    assert counts["scans_not_resumed"] < 2 * (SCANS + 2)
    assert caplog.text.count("the robot was not carried off") == 2
    assert caplog.text.count("From now on") == 1
    true = poses.between(truth[begin], truth[begin : begin + 120])
    off = np.linalg.norm(true[:, :2] - np.stack([estimate.pose[:2] for estimate in estimates]), axis=1)
    assert off[[not any(start <= k < start + 10 for start in false) for k in range(120)]].max() < 0.1


def test_a_state_kept_after_the_lift_is_one_of_a_robot_that_may_have_been_carried_off(
    carried: tuple[Array, list[Frame], int],
) -> None:
    """The map that is gone on with does not follow the odometry, whether the lift is known yet or not."""
    truth, frames, when = carried
    slam, states = Slam(config.Slam()), {}
    for k, frame in enumerate(frames[: when + 5]):
        slam.process(frame)
        if k >= when:
            assert slam.about()["stamp"] == frame.stamp
            states[k + 1] = {
                name: tuple(each.copy() for each in value) if isinstance(value, tuple) else value.copy()
                for name, value in slam.state().items()
            }
    true = poses.between(truth[0], truth)
    for number, state in states.items():
        again = Slam(config.Slam())
        again.restore(state)
        again.take_up()
        estimates = {k: again.process(frames[k]) for k in range(number, number + 40)}
        counts = estimates[number + 39].counts
        assert counts["resumed"] == estimates[number].counts["resumed"] + (not estimates[number].known), number
        assert counts["carried_off"] <= 1
        assert counts["scans"] + counts["scans_not_resumed"] == number + 40
        for k, estimate in estimates.items():
            if estimate.known:
                assert np.linalg.norm(estimate.pose[:2] - true[k, :2]) < 0.1, (number, k)


def test_along_a_corridor_nothing_is_taken_back_by_a_way_that_nobody_told(
    settings: config.Slam, mapper: LocalMapper
) -> None:
    """It has driven on for three metres, and its made-up odometry stands: scans say nothing against that."""
    trajectory = np.array([poses.from_planar(0.5 * k, 0.0, 0.0) for k in range(8)])
    clouds = [worlds.scan(worlds.corridor(), pose, noise=0.01, seed=k) for k, pose in enumerate(trajectory)]
    last = Last(trajectory[4], trajectory[4], 0, 1.0)
    seen = worlds.scan(worlds.corridor(), trajectory[-1], noise=0.01, seed=9)
    for carried, alone in ((True, True), (False, True), (True, False)):
        search = Resumption(settings, mapper, trajectory, clouds, last, lambda i, _: (i, np.ones(6)), carried)
        found = [search.find(seen, trajectory[4], number * worlds.SECOND, alone=alone) for number in (1, 2, 3)]
        assert (any(found) or search.followed) is not alone
