"""The comparisons with GTSAM: their graphs, their judge, their gate and what they print."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    baseline,
    batch,
    city,
    corruption,
    derivative,
    graphs,
    growth,
    incremental,
    measuring,
    ours,
    robust,
)
from benchmarks.graphs import Arrival
from benchmarks.growth_figure import draw_growth
from benchmarks.options import COMPARISONS
from benchmarks.peer_cache import PeerCache
from benchmarks.table import Row, from_json, render
from dsg_ros import poses as se3
from dsg_ros.core.compilation import enable_cache
from dsg_ros.core.implicit import implicit_vjp
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import Floats, PoseGraph
from dsg_ros.io.posegraph_checks import components
from dsg_ros.report.figures.style import to_png


def row(graph: str, value: float | None, peer: float | None = 1.0, **fields: Any) -> Row:
    return Row("batch", graph, "to the optimum", value, peer, "s", **fields)


def named(name: str) -> PoseGraph:
    """A graph of the literature; the test is skipped where its file is absent."""
    try:
        return graphs.load(name)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def small() -> PoseGraph:
    return city.simulate(400)


# The city


def test_city_is_the_same_every_time() -> None:
    one, other = city.simulate(600, seed=3), city.simulate(600, seed=3)
    for field in ("poses", "first", "second", "measured"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    assert not np.array_equal(one.measured, city.simulate(600, seed=4).measured[: len(one.measured)])


def test_city_is_connected_and_each_pose_follows_the_one_before(small: PoseGraph) -> None:
    assert set(components(len(small.keys), small.first, small.second)) == {0}
    assert (small.first < small.second).all()
    odometry = small.second - small.first == 1
    np.testing.assert_array_equal(small.second[odometry], np.arange(1, len(small.keys)))


def test_city_has_four_edges_a_pose_and_local_loops() -> None:
    graph = city.simulate(5000)
    assert 3.8 < len(graph.first) / len(graph.keys) < 4.3
    age = (graph.second - graph.first)[graph.second - graph.first > 1]
    assert age.min() >= city.YOUNGEST
    assert age.max() <= city.MEMORY
    assert (city.simulate(5000, memory=None).second - city.simulate(5000, memory=None).first).max() > 2 * city.MEMORY


def test_shorter_drive_begins_the_longer_one() -> None:
    """The growth's sizes are stages of one drive."""
    shorter, longer = (city._drive(count, np.random.default_rng(5)) for count in (700, 1400))
    assert longer[0][:700] == shorter[0]
    assert longer[1][:700] == shorter[1]


def test_city_stays_on_its_streets_and_loops_join_places_a_step_apart() -> None:
    places, headings = city._drive(3000, np.random.default_rng(0))
    assert all(x % city.BLOCK == 0 or y % city.BLOCK == 0 for x, y in places)
    assert len(set(headings)) == 4
    first, second = city._edges(places, np.random.default_rng(0), city.MEMORY)
    spots = np.array(places)
    assert np.abs(spots[first] - spots[second]).sum(axis=1).max() <= 1


def test_edges_of_the_city_deviate_as_told() -> None:
    """Whitened errors at the true poses are of unit variance: the information matrix is that of the noise."""
    graph = city.simulate(4000, seed=1)
    places, headings = city._drive(4000, np.random.default_rng([1, 0]))
    x, y = np.array(places, float).T
    squared = graphs.errors(graph, se3.from_planar(x, y, np.array(headings) * np.pi / 2))
    assert squared.mean() == pytest.approx(6.0, rel=0.03)


# Graphs and their judge


@pytest.mark.parametrize(
    ("name", "initial"),
    [
        ("smallGrid3D", 83894.33343553288),
        ("sphere2500", 1305657.711806),
        ("intel", 276.99789778),
        ("city10000", 359231215.6),
    ],
)
def test_cost_at_the_initial_values_is_gtsams(name: str, initial: float) -> None:
    """GTSAM 4.3.0's own figures, with the prior on the first pose (which is zero there)."""
    graph = named(name)
    assert graphs.cost(graph, graph.poses) == pytest.approx(initial, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "optimum"),
    [("smallGrid3D", 517.925335), ("intel", 22.502117), ("CSAIL", 20.275442), ("parking-garage", 0.634192)],
)
def test_cost_at_gtsams_optimum_is_the_known_one(name: str, optimum: float) -> None:
    peers = pytest.importorskip("benchmarks.peers_gtsam")
    pytest.importorskip("gtsam", reason="GTSAM is not installed here")
    graph = named(name)
    peer = peers.Batch(graph)
    answers = peers.reaching(peer.attempts())
    for answer in answers.values():
        assert graphs.cost(graph, peer.poses(answer)) == pytest.approx(optimum, rel=2e-6)
        assert answer.cost == pytest.approx(optimum, rel=2e-6)
    assert {method.chordal for method in answers} == {False, True}


