"""Pose graph files that are read: what they mean, and what cannot be meant is refused by file and line."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest
from graph_texts import EDGE, I2, I3, PLANE, SIGHT2, SIGHT3, SPACE, VERTICES, read, same, written_and_read
from hypothesis import given
from hypothesis import strategies as st

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Landmarks, cost
from dsg_ros.io.posegraph_checks import components, matrices, square_roots
from dsg_ros.io.posegraph_read import read_pose_graph


def test_a_planar_graph(tmp_path):
    graph = read(
        tmp_path, f"# two poses\r\n\n{PLANE.replace('VERTEX_SE2 1', 'VERTEX_SE2 -5').replace('0 1 1', '0 -5 1')}"
    )
    assert graph.planar
    assert graph.keys.tolist() == [0, -5]
    assert graph.known.all()
    np.testing.assert_array_equal(graph.poses, poses.from_planar([0, 1], [0, 0], [0, 0.5]))
    assert (graph.first.tolist(), graph.second.tolist()) == ([0], [1])
    np.testing.assert_array_equal(graph.measured, poses.from_planar([1], [0], [0.5]))
    information = graph.sqrt_info[0].T @ graph.sqrt_info[0]
    np.testing.assert_allclose(information, np.diag([500, 500, 0, 0, 0, 5000]), rtol=1e-15)
    assert graph.held.tolist() == [0]
    assert graph.factors == 1
    assert cost(graph) == 0


def test_a_graph_in_space_and_its_information(tmp_path):
    numbers = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0] * np.arange(1, 7)
    wanted = numbers @ numbers.T
    triangle = " ".join(map(repr, wanted[np.triu_indices(6)].tolist()))
    graph = read(tmp_path, SPACE.replace(I3, triangle))
    assert not graph.planar
    np.testing.assert_allclose(graph.sqrt_info[0].T @ graph.sqrt_info[0], wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(graph.measured[0], [1, 0, 0, 0, 0, 0.6, 0.8])
    moved = graph.with_values(
        poses.compose(graph.poses, poses.exp([[0] * 6, [0.1, 0.2, 0.3, 0.01, 0.02, 0.03]])), np.zeros((0, 3))
    )
    error = np.array([0.1, 0.2, 0.3, 0.01, 0.02, 0.03])
    assert cost(moved) == pytest.approx(0.5 * error @ wanted @ error)


def test_landmarks_of_the_plane(tmp_path):
    graph = read(tmp_path, PLANE + SIGHT2 + "FIX 7 0\n")
    marks = graph.landmarks
    assert (marks.keys.tolist(), marks.positions.tolist(), marks.known.tolist()) == ([7], [[1, 1, 0]], [True])
    assert (marks.pose.tolist(), marks.landmark.tolist(), marks.points.tolist()) == ([0], [0], [[1, 1, 0]])
    np.testing.assert_allclose(
        marks.sqrt_info[0].T @ marks.sqrt_info[0], [[10, 1, 0], [1, 20, 0], [0, 0, 0]], rtol=1e-14
    )
    assert (graph.fixed.tolist(), marks.fixed.tolist(), graph.held.tolist()) == ([0], [0], [0])
    np.testing.assert_array_equal(marks.base_from_sensor, [poses.IDENTITY])
    assert graph.factors == 2


@pytest.mark.parametrize("tag", ["VERTEX_TRACKXYZ", "VERTEX_POINT_XYZ"])
def test_landmarks_in_space_are_seen_from_a_sensor(tmp_path, tag):
    graph = read(tmp_path, SPACE + SIGHT3.replace("VERTEX_TRACKXYZ", tag))
    marks = graph.landmarks
    assert (marks.offset_keys.tolist(), marks.offset.tolist()) == ([4], [0])
    np.testing.assert_array_equal(marks.base_from_sensor, [[1, 2, 3, 0, 0, 1, 0]])
    np.testing.assert_allclose(
        marks.sqrt_info[0].T @ marks.sqrt_info[0], [[10, 1, 2], [1, 20, 3], [2, 3, 30]], rtol=1e-14
    )
    # The sensor looks back: a landmark at (0, 1, 3) is 1 m ahead of it and 1 m to its left.
    assert cost(graph) == pytest.approx(0, abs=1e-25)


def test_files_without_vertices_have_those_of_their_edges(tmp_path):
    graph = read(tmp_path, f"EDGE_SE2 9 3 1 0 0 {I2}\nEDGE_SE2_XY 3 4 1 1 10 1 20\nFIX 9\n")
    assert (graph.keys.tolist(), graph.known.tolist()) == ([3, 9], [False, False])
    assert (graph.first.tolist(), graph.second.tolist(), graph.fixed.tolist()) == ([1], [0], [1])
    assert (graph.landmarks.keys.tolist(), graph.landmarks.known.tolist()) == ([4], [False])
    same(graph, written_and_read(tmp_path, graph))


def test_toro_in_the_plane_lists_its_matrix_in_an_order_of_its_own(tmp_path):
    toro = read(
        tmp_path, "VERTEX2 0 0 0 0\nVERTEX2 1 1 0 0.5\nEDGE2 0 1 1 0 0.5 11 12 22 33 13 23\n".replace("22", "400")
    )
    same(toro, read(tmp_path, PLANE.replace(I2, "11 12 13 400 23 33")))


def test_toro_in_space_has_roll_pitch_yaw(tmp_path):
    toro = read(tmp_path, f"VERTEX3 0 0 0 0 0 0 0\nVERTEX3 1 1 2 3 0.1 -0.2 0.3\nEDGE3 0 1 1 2 3 0.1 -0.2 0.3 {I3}\n")
    turned = poses.IDENTITY
    for axis, angle in ((5, 0.3), (4, -0.2), (3, 0.1)):
        turned = poses.compose(turned, poses.exp(np.eye(6)[axis] * angle))
    np.testing.assert_allclose(toro.poses[1], [1, 2, 3, *turned[3:]], atol=1e-15)
    np.testing.assert_allclose(toro.measured[0], [1, 2, 3, *turned[3:]], atol=1e-15)
    assert toro.information.tolist() == [list(map(float, I3.split()))]


def test_compression_is_told_by_content(tmp_path):
    text = PLANE.encode()
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        (tmp_path / "graph").write_bytes(pack(text))
        assert read_pose_graph(tmp_path / "graph").planar
    with zipfile.ZipFile(tmp_path / "graph.g2o", "w") as archive:
        archive.writestr("x/graph.g2o", text)
    assert read_pose_graph(tmp_path / "graph.g2o").planar


def test_unknown_tags_are_named_and_counted(tmp_path, caplog):
    graph = read(tmp_path, f"ODOMETRY 1\n{PLANE}EDGE_PRIOR_SE2 0 1\nODOMETRY 2\nDATA\n")
    assert graph.unknown == {"ODOMETRY": 2, "EDGE_PRIOR_SE2": 1, "DATA": 1}
    (record,) = caplog.records
    assert (
        "ODOMETRY (2, first in line 1), EDGE_PRIOR_SE2 (1, first in line 5), DATA (1, first in line 7)"
        in record.message
    )


def test_quaternions_are_normalised_and_that_is_told_where_they_are_far_off(tmp_path, caplog):
    graph = read(tmp_path, SPACE.replace("1 1 0 0 0 0 0.6 0.8", "1 1 0 0 0 0 6e200 8e200", 1))
    np.testing.assert_allclose(graph.poses[1], [1, 0, 0, 0, 0, 0.6, 0.8], atol=1e-15)
    assert ":2: a quaternion of norm 1e+201 is normalised, one of 1" in caplog.text
    caplog.clear()
    read(tmp_path, SPACE.replace("0.6 0.8", "0.6 0.80001"))
    assert caplog.text == ""


def test_matrices_may_be_full_and_singular(tmp_path):
    full = read(tmp_path, PLANE.replace(I2, "2 1 0 1 2 0 0 0 3"))
    same(full, read(tmp_path, PLANE.replace(I2, "2 1 0 2 0 3")))
    bearing = read(tmp_path, PLANE.replace(I2, "0 0 0 1 1 1"))
    wanted = np.zeros((6, 6))
    wanted[1, 1] = wanted[1, 5] = wanted[5, 1] = wanted[5, 5] = 1
    np.testing.assert_allclose(bearing.sqrt_info[0].T @ bearing.sqrt_info[0], wanted, atol=1e-15)


def test_roots_of_a_stack_do_not_depend_on_its_other_matrices():
    regular = np.diag([1.0, 1e4, 1e8])
    regular[0, 2] = regular[2, 0] = 3e3
    singular, indefinite = np.diag([1.0, 0.0, 5.0]), np.diag([1.0, -1e-3, 1e5])
    alone, nothing, none = square_roots(regular[None])
    roots, bad, flat = square_roots(np.stack([indefinite, regular, singular]))
    assert (len(nothing), len(none), bad.tolist(), flat.tolist()) == (0, 0, [0], [2])
    np.testing.assert_array_equal(roots[1], alone[0])
    np.testing.assert_allclose(roots[2].T @ roots[2], singular, atol=1e-12)
    np.testing.assert_array_equal(matrices(np.arange(6.0)[None])[0], [[0, 1, 2], [1, 3, 4], [2, 4, 5]])


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), max_size=40))
    )
)
def test_components_are_those_of_a_search(case):
    count, pairs = case
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    label = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            label[a] = label[b] = min(label[a], label[b])
    assert components(count, ends[:, 0], ends[:, 1]).tolist() == label


BAD = {
    "dangling": (PLANE + f"EDGE_SE2 1 9 1 0 0 {I2}\n", r":4: EDGE_SE2: vertex 9 is declared nowhere"),
    "declared under an unknown tag": (
        f"VERTEX_CAM 9 1 2\n{PLANE}EDGE_SE2 1 9 1 0 0 {I2}\n",
        r":5: EDGE_SE2: vertex 9 is declared in line 1 as VERTEX_CAM, which this program does not know",
    ),
    "dangling sighting": (PLANE + "EDGE_SE2_XY 0 9 1 1 1 0 1\n", r":4: EDGE_SE2_XY: vertex 9 is declared nowhere"),
    "dangling fix": (PLANE + "FIX 0\nFIX 0 9\n", r":5: FIX: vertex 9 is declared nowhere"),
    "dangling sensor": (SPACE + SIGHT3.replace("7 4", "7 5"), r":6: sensor 5 is declared nowhere: add its PARAMS_SE3"),
    "fix of nothing": (f"EDGE_SE2 0 1 1 0 0 {I2}\nFIX 9\n", r":2: FIX: no edge joins vertex 9"),
    "fixed where": (f"EDGE_SE2 0 1 1 0 0 {I2}\nFIX 0 1\n", r":2: FIX: where is vertex 1"),
    "duplicate": (PLANE + "VERTEX_SE2 0 1 1 1\n", r":4: vertex 0 is declared again, after line 1"),
    "duplicate landmark": (PLANE + "VERTEX_XY 1 1 1\n", r":4: vertex 1 is declared again, after line 2"),
    "duplicate sensor": (SPACE + SIGHT3 + SIGHT3[:33], r":7: PARAMS_SE3OFFSET: sensor 4 is declared again"),
    "not symmetric": (
        PLANE.replace(I2, "2 1 0 1.1 2 0 0 0 3"),
        r":3: .*not symmetric: entry 1 2 is 1, entry 2 1 is 1.1",
    ),
    "indefinite": (PLANE.replace(I2, "1 2 0 1 0 1"), r":3: EDGE_SE2: the information matrix is indefinite .* -1\)"),
    "negative": (SPACE.replace("4 0 4\n", "4 0 -4\n"), r":3: EDGE_SE3:QUAT: .* indefinite"),
    "indefinite sighting": (PLANE + SIGHT2.replace("10 1", "10 99"), r":5: EDGE_SE2_XY: .* indefinite"),
    "order": (f"EDGE2 0 1 1 0 0.5 {I2}\n", r":1: EDGE2: .* indefinite .* as an EDGE_SE2 line"),
    "nan": (PLANE.replace("1 0 0.5", "1 nan 0.5", 1), r":2: VERTEX_SE2: 'nan' is not finite"),
    "inf": (PLANE.replace("500 0 5000", "500 inf 5000"), r":3: EDGE_SE2: 'inf' is not finite"),
    "overflow": (PLANE.replace("1 0 0.5", "1 1e999 0.5", 1), r":2: VERTEX_SE2: '1e999' is not finite"),
    "word": (PLANE.replace("1 0 0.5", "1 O 0.5", 1), r":2: VERTEX_SE2: 'O' is not a number"),
    "word in a matrix": (PLANE + EDGE.replace("5000", "5,0"), r":4: EDGE_SE2: '5,0' is not a number"),
    "grouped digits": (PLANE.replace("1 0 0.5", "1 1_0 0.5", 1), r":2: VERTEX_SE2: '1_0' is not a number"),
    "grouped id": (PLANE.replace("0 1 1 0", "0 1_0 1 0"), r":3: EDGE_SE2: '1_0' is no vertex id"),
    "id": (PLANE.replace("0 1 1 0", "0 1.0 1 0"), r":3: EDGE_SE2: '1.0' is no vertex id"),
    "huge id": (PLANE.replace("0 1 1 0", f"0 {2**63} 1 0"), r":3: EDGE_SE2: '9223372036854775808' is no vertex id"),
    "truncated": (PLANE[:-6], r":3: EDGE_SE2 is followed by 10 words instead of 11 \(2 ids, 3 values, .* cut short"),
    "truncated vertex": (PLANE + "VERTEX_SE2 2 1\n", r":4: VERTEX_SE2 is followed by 2 words instead of 4"),
    "bare tag": (PLANE + "EDGE_SE2\n", r":4: EDGE_SE2 is followed by 0 words"),
    "bare fix": (PLANE + "FIX\n", r":4: FIX is followed by 0 words instead of 1"),
    "too long": (
        PLANE.replace("1 0 0.5\n", "1 0 0.5 7\n"),
        r":2: VERTEX_SE2 is followed by 5 words instead of 4 \([^:]*$",
    ),
    "zero quaternion": (SPACE.replace("0 0 0 1\n", "0 0 0 0\n"), r":1: the quaternion is zero"),
    "zero measured": (SPACE.replace("0.6 0.8 1", "0 0 1"), r":3: the quaternion is zero"),
    "self-edge": (PLANE + f"EDGE_SE2 1 1 0 0 0 {I2}\n", r":4: an edge joins vertex 1 to itself"),
    "mixed": (
        PLANE + SPACE.replace("QUAT 0", "QUAT 8"),
        r":4: VERTEX_SE3:QUAT is of a graph in space, but VERTEX_SE2 in li",
    ),
    "mixed edges": (
        SPACE + f"EDGE2 0 1 1 0 0 {I2}\n",
        r":4: EDGE2 is of a graph in the plane, but VERTEX_SE3:QUAT in l",
    ),
    "landmark for a pose": (
        PLANE + SIGHT2 + f"EDGE_SE2 0 7 1 0 0 {I2}\n",
        r":6: EDGE_SE2: vertex 7 is a landmark, exp",
    ),
    "pose for a landmark": (
        PLANE + "EDGE_SE2_XY 0 1 1 1 1 0 1\n",
        r":4: EDGE_SE2_XY: vertex 1 is a pose, expected a la",
    ),
    "both": (
        f"EDGE_SE2 0 1 1 0 0 {I2}\nEDGE_SE2_XY 0 1 1 1 1 0 1\n",
        r":2: vertex 1 is seen as a landmark, but in line 1",
    ),
    "disconnected": (
        PLANE + f"VERTEX_SE2 2 0 0 0\nVERTEX_SE2 8 0 0 0\nVERTEX_SE2 3 0 0 0\nEDGE_SE2 8 3 1 0 0 {I2}\nFOO\n",
        r":4: the graph falls into 3 parts .*: 2 vertices with 0 \(line 1\), 2 vertices with 8 \(line 5\), "
        r"1 vertex with 2 \(line 4\); .*left out: FOO 1",
    ),
    "disconnected edges": (
        f"EDGE_SE2 0 1 1 0 0 {I2}\nEDGE_SE2 3 2 1 0 0 {I2}\n",
        r":2: .*2 vertices with 2 \(line 2\)",
    ),
    "one part held": (PLANE + "VERTEX_SE2 2 0 0 0\nFIX 2\n", r":1: the graph falls into 2 parts"),
    "no gauge": (PLANE + SIGHT2 + "FIX 7\n", r":6: no gauge: FIX holds landmarks alone \(7\)"),
    "no edge": (VERTICES, r":2: no edge joins the vertices \(2\) up to here: nothing to optimise$"),
    "unknown only": ("\nODOM 1\nFLASER 2\nODOM 3\n", r":2: no vertex and no edge .* left out: ODOM 2, FLASER 1"),
    "comments only": ("# nothing\n\n", r":1: no vertex and no edge"),
    "fix only": ("\nFIX 1\n", r":2: no vertex and no edge"),
    "empty": ("", r": the file is empty"),
    "binary": (PLANE + "VERTEX_SE2\0", r":4: a binary file \(byte 0x00"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_file_and_line(tmp_path, case):
    text, message = BAD[case]
    with pytest.raises(UserError, match=rf"graph\.g2o{message}"):
        read(tmp_path, text)


def test_unreadable_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"absent.g2o: cannot be read"):
        read_pose_graph(tmp_path / "absent.g2o")
    with pytest.raises(UserError, match=r"cannot be read"):
        read_pose_graph(tmp_path)
    (tmp_path / "cut.g2o.xz").write_bytes(lzma.compress(PLANE.encode())[:-9])
    with pytest.raises(UserError, match=r"cut.g2o.xz: compressed file is damaged or cut short"):
        read_pose_graph(tmp_path / "cut.g2o.xz")


def test_a_last_line_without_an_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "graph.g2o"
    path.write_text(PLANE)
    read_pose_graph(path)
    assert "no end" not in caplog.text
    path.write_text(PLANE[:-1])
    read_pose_graph(path)
    assert "graph.g2o: its last line has no end" in caplog.text


def test_parts_that_are_all_held_are_no_mistake(tmp_path):
    graph = read(tmp_path, PLANE + f"VERTEX_SE2 2 0 0 0\nVERTEX_SE2 3 0 0 0\nEDGE_SE2 2 3 1 0 0 {I2}\nFIX 2\nFIX 1\n")
    assert graph.fixed.tolist() == [1, 2]
    marks = "VERTEX_XY 7 1 1\nVERTEX_XY 8 1 1\nEDGE_SE2_XY 0 7 1 1 1 0 1\nEDGE_SE2_XY 1 8 1 1 1 0 1\nFIX 7 8\n"
    assert read(tmp_path, PLANE + marks).held.tolist() == []


def test_no_landmarks_fit_either_kind_of_graph(tmp_path):
    for text in (PLANE, SPACE):
        graph = read(tmp_path, text)
        same(graph, dataclasses.replace(graph, landmarks=Landmarks.none(graph.planar)))
