"""The last pass: scans between keyframes are matched to keyframes on both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import worlds
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.mapping import refinement, scan
from dsg_ros.mapping.keyframes import Keyframes, ScanLog
from dsg_ros.mapping.local_map import LocalMapper

Array = NDArray[np.float64]
Recorded = tuple[Keyframes, ScanLog, Array, Array]


@pytest.fixture(scope="module")
def recorded(mapper: LocalMapper) -> Recorded:
    """A drive through the room: keyframes where they were, the three scans after each 5 cm off."""
    truth = worlds.drive([(-2, 0.5), (0.5, 0.5), (0.5, -1.5)], step=0.08, turn=0.1)
    keyframes, scans = Keyframes(), ScanLog(most_points=10**6)
    rng = np.random.default_rng(0)
    for index, pose in enumerate(truth):
        cloud = scan.thin(worlds.scan(worlds.room(), pose, noise=0.01, seed=index), 0.05, mapper.capacity)
        if index % 4 == 0:
            keyframes.add(index, cloud, pose, 0.08 * index)
        key = len(keyframes) - 1
        relative = poses.between(truth[4 * key], pose)
        if index % 4:
            relative = poses.compose(relative, poses.from_planar(*rng.normal(0, 0.03, 2), rng.normal(0, 0.01)))
        scans.add(index, key, relative, pose, pose, cloud)
    return keyframes, scans, truth, truth[::4]


def offsets(found: Array, truth: Array) -> Array:
    return np.linalg.norm(poses.log(poses.between(truth, found))[:, :3], axis=1)


def test_scans_are_pulled_to_where_they_were(recorded: Recorded, mapper: LocalMapper, settings: config.Slam) -> None:
    keyframes, scans, truth, trajectory = recorded
    before = scans.on(trajectory)
    found = refinement.refine(replace(settings.refinement, sweeps=0), mapper, keyframes, scans, trajectory)
    refined, between = found.scans, np.arange(len(truth)) % 4 > 0
    np.testing.assert_array_equal(found.keyframes, trajectory)
    assert np.median(offsets(before, truth)[between]) > 0.02
    assert np.median(offsets(refined, truth)[between]) < 0.005
    assert offsets(refined, truth).max() < 0.02
    np.testing.assert_array_equal(refined[~between], before[~between])  # keyframes stay without sweeps


def test_of_a_robot_that_stands_one_scan_is_kept_and_carries_the_others(
    recorded: Recorded, mapper: LocalMapper, settings: config.Slam
) -> None:
    keyframes, moving, truth, trajectory = recorded
    scans = ScanLog(most_points=10**6)
    rng, stood, copies = np.random.default_rng(3), 6, 50
    for index in range(len(moving)):
        row = (index, int(moving.keyframe.values[index]), moving.relative.values[index], truth[index], truth[index])
        scans.add(*row, moving.clouds[index].astype(float))
        for copy in range(copies if index == stood else 0):
            # As matches are: a millimetre this way and that.
            near = poses.from_planar(*rng.normal(0, 0.001, 2), rng.normal(0, 0.0005))
            place = poses.compose(moving.relative.values[index], near)
            scans.add(1000 + copy, row[1], place, truth[index], truth[index], moving.clouds[index].astype(float))
    again = np.arange(stood + 1, stood + 1 + copies)
    assert [len(scans.clouds[k]) for k in again] == [0] * copies
    # A keyframe has a cloud of its own.
    assert [len(cloud) > 0 for cloud in moving.clouds] == [index % 4 > 0 for index in range(len(moving))]
    assert sum(len(cloud) > 0 for cloud in scans.clouds) == sum(len(cloud) > 0 for cloud in moving.clouds)
    refined = refinement.refine(replace(settings.refinement, sweeps=0), mapper, keyframes, scans, trajectory).scans
    others = np.delete(refined, again, axis=0)
    alone = refinement.refine(replace(settings.refinement, sweeps=0), mapper, keyframes, moving, trajectory).scans
    np.testing.assert_array_equal(others, alone)
    assert offsets(scans.on(trajectory)[stood : again[-1]], truth[[stood]]).min() > 0.01
    assert offsets(refined[again], truth[[stood]]).max() < 0.008
    relative = scans.relative.values
    np.testing.assert_allclose(
        poses.between(refined[stood], refined[again]), poses.between(relative[stood], relative[again]), atol=1e-12
    )
    # And so it is kept.
    other = ScanLog(most_points=10**6)
    other.restore(scans.state())
    other.add(5000, row[1], moving.relative.values[-1], truth[-1], truth[-1], moving.clouds[-1].astype(float))
    assert other.moves_with.values[-1] == len(scans) - 1


def test_of_scans_that_are_too_many_the_oldest_move_with_their_keyframes(
    recorded: Recorded, mapper: LocalMapper, settings: config.Slam, caplog: pytest.LogCaptureFixture
) -> None:
    keyframes, scans, truth, trajectory = recorded
    sizes = np.array([len(cloud) for cloud in scans.clouds])
    most = int(sizes[len(sizes) // 2 :].sum())
    few = ScanLog(most)
    for index, pose in enumerate(truth):
        row = (index, int(scans.keyframe.values[index]), scans.relative.values[index], pose, pose)
        few.add(*row, scans.clouds[index].astype(float))
    there = np.array([len(cloud) for cloud in few.clouds])
    gone = (sizes > 0) & (there == 0)
    assert few.evicted == gone.sum() > 5
    assert np.flatnonzero(gone).max() < np.flatnonzero(there).min()  # the oldest
    assert most - sizes.max() < there.sum() <= most
    assert few.nbytes == sum(cloud.nbytes for cloud in few.clouds) + len(few) * (8 + 4 + 4 + 3 * 7 * 8)
    assert [f"refinement.most_points = {most}" in r.message for r in caplog.records] == [True]  # told once
    choice = replace(settings.refinement, sweeps=0)
    ours, all_of_them = (refinement.refine(choice, mapper, keyframes, log, trajectory).scans for log in (few, scans))
    np.testing.assert_array_equal(ours[gone], scans.on(trajectory)[gone])
    np.testing.assert_array_equal(ours[~gone], all_of_them[~gone])
    # And so it goes on where it is taken up.
    again = ScanLog(most)
    again.restore(few.state())
    for log in (again, few):
        log.add(9000, len(keyframes) - 1, poses.from_planar(0.1, 0.0, 0.0), truth[-1], truth[-1], np.ones((most, 3)))
    assert again.evicted == few.evicted > gone.sum()
    assert [len(cloud) for cloud in again.clouds] == [0] * len(scans) + [most]


def test_without_a_refinement_no_cloud_is_kept(recorded: Recorded) -> None:
    _, scans, truth, _ = recorded
    none = ScanLog(0)
    for index, pose in enumerate(truth):
        row = (index, int(scans.keyframe.values[index]), scans.relative.values[index], pose, pose)
        none.add(*row, np.ones((50, 3)))
    assert not any(map(len, none.clouds))
    assert none.evicted == 0


def test_keyframes_are_pulled_to_where_they_were(
    recorded: Recorded, mapper: LocalMapper, settings: config.Slam
) -> None:
    keyframes, scans, _, trajectory = recorded
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 0.03, (2, len(trajectory)))
    moved = poses.compose(trajectory, poses.from_planar(*noise, rng.normal(0, 0.005, len(trajectory))))
    moved[0] = trajectory[0]
    refined = refinement.refine(settings.refinement, mapper, keyframes, scans, moved).keyframes
    np.testing.assert_allclose(refined[0], moved[0], atol=1e-12)
    assert np.median(offsets(moved, trajectory)) > 0.02
    assert np.median(offsets(refined, trajectory)) < 0.5 * np.median(offsets(moved, trajectory))


def visits(mapper: LocalMapper) -> tuple[Keyframes, ScanLog, Array, int]:
    """Two drives along the same way, a long one elsewhere between them; and where the second one begins."""
    away = worlds.drive([(-2, 0.5), (2, 0.5)], step=0.25, turn=0.2)
    truth = np.concatenate([away, np.tile(poses.from_planar(100.0, 0.0, 0.0), (30, 1)), away])
    keyframes, scans = Keyframes(), ScanLog(most_points=10**6)
    for index, pose in enumerate(truth):
        elsewhere = len(away) <= index < len(away) + 30
        world = np.zeros((1, 3)) if elsewhere else worlds.scan(worlds.room(), pose, noise=0.01, seed=index)
        keyframes.add(index, scan.thin(world, 0.05, mapper.capacity), pose, 0.25 * index)
        scans.add(index, index, poses.IDENTITY, pose, pose, keyframes.clouds[-1])
    return keyframes, scans, truth, len(away) + 30


def test_visits_of_a_place_are_brought_together(mapper: LocalMapper, settings: config.Slam) -> None:
    keyframes, scans, truth, second = visits(mapper)
    moved = truth.copy()
    moved[second:] = poses.compose(poses.from_planar(0.04, -0.03, 0.0), truth[second:])
    apart = []
    for count in (0, 30):
        choice = replace(settings.refinement, visits=count, sweeps=4)
        refined = refinement.refine(choice, mapper, keyframes, scans, moved).keyframes
        apart.append(
            np.median(offsets(poses.between(refined[0], refined[second:]), poses.between(truth[0], truth[second:])))
        )
    assert apart[0] > 0.04
    assert apart[1] < 0.5 * apart[0]


def test_thin_scans_and_poor_matches_stay(recorded: Recorded, mapper: LocalMapper, settings: config.Slam) -> None:
    keyframes, scans, _, trajectory = recorded
    rng = np.random.default_rng(1)
    thin, strange = ScanLog(most_points=10**6), ScanLog(most_points=10**6)
    for index in range(len(scans)):
        row = (index, int(scans.keyframe.values[index]), scans.relative.values[index], poses.IDENTITY, poses.IDENTITY)
        thin.add(*row, scans.clouds[index][: settings.refinement.least_points - 1].astype(float))
        strange.add(*row, np.column_stack([rng.uniform(-6, 6, (200, 2)), np.zeros(200)]))
    still = replace(settings.refinement, sweeps=0)
    for log in (thin, strange):
        refined = refinement.refine(still, mapper, keyframes, log, trajectory).scans
        np.testing.assert_array_equal(refined, log.on(trajectory))


def test_a_tight_hold_keeps_scans_in_place(recorded: Recorded, mapper: LocalMapper, settings: config.Slam) -> None:
    keyframes, scans, _, trajectory = recorded
    tight = replace(settings.refinement, sigma_translation=1e-3, sigma_rotation=1e-3)
    loose = replace(settings.refinement, sigma_translation=1.0, sigma_rotation=1.0)
    before = scans.on(trajectory)
    moved = [
        offsets(refinement.refine(choice, mapper, keyframes, scans, trajectory).scans, before)
        for choice in (tight, loose)
    ]
    assert moved[0].max() < 0.5 * moved[1].max()


def test_a_run_of_one_scan(mapper: LocalMapper, settings: config.Slam) -> None:
    keyframes, scans = Keyframes(), ScanLog(most_points=10**6)
    cloud = worlds.scan(worlds.room(), poses.IDENTITY)
    keyframes.add(0, cloud, poses.IDENTITY, 0.0)
    scans.add(0, 0, poses.IDENTITY, poses.IDENTITY, poses.IDENTITY, cloud)
    refined = refinement.refine(settings.refinement, mapper, keyframes, scans, poses.IDENTITY[None]).scans
    np.testing.assert_array_equal(refined, poses.IDENTITY[None])
