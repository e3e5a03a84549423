"""``python -m dsg_ros optimize``: optima known by hand, published ones, and what leaves no file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import least_squares

from dsg_ros import cli, poses
from dsg_ros.commands._solve_graph import solve_graph, warm_up
from dsg_ros.commands._spanning_tree import spanning_tree
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import PoseGraph, cost
from dsg_ros.io.posegraph_read import read_pose_graph

KEYS = {"poses", "factors", "cost", "iterations", "seconds_solve", "seconds_total", "converged"}
UNIT2, UNIT3 = "1 0 0 1 0 1", "1 0 0 0 0 0 1 0 0 0 0 1 0 0 0 1 0 0 1 0 1"
LINE = [f"VERTEX_SE2 {key} {x} 0 0" for key, x in ((5, 0), (6, 1), (7, 2))]
STEPS = [f"EDGE_SE2 {a} {b} {x} 0 0 4 0 0 4 0 4" for a, b, x in ((5, 6, 1), (6, 7, 1), (5, 7, 2.3))]
"""A robot that drove 1 m and 1 m, and saw that it came 2.3 m: the 0.3 m are shared by three equal edges."""


@pytest.fixture
def write(tmp_path: Path):
    def text(*lines: str) -> Path:
        path = tmp_path / "graph.g2o"
        path.write_text("\n".join(lines) + "\n")
        return path

    return text


@pytest.fixture
def optimize(tmp_path: Path, capsys):
    """Run the command on a file: exit code, the object it printed, and the graph it wrote, if it wrote one."""

    def run(path: Path, out: str = "out.g2o", *more: str) -> tuple[int, dict, PoseGraph | None]:
        code = cli.main(["optimize", str(path), "--out", str(tmp_path / out), "--json", *more])
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert set(told) == (KEYS if told["converged"] else KEYS | {"result", "underconstrained"})
        return code, told, read_pose_graph(tmp_path / out) if (tmp_path / out).exists() else None

    return run


def test_an_optimum_in_the_plane_known_by_hand(write, optimize, caplog):
    caplog.set_level("INFO")
    code, told, graph = optimize(write(*LINE, *STEPS))
    assert code == 0
    assert told["converged"]
    assert (told["poses"], told["factors"]) == (3, 3)
    assert told["cost"] == pytest.approx(0.5 * 4 * 3 * 0.1**2, rel=1e-9)
    assert 0 < told["seconds_solve"] < told["seconds_total"]
    np.testing.assert_allclose(graph.poses, poses.from_planar([0, 1.1, 2.2], 0.0, 0.0), atol=1e-9)
    assert graph.keys.tolist() == [5, 6, 7]
    assert "the first pose, vertex 5, is held" in caplog.text
    assert cost(graph) == pytest.approx(told["cost"], rel=1e-12)


def test_lines_of_unknown_tags_are_counted(write, tmp_path, capsys):
    path = write("ODOM 1", *LINE, *STEPS, "ODOM 2", "FLASER 3")
    assert cli.main(["optimize", str(path), "--out", str(tmp_path / "out.g2o"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told) == KEYS | {"unknown_tags"}
    assert told["unknown_tags"] == {"ODOM": 2, "FLASER": 1}


def test_a_last_line_without_an_end_is_told(write, tmp_path, capsys):
    path = write(*LINE, *STEPS)
    path.write_text(path.read_text().rstrip("\n"))
    assert cli.main(["optimize", str(path), "--out", str(tmp_path / "out.g2o"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told) == KEYS | {"last_line_unended"}


def test_vertices_in_fix_lines_are_held_and_stay_so(write, optimize, caplog):
    caplog.set_level("INFO")
    code, told, graph = optimize(write(*LINE, *STEPS, "FIX 7", "FIX 5"))
    assert code == 0
    np.testing.assert_allclose(graph.poses, poses.from_planar([0.0, 1, 2], 0.0, 0.0), atol=1e-9)
    assert graph.keys[graph.fixed].tolist() == [5, 7]
    # The edge between the two held ones counts too.
    assert told["cost"] == pytest.approx(0.5 * 4 * 0.3**2, rel=1e-9)
    assert "is held" not in caplog.text


def test_a_graph_that_is_held_altogether_keeps_its_values(write, optimize):
    code, told, graph = optimize(write(*LINE, *STEPS, "FIX 5 6 7"))
    assert (code, told["converged"]) == (0, True)
    np.testing.assert_array_equal(graph.poses, poses.from_planar([0.0, 1, 2], 0.0, 0.0))
    assert told["cost"] == pytest.approx(0.5 * 4 * 0.3**2, rel=1e-12)


def test_a_landmark_of_the_plane_between_two_sightings(write, optimize):
    lines = ["VERTEX_XY 9 0 0", "EDGE_SE2_XY 5 9 1 1 10 0 10", "EDGE_SE2_XY 7 9 -1 1.2 10 0 10", "FIX 5 7"]
    code, told, graph = optimize(write(*LINE, *STEPS[:2], *lines))
    assert code == 0
    np.testing.assert_allclose(graph.landmarks.positions, [[1, 1.1, 0]], atol=1e-9)
    assert told["cost"] == pytest.approx(0.5 * 10 * 2 * 0.1**2, rel=1e-9)
    assert (told["poses"], told["factors"]) == (3, 4)


def test_a_landmark_in_space_seen_through_a_sensor(write, optimize):
    lines = [
        "PARAMS_SE3OFFSET 2 0 0 1 0 0 1 0",  # 1 m up, looking back
        "VERTEX_SE3:QUAT 1 0 0 0 0 0 0 1",
        "VERTEX_TRACKXYZ 3 5 5 5",
        "EDGE_SE3_TRACKXYZ 1 3 2 4 0 0 1 0 0 1 0 1",
        "EDGE_SE3_TRACKXYZ 1 3 2 4 0 1 3 0 0 3 0 3",
    ]
    code, told, graph = optimize(write(*lines))
    assert code == 0
    np.testing.assert_allclose(graph.landmarks.positions, [[-4, 0, 1.75]], atol=1e-9)
    assert told["cost"] == pytest.approx(0.5 * (0.75**2 + 3 * 0.25**2), rel=1e-9)
    np.testing.assert_array_equal(graph.landmarks.base_from_sensor[0], [0, 0, 1, 0, 0, 1, 0])


def random_graph(path: Path, planar: bool) -> PoseGraph:
    """Eight poses along a curve with noisy edges in an order of its own, information with correlations."""
    rng = np.random.default_rng(8)
    axes = [0, 1, 5] if planar else list(range(6))
    truth = [poses.IDENTITY]
    for _ in range(7):
        step = np.zeros(6)
        step[axes] = rng.normal([1, 0, 0.3] if planar else [1, 0, 0, 0.2, 0.1, 0.3], 0.2)
        truth.append(poses.compose(truth[-1], poses.exp(step)))
    lines = []
    for a, b in [(0, 1), (2, 1), (2, 3), (3, 4), (5, 4), (5, 6), (6, 7), (7, 0), (2, 6), (1, 5)]:
        noise = np.zeros(6)
        noise[axes] = rng.normal(0, 0.1, len(axes))
        measured = poses.compose(poses.between(truth[a], truth[b]), poses.exp(noise))
        root = rng.normal(size=(len(axes), len(axes))) + 3 * np.eye(len(axes))
        information = (root.T @ root)[np.triu_indices(len(axes))]
        values = [*measured[:2], poses.yaw(measured)] if planar else measured
        words = " ".join(repr(float(value)) for value in [*values, *information])
        lines.append(f"{'EDGE_SE2' if planar else 'EDGE_SE3:QUAT'} {a} {b} {words}")
    path.write_text("\n".join(lines) + "\n")
    return read_pose_graph(path)


@pytest.mark.parametrize("planar", [True, False])
def test_the_optimum_is_that_of_a_general_least_squares_solver(tmp_path, planar):
    graph = random_graph(tmp_path / "graph.g2o", planar)
    start, _ = spanning_tree(graph)
    axes = [0, 1, 5] if planar else list(range(6))

    def residual(numbers: np.ndarray) -> np.ndarray:
        tangent = np.zeros((len(start), 6))
        tangent[1:, axes] = numbers.reshape(-1, len(axes))
        at = poses.compose(start, poses.exp(tangent))
        error = poses.log(poses.between(graph.measured, poses.between(at[graph.first], at[graph.second])))
        return np.einsum("nij,nj->ni", graph.sqrt_info, error).ravel()

    wanted = least_squares(residual, np.zeros(7 * len(axes)), xtol=1e-12, ftol=1e-12, gtol=1e-12)
    found = solve_graph(graph)
    assert found.converged
    assert found.cost == pytest.approx(wanted.cost, rel=1e-9)
    assert 0.01 < found.cost < 0.9 * cost(graph.with_values(start, np.zeros((0, 3))))


@pytest.mark.parametrize("planar", [True, False])
def test_conjugate_gradients_reach_the_same_optimum(tmp_path, optimize, planar):
    path = tmp_path / "graph.g2o"
    random_graph(path, planar)  # without values
    code, told, graph = optimize(path)
    other_code, other_told, other = optimize(path, "pcg.g2o", "--linear", "pcg")
    assert code == other_code == 0
    assert other_told["converged"]
    assert other_told["cost"] == pytest.approx(told["cost"], rel=1e-7)
    np.testing.assert_allclose(other.poses, graph.poses, atol=1e-4)
    assert other_told["seconds_solve"] < other_told["seconds_total"]


def test_conjugate_gradients_name_what_is_not_determined(write, optimize, caplog):
    free = "EDGE_SE2 7 8 1 0 0 4 0 0 4 0 0"  # it knows no heading
    code, told, graph = optimize(write(*LINE, *STEPS, "VERTEX_SE2 8 3 0 0", free), "out.g2o", "--linear", "pcg")
    assert (code, told["converged"], graph) == (1, False, None)
    assert "pose 8 (rotation) can move freely; nothing is written" in caplog.text


@pytest.mark.parametrize("more", [["--incremental"], ["--robust", "gnc"]])
def test_conjugate_gradients_are_for_the_plain_solve(write, tmp_path, capsys, more):
    arguments = ["optimize", str(write(*LINE, *STEPS)), "--out", str(tmp_path / "out.g2o"), "--linear", "pcg", *more]
    assert cli.main(arguments) == 2
    assert "no --incremental, no --robust" in capsys.readouterr().err
    assert not (tmp_path / "out.g2o").exists()


def test_a_spanning_tree_follows_the_edges_either_way(write):
    graph = read_pose_graph(
        write(
            f"EDGE_SE2 3 1 0 0 1.5707963267948966 {UNIT2}",  # pose 1 stands in 3 turned by 90 degrees
            f"EDGE_SE2 3 8 2 0 0 {UNIT2}",
            f"EDGE_SE2 8 9 1 0 0 {UNIT2}",
            "EDGE_SE2_XY 9 4 0 1 1 0 1",
            "EDGE_SE2_XY 1 4 7 7 1 0 1",
        )
    )
    values, positions = spanning_tree(graph)
    assert graph.keys.tolist() == [1, 3, 8, 9]
    back = -np.pi / 2
    np.testing.assert_allclose(
        values, poses.from_planar([0, 0, 0, 0], [0, 0, -2, -3], [0, back, back, back]), atol=1e-15
    )
    np.testing.assert_allclose(positions, [[1, -3, 0]], atol=1e-15)


def test_a_pose_tied_by_landmarks_only_needs_a_value(write):
    graph = read_pose_graph(
        write("EDGE_SE2_XY 1 4 0 1 1 0 1", "EDGE_SE2_XY 2 4 0 1 1 0 1", f"EDGE_SE2 1 3 0 0 0 {UNIT2}")
    )
    with pytest.raises(UserError, match="no chain of edges leads from pose 1 to pose 2"):
        spanning_tree(graph)


def test_a_long_track_without_values_is_solved_from_a_spanning_tree(write, optimize, caplog):
    caplog.set_level("INFO")
    edges = [f"EDGE_SE3:QUAT {k} {k + 1} 1 0 0 0 0 0.1 0.99498743710662 {UNIT3}" for k in range(1500)]
    code, told, graph = optimize(write(*edges))
    assert (code, told["converged"]) == (0, True)
    assert told["cost"] < 1e-18
    assert graph.known.all()
    assert "initial values along a spanning tree" in caplog.text


def test_variables_that_the_edges_do_not_determine_are_named(write, optimize, caplog):
    free = "EDGE_SE2 7 8 1 0 0 4 0 0 4 0 0"  # it knows no heading
    code, told, graph = optimize(write(*LINE, *STEPS, "VERTEX_SE2 8 3 0 0", free))
    assert (code, told["converged"], graph) == (1, False, None)
    assert "pose 8 (rotation) can move freely; nothing is written" in caplog.text
    code, told, graph = optimize(
        write(
            *LINE,
            *STEPS,
            "VERTEX_XY 8 3 0",
            "VERTEX_XY 9 1 1",
            "EDGE_SE2_XY 5 8 3 0 1 0 0",
            "EDGE_SE2_XY 5 9 1 1 1 0 1",
        )
    )
    assert (code, graph) == (1, None)
    assert "landmark 8 can move freely" in caplog.text


def test_a_solve_that_is_cut_short_says_so(write):
    graph = read_pose_graph(write(*LINE, *STEPS))
    stopped = solve_graph(graph, max_iterations=0)
    assert not stopped.converged
    assert "limit of iterations" in stopped.result
    assert stopped.iterations == 0
    assert stopped.cost <= cost(graph)  # the better of the file's start and the chordal one


def test_a_cost_beyond_all_numbers_writes_nothing(write, optimize, caplog):
    code, told, graph = optimize(write(*LINE, *STEPS[:2], "EDGE_SE2 5 7 1e200 0 0 1e200 0 0 1e200 0 1"))
    assert (code, told["converged"], told["cost"], graph) == (1, False, None, None)
    assert "diverged" in caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*LINE, *STEPS, "EDGE_SE2 7 99 1 0 0 1 0 0 1 0 1"], r"graph\.g2o:7: EDGE_SE2: vertex 99 is declared nowhere"),
        ([*LINE, *STEPS, "VERTEX_SE2 5 0 0 0"], r"graph\.g2o:7: vertex 5 is declared again"),
        (LINE, r"graph\.g2o:3: no edge joins"),
        ([*LINE, STEPS[0]], r"graph\.g2o:3: the graph falls into 2 parts"),
        (
            [*LINE, *STEPS, "EDGE_SE2 5 7 2 0 0 4 0 0 1 4 0 0 0 4"],
            r"graph\.g2o:7: EDGE_SE2: the information matrix is not symmetric: entry 1 2 is 0, entry 2 1 is 1",
        ),
        (
            [*LINE, *STEPS, "EDGE_SE2 5 7 2 0 0 4 9 0 4 0 4"],
            r"graph\.g2o:7: EDGE_SE2: the information matrix is indefinite \(its smallest eigenvalue is -5\)",
        ),
        ([*LINE, *STEPS, "EDGE_SE2 5 7 nan 0 0 4 0 0 4 0 4"], r"graph\.g2o:7: EDGE_SE2: 'nan' is not finite"),
        ([*LINE, *STEPS, "EDGE_SE2 5 7 2 0 0 4 0"], r"graph\.g2o:7: EDGE_SE2 is followed by 7 .*: is the line cut"),
        ([*LINE, *STEPS, "VERTEX_XY 9 1 1", "EDGE_SE2_XY 5 9 1 1 1 0 1", "FIX 9"], r"graph\.g2o:9: no gauge"),
    ],
    ids=[
        "dangling", "duplicate", "no edge", "disconnected", "asymmetric", "indefinite", "not finite", "truncated",
        "no gauge",
    ],
)  # fmt: skip
def test_bad_files_exit_with_2_and_leave_no_file(write, tmp_path, capsys, lines, message):
    assert cli.main(["optimize", str(write(*lines)), "--out", str(tmp_path / "out.g2o")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("python -m dsg_ros optimize: ")
    assert re.search(message, said)
    assert not (tmp_path / "out.g2o").exists()


def test_an_older_file_survives_a_bad_graph(write, tmp_path):
    (tmp_path / "out.g2o").write_text("kept")
    assert cli.main(["optimize", str(write(*LINE)), "--out", str(tmp_path / "out.g2o")]) == 2
    assert cli.main(["optimize", str(write(*LINE, *STEPS)), "--out", str(tmp_path / "none" / "out.g2o")]) == 2
    assert (tmp_path / "out.g2o").read_text() == "kept"


def test_a_graph_may_be_written_over_itself_and_as_toro(write, optimize):
    path = write(*LINE, *STEPS)
    code, told, _ = optimize(path, "graph.g2o")
    assert code == 0
    assert cost(read_pose_graph(path)) == pytest.approx(told["cost"], rel=1e-12)
    code, _, again = optimize(path, "graph.toro.xz")
    assert code == 0
    assert cost(again) == pytest.approx(told["cost"], rel=1e-9)


def test_nothing_compiles_after_warm_up(tmp_path):
    warm_up(landmarks=False)
    graphs = [random_graph(tmp_path / "graph.g2o", planar) for planar in (True, False)]
    with CompileCounter() as compilations:
        for graph in graphs:
            assert solve_graph(graph).converged
    assert compilations.count == 0


REAL = {
    "sphere2500": (675.7010, 2500, 4949),
    "parking-garage": (0.634192, 1661, 6275),
    "torus3D": (12117.637, 5000, 9048),
    "sphere_bignoise_vertex3": (1494168.756, 2200, 8647),
}


@pytest.mark.parametrize("name", REAL)
def test_published_graphs_reach_their_published_cost(shared, optimize, name):
    wanted, vertices, edges = REAL[name]
    code, told, graph = optimize(shared / "data" / "pose_graphs" / f"{name}.g2o.xz")
    assert code == 0
    assert (told["poses"], told["factors"]) == (vertices, edges)
    assert told["cost"] == pytest.approx(wanted, rel=1e-6)
    assert cost(graph) == pytest.approx(told["cost"], rel=1e-12)


def test_a_published_graph_without_values_is_solved(shared, optimize):
    code, told, _ = optimize(shared / "data" / "pose_graphs" / "CSAIL.g2o.xz")
    assert code == 0
    assert told["cost"] == pytest.approx(20.2754, rel=1e-4)