def test_chained_values_replace_missing_ones() -> None:
    graph = named("CSAIL")
    assert graph.known.all()
    squared = graphs.errors(graph, graph.poses)[graphs.neighbours(graph)]
    np.testing.assert_allclose(squared, 0.0, atol=1e-12)


def test_poses_are_put_in_the_order_of_their_keys(small: PoseGraph) -> None:
    shuffle = np.random.default_rng(0).permutation(len(small.keys))
    place = np.argsort(shuffle)
    mixed = dataclasses.replace(
        small,
        keys=small.keys[shuffle],
        poses=small.poses[shuffle],
        known=small.known[shuffle],
        first=place[small.first],
        second=place[small.second],
        fixed=place[[7]],
    )
    assert graphs.cost(mixed, mixed.poses) == pytest.approx(graphs.cost(small, small.poses), rel=1e-12)
    back = graphs.in_order(mixed)
    for field in ("keys", "poses", "first", "second"):
        np.testing.assert_array_equal(getattr(back, field), getattr(small, field))
    assert back.fixed.tolist() == [7]


def test_every_edge_arrives_once_with_the_later_of_its_poses(small: PoseGraph) -> None:
    arriving = list(graphs.arrivals(small))
    assert [arrival.pose for arrival in arriving] == list(range(len(small.keys)))
    assert sum(len(arrival.edges) for arrival in arriving) == len(small.first)
    for arrival in arriving:
        assert (np.maximum(arrival.edges.first, arrival.edges.second) == arrival.pose).all()


def test_initial_value_comes_from_the_edge_to_the_latest_pose(small: PoseGraph) -> None:
    for arrival in list(graphs.arrivals(small))[1:50]:
        np.testing.assert_allclose(arrival.initial(small.poses), small.poses[arrival.pose], atol=1e-12)
        turned = dataclasses.replace(
            arrival.edges,
            first=arrival.edges.second,
            second=arrival.edges.first,
            measured=se3.inverse(arrival.edges.measured),
        )
        np.testing.assert_allclose(
            Arrival(arrival.pose, turned).initial(small.poses), small.poses[arrival.pose], atol=1e-12
        )


def test_pose_that_nothing_joins_to_earlier_ones_is_named(small: PoseGraph) -> None:
    kept = small.second != 30
    broken = dataclasses.replace(
        small,
        first=small.first[kept],
        second=small.second[kept],
        measured=small.measured[kept],
        sqrt_info=small.sqrt_info[kept],
        information=small.information[kept],
    )
    with pytest.raises(UserError, match="vertex 30"):
        list(graphs.arrivals(broken))


def test_missing_graph_says_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(graphs.VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=rf"{tmp_path}: no sphere2500\.g2o.*{graphs.VARIABLE}"):
        graphs.load("sphere2500")
    with pytest.raises(UserError, match="city-10k"):
        graphs.load("city-big")
    assert len(graphs.load("city-1k").keys) == 1000


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


