"""Registration of a scan to a local voxel map, on simulated places."""

from __future__ import annotations

import numpy as np
import pytest
import worlds
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain, se3
from dsg_ros.mapping import registration, registration_kernel, scan
from dsg_ros.mapping.local_map import LocalMap, LocalMapper

Array = NDArray[np.float64]
FREE = np.zeros((6, 6))
LOOSE = np.diag(1.0 / np.array([0.3, 0.3, 0.3, 0.3, 0.3, 0.3]) ** 2)


def thinned(walls: Array, pose: Array, mapper: LocalMapper, seed: int = 0) -> Array:
    return scan.thin(worlds.scan(walls, pose, noise=0.01, seed=seed), 0.05, mapper.capacity)


def map_of(walls: Array, trajectory: Array, mapper: LocalMapper) -> LocalMap:
    return mapper.build(trajectory, [thinned(walls, pose, mapper, seed) for seed, pose in enumerate(trajectory)])


def error(found: Array, truth: Array) -> tuple[float, float]:
    """Metres and radians."""
    xi = poses.log(poses.between(truth, found))
    return float(np.linalg.norm(xi[:3])), float(np.linalg.norm(xi[3:]))


@pytest.fixture(scope="module")
def in_room(mapper: LocalMapper) -> LocalMap:
    """The room, seen from ten places all round."""
    k = np.arange(10)
    return map_of(worlds.room(), poses.from_planar(-1.5 + 0.2 * k, 0.2 * np.sin(k), 0.63 * k), mapper)


@pytest.fixture(scope="module")
def in_corridor(mapper: LocalMapper) -> LocalMap:
    return map_of(worlds.corridor(), poses.from_planar(np.arange(-2, 2, 0.25), 0.0, 0.0), mapper)


@pytest.mark.parametrize("offset", [(0.1, -0.1, 0.05), (-0.2, 0.15, -0.1), (0.0, 0.25, 0.12), (0.0, 0.0, 0.0)])
def test_known_pose_is_recovered_in_a_room(mapper: LocalMapper, in_room: LocalMap, offset: tuple[float, ...]) -> None:
    truth = poses.from_planar(-0.3, 0.1, 0.4)
    start = poses.compose(truth, poses.from_planar(*offset))
    match = mapper.register(in_room, thinned(worlds.room(), truth, mapper, 77), start[None], start, FREE)
    metres, radians = error(match.pose, truth)
    assert metres < 0.005
    assert radians < 0.003
    assert match.inliers > 0.9
    assert match.error < 0.02
    # All of the pose that a planar scan can see is well known.
    block = match.information[np.ix_(mapper.axes, mapper.axes)]
    assert np.linalg.eigvalsh(block).min() > 1 / 0.005**2


def test_a_planar_scan_moves_nothing_out_of_the_plane(mapper: LocalMapper, in_room: LocalMap) -> None:
    truth = poses.from_planar(-0.3, 0.1, 0.4)
    start = poses.compose(truth, poses.exp(np.array([0.1, 0.1, 0, 0, 0, 0.05])))
    match = mapper.register(in_room, thinned(worlds.room(), truth, mapper), start[None], start, FREE)
    np.testing.assert_allclose(match.pose[2:5], 0.0, atol=1e-12)
    np.testing.assert_allclose(match.information[:, 2], 0.0, atol=1e-6)
    assert mapper.axes == registration.PLANAR_AXES


def test_in_a_corridor_the_scan_says_nothing_along_it(mapper: LocalMapper, in_corridor: LocalMap) -> None:
    truth = poses.from_planar(0.4, 0.1, 0.05)
    points = thinned(worlds.corridor(), truth, mapper, 5)
    start = poses.compose(truth, poses.from_planar(0.15, 0.02, -0.05))
    odometry = np.diag(1.0 / np.repeat([0.013, 0.1], 3) ** 2)
    match = mapper.register(in_corridor, points, start[None], start, odometry)
    assert np.all(np.isfinite(match.pose))
    turn = poses.matrix(match.pose)[:3, :3]
    information = turn @ match.information[:3, :3] @ turn.T  # in the map's axes
    assert information[0, 0] < 0.02 * information[1, 1]
    # Across and in heading the scan decides, along it the prior.
    assert abs(match.pose[1] - truth[1]) < 0.005
    assert abs(poses.yaw(match.pose) - poses.yaw(truth)) < 0.003
    assert abs(match.pose[0] - start[0]) < 0.03


