"""``python -m dsg_ros optimize --robust gnc``: false loops are named, and count for nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from false_loops import Drive, drive

from benchmarks import corruption
from dsg_ros import cli, poses
from dsg_ros.commands._solve_graph import solve_graph
from dsg_ros.commands._solve_robust import consecutive, solve_robustly, warm_up
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.io.posegraph_read import read_pose_graph

STEP = 3
"""From a vertex' key to the next one's."""


def lines(graph: Drive, edges: np.ndarray, vertices: bool = True) -> list[str]:
    planar = graph.sqrt_info[2, 2] == 0
    axes = [0, 1, 5] if planar else list(range(6))
    information = " ".join(repr(float(v)) for v in (graph.sqrt_info**2)[np.ix_(axes, axes)][np.triu_indices(len(axes))])

    def words(pose: np.ndarray) -> str:
        return " ".join(repr(float(v)) for v in ([*pose[:2], poses.yaw(pose)] if planar else pose))

    vertex, edge = ("VERTEX_SE2", "EDGE_SE2") if planar else ("VERTEX_SE3:QUAT", "EDGE_SE3:QUAT")
    out = [f"{vertex} {STEP * key} {words(pose)}" for key, pose in enumerate(graph.truth)] if vertices else []
    for (a, b), measured in zip(graph.pairs[edges], graph.measured[edges], strict=True):
        out.append(f"{edge} {STEP * a} {STEP * b} {words(measured)} {information}")
    return out


@pytest.fixture
def optimize(tmp_path: Path, capsys):
    """Run the command on these lines: exit code, what it printed, its object, and the file written."""

    def run(text: list[str], *more: str) -> tuple[int, str, dict, Path]:
        path, out = tmp_path / "graph.g2o", tmp_path / "out.g2o"
        path.write_text("\n".join(text) + "\n")
        out.unlink(missing_ok=True)
        code = cli.main(["optimize", str(path), "--out", str(out), "--json", *more])
        said = capsys.readouterr()
        return code, said.out + said.err, json.loads(said.out.splitlines()[-1]) if said.out else {}, out

    return run


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("vertices", [True, False])
def test_false_loops_are_named_and_count_for_nothing(optimize, planar, vertices):
    graph = drive(planar)
    every = np.ones(len(graph.pairs), bool)
    code, _, clean, _ = optimize(lines(graph, ~graph.false))
    assert code == 0
    assert "rejected" not in clean
    code, said, told, out = optimize(lines(graph, every, vertices), "--robust", "gnc")
    assert code == 0
    false = (STEP * graph.pairs[graph.false]).tolist()
    assert (told["doubtful"], told["rejected"], told["rejected_edges"]) == ((~graph.odometry).sum(), len(false), false)
    assert told["cost"] == pytest.approx(clean["cost"], rel=1e-6)
    assert f"rejected {len(false)} of {(~graph.odometry).sum()} loop closures: {false[0][0]}-{false[0][1]}, " in said
    written = read_pose_graph(out)
    assert len(written.first) == len(every)
    assert np.abs(poses.log(poses.between(graph.truth, written.poses))).max() < 0.2


def test_what_is_left_can_be_added_pose_by_pose(optimize):
    graph = drive(True)
    text = lines(graph, np.ones(len(graph.pairs), bool))
    _, _, once, _ = optimize(text, "--robust", "gnc")
    code, _, told, _ = optimize(text, "--robust", "gnc", "--incremental")
    assert code == 0
    assert told["rejected_edges"] == once["rejected_edges"]
    assert told["cost"] == pytest.approx(once["cost"], rel=1e-6)
    assert told["update_ms"]["median"] > 0


def test_nothing_is_rejected_where_nothing_is_false(optimize):
    graph = drive(True, false=0.0)
    code, said, told, _ = optimize(lines(graph, ~graph.false), "--robust", "gnc")
    assert (code, told["rejected"], told["rejected_edges"]) == (0, 0, [])
    assert re.search(r"^rejected 0 of \d+ loop closures$", said, re.MULTILINE)


def test_sightings_of_landmarks_are_trusted(optimize):
    graph = drive(True)
    seen = [f"EDGE_SE2_XY {STEP * k} 1 {x} {y} 100 0 100" for k, (x, y) in zip((0, 40, 80), local(graph), strict=True)]
    text = [*lines(graph, np.ones(len(graph.pairs), bool)), "VERTEX_XY 1 0 0", *seen]
    code, _, told, out = optimize(text, "--robust", "gnc")
    assert (code, told["rejected"]) == (0, graph.false.sum())
    np.testing.assert_allclose(read_pose_graph(out).landmarks.positions, graph.truth[44:45, :3], atol=0.2)


def local(graph: Drive) -> np.ndarray:
    """A place of the drive as seen from three others."""
    return poses.transform(poses.inverse(graph.truth[[0, 40, 80]]), np.tile(graph.truth[44, :3], (3, 1)))[:, :2]


def test_edges_between_held_vertices_are_not_judged(optimize):
    graph = drive(True)
    k = int(np.flatnonzero(graph.false)[0])
    text = [*lines(graph, np.ones(len(graph.pairs), bool)), "FIX " + " ".join(map(str, STEP * graph.pairs[k]))]
    code, _, told, _ = optimize(text, "--robust", "gnc")
    assert (code, told["doubtful"], told["rejected"]) == (0, (~graph.odometry).sum() - 1, graph.false.sum() - 1)
    assert (STEP * graph.pairs[k]).tolist() not in told["rejected_edges"]


@pytest.mark.parametrize("more", [(), ("--incremental",)])
def test_a_graph_without_loops_is_solved_as_it_is(optimize, caplog, more):
    caplog.set_level("INFO")
    text = [*lines(drive(True), drive(True).odometry), "FIX 0 240"]  # both ends: the errors are shared
    _, _, plain, _ = optimize(text)
    code, said, told, out = optimize(text, "--robust", "gnc", *more)
    assert (code, told["doubtful"], told["rejected"]) == (0, 0, 0)
    assert told["cost"] == pytest.approx(plain["cost"], rel=1e-9)
    assert "every edge joins consecutive vertices: no loop closure could be false" in caplog.text
    assert "rejected 0 of 0 loop closures" in said
    assert out.exists()


def test_without_odometry_nothing_can_be_judged(optimize):
    graph = drive(True)
    edges = np.ones(len(graph.pairs), bool)
    edges[40] = False
    code, said, _, out = optimize(lines(graph, edges), "--robust", "gnc")
    assert code == 2
    assert f"leads from 0, which is held, to {STEP * 41}" in said
    assert not out.exists()


def test_odometry_that_knows_too_little_is_told(optimize, caplog):
    text = [f"VERTEX_SE2 {key} {key} 0 0" for key in range(4)]
    text += [f"EDGE_SE2 {key} {key + 1} 1 0 0 4 0 0 4 0 {0 if key == 1 else 4}" for key in range(3)]
    code, _, told, out = optimize([*text, "EDGE_SE2 0 3 3 0 0 4 0 0 4 0 4"], "--robust", "gnc")
    assert (code, told["converged"], out.exists()) == (1, False, False)
    assert "by which others are judged, do not determine every variable: pose 2 (" in caplog.text


def test_consecutive_is_said_of_keys_in_any_order(tmp_path):
    path = tmp_path / "graph.g2o"
    text = ["VERTEX_SE2 9 0 0 0", "VERTEX_SE2 2 0 0 0", "VERTEX_SE2 5 0 0 0"]
    path.write_text("\n".join([*text, *(f"EDGE_SE2 {a} {b} 1 0 0 1 0 0 1 0 1" for a, b in ((2, 5), (9, 5), (2, 9)))]))
    assert consecutive(read_pose_graph(path)).tolist() == [True, True, False]


def test_nothing_compiles_after_warm_up(tmp_path):
    warm_up()
    paths = []
    for planar in (True, False):
        graph = drive(planar)
        paths.append(tmp_path / f"{planar}.g2o")
        paths[-1].write_text("\n".join(lines(graph, np.ones(len(graph.pairs), bool))))
    with CompileCounter() as compilations:
        for path in paths:
            assert solve_robustly(read_pose_graph(path))[0].converged
    assert compilations.count == 0


@pytest.mark.parametrize(("name", "optimum"), [("parking-garage", 0.634192), ("intel", 22.502117)])
def test_false_loops_of_a_published_graph_are_rejected_and_no_true_one(shared, name, optimum):
    """Twenty per cent of random ones, which claim what true ones have measured."""
    graph = read_pose_graph(shared / "data" / "pose_graphs" / f"{name}.g2o.xz")
    corrupted = corruption.corrupt(graph, solve_graph(graph).poses)
    assert corrupted.false.sum() > 100
    answer, judged = solve_robustly(corrupted.graph)
    assert answer.converged
    np.testing.assert_array_equal(judged.rejected, corrupted.false)
    assert answer.cost == pytest.approx(optimum, rel=2e-6)


def test_a_published_graph_without_false_loops_keeps_all(shared):
    graph = read_pose_graph(shared / "data" / "pose_graphs" / "smallGrid3D.g2o.xz")
    answer, judged = solve_robustly(graph)
    assert answer.converged
    assert answer.cost == pytest.approx(517.92533, rel=1e-6)
    assert judged.pairs == []
