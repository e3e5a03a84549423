"""The comparisons with GTSAM: false loops, both sides' solvers, and graphs that grow."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from benchmark_graphs import named

from benchmarks import batch, city, corruption, derivative, graphs, growth, incremental, ours, robust
from benchmarks.graphs import Arrival
from benchmarks.growth_figure import draw_growth
from benchmarks.peer_cache import PeerCache
from dsg_ros.core.compilation import enable_cache
from dsg_ros.core.implicit import implicit_vjp
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, PoseGraph
from dsg_ros.report.figures.style import to_png


@pytest.fixture(scope="module")
def small() -> PoseGraph:
    return city.simulate(400)


# What is false


def test_false_loops_are_random_and_claim_what_true_ones_do(small: PoseGraph) -> None:
    truth = ours.solve_batch(small).poses
    corrupted = corruption.corrupt(small, truth)
    loops = ~graphs.neighbours(small)
    false = corrupted.false
    assert false.sum() == round(0.2 * loops.sum())
    graph = corrupted.graph
    assert graphs.errors(graph, truth)[false].min() >= corruption.FALSE**2
    assert np.abs(graph.first - graph.second)[false].min() > 1
    distance = np.linalg.norm(truth[graph.first[false], :3] - truth[graph.second[false], :3], axis=1)
    assert distance.min() < 0.1 * np.linalg.norm(np.ptp(truth[:, :3], axis=0)), "near ones too"
    claimed = {bytes(measured) for measured in graph.measured[false]}
    assert claimed <= {bytes(measured) for measured in small.measured[loops]}
    assert not (corrupted.trusted & false).any()
    assert corrupted.trusted.sum() == len(small.keys) - 1
    again, other = (corruption.corrupt(small, truth, seed) for seed in corruption.SEEDS[:2])
    np.testing.assert_array_equal(again.graph.first, graph.first)
    assert not np.array_equal(other.graph.first, graph.first)


def test_loops_that_could_not_be_false_are_refused(small: PoseGraph) -> None:
    vague = dataclasses.replace(small, sqrt_info=1e-6 * small.sqrt_info)
    with pytest.raises(UserError, match="so vague"):
        corruption.corrupt(vague, small.poses)


def test_verdict_counts_what_was_kept_and_lost_and_says_how_well_it_fits(small: PoseGraph) -> None:
    corrupted = corruption.corrupt(small, small.poses)
    kept = ~corrupted.false
    verdict = corruption.judge(small, corrupted, small.poses, kept, small.poses, 1.0)
    assert verdict.good
    assert verdict.kept_errors == []
    kept[-1], kept[5] = True, False
    verdict = corruption.judge(small, corrupted, small.poses, kept, small.poses, 1.0)
    assert (verdict.false_kept, verdict.true_lost, verdict.good) == (1, 1, False)
    (told,) = verdict.kept_errors
    graph = corrupted.graph
    assert (told["first"], told["second"]) == (graph.keys[graph.first[-1]], graph.keys[graph.second[-1]])
    assert told["chi2"] == told["chi2_true"] == pytest.approx(graphs.errors(graph, small.poses)[-1])
    rows = robust.rows_of("city", corrupted, {1: verdict, 2: verdict}, None, "GTSAM left out")
    assert [each.ours for each in rows] == [0.0, 2, 2, None]
    assert f"the nearest at a chi2 of {told['chi2']:.0f}" in rows[1].note


# Both sides


def test_our_side_reaches_gtsams_optimum(small: PoseGraph) -> None:
    pytest.importorskip("gtsam", reason="GTSAM is not installed here")
    found, detail = batch.compare("city", small, repeats=1)
    assert found.ratio is not None, found.note
    assert detail["cost"]["ours"] == pytest.approx(detail["cost"]["gtsam"], rel=1e-6)
    assert len(detail["seconds"]["ours"]) == len(detail["seconds"]["gtsam"]) == 1


def test_answer_short_of_the_optimum_has_no_ratio(small: PoseGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gtsam", reason="GTSAM is not installed here")
    start = ours.Solved(small.poses, graphs.cost(small, small.poses), 1e-9)
    monkeypatch.setattr(ours, "solve_batch", lambda graph: start)
    found, _ = batch.compare("city", small, repeats=1)
    assert found.ours is None
    assert found.ratio is None
    assert "ours ends at cost" in found.note


def test_isam2_ends_at_the_batch_optimum(small: PoseGraph, tmp_path: Path) -> None:
    pytest.importorskip("gtsam", reason="GTSAM is not installed here")
    cache = PeerCache(tmp_path / "peers.json")
    optimum = incremental.best_known("city", small, cache)
    measured = incremental.isam2("city", small, "relinearizeSkip=1", cache)
    assert (measured.fresh, measured.note) == (True, "")
    played = incremental.Played.from_json(measured.result)
    assert len(played.seconds) == len(small.keys)
    assert optimum * (1 - 1e-9) <= played.cost <= optimum * (1 + incremental.WITHIN)
    assert incremental.isam2("city", small, "relinearizeSkip=1", PeerCache(tmp_path / "peers.json")).fresh
    other = dataclasses.replace(small, information=2 * small.information, sqrt_info=np.sqrt(2) * small.sqrt_info)
    assert incremental.best_known("city", other, cache) == pytest.approx(2 * optimum), "not that of the same name"


def test_derivative_of_the_optimum_is_that_of_its_differences() -> None:
    """A hundred increments of the odometry: what is timed is a derivative, and not zero."""
    enable_cache()
    learned = derivative.with_learned_odometry(city.simulate(100))
    assert learned.theta.odom.shape == (99, 6)
    solution = derivative.optimum(learned.problem, learned.theta)
    cotangent = derivative.newest_position(solution)
    assert np.abs(np.asarray(implicit_vjp(learned.problem, learned.theta, solution, cotangent).odom)).max() > 0.01
    errors = derivative.relative_errors(learned.problem, learned.theta, solution)
    assert errors["exact"] < 1e-3
    assert errors["gauss_newton"] < 0.1


def test_learned_odometry_costs_what_the_file_says_where_it_can() -> None:
    graph = named("smallGrid3D")
    learned = derivative.with_learned_odometry(graph)
    assert learned.exact
    solution = derivative.optimum(learned.problem, learned.theta)
    assert float(solution.cost) == pytest.approx(517.925335, rel=1e-6)
    assert not derivative.with_learned_odometry(named("intel")).exact


def test_our_side_rejects_false_loops(small: PoseGraph) -> None:
    clean = ours.solve_batch(small)
    corrupted = corruption.corrupt(small, clean.poses)
    assert corrupted.false.sum() > 100
    found = ours.solve_robust(corrupted.graph, corrupted.trusted)
    verdict = corruption.judge(small, corrupted, found.poses, found.kept, clean.poses, found.seconds)
    assert verdict.good
    assert verdict.true_lost == 0


def test_gnc_of_gtsam_rejects_false_loops() -> None:
    pytest.importorskip("gtsam", reason="GTSAM is not installed here")
    from benchmarks import peers_gnc

    graph = city.simulate(80)
    poses, _ = peers_gnc.optimum(graph)
    corrupted = corruption.corrupt(graph, poses)
    assert corrupted.false.sum() > 5
    found, kept, seconds = peers_gnc.solve(corrupted, 0.9999)
    assert corruption.judge(graph, corrupted, found, kept, poses, seconds).good


class Chain:
    """A smoother that believes the odometry: each pose stays where it was put."""

    def __init__(self) -> None:
        self.values: list[Floats] = []

    def prepare(self, arrival: Arrival, initial: Floats) -> Floats:
        return initial

    def update(self, prepared: Floats) -> Floats:
        self.values.append(prepared)
        return prepared

    def newest(self, answer: Floats) -> Floats:
        return answer

    def poses(self) -> Floats:
        return np.array(self.values)


def test_played_graph_gets_every_pose_and_its_cost(small: PoseGraph) -> None:
    played = incremental.play(small, Chain())
    assert played.cost == pytest.approx(graphs.cost(small, small.poses), rel=1e-9)
    figures = played.figures
    assert 0 < figures["median"] <= figures["p99"] <= figures["max"]
    assert figures["total"] == pytest.approx(played.seconds.sum())
    kept = incremental.Played.from_json(json.loads(json.dumps(played.as_json())))
    assert kept.cost == played.cost
    assert kept.processor == played.processor
    np.testing.assert_allclose(kept.seconds, played.seconds, atol=1e-6)


def test_a_grown_factor_is_about_as_large_as_batchs(small: PoseGraph) -> None:
    smoother = incremental.Ours(small.planar)
    incremental.play(small, smoother)
    assert 0.9 < smoother.fill() / ours.batch_fill(small) < 2.0


def test_time_that_went_to_others_is_told() -> None:
    seconds = np.full(10, 0.1)
    assert incremental.Played(seconds, 1.0, 0.98).disturbed == ""
    assert incremental.Played(seconds, 1.0, 0.5).disturbed == "50% of the time went to other programs"


def test_growth_is_measured_at_each_size_and_drawn(small: PoseGraph) -> None:
    curve = growth.measure(small, Chain(), [100, 300, 5000])
    assert curve.sizes == [100, 300]
    assert curve.factors == [int((small.second < size).sum()) for size in curve.sizes]
    assert all(0 < median <= p99 for median, p99 in zip(curve.median, curve.p99, strict=True))
    assert all(0.01 < memory < 100 for memory in curve.memory)
    # It does not close a single loop: its figures do not count.
    assert curve.misfit > growth.MISFIT
    assert all(row.ours is None and "its cost is" in row.note for row in growth._rows("city", curve))
    ours.warm_up_incremental()
    solved = growth.measure(small, incremental.Ours(small.planar), [100, 300])
    assert abs(solved.misfit - 1) < 0.1
    assert solved.compilations == 0
    assert all(row.ours is not None for row in growth._rows("city", solved))
    batch_times = {"sizes": [1e3, 3e3], "seconds": [0.1, 0.3], "memory": [0.2, 0.3], "gtsam_seconds": [0.2, 0.6]}
    found = [
        {"drive": "city", "ours": curve.as_json(), "gtsam": {"defaults": curve.as_json()}, "batch": batch_times},
        {"drive": "city met again", "ours": None, "gtsam": {}},
    ]
    assert to_png(draw_growth(found)).startswith(b"\x89PNG")


def test_both_sides_of_the_batch_curve_come_to_one_cost() -> None:
    pytest.importorskip("gtsam", reason="GTSAM is not installed here")
    curve = growth.batch_curve([200, 100])
    assert curve["sizes"] == [100, 200]
    assert {len(column) for column in curve.values()} == {2}
    np.testing.assert_allclose(curve["cost"], curve["gtsam_cost"], rtol=1e-6)