def test_bare_walls_in_the_same_pattern_do_not_hold_the_robot_back(mapper: LocalMapper) -> None:
    """From everywhere in a corridor the beams meet its walls in the same places, far ones one by one."""
    angles = np.deg2rad(np.arange(-180.0, 180.0, 1.0))
    ranges = np.minimum(1.0 / np.maximum(np.abs(np.sin(angles)), 1e-3), 20.0)
    seen = np.stack([ranges * np.cos(angles), ranges * np.sin(angles), np.zeros(360)], axis=1)[ranges < 20.0]
    only = mapper.build(poses.IDENTITY[None], [seen])
    moved = poses.from_planar(0.12, 0.0, 0.0)
    odometry = np.diag([1 / 0.015**2] * 2 + [1e6] * 3 + [1 / 0.01**2])
    match = mapper.register(only, seen, moved[None], moved, odometry)
    assert match.pose[0] == pytest.approx(0.12, abs=0.01)
    assert match.information[0, 0] < 0.1 * match.information[1, 1]


def test_without_any_prior_a_corridor_gives_numbers_all_the_same(mapper: LocalMapper, in_corridor: LocalMap) -> None:
    truth = poses.from_planar(0.4, 0.1, 0.05)
    match = mapper.register(in_corridor, thinned(worlds.corridor(), truth, mapper), truth[None], truth, FREE)
    assert np.all(np.isfinite(match.pose))
    assert np.isclose(np.linalg.norm(match.pose[3:]), 1.0)
    assert abs(match.pose[1] - truth[1]) < 0.01


def test_a_scan_of_nowhere_stays_at_the_prediction(mapper: LocalMapper, in_room: LocalMap) -> None:
    away = poses.from_planar(100.0, 0.0, 0.0)
    match = mapper.register(in_room, thinned(worlds.room(), away * 0 + poses.IDENTITY, mapper), away[None], away, LOOSE)
    np.testing.assert_allclose(match.pose, away, atol=1e-9)
    np.testing.assert_array_equal(match.information, 0.0)
    assert match.inliers == 0.0


def test_a_fan_of_starts_finds_a_large_turn(mapper: LocalMapper, in_room: LocalMap) -> None:
    truth = poses.from_planar(-0.6, 0.0, 0.3)
    prediction = poses.compose(truth, poses.from_planar(0.0, 0.0, np.deg2rad(25)))
    points = thinned(worlds.room(), truth, mapper, 3)
    match = mapper.register(in_room, points, mapper.fan(prediction), prediction, FREE)
    metres, radians = error(match.pose, truth)
    assert metres < 0.01
    assert radians < 0.005


def test_a_fan_holds_its_base_and_turns_each_way(mapper: LocalMapper) -> None:
    base = poses.from_planar(1.0, 2.0, 0.5)
    starts = mapper.fan(base)
    assert np.abs(starts - base).max(axis=1).min() < 1e-9
    turns = poses.yaw(starts) - 0.5
    assert np.abs(turns).max() <= config.Slam().registration.restart_angle + 1e-9
    assert turns.min() < -np.deg2rad(25)
    assert turns.max() > np.deg2rad(25)


@pytest.fixture(scope="module")
def in_space(spatial: LocalMapper) -> LocalMap:
    return spatial.build_from_points(worlds.room_in_space(0, 20000))


