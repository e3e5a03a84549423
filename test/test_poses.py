"""Pose algebra on NumPy arrays: a group, with one meaning for single poses and stacks of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.linalg import expm

from dsg_ros import poses

Array = NDArray[np.float64]

metres = st.floats(-50, 50)
vectors = st.tuples(metres, metres, metres).map(np.array)
directions = vectors.filter(lambda v: np.linalg.norm(v) > 1e-3).map(lambda v: v / np.linalg.norm(v))
angles = st.one_of(st.floats(0, 3.1), st.sampled_from([0.0, 1e-12, 1e-7, 1e-5, 1.1e-5, 1e-4, 3.14, np.pi - 1e-7]))
tangents = st.builds(lambda t, d, a: np.concatenate([t, a * d]), vectors, directions, angles)
transforms = tangents.map(poses.exp)


def assert_same(a: Array, b: Array, atol: float = 1e-9) -> None:
    """Equal as transforms: a quaternion and its negative are one rotation."""
    assert_allclose(poses.matrix(a), poses.matrix(b), atol=atol)


def twist(xi: Array) -> Array:
    """The (4, 4) matrix of a tangent (6,)."""
    x, y, z = xi[3:]
    return np.block([[np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), xi[:3, None]], [np.zeros((1, 4))]])


@given(transforms, transforms, transforms)
def test_group_laws(a: Array, b: Array, c: Array) -> None:
    assert_same(poses.compose(poses.compose(a, b), c), poses.compose(a, poses.compose(b, c)))
    assert_same(poses.compose(a, poses.IDENTITY), a)
    assert_same(poses.compose(poses.IDENTITY, a), a)
    assert_same(poses.compose(a, poses.inverse(a)), poses.IDENTITY)
    assert_same(poses.compose(a, poses.between(a, b)), b)


@given(transforms, transforms, vectors)
def test_composition_is_the_product_of_matrices(a: Array, b: Array, point: Array) -> None:
    assert_allclose(poses.matrix(poses.compose(a, b)), poses.matrix(a) @ poses.matrix(b), atol=1e-9)
    moved = poses.transform(a, poses.transform(b, point[None]))
    assert_allclose(poses.transform(poses.compose(a, b), point[None]), moved, atol=1e-9)
    assert np.isclose(np.linalg.norm(poses.compose(a, b)[3:]), 1.0, atol=1e-12)


@given(tangents)
def test_exp_is_the_matrix_exponential(xi: Array) -> None:
    assert_allclose(poses.matrix(poses.exp(xi)), expm(twist(xi)), atol=1e-9)


@given(tangents, tangents, vectors)
def test_a_single_pose_is_a_stack_of_one(xi: Array, other: Array, vector: Array) -> None:
    """Single poses take a way of their own, in plain numbers."""
    a, b = poses.exp(xi), poses.exp(other)
    assert_allclose(poses.exp(xi[None])[0], a, rtol=1e-12, atol=1e-12)
    assert_allclose(poses.log(a[None])[0], poses.log(a), rtol=1e-12, atol=1e-12)
    assert_allclose(poses.matrix(a[None])[0], poses.matrix(a), rtol=1e-12, atol=1e-12)
    assert_allclose(poses.inverse(a[None])[0], poses.inverse(a), rtol=1e-12, atol=1e-12)
    assert_allclose(poses.compose(a[None], b[None])[0], poses.compose(a, b), rtol=1e-12, atol=1e-12)
    assert_allclose(poses.rotate(a[None, 3:], vector[None])[0], poses.rotate(a[3:], vector), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0001e-5, 1e-3, 0.00999, 0.01001, 0.3])
def test_exp_keeps_its_digits_at_small_angles(angle: float) -> None:
    """Against the arc of a circle: a translation along x while turning about z ends at sin(a)/a, (1 - cos(a))/a."""
    found = poses.exp(np.array([1.0, 0.0, 0.0, 0.0, 0.0, angle]))
    assert found[0] == pytest.approx(np.sinc(angle / np.pi), rel=1e-14)
    assert found[1] == pytest.approx(0.5 * angle * np.sinc(0.5 * angle / np.pi) ** 2, rel=1e-14)


@given(tangents)
def test_log_undoes_exp(xi: Array) -> None:
    assert_allclose(poses.log(poses.exp(xi)), xi, atol=1e-6 if np.linalg.norm(xi[3:]) > 3.1 else 1e-9)


@given(vectors, directions, st.floats(-1e-6, 1e-6))
def test_exp_undoes_log_up_to_and_beyond_half_a_turn(translation: Array, axis: Array, beyond: float) -> None:
    quaternion = poses.rotation_exp((np.pi + beyond) * axis)
    pose = np.concatenate([translation, quaternion])
    xi = poses.log(pose)
    assert np.all(np.isfinite(xi))
    assert np.linalg.norm(xi[3:]) <= np.pi + 1e-12
    assert_same(poses.exp(xi), pose, atol=1e-7)


@given(transforms)
def test_log_does_not_mind_the_sign_of_the_quaternion(pose: Array) -> None:
    other = pose * np.array([1, 1, 1, -1, -1, -1, -1])
    if pose[6] > 1e-9:  # at exactly half a turn both axes are right
        assert_allclose(poses.log(other), poses.log(pose), atol=1e-12)
    assert_same(poses.exp(poses.log(other)), pose, atol=1e-7)


@given(st.lists(transforms, min_size=1, max_size=4), st.lists(transforms, min_size=1, max_size=4), vectors)
def test_stacks_agree_with_single_poses(first: list[Array], second: list[Array], vector: Array) -> None:
    a, b = np.array(first)[:, None], np.array(second)[None]
    for operation in (poses.compose, poses.between):
        together = operation(a, b)
        assert together.shape == (len(first), len(second), 7)
        for i, x in enumerate(first):
            for j, y in enumerate(second):
                assert_allclose(together[i, j], operation(x, y), atol=1e-12)
        assert_allclose(operation(first[0], np.array(second)), together[0], atol=1e-12)
        assert_allclose(operation(np.array(first), second[0]), together[:, 0], atol=1e-12)
    for function in (poses.inverse, poses.log, poses.matrix, poses.yaw):
        assert_allclose(function(np.array(first)), np.array([function(x) for x in first]), atol=1e-12)
    rotations = np.array(first)[:, 3:]
    assert_allclose(poses.rotate(rotations, vector), [poses.rotate(q, vector) for q in rotations], atol=1e-12)
    assert_allclose(poses.rotate(rotations[0], np.array([vector, -vector]))[1], -poses.rotate(rotations[0], vector))
    assert_allclose(poses.multiply(rotations, rotations[0]), [poses.multiply(q, rotations[0]) for q in rotations])
    repeated = np.repeat(vector[None], len(first), axis=0)
    one_each = poses.transform(np.array(first), repeated)
    assert_allclose(one_each, [poses.transform(x, vector[None])[0] for x in first], atol=1e-9)


@given(vectors, vectors)
def test_cross_product(a: Array, b: Array) -> None:
    assert_allclose(poses.cross(a, b), np.cross(a, b), atol=1e-9)
    assert_allclose(poses.cross(np.array([a, b]), b), np.cross(np.array([a, b]), b), atol=1e-9)


@given(transforms, tangents)
def test_adjoint_carries_a_right_perturbation_to_the_left(pose: Array, xi: Array) -> None:
    small = 0.01 * xi
    left = poses.compose(poses.exp(poses.adjoint(pose) @ small), pose)
    assert_same(poses.compose(pose, poses.exp(small)), left, atol=1e-8)


@given(transforms, transforms, st.floats(0, 1))
def test_interpolation(a: Array, b: Array, fraction: float) -> None:
    assert_same(poses.interpolate(a, b, 0.0), a)
    assert_same(poses.interpolate(a, b, 1.0), b, atol=1e-7)
    between = poses.interpolate(a, b, fraction)
    assert_allclose(between[:3], (1 - fraction) * a[:3] + fraction * b[:3], atol=1e-9)
    whole = np.linalg.norm(poses.log(poses.between(a, b))[3:])
    if whole < 3.0:
        assert np.isclose(np.linalg.norm(poses.log(poses.between(a, between))[3:]), fraction * whole, atol=1e-6)
    many = poses.interpolate(a, b, np.array([0.0, fraction, 1.0]))
    assert_allclose(many[1], between, atol=1e-12)


def test_interpolation_extrapolates_at_constant_velocity() -> None:
    a, b = poses.from_planar(0, 0, 0), poses.from_planar(1, 2, 0.1)
    assert_allclose(poses.interpolate(a, b, 2.0), poses.from_planar(2, 4, 0.2), atol=1e-12)


@given(metres, metres, st.floats(-3.14, 3.14))
def test_planar_poses(x: float, y: float, yaw: float) -> None:
    pose = poses.from_planar(x, y, yaw)
    assert np.isclose(poses.yaw(pose), yaw, atol=1e-12)
    assert_allclose(pose[:3], [x, y, 0])
    c, s = np.cos(yaw), np.sin(yaw)
    assert_allclose(poses.matrix(pose)[:3, :3], [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=1e-12)


def test_identity_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        poses.IDENTITY[0] = 1.0


def test_inputs_stay_as_they_were() -> None:
    pose = poses.from_planar(1, 2, 3)
    before = pose.copy()
    poses.compose(pose, pose)
    poses.log(-pose)
    poses.inverse(pose)[0] = 7
    assert_allclose(pose, before)


def test_quaternions_of_rotation_matrices() -> None:
    rng = np.random.default_rng(6)
    turns = [*rng.normal(size=(50, 3)), *(np.pi * np.eye(3)), np.zeros(3)]
    for turn in turns:
        expected = poses.rotation_exp(np.asarray(turn))
        found = poses.quaternion(poses.matrix(np.r_[0.0, 0.0, 0.0, expected])[:3, :3])
        np.testing.assert_allclose(found * np.sign(found @ expected), expected, atol=1e-12)
