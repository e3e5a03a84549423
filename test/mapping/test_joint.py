"""The whole run's keyframes and surfaces in one solve: what it adds to the graph of poses, and its surfaces."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors import OdomSE3, Registration, VoxelSensorObs
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.mapping import scan
from dsg_ros.mapping.association import WorldVoxels
from dsg_ros.mapping.back_end import BackEnd
from dsg_ros.mapping.joint import sides
from dsg_ros.mapping.local_map import LocalMapper

Array = NDArray[np.float64]
THETA = to_float64(Theta.neutral())
LEFT, RIGHT = 0.09, 0.21
"""The faces [m] of the wall between two rooms, both in one row of voxels of 0.3 m."""


def rooms() -> Array:
    """Two rooms of 4 by 6 m with a wall of 12 cm between them, and a doorway."""
    wall = worlds.box((LEFT + RIGHT) / 2, -0.9, RIGHT - LEFT, 4.2)
    return np.vstack([worlds.box(0, 0, 8, 6), wall, worlds.box(-3.4, -2.2, 0.6, 0.9), worlds.box(2.9, 2.6, 1.2, 0.5)])


@pytest.fixture(scope="module")
def run(mapper: LocalMapper, settings: config.Slam) -> tuple[BackEnd, Array]:
    """A drive through both rooms and back, its keyframes tied to one another alone, and its true poses."""
    there = [(-2.0, -1.5), (-2.0, 2.2), (2.0, 2.2), (2.0, -1.5)]
    truth = worlds.drive([*there, *there[-2::-1]], step=0.25, turn=0.25)
    rng, size = np.random.default_rng(1), settings.registration.coarse_voxel
    back_end = BackEnd(settings, axes=mapper.axes)
    voxels = WorldVoxels(settings.voxels, size=size, planar=True)
    pose, deviations = truth[0], np.array([0.006, 0.006, 0.004])
    information = np.zeros((6, 6))
    information[np.ix_(mapper.axes, mapper.axes)] = np.diag(deviations**-2.0)
    for key, true in enumerate(truth):
        if key:
            off = poses.from_planar(*(deviations * rng.normal(size=3)))
            measured = poses.compose(poses.between(truth[key - 1], true), off)
            pose = poses.compose(pose, measured)
        back_end.add_keyframe(pose)
        if key:
            back_end.add_link(key, measured, 0.5, measured, information)
        cloud = scan.thin(worlds.scan(rooms(), true, noise=0.01, seed=key), 0.05, mapper.capacity)
        around = mapper.build(pose[None], [cloud]).coarse
        back_end.sightings.add(key, voxels.observe(key, key, pose, cloud, around, np.zeros(3)))
    back_end.solve_graph(THETA)
    return back_end, truth


def offsets(found: Array, truth: Array) -> Array:
    return np.linalg.norm((found - truth)[:, :2], axis=1)


def test_what_was_seen_ties_keyframes_that_no_link_ties(run: tuple[BackEnd, Array]) -> None:
    back_end, truth = run
    before = back_end.trajectory
    back_end.solve_jointly(THETA)
    after = back_end.trajectory
    back_end.adopt_keyframes(before)
    assert back_end.metrics["joint_iterations"] >= 1
    assert offsets(before, truth).max() > 0.05
    assert offsets(after, truth).max() < 0.3 * offsets(before, truth).max()


def test_rooms_stay_a_wall_apart(run: tuple[BackEnd, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    back_end, truth = run
    before = back_end.trajectory

    def thickness() -> float:
        """Between the two faces as they are seen from where the keyframes are now."""
        _, rows = back_end.world.rows(VoxelSensorObs)
        points = poses.transform(back_end.world.get_poses(rows["pose"]), rows["point"])
        true = poses.transform(truth[rows["pose"]], rows["point"])
        along = np.abs(true[:, 1] + 0.9) < 1.8
        left, right = (along & (np.abs(true[:, 0] - face) < 0.03) for face in (LEFT, RIGHT))
        assert min(left.sum(), right.sum()) > 50
        return float(np.median(points[right, 0]) - np.median(points[left, 0]))

    back_end.solve_jointly(THETA)
    apart = thickness()
    back_end.adopt_keyframes(before)

    def one_sided(voxel: NDArray[np.int64], normals: Array, quaternions: Array) -> NDArray[np.int64]:
        return np.unique(voxel, return_inverse=True)[1]

    monkeypatch.setattr("dsg_ros.mapping.sightings.sides", one_sided)
    back_end.solve_jointly(THETA)
    merged = thickness()
    back_end.adopt_keyframes(before)
    assert abs(apart - (RIGHT - LEFT)) < 0.015
    assert merged < apart - 0.02  # taken for one surface the faces are drawn together


def test_a_surface_is_what_two_have_seen_from_the_same_side() -> None:
    # Voxel 7 from either side, twice each; voxel 9 once; voxel 3 is no surface.
    voxel = np.array([7, 7, 9, 7, 7, 3, 3])
    ahead, back, nothing = [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    normals = np.array([back, back, back, ahead, back, nothing, nothing])
    turned = poses.from_planar(0, 0, np.pi)[3:]
    quaternions = np.array([poses.IDENTITY[3:]] * 4 + [turned] + [poses.IDENTITY[3:]] * 2)
    # The fourth stands on the far side, and so does the fifth, turned round.
    assert_array_equal(sides(voxel, normals, quaternions), [0, 0, -1, 1, 1, -1, -1])


@pytest.fixture
def unseen(mapper: LocalMapper, settings: config.Slam) -> BackEnd:
    """Three keyframes in a row that saw nothing."""
    back_end = BackEnd(settings, axes=mapper.axes)
    step = poses.from_planar(0.3, 0, 0)
    for key in range(3):
        back_end.add_keyframe(poses.from_planar(0.31 * key, 0, 0))
        if key:
            back_end.add_link(key, step, 0.5, step, 1e4 * np.eye(6))
    return back_end


def test_nothing_is_taken_over_from_a_solve_that_fails(unseen: BackEnd, caplog: pytest.LogCaptureFixture) -> None:
    before = unseen.trajectory
    for kind in (OdomSE3, Registration):
        numbers, _ = unseen.world.rows(kind)
        unseen.world.set_rows(numbers[-1:], weight=0.0)
    unseen.world.add(Registration, first=1, second=2, measured=poses.IDENTITY, sqrt_info=np.diag([9.0, 9, 9, 9, 9, 0]))
    unseen.solve_jointly(THETA)
    assert_array_equal(unseen.trajectory, before)
    assert unseen.counts["solves_refused"] == 1
    assert "do not determine pose 2" in caplog.text


def test_where_nothing_was_seen_the_graph_is_all(unseen: BackEnd) -> None:
    assert len(unseen.sightings.surfaces().means) == 0
    unseen.solve_jointly(THETA)
    assert unseen.counts["solves_refused"] == 0
    assert unseen.trajectory[2, 0] == pytest.approx(0.6, abs=1e-3)