@pytest.mark.parametrize(
    "offset", [(0.1, -0.1, 0.05, 0.03, -0.04, 0.05), (-0.1, 0.1, -0.1, -0.05, 0.05, -0.06), (0, 0, 0, 0, 0, 0)]
)
def test_known_pose_is_recovered_in_space(spatial: LocalMapper, in_space: LocalMap, offset: tuple[float, ...]) -> None:
    truth = poses.exp(np.array([0.3, -0.2, 1.1, 0.05, -0.1, 0.7]))
    points = poses.transform(poses.inverse(truth), worlds.room_in_space(1, 4000))
    points = scan.thin(points, 0.05, spatial.capacity)
    start = poses.compose(truth, poses.exp(np.array(offset, float)))
    match = spatial.register(in_space, points, start[None], start, FREE)
    metres, radians = error(match.pose, truth)
    assert metres < 0.02
    assert radians < 0.01
    assert np.linalg.eigvalsh(match.information).min() > 1 / 0.02**2


@pytest.mark.parametrize("axis", [0, 1, 5])
def test_information_is_the_curvature_of_the_cost(mapper: LocalMapper, in_room: LocalMap, axis: int) -> None:
    """A prior that pulls as strongly as the scan holds moves the match half the way."""
    truth = poses.from_planar(-0.3, 0.1, 0.4)
    points = thinned(worlds.room(), truth, mapper, 100)
    alone = mapper.register(in_room, points, truth[None], truth, FREE)
    pull = np.zeros(6)
    pull[axis] = 0.002 if axis < 3 else 0.001
    prediction = poses.compose(alone.pose, poses.exp(pull))
    prior = alone.information
    match = mapper.register(in_room, points, alone.pose[None], prediction, prior)
    moved = poses.log(poses.between(alone.pose, match.pose))
    np.testing.assert_allclose(moved, pull / 2, atol=0.1 * np.abs(pull).max())


def test_scans_scatter_no_more_than_their_information_says(mapper: LocalMapper, in_room: LocalMap) -> None:
    """Scans drawn again and again scatter no more than the discounted information says."""
    truth = poses.from_planar(-0.3, 0.1, 0.4)
    errors, information = [], np.zeros((6, 6))
    for seed in range(40):
        points = thinned(worlds.room(), truth, mapper, 100 + seed)
        match = mapper.register(in_room, points, truth[None], truth, FREE)
        errors.append(poses.log(poses.between(truth, match.pose))[list(mapper.axes)])
        information = match.information
    scatter = np.cov(np.array(errors).T)
    told = np.linalg.inv(mapper.registration_information(information, 1.0)[np.ix_(mapper.axes, mapper.axes)])
    assert np.linalg.eigvalsh(told - scatter).min() > 0


@pytest.mark.parametrize("axes", [registration.PLANAR_AXES, tuple(range(6))])
def test_fusing_the_prior_back_gives_the_map_estimate(axes: tuple[int, ...]) -> None:
    """In the linear case: MAP = fusion of the prior's mean with the scan's own optimum, by their information."""
    rng = np.random.default_rng(0)
    index = np.array(axes)
    root = np.zeros((6, 6))
    root[np.ix_(index, index)] = rng.normal(size=(len(axes), len(axes))) + 4 * np.eye(len(axes))
    information, prior = root @ root.T * 1e4, np.diag(1.0 / np.array([0.02, 0.03, 0.02, 0.01, 0.01, 0.02]) ** 2)
    own = np.zeros(6)
    own[index] = rng.normal(scale=0.02, size=len(axes))  # the scan's optimum, seen from the prediction
    block = np.ix_(index, index)
    best = np.zeros(6)
    best[index] = np.linalg.solve((information + prior)[block], (information @ own)[index])
    shift, kept, count, widest = registration.scan_only(information, best, prior, axes)
    np.testing.assert_allclose(best + shift, own, atol=1e-12)
    np.testing.assert_allclose(kept, information, rtol=1e-9, atol=1e-6)
    assert count == 0
    np.testing.assert_array_equal(widest, np.zeros(6))
    again = np.linalg.solve((kept + prior)[block], (kept @ (best + shift))[index])
    np.testing.assert_allclose(again, best[index], atol=1e-12)