def test_folders_of_figures_and_results_must_differ(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        command.main(["growth", "--out", str(tmp_path), "--figures", str(tmp_path)])


def test_memory_is_the_most_that_there_was() -> None:
    measuring.forget_peak()
    before = measuring.peak_memory()
    block = np.ones(2**24)
    del block
    assert measuring.peak_memory() - before > 0.9 * 8 * 2**24


# Kept figures


def test_kept_figures_are_measured_once_and_anew_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(len(calls))
        return {"seconds": calls[-1]}

    monkeypatch.setattr("benchmarks.peer_cache.SHORT", 0.0)
    path = tmp_path / "peers.json"
    assert PeerCache(path).get("a", measure).result == PeerCache(path).get("a", measure).result == {"seconds": 0}
    fresh = PeerCache(path, fresh=True)
    assert fresh.get("a", measure).result == fresh.get("a", measure).result == {"seconds": 1}
    assert PeerCache(path).get("b", measure).result == {"seconds": 2}


def test_short_measurements_are_of_the_same_run(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(len(calls))
        return {"value": calls[-1]}

    path = tmp_path / "peers.json"
    for run in range(2):
        cache = PeerCache(path)
        assert cache.get("times", measure).result == cache.get("times", measure).result == {"value": run}
    assert PeerCache(path).get("times", measure, timed=False).result == {"value": 1}


def test_figures_of_another_day_say_how_fast_the_machine_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peer_cache.SHORT", 0.0)
    path = tmp_path / "peers.json"
    notes = []
    for seconds in (0.040, 0.041, 0.060):
        monkeypatch.setattr("benchmarks.peer_cache.reference_loop", lambda seconds=seconds: seconds)
        kept = PeerCache(path).get("a", lambda: {"seconds": 1})
        notes.append(kept.note)
    assert notes[:2] == ["", "kept; reference loop 40.0 ms then, 41.0 ms now"]
    assert "DISTURBED" in notes[2]
    assert kept.measured() == {"in_this_run": False, "reference_ms": 40.0, "reference_ms_now": 60.0}


def test_digest_is_that_of_all_a_solver_is_given(small: PoseGraph) -> None:
    assert graphs.digest(small) == graphs.digest(city.simulate(400))
    for name in ("poses", "measured", "information"):
        changed = np.array(getattr(small, name))
        changed[-1, 0] += 1e-12
        assert graphs.digest(dataclasses.replace(small, **{name: changed})) != graphs.digest(small)


def test_kept_figures_of_another_machine_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peer_cache.SHORT", 0.0)
    path = tmp_path / "peers.json"
    PeerCache(path).get("a", lambda: {"seconds": 1})
    monkeypatch.setattr("benchmarks.peer_cache.machine", lambda: "another")
    assert PeerCache(path).get("a", lambda: {"seconds": 2}).result == {"seconds": 2}


def test_damaged_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"peers\.json"):
        PeerCache(path)


def test_cores_are_given_back() -> None:
    before = measuring.cores()
    with measuring.confined(1) as environment:
        assert measuring.cores() == 1
        assert environment["OMP_NUM_THREADS"] == "1"
    assert measuring.cores() == before


@pytest.mark.parametrize(("seconds", "count"), [(0.5, 6), (0.001, 25), (2.0, 5), (15.0, 3), (100.0, 1)])
def test_long_runs_are_repeated_less_and_short_ones_more(seconds: float, count: int) -> None:
    assert measuring.times(seconds, 5) == count
    assert measuring.times(seconds, 1) == 1


# Table, baseline, gate


def test_table_shows_ratio_goal_and_verdict() -> None:
    rows = [
        row("sphere2500", 0.2, 0.4, goal=0.67, note="GTSAM GN"),
        row("torus3D", None, 2.0, goal=0.67, note="ends elsewhere"),
        Row("growth", "city", "memory", 1.7, None, "GiB", 1.5, alone=True),
    ]
    first, second, third, fourth = render(rows).splitlines()
    assert first.split() == ["graph", "what", "ours", "peer", "unit", "ratio", "goal"]
    assert " ".join(second.split()) == "sphere2500 to the optimum 0.2 0.4 s 0.500 0.67 ok, GTSAM GN"
    assert " ".join(third.split()) == "torus3D to the optimum - 2 s 0.67 no answer, ends elsewhere"
    assert " ".join(fourth.split()) == "city memory 1.7 - GiB 1.5 short of it"
    assert [from_json(json.loads(json.dumps(each.as_json()))) for each in rows] == rows


def test_baseline_keeps_what_was_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    assert baseline.load(path) == {}
    assert baseline.write([row("a", 0.5), row("b", 0.6), row("c", None)], path) == 2
    assert baseline.write([row("b", 0.7)], path) == 1
    assert baseline.load(path) == {"batch/a/to the optimum": 0.5, "batch/b/to the optimum": 0.7}


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": "x"}'])
def test_damaged_baseline_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"baseline\.json.*--write-baseline"):
        baseline.load(path)


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.50, 0), (0.40, 0), (0.57, 0), (0.58, 1), (None, 1)],
    ids=["same", "better", "slack", "worse", "lost"],
)
def test_gate(
    value: float | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "baseline.json"
    baseline.write([row("a", 0.5), row("left out", 0.5)], stored)
    monkeypatch.setattr(baseline, "load", lambda path=stored, load=baseline.load: load(stored))

    def comparison(name: str, cores: int, arguments: Sequence[str], out: Path) -> list[Row]:
        assert (name, cores) == ("batch", 2)
        assert arguments[-2:] == ["--graphs", "a"]
        return [row("a", value), row("new", 3.0)]

    arguments = ["batch", "--gate", "--json", "--cores", "2", "--graphs", "a"]
    assert command.main(arguments, comparison) == code
    output = capsys.readouterr().out
    assert ("WORSE: batch/a" in output) == bool(code)
    assert "not in the baseline, so not checked: batch/new" in output
    assert json.loads(output.splitlines()[-1])["batch/a/to the optimum"]["ours"] == value


GATED = (
    row("a", 0.5),
    row("b", 0.5),
    Row("window", "hall", "p99 update", 8.0, None, "ms", 10.0, alone=True),
    Row("robust", "a", "cost above optimum", 1e-12, 1e-11, "", 0.01, alone=True),
    Row("robust", "a", "false loops kept", 0, 0, "", 0, alone=True),
    Row("growth", "city", "p99 update at 100,000 / 1,000 poses", 1.5, None, "", None, alone=True),
)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str]]]:
    """Run the gate against `GATED`, with these rows measured: the exit code, and which benchmarks were asked for."""
    stored = tmp_path / "baseline.json"
    assert baseline.write(GATED, stored) == len(GATED)
    monkeypatch.setattr(baseline, "load", lambda path=stored, load=baseline.load: load(stored))

    def run(measured: Sequence[Row], *arguments: str) -> tuple[int, list[str]]:
        asked: list[str] = []

        def comparison(name: str, cores: int, told: Sequence[str], out: Path) -> list[Row]:
            asked.append(name)
            return [each for each in measured if each.benchmark == name]

        return command.main([*arguments, "--gate"], comparison), asked

    return run


