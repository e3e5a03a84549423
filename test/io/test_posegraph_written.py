"""Pose graph files that are written: every number comes back, in either format, packed or not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_texts import PLANE, SIGHT2, SIGHT3, SPACE, read, same, written_and_read
from hypothesis import given
from hypothesis import strategies as st

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph_read import read_pose_graph
from dsg_ros.io.posegraph_tags import from_euler, heading, to_euler
from dsg_ros.io.posegraph_write import write_pose_graph


@given(st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=3))
def test_euler_angles_come_back_as_the_same_rotation(angles):
    pose = from_euler(np.array([[1.0, 2.0, 3.0, *angles]]))
    again = from_euler(to_euler(pose))
    assert np.linalg.norm(poses.rotation_log(poses.between(pose, again)[0, 3:])) < 1e-7
    np.testing.assert_array_equal(again[:, :3], pose[:, :3])


@pytest.mark.parametrize("pitch", [math.pi / 2, -math.pi / 2])
def test_euler_angles_of_a_robot_that_looks_straight_up(pitch):
    pose = from_euler(np.array([[0, 0, 0, 0.4, pitch, 0.3]]))
    np.testing.assert_allclose(poses.matrix(from_euler(to_euler(pose))), poses.matrix(pose), atol=1e-7)


@given(st.lists(st.floats(-2 * math.pi, 2 * math.pi), min_size=1, max_size=30))
def test_headings_come_back_exactly(angles):
    pose = poses.from_planar(0.0, 0.0, np.array(angles))
    np.testing.assert_array_equal(poses.from_planar(0.0, 0.0, heading(pose)), pose)


def test_headings_of_what_was_computed_lie_within_half_a_turn():
    pose = poses.IDENTITY[None]
    for _ in range(400):
        pose = poses.compose(pose, poses.from_planar([0.0], [0.0], [0.1]))
        angle = heading(pose)[0]
        assert poses.yaw(pose)[0] == pytest.approx(math.remainder(angle, 2 * math.pi), abs=1e-14)
        assert abs(angle) <= 2 * math.pi


number = st.floats(-1e6, 1e6, allow_subnormal=False)


@st.composite
def graph_texts(draw: st.DrawFn) -> str:
    """A connected graph with random numbers, of either kind, with or without landmarks and FIX lines."""
    planar = draw(st.booleans())
    keys = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=6, unique=True))
    marks = draw(st.integers(0, len(keys) - 2))
    robots, marks = keys[marks:], keys[:marks]

    def words(strategy: st.SearchStrategy[float], count: int) -> str:
        return " ".join(repr(draw(strategy)) for _ in range(count))

    def pose() -> str:
        if planar:
            return f"{words(number, 2)} {words(st.floats(-2 * math.pi, 2 * math.pi), 1)}"
        quaternion = [draw(st.floats(-1, 1)) for _ in range(3)] + [draw(st.floats(0.1, 1))]
        return f"{words(number, 3)} {' '.join(map(repr, quaternion))}"

    def information(size: int) -> str:
        root = np.array([[draw(st.integers(-9, 9)) for _ in range(size)] for _ in range(size)])
        return " ".join(map(str, (root.T @ root)[np.triu_indices(size)]))

    kind, points = ("SE2", 2) if planar else ("SE3:QUAT", 3)
    lines = [] if planar else [f"PARAMS_SE3OFFSET 3 {pose()}"]
    lines += [f"VERTEX_{kind} {key} {pose()}" for key in robots]
    lines += [f"{'VERTEX_XY' if planar else 'VERTEX_TRACKXYZ'} {key} {words(number, points)}" for key in marks]
    pairs = [(draw(st.sampled_from(robots[:k])), robots[k]) for k in range(1, len(robots))]
    lines += [f"EDGE_{kind} {a} {b} {pose()} {information(3 if planar else 6)}" for a, b in pairs]
    sighting = "EDGE_SE2_XY {} {}" if planar else "EDGE_SE3_TRACKXYZ {} {} 3"
    lines += [
        f"{sighting.format(draw(st.sampled_from(robots)), key)} {words(number, points)} {information(points)}"
        for key in marks
    ]
    fixed = draw(st.lists(st.sampled_from(robots), max_size=2))
    lines += [f"FIX {key}" for key in fixed]
    return "\n".join(draw(st.permutations(lines))) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs")


@given(text=graph_texts())
def test_every_number_comes_back(folder, text):
    graph = read(folder, text)
    again = written_and_read(folder, graph)
    same(graph, again)
    write_pose_graph(folder / "twice.g2o", again)
    assert (folder / "twice.g2o").read_bytes() == (folder / "written.g2o").read_bytes()


@given(text=graph_texts())
def test_toro_carries_graphs_without_landmarks(folder, text):
    graph = read(folder, text)
    if len(graph.landmarks.keys):
        with pytest.raises(UserError, match="TORO files hold no landmarks"):
            write_pose_graph(folder / "graph.toro", graph)
        return
    again = written_and_read(folder, graph, "graph.toro")
    assert ("VERTEX2" if graph.planar else "VERTEX3") in (folder / "graph.toro").read_text()
    for name in ("keys", "first", "second", "information", "sqrt_info", "fixed"):
        np.testing.assert_array_equal(getattr(again, name), getattr(graph, name))
    for name in ("poses", "measured"):
        a, b = getattr(again, name), getattr(graph, name)
        np.testing.assert_array_equal(a[:, :3], b[:, :3])
        assert np.linalg.norm(poses.rotation_log(poses.between(a, b)[:, 3:]), axis=1).max() < 1e-6


def test_numbers_are_written_with_seventeen_digits(tmp_path):
    write_pose_graph(
        tmp_path / "out.g2o", read(tmp_path, PLANE.replace("0 1 1 0", "0 1 0.1 0") + SIGHT2 + "FIX 1\nFIX 7\n")
    )
    assert (tmp_path / "out.g2o").read_text() == (
        "VERTEX_SE2 0 0 0 0\nVERTEX_SE2 1 1 0 0.5\nVERTEX_XY 7 1 1\nFIX 1\nFIX 7\n"
        "EDGE_SE2 0 1 0.10000000000000001 0 0.5 500 0 0 500 0 5000\nEDGE_SE2_XY 0 7 1 1 10 1 20\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.g2o", "out.g2o"], "no temporary file is left"


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zip"])
def test_compressed_files_are_read_and_written(tmp_path, suffix):
    graph = read(tmp_path, SPACE + SIGHT3)
    path = tmp_path / f"packed.g2o{suffix}"
    write_pose_graph(path, graph)
    same(graph, read_pose_graph(path))
    assert path.read_bytes().startswith(b"PARAMS") == (suffix == "")
    first = path.read_bytes()
    write_pose_graph(path, graph)
    assert path.read_bytes() == first, "the same graph gives the same file"


def test_destinations_that_cannot_work_are_named(tmp_path):
    graph = read(tmp_path, PLANE)
    with pytest.raises(UserError, match="there is no folder"):
        write_pose_graph(tmp_path / "none" / "out.g2o", graph)
    with pytest.raises(UserError, match="is a folder"):
        write_pose_graph(tmp_path, graph)


REAL = {
    "CSAIL.g2o.xz": (True, False, 1045, 1172),
    "city10000.g2o.xz": (True, True, 10000, 20687),
    "intel.g2o.xz": (True, True, 1728, 2512),
    "kitti_00.g2o.xz": (True, False, 4541, 4677),
    "manhattan.g2o.xz": (True, False, 3500, 5453),
    "parking-garage.g2o.xz": (False, True, 1661, 6275),
    "smallGrid3D.g2o.xz": (False, True, 125, 297),
    "sphere2500.g2o.xz": (False, True, 2500, 4949),
    "sphere_bignoise_vertex3.g2o.xz": (False, True, 2200, 8647),
    "torus10000.txt.xz": (False, False, 10000, 22280),
    "torus3D.g2o.xz": (False, True, 5000, 9048),
}


@pytest.mark.parametrize("name", REAL)
def test_published_graphs_are_read_and_come_back(recordings, tmp_path, name):
    graph = read_pose_graph(recordings / "pose_graphs" / name)
    planar, known, vertices, edges = REAL[name]
    assert (graph.planar, bool(graph.known.all()), len(graph.keys), len(graph.first)) == (
        planar,
        known,
        vertices,
        edges,
    )
    assert graph.unknown == {}
    same(graph, written_and_read(tmp_path, graph))


def test_a_published_toro_graph_agrees_with_its_vertices(recordings):
    """The vertices are chained from the edges: read in another order or direction, they would not fit."""
    graph = read_pose_graph(recordings / "relations_benchmark" / "fr-clinic.relations_graph.toro.xz")
    assert (len(graph.keys), len(graph.first)) == (1316, 2820)
    error = poses.between(graph.measured, poses.between(graph.poses[graph.first], graph.poses[graph.second]))
    chained = graph.second == graph.first + 1
    assert chained.sum() > 1000
    assert np.abs(poses.log(error[chained])).max() < 1e-4