def test_what_the_scan_knows_less_well_than_the_prior_is_dropped() -> None:
    information = np.diag([1e6, 1.0, 0, 0, 0, 1e6])
    prior = np.diag([1e4] * 6)
    error = np.array([0.01, 0.01, 0, 0, 0, 0.001])
    shift, kept, count, widest = registration.scan_only(information, error, prior, registration.PLANAR_AXES)
    np.testing.assert_allclose(np.diag(kept), [1e6, 0, 0, 0, 0, 1e6])
    np.testing.assert_allclose(shift, [1e-4, 0, 0, 0, 0, 1e-5], atol=1e-15)
    assert count == 1
    np.testing.assert_allclose(np.abs(widest), [0, 1, 0, 0, 0, 0], atol=1e-12)


def test_of_several_open_directions_the_widest_is_told() -> None:
    information, prior = np.diag([10.0, 1e3, 0, 0, 0, 1e6]), np.diag([1e4] * 3 + [1e6] * 3)
    _, kept, count, widest = registration.scan_only(information, np.zeros(6), prior, registration.PLANAR_AXES)
    assert count == 3
    assert not kept.any()
    np.testing.assert_allclose(np.abs(widest), [1, 0, 0, 0, 0, 0], atol=1e-12)


def test_a_match_in_a_corridor_leaves_the_length_to_odometry(mapper: LocalMapper, in_corridor: LocalMap) -> None:
    truth = poses.from_planar(0.4, 0.1, 0.05)
    prediction = poses.compose(truth, poses.from_planar(0.05, 0.02, -0.02))
    prior = np.diag(1.0 / np.repeat([0.02, 0.02], 3) ** 2)
    points = thinned(worlds.corridor(), truth, mapper, 8)
    match = mapper.register(in_corridor, points, prediction[None], prediction, prior)
    error = poses.log(poses.between(prediction, match.pose))
    shift, information, count, widest = registration.scan_only(match.information, error, prior, mapper.axes)
    assert count == 1
    assert np.abs(poses.rotate(match.pose[3:], widest[:3]))[0] > 0.99
    turn = poses.matrix(match.pose)[:3, :3]
    assert (turn @ information[:3, :3] @ turn.T)[0, 0] < 0.01 * information[1, 1]
    own = poses.compose(match.pose, poses.exp(shift))
    assert abs(own[1] - truth[1]) < 0.005
    assert abs(own[0] - match.pose[0]) < 0.01


def test_factor_information_is_bounded_by_its_floors(mapper: LocalMapper) -> None:
    strong = np.diag([1e12] * 6)
    bounded = mapper.factor_information(strong, 1.0, 0.01, 0.002)
    np.testing.assert_allclose(np.diag(bounded), [1e4, 1e4, 0, 0, 0, 1 / 0.002**2], rtol=1e-3)
    singular = np.zeros((6, 6))
    singular[1, 1] = 100.0
    weak = mapper.factor_information(singular, 1.0, 0.01, 0.002)
    expected = 1 / (1 / (config.Slam().registration.discount * 100.0) + 0.01**2)
    np.testing.assert_allclose(weak, np.diag([0, expected, 0, 0, 0, 0]), atol=1e-9)


@given(arrays(np.float64, (6, 6), elements=st.floats(-100, 100)), st.floats(0.001, 0.1), st.floats(0.0005, 0.01))
def test_factor_information_adds_the_floors_to_the_covariance(
    root: NDArray[np.float64], floor_translation: float, floor_rotation: float
) -> None:
    settings = config.Slam()
    spatial = LocalMapper(settings.registration, settings.input, planar=False)
    information = root @ root.T + np.eye(6)
    floors = np.diag(np.repeat([floor_translation, floor_rotation], 3) ** 2)
    expected = np.linalg.inv(np.linalg.inv(settings.registration.discount * information) + floors)
    found = spatial.factor_information(information, 1.0, floor_translation, floor_rotation)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_array_equal(found, found.T)


def test_the_variance_of_a_match_grows_with_what_it_leaves_unexplained(mapper: LocalMapper) -> None:
    trusted, information = config.Slam().registration.trusted_inliers, np.diag([1e6] * 6)
    full = mapper.registration_information(information, 1.0)
    np.testing.assert_array_equal(mapper.registration_information(information, trusted), full)
    half = mapper.registration_information(information, trusted / 2.0 ** (1 / 4))  # sigmas by its fourth power
    np.testing.assert_allclose(half, full / 4.0)
    assert np.isfinite(mapper.doubt(0.0))