Gate = Callable[..., tuple[int, list[str]]]


def test_gate_asks_for_all_that_is_stored(gate: Gate) -> None:
    assert gate(GATED) == (0, ["batch", "robust", "growth", "window"])


@pytest.mark.parametrize(
    ("k", "value", "code"),
    [
        (2, 9.2, 0),
        (2, 9.4, 1),
        (2, None, 1),
        (3, 9e-5, 0),
        (3, 2e-4, 1),
        (3, -1e-9, 0),
        (4, 1, 1),
        (5, 1.7, 0),
        (5, 1.8, 1),
    ],
)
def test_gate_holds_own_figures_too(gate: Gate, k: int, value: float | None, code: int) -> None:
    changed = dataclasses.replace(GATED[k], ours=value)
    assert gate([*GATED[:k], changed, *GATED[k + 1 :]])[0] == code


def test_gate_fails_where_a_stored_row_was_not_measured(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(GATED[:1], "batch")[0] == 1
    assert "NOT MEASURED: batch/b/to the optimum, stored as 0.5" in capsys.readouterr().out
    assert gate(GATED[:1], "batch", "--graphs", "a")[0] == 0
    assert gate(GATED[:5], "growth")[0] == 1
    assert gate(GATED[2:3], "window", "--graphs", "a")[0] == 0


def test_gate_fails_where_nothing_was_checked(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate([], "batch")[0] == 1
    assert gate([], "batch", "--graphs", "elsewhere")[0] == 1
    assert gate([row("new", 0.1)], "batch", "--graphs", "new")[0] == 1
    assert "nothing was checked" in capsys.readouterr().out
    # Of other sizes nothing is stored.
    assert gate(GATED, "growth", "batch", "--sizes", "1000")[0] == 0


def test_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    assert "there are node, hero, killian, clouds, rates, batch" in capsys.readouterr().err


def test_stored_baseline_is_of_what_there_is() -> None:
    stored = baseline.load()
    wanted = {f"batch/{name}/to the optimum" for name in graphs.LITERATURE}
    wanted |= {f"derivative/{name}/vjp / solve" for name in graphs.LITERATURE}
    wanted |= {f"incremental/{name}/total" for name in ("sphere2500", "parking-garage", "city10000")}
    wanted |= {f"window/{name}/p99 update" for name in ("hall", "shaft")}
    wanted |= {"growth/city/median update at 100,000 / 1,000 poses", "growth/city/peak memory to 100,000 poses"}
    assert wanted <= set(stored)
    for key, figure in stored.items():
        benchmark, graph, what = key.split("/", 2)
        assert benchmark in COMPARISONS
        assert graph
        assert what
        assert np.isfinite(figure)
        assert benchmark != "batch" or 0 < figure < 100
