"""``python -m dsg_ros optimize --incremental``: the batch optimum, whatever the order of the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dsg_ros import cli, poses
from dsg_ros.commands._solve_incremental import solve_incrementally, warm_up
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
    assert 0 < told["update_ms"]["median"] <= told["update_ms"]["p99"] <= told["update_ms"]["max"]
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
        optimised, _ = solve_incrementally(graph)
        assert optimised.converged
        found.append(optimised.poses[np.argsort(graph.keys)])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_a_pose_that_only_a_later_one_ties_down(tmp_path):
    path = tmp_path / "graph.g2o"
    edge = "EDGE_SE2 {} {} {} 0 0 4 0 0 4 0 4"
    vertices = [f"VERTEX_SE2 {k} {k} 0.1 0" for k in range(4)]
    path.write_text("\n".join([*vertices, edge.format(0, 1, 1), edge.format(3, 2, -1), edge.format(1, 3, 2)]) + "\n")
    optimised, _ = solve_incrementally(read_pose_graph(path))
    assert optimised.converged
    assert optimised.cost == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(optimised.poses[:, 0], [0, 1, 2, 3], atol=1e-6)


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
