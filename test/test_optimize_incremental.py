"""``python -m dsg_ros optimize --incremental``: the batch optimum, whatever the order of the file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from false_loops import drive

from dsg_ros import cli, poses
from dsg_ros.commands import _solve_incremental, _solve_robust, _spanning_tree
from dsg_ros.commands._solve_graph import optimum, solve_graph
from dsg_ros.commands._solve_incremental import _one_by_one, solve_incrementally, warm_up
from dsg_ros.commands._spanning_tree import spanning_tree
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.io.posegraph_read import read_pose_graph

SQUARE = 40


def lines(seed: int = 0) -> list[str]:
    """A robot that goes round a square three times, sees where it was one round before, and errs."""
    rng = np.random.default_rng(seed)
    side = poses.from_planar([1.0] * 9 + [0.0], [0.0] * 10, [0.0] * 9 + [np.pi / 2])
    truth = [poses.IDENTITY]
    for k in range(3 * SQUARE):
        truth.append(poses.compose(truth[-1], side[k % 10]))
    vertices = [f"VERTEX_SE2 {3 * k} {k} 0 0" for k in range(len(truth))]
    pairs = [(k, k + 1) for k in range(len(truth) - 1)] + [(k, k + SQUARE) for k in range(0, len(truth) - SQUARE, 4)]
    edges = []
    for i, j in pairs:
        x, y, yaw = planar(poses.between(truth[i], truth[j])) + 0.02 * rng.normal(size=3)
        edges.append(f"EDGE_SE2 {3 * i} {3 * j} {x} {y} {yaw} 100 0 0 100 0 400")
    return vertices + edges


def planar(pose):
    return np.array([pose[0], pose[1], 2 * np.arctan2(pose[5], pose[6])])


def run(path: Path, out: Path, capsys, *more: str):
    code = cli.main(["optimize", str(path), "--out", str(out), "--json", *more])
    told = capsys.readouterr().out.splitlines()
    return code, json.loads(told[-1]) if told else {}


def test_pose_by_pose_it_comes_to_the_batch_optimum(tmp_path, capsys):
    path = tmp_path / "graph.g2o"
    path.write_text("\n".join(lines()) + "\n")
    code, batch = run(path, tmp_path / "batch.g2o", capsys)
    assert code == 0
    assert "update_ms" not in batch
    code, told = run(path, tmp_path / "one.g2o", capsys, "--incremental")
    assert code == 0
    assert told["converged"]
    assert told["cost"] == pytest.approx(batch["cost"], rel=1e-6)
    assert told["updates_cost"] == pytest.approx(batch["cost"], rel=1e-3)
    assert 0 < told["update_ms"]["median"] <= told["update_ms"]["p99"] <= told["update_ms"]["max"]
    assert told["updates_not_converged"] == 0
    one, other = (read_pose_graph(tmp_path / f"{name}.g2o") for name in ("one", "batch"))
    assert one.keys.tolist() == other.keys.tolist()
    np.testing.assert_allclose(one.poses[:, :2], other.poses[:, :2], atol=1e-4)


def test_the_order_of_the_file_does_not_matter(tmp_path):
    content = lines(1)
    vertices, edges = content[: 3 * SQUARE + 1], content[3 * SQUARE + 1 :]
    found = []
    for name, text in {"in order": content, "turned round": vertices[::-1] + edges[::-1]}.items():
        path = tmp_path / f"{name}.g2o"
        path.write_text("\n".join([*text, "FIX 0"]) + "\n")
        graph = read_pose_graph(path)
        optimised, updates = solve_incrementally(graph)
        assert optimised.converged
        assert updates.not_converged == 0
        found.append(optimised.poses[np.argsort(graph.keys)])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_a_pose_that_only_a_later_one_ties_down(tmp_path):
    path = tmp_path / "graph.g2o"
    edge = "EDGE_SE2 {} {} {} 0 0 4 0 0 4 0 4"
    vertices = [f"VERTEX_SE2 {k} {k} 0.1 0" for k in range(4)]
    path.write_text("\n".join([*vertices, edge.format(0, 1, 1), edge.format(3, 2, -1), edge.format(1, 3, 2)]) + "\n")
    optimised, updates = solve_incrementally(read_pose_graph(path))
    assert optimised.converged
    assert updates.not_converged == 1
    assert optimised.cost == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(optimised.poses[:, 0], [0, 1, 2, 3], atol=1e-6)


@pytest.mark.parametrize("fix", [[], ["FIX 360"], ["FIX 300 360"]])
def test_a_held_pose_that_comes_last_leaves_no_update_without_a_solution(tmp_path, fix):
    content = lines(3)
    path = tmp_path / "graph.g2o"
    path.write_text("\n".join([*content[: 3 * SQUARE + 1][::-1], *content[3 * SQUARE + 1 :], *fix]) + "\n")
    graph = read_pose_graph(path)
    assert set(graph.keys[graph.held]) == (set(map(int, fix[0].split()[1:])) if fix else {360})
    optimised, updates = solve_incrementally(graph)
    batch = solve_graph(graph)
    assert optimised.converged
    assert updates.not_converged == 0
    assert optimised.cost == pytest.approx(batch.cost, rel=1e-6)
    np.testing.assert_array_equal(optimised.poses[graph.held], graph.poses[graph.held])
    np.testing.assert_allclose(optimised.poses[:, :2], batch.poses[:, :2], atol=1e-4)


UNDETERMINED = [
    ("pose 3 (rotation)", ["EDGE_SE2 2 3 1 0 0 4 0 0 4 0 0"]),
    ("pose 3 (position and rotation)", ["EDGE_SE2 2 3 1 0 0 0 0 0 0 0 0"] * 2),
    # What follows turns with it, and moves: all of it is free.
    (
        "pose 3 (rotation), pose 4 (position and rotation), pose 5 (position and rotation)",
        [
            "EDGE_SE2 2 3 1 0 0 4 0 0 4 0 0",
            *(f"EDGE_SE2 {k} {k + 1} 1 0 0 4 0 0 4 0 4" for k in (3, 4)),
        ],
    ),
    # Each heading is free, and that of the last one has no row but rounding.
    (
        "pose 3 (rotation), pose 4 (position and rotation), pose 5 (position and rotation)",
        [f"EDGE_SE2 {k} {k + 1} 1 0 0 100 0 0 100 0 0" for k in (4, 2, 3)],
    ),
]


@pytest.mark.parametrize(("named", "loose"), UNDETERMINED)
@pytest.mark.parametrize("more", [(), ("--incremental",)])
def test_variables_that_the_edges_do_not_determine_are_named(tmp_path, capsys, caplog, named, loose, more):
    edges = [f"EDGE_SE2 {k} {k + 1} 1 0 0 4 0 0 4 0 4" for k in (0, 1)] + loose
    count = 1 + max(int(edge.split()[2]) for edge in edges)
    path = tmp_path / "graph.g2o"
    path.write_text("\n".join([*(f"VERTEX_SE2 {k} {k} 0 0" for k in range(count)), *edges]) + "\n")
    code, told = run(path, tmp_path / "out.g2o", capsys, *more)
    assert (code, told["converged"]) == (1, False)
    assert told["result"] == "the edges do not determine every variable"
    assert ", ".join(told["underconstrained"]) == named
    assert f"do not determine every variable: {named} can move freely; nothing is written" in caplog.text
    assert not (tmp_path / "out.g2o").exists()
    if more:
        assert told["updates_not_converged"] == count - 3


def test_a_cost_beyond_all_numbers_writes_nothing(tmp_path, capsys, caplog):
    path = tmp_path / "graph.g2o"
    edges = [f"EDGE_SE2 {k} {k + 1} 1 0 0 4 0 0 4 0 4" for k in (0, 1)]
    path.write_text("\n".join([*edges, "EDGE_SE2 0 2 1e200 0 0 1e200 0 0 1e200 0 1"]) + "\n")
    code, told = run(path, tmp_path / "out.g2o", capsys, "--incremental")
    assert (code, told["converged"], told["cost"]) == (1, False, None)
    assert "diverged" in caplog.text
    assert not (tmp_path / "out.g2o").exists()


def noisy(path: Path, seed: int) -> Path:
    """A robot that climbs a spiral, and sees where it was a round before, with errors of half a radian."""
    rng = np.random.default_rng(seed)
    rounds, per = 6, 12
    side = poses.exp(np.array([1.0, 0, 0.02, 0.0, 0.05, 2 * np.pi / per]))
    truth = [poses.IDENTITY]
    for _ in range(rounds * per - 1):
        truth.append(poses.compose(truth[-1], side))
    pairs = [(k, k + 1) for k in range(len(truth) - 1)] + [(k, k + per) for k in range(len(truth) - per)]
    text = []
    for i, j in pairs:
        error = rng.normal(0, [0.3, 0.3, 0.3, 0.5, 0.5, 0.5])
        seen = poses.compose(poses.between(truth[i], truth[j]), poses.exp(error))
        words = " ".join(repr(float(v)) for v in seen)
        text.append(f"EDGE_SE3:QUAT {i} {j} {words} 1 0 0 0 0 0 1 0 0 0 0 1 0 0 0 10 0 0 10 0 10")
    path.write_text("\n".join(text) + "\n")
    return path


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_where_updates_end_beside_the_optimum_batch_still_finds_it(tmp_path, seed):
    graph = read_pose_graph(noisy(tmp_path / "graph.g2o", seed))
    batch = solve_graph(graph)
    estimates, *_ = _one_by_one(graph.with_values(*spanning_tree(graph)))
    beside = optimum(graph.with_values(estimates, graph.landmarks.positions), relaxed=False)
    optimised, _ = solve_incrementally(graph)
    assert optimised.converged
    assert optimised.cost <= batch.cost * (1 + 1e-6)
    assert optimised.cost <= float(beside.cost) * (1 + 1e-6)
    if seed != 3:  # two of these need it
        assert float(beside.cost) > 1.1 * batch.cost


def test_after_gnc_the_figures_are_those_of_both_solves(tmp_path, capsys, monkeypatch):
    graph = drive(True)
    path = tmp_path / "graph.g2o"
    words = [" ".join(repr(float(v)) for v in planar(seen)) for seen in graph.measured]
    edges = [f"EDGE_SE2 {a} {b} {w} 100 0 0 100 0 400" for (a, b), w in zip(graph.pairs, words, strict=True)]
    path.write_text("\n".join(edges) + "\n")
    parts = []

    def watched(solve):
        return lambda graph: parts.append(solve(graph)) or parts[-1]

    for module, name in ((_solve_robust, "solve_robustly"), (_solve_incremental, "solve_incrementally")):
        monkeypatch.setattr(module, "warm_up", lambda: None)
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    code, told = run(path, tmp_path / "out.g2o", capsys, "--robust", "gnc", "--incremental")
    (robust, judged), (last, _) = parts
    assert code == 0
    assert judged.rejected.any()
    assert told["iterations"] == robust.iterations + last.iterations
    assert told["seconds_solve"] == pytest.approx(robust.seconds + last.seconds)
    assert told["cost"] == pytest.approx(robust.cost, rel=1e-6)
    # Without a robust optimum nothing is added pose by pose, and nothing is written.
    monkeypatch.setattr(
        _solve_robust, "solve_robustly", lambda graph: (dataclasses.replace(robust, converged=False), judged)
    )
    code, told = run(path, tmp_path / "other.g2o", capsys, "--robust", "gnc", "--incremental")
    assert (code, told["converged"]) == (1, False)
    assert not (tmp_path / "other.g2o").exists()


def test_nothing_is_imported_while_the_time_runs():
    # SciPy's graphs take a tenth of a second to import.
    assert _spanning_tree.breadth_first_order.__module__.startswith("scipy")


def test_nothing_compiles_after_warm_up(tmp_path):
    path = tmp_path / "graph.g2o"
    path.write_text("\n".join(lines(2)) + "\n")
    warm_up()
    with CompileCounter() as counter:
        solve_incrementally(read_pose_graph(path))
    assert counter.count == 0


def test_landmarks_are_refused(tmp_path, capsys, caplog):
    path = tmp_path / "graph.g2o"
    seen = ["VERTEX_XY 9 1 1", "EDGE_SE2_XY 0 9 1 1 4 0 4"]
    path.write_text("\n".join(["VERTEX_SE2 0 0 0 0", "VERTEX_SE2 1 1 0 0", "EDGE_SE2 0 1 1 0 0 4 0 0 4 0 4", *seen]))
    code, _ = run(path, tmp_path / "out.g2o", capsys, "--incremental")
    assert code == 2
    assert not (tmp_path / "out.g2o").exists()
