"""Trajectories, the map and learned parameters: what is written comes back, what is foreign is refused by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.interface import Parameter, VoxelMap
from dsg_ros.io.learned import read_learned, write_learned
from dsg_ros.io.pointfile import read_ply, write_ply
from dsg_ros.io.trajectories import format_stamp, parse_stamp, read_tum, write_tum

PARAMETERS = (
    Parameter("odometry.scale", 0.977, 0.002, "", "learned"),
    Parameter("lever.x", 0.08, 0.1, "m", "frozen", "no evidence yet"),
    Parameter("lever.y", -0.0, math.inf, "m", "unobservable"),
)


@given(st.integers(-(10**18), 2 * 10**18))
def test_stamps_are_exact_in_text(stamp):
    assert parse_stamp(format_stamp(stamp)) == stamp


def test_stamps_of_other_programs():
    assert parse_stamp("1.5e3") == 1500_000000000
    assert parse_stamp("+7") == 7_000000000
    for text in ("nan", "inf", "x", "1.2.3"):
        with pytest.raises(ValueError, match=r"stamp|convert"):
            parse_stamp(text)


def test_trajectories_come_back(tmp_path):
    stamps = np.array([1_000000001, 1_700000000_123456789])
    written = poses.compose(
        poses.from_planar([1.0, -2.0], [0.5, 1e4], [0.1, 3.0]), poses.exp([0, 0, 0.3, 0.1, 0.2, 0.0])
    )
    write_tum(tmp_path / "a.tum", stamps, written)
    read_stamps, read_poses = read_tum(tmp_path / "a.tum")
    np.testing.assert_array_equal(read_stamps, stamps)
    np.testing.assert_allclose(read_poses, written, atol=1e-9)
    assert (tmp_path / "a.tum").read_text().startswith("1.000000001 ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tum"], "no temporary file is left"


def test_an_empty_trajectory_and_a_wrong_shape(tmp_path):
    write_tum(tmp_path / "a.tum", [], np.empty((0, 7)))
    assert read_tum(tmp_path / "a.tum")[1].shape == (0, 7)
    with pytest.raises(ValueError, match="2 stamps"):
        write_tum(tmp_path / "a.tum", [1, 2], np.empty((1, 7)))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none/a.tum: there is no folder"):
        write_tum(tmp_path / "none" / "a.tum", [], np.empty((0, 7)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2 3", ":2: 3 fields instead of 8"),
        ("1 0 0 0 0 0 0 nan", ":2: the pose is not finite"),
        ("1 0 0 0 0 0 0 0", ":2: .*quaternion is zero"),
        ("one 0 0 0 0 0 0 1", ":2: "),
    ],
)
def test_bad_trajectory_lines_are_named(tmp_path, line, message):
    path = tmp_path / "a.tum"
    path.write_text(f"# stamp x y z qx qy qz qw\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_tum(path)


def _voxels(count):
    rng = np.random.default_rng(3)
    means, normals = rng.normal(size=(2, count, 3)).astype(np.float32)
    counts = rng.integers(1, 99, count).astype(np.int32)
    ids = np.arange(count, dtype=np.int64)
    spread = rng.uniform(size=(count, 6)).astype(np.float32)
    return VoxelMap(
        0.2, ids, means, normals, counts, np.ones(count, np.float32), ids * 10**9 + 7, ids[:0], ids * 10**8, spread
    )


@pytest.mark.parametrize("count", [0, 1, 100])
def test_maps_come_back(tmp_path, count):
    voxels = _voxels(count)
    write_ply(tmp_path / "map.ply", voxels)
    read = read_ply(tmp_path / "map.ply")
    np.testing.assert_array_equal(read.means, voxels.means)
    np.testing.assert_array_equal(read.normals, voxels.normals)
    np.testing.assert_array_equal(read.counts, voxels.counts)
    np.testing.assert_array_equal(read.covariances, voxels.covariances)
    np.testing.assert_allclose(read.stamps.T * 1e9, [voxels.first_seen, voxels.last_seen], atol=500)
    assert read.size == voxels.size


def test_the_map_is_what_other_programs_expect(tmp_path):
    write_ply(tmp_path / "map.ply", _voxels(2))
    header, body = (tmp_path / "map.ply").read_bytes().split(b"end_header\n", 1)
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n")
    assert b"element vertex 2\nproperty float x\nproperty float y\nproperty float z\nproperty float nx\n" in header
    assert len(body) == 2 * (6 * 4 + 4 + 2 * 8 + 6 * 4)


def test_foreign_and_truncated_maps_are_refused(tmp_path):
    path = tmp_path / "map.ply"
    write_ply(path, _voxels(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="203 bytes of vertices instead of 204"):
        read_ply(path)
    path.write_bytes(whole.replace(b"property float nx\n", b""))
    with pytest.raises(UserError, match="not a map of this program"):
        read_ply(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_ply(tmp_path / "none.ply")


def test_learned_parameters_come_back(tmp_path):
    provenance = {"log": "intel", "metres": np.float64(508.25), "loss_before": None, "versions": {"jax": "0.10"}}
    write_learned(tmp_path / "learned.yaml", PARAMETERS, provenance)
    learned = read_learned(tmp_path / "learned.yaml", known=[parameter.name for parameter in PARAMETERS])
    assert learned.parameters == PARAMETERS
    assert learned.provenance == {"log": "intel", "metres": 508.25, "loss_before": None, "versions": {"jax": "0.10"}}


def test_unknown_parameters_are_refused_with_the_closest_names(tmp_path):
    write_learned(tmp_path / "learned.yaml", PARAMETERS, {})
    with pytest.raises(UserError, match=r"unknown parameter 'odometry.scale'; known is odometry.scales"):
        read_learned(tmp_path / "learned.yaml", known=["odometry.scales", "lever.x", "lever.y"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format_version: 1", "format_version: 2", "format version 2; this program reads version 1"),
        ("format_version: 1", "other: 1", "format_version is missing"),
        ("provenance:", "provenence:", "unknown entries provenence"),
        ("  sigma: 0.1\n", "", "parameter 2: sigma is missing"),
        ("  sigma: 0.1\n", "  sigma: -1\n", "parameter 2 .lever.x.: value 0.08 with sigma -1"),
        ("value: 0.08", "value: .nan", "value nan"),
        ("value: 0.08", "value: much", "value 'much' is not a number"),
        ("value: 0.08", "value: 0.08\n  colour: red", "parameter 2: unknown entry colour"),
        ("status: frozen", "status: cold", "status 'cold' is none of learned, frozen, unobservable"),
        ("name: lever.x", "name: lever.y", "told twice: lever.y"),
        ("name: lever.x", "name: [lever, x]", "parameter 2: name .* is not text"),
        ("status: frozen", "status: {}", "parameter .: status {} is not text"),
        ("value: 0.08", f"value: 1{'0' * 400}", "value has too many digits"),
        ("provenance:", f"provenance: {'[' * 2000}\nx:", "not a YAML file"),
        ("parameters:", "parameters: {", "not a YAML file"),
        ("parameters:\n", "parameters: 3\nx:\n", "unknown entries x"),
    ],
)
def test_damaged_files_of_learned_parameters_are_refused_by_name(tmp_path, old, new, message):
    path = tmp_path / "learned.yaml"
    write_learned(path, PARAMETERS, {})
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_learned(path)


def test_a_missing_file_of_learned_parameters_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none.yaml: cannot be read"):
        read_learned(tmp_path / "none.yaml")
