from __future__ import annotations

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.io.g2o import read_reference, write_reference
from dsg_ros.io.logs import open_log
from dsg_ros.io.records import OdometryRecord, ScanRecord
from dsg_ros.io.trajectories import read_tum

INFORMATION = "500 0 0 500 0 5000"
STEPS = [(1.0, 0.1, 0.5), (2.0, 0.0, -0.25)]


@pytest.fixture
def g2o(tmp_path, lines):
    """Three vertices with a scan each; the edges stand out of order and a loop edge contradicts them."""

    def write(vertices=((9.0, 9.0, 1.0), (8.0, 8.0, 2.0), (7.0, 7.0, 3.0)), steps=STEPS, extra=""):
        text = ""
        for index, vertex in enumerate(vertices):
            values = " ".join(map(str, vertex))
            text += f"VERTEX_SE2 {index} {values}\n" + lines[1](f"{index + 10}.5", vertex, vertex) + "\n"
        text += "#SEQUENTIAL EDGES\n"
        for index, step in reversed(list(enumerate(steps))):
            text += f"EDGE_SE2 {index} {index + 1} {' '.join(map(str, step))} {INFORMATION}\n"
        text += f"#LOOP EDGES\nEDGE_SE2 0 1 50 50 1 {INFORMATION}\nEDGE_SE2 0 2 60 60 1 {INFORMATION}\n{extra}"
        path = tmp_path / "run.g2o"
        path.write_text(text)
        return path

    return write


def _odometry(path):
    return np.array([record.pose for record in open_log(path) if isinstance(record, OdometryRecord)])


def test_odometry_is_the_chain_of_sequential_edges(g2o):
    chain = [poses.IDENTITY]
    for step in STEPS:
        chain.append(poses.compose(chain[-1], poses.from_planar(*step)))
    np.testing.assert_allclose(_odometry(g2o()), chain, atol=1e-12)


def test_published_vertices_never_reach_the_odometry(g2o):
    before = _odometry(g2o())
    np.testing.assert_array_equal(_odometry(g2o(vertices=((0, 0, 0), (1, 1, 1), (2, 2, 2)))), before)


def test_scans_follow_their_odometry(g2o):
    records = list(open_log(g2o()))
    assert [type(record) for record in records] == [OdometryRecord, ScanRecord] * 3
    assert [record.stamp for record in records[1::2]] == [10_500000000, 11_500000000, 12_500000000]


def test_without_sections_the_first_edge_between_neighbours_counts(g2o):
    path = g2o()
    before = _odometry(path)
    path.write_text("\n".join(line for line in path.read_text().split("\n") if not line.startswith("#")))
    np.testing.assert_array_equal(_odometry(path), before)


def test_a_broken_chain_is_named(g2o):
    with pytest.raises(UserError, match="from vertex 1 to 2"):
        open_log(g2o(steps=STEPS[:1]))


def test_damaged_lines_are_counted_and_others_ignored(g2o):
    log = open_log(g2o(extra="EDGE_SE2 1\nROBOTLASER1 0 1\nFIX 0\nVERTEX_SE2 x\n"))
    assert len(list(log)) == 6
    assert log.counts == {"ignored_loop_edges": 3, "malformed_lines": 2, "ignored_lines": 1}


def test_a_pose_graph_without_scans_is_refused(tmp_path):
    path = tmp_path / "graph.g2o"
    path.write_text(f"VERTEX_SE2 0 0 0 0\nVERTEX_SE2 1 1 0 0\nEDGE_SE2 0 1 1 0 0 {INFORMATION}\n")
    with pytest.raises(UserError, match="no ROBOTLASER1 scan"):
        open_log(path)
    with pytest.raises(UserError, match="no published trajectory"):
        read_reference(path)


def test_the_reference_is_written_at_the_stamps_of_the_scans(g2o, tmp_path):
    assert write_reference(g2o(), tmp_path / "reference.tum") == 3
    stamps, trajectory = read_tum(tmp_path / "reference.tum")
    assert stamps.tolist() == [10_500000000, 11_500000000, 12_500000000]
    np.testing.assert_allclose(
        trajectory, poses.from_planar([9.0, 8.0, 7.0], [9.0, 8.0, 7.0], [1.0, 2.0, 3.0]), atol=1e-8
    )


def test_killian_court(killian):
    log = open_log(killian)
    records = list(log)
    scans = [record for record in records if isinstance(record, ScanRecord)]
    odometry = np.array([record.pose for record in records if isinstance(record, OdometryRecord)])
    stamps, reference = read_reference(killian)
    assert len(log) == len(scans) == len(reference) == 3873
    assert [scan.stamp for scan in scans] == stamps.tolist()
    assert stamps[0] == 1031745824_658000000
    assert (np.diff(stamps) > 0).all()
    np.testing.assert_allclose((stamps[-1] - stamps[0]) / 1e9, 7673, atol=1)
    # Dead reckoning and solution drive the same way (1.9 km) and end up metres apart: neither is made from the other.
    driven = [np.linalg.norm(np.diff(path[:, :2], axis=0), axis=1).sum() for path in (odometry, reference)]
    assert driven == pytest.approx([1900, 1900], abs=100)
    aligned = poses.compose(reference[0], odometry)
    assert np.linalg.norm(aligned[:, :2] - reference[:, :2], axis=1).max() > 10