@pytest.mark.parametrize("inliers", [0.3, 0.7, 0.85])
def test_a_doubtful_match_and_the_odometry_are_weighed_by_their_covariances(
    mapper: LocalMapper, inliers: float
) -> None:
    rng = np.random.default_rng(3)
    s, index = config.Slam().registration, np.array(mapper.axes)
    block, root = np.ix_(index, index), rng.normal(size=(3, 3)) + 3 * np.eye(3)
    information, prior = np.zeros((6, 6)), np.diag(1.0 / np.repeat([0.02, 0.01], 3) ** 2)
    information[block] = root @ root.T * 1e5
    own = poses.from_planar(1.0, 2.0, 0.5)
    apart = np.zeros(6)
    apart[index] = [1e-4, -2e-4, 1e-4]  # small: the formula is of first order
    covariance = np.zeros((6, 6))
    covariance[block] = np.linalg.inv(prior[block])
    found, left = mapper.weighed(own, information, inliers, poses.compose(own, poses.exp(apart)), covariance)
    doubt = (s.trusted_inliers / inliers) ** 8 - 1.0
    floors = np.diag([s.floor_translation**2, s.floor_translation**2, s.floor_rotation**2])
    told = np.linalg.inv(information[block])
    told = np.linalg.inv(told + doubt * (told / s.discount + floors))
    expected = np.linalg.solve(told + prior[block], prior[block] @ apart[index])
    np.testing.assert_allclose(poses.log(poses.between(own, found))[index], expected, atol=1e-9)
    np.testing.assert_allclose(left[block], np.linalg.inv(told + prior[block]), rtol=1e-9)
    assert np.count_nonzero(left) == 9


def test_what_a_doubtful_match_does_not_know_is_left_to_the_odometry(mapper: LocalMapper) -> None:
    own, information = poses.from_planar(1.0, 2.0, 0.5), np.diag([1e6, 0.0, 0.0, 0.0, 0.0, 1e8])
    prediction = poses.compose(own, poses.exp(np.array([0.0, 0.3, 0.2, 0.1, 0.1, 0.0])))
    covariance = np.diag([4e-4, 4e-4, 0.0, 0.0, 0.0, 1e-4])
    found, left = mapper.weighed(own, information, 0.5, prediction, covariance)
    assert left[1, 1] == pytest.approx(4e-4)
    np.testing.assert_allclose(poses.log(poses.between(own, found)), [0, 0.3, 0, 0, 0, 0], atol=1e-9)


@pytest.mark.parametrize("step", [1e-4, 1e-2, 0.2])
@pytest.mark.parametrize("place", ["in_room", "in_space"])
def test_what_is_known_of_the_nearest_voxels_is_what_a_search_finds(
    place: str, step: float, request: pytest.FixtureRequest
) -> None:
    """Step after step: most points are not looked up again, and no other voxel may have come nearer unseen."""
    for table in (request.getfixturevalue(place).coarse, request.getfixturevalue(place).fine):
        random = np.random.default_rng(0)
        points = table.anchors[:500]
        points = points + random.normal(0.0, 0.3 * table.size, points.shape) * [1.0, 1.0, 0.0 if table.planar else 1.0]
        axes = np.isin(np.arange(6), registration.observed_axes(table.planar))
        pose, known = plain(poses.IDENTITY), registration_kernel._nowhere(len(points), table.planar)
        kept = 0
        for _ in range(30):
            pose = se3.compose(pose, se3.exp(random.normal(0.0, step, 6) * axes))
            turn = se3.rotation_matrix(pose)
            fresh, before = registration_kernel._nowhere(len(points), table.planar), known.place.copy()
            registration_kernel._find_nearest(table, known, points, turn, pose[:3])
            registration_kernel._find_nearest(table, fresh, points, turn, pose[:3])
            np.testing.assert_array_equal(known.nearest, fresh.nearest)
            kept += np.count_nonzero((known.place == before).all(axis=1))
        assert (fresh.nearest >= 0).any()
        assert kept > 0 or step > 0.1
