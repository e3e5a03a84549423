"""The graphs that solvers are compared on, simulated and of the literature, and their judge."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from benchmark_graphs import named

from benchmarks import city, graphs
from benchmarks.graphs import Arrival
from dsg_ros import poses as se3
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import PoseGraph
from dsg_ros.io.posegraph_checks import components


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


def test_digest_is_that_of_all_a_solver_is_given(small: PoseGraph) -> None:
    assert graphs.digest(small) == graphs.digest(city.simulate(400))
    for name in ("poses", "measured", "information"):
        changed = np.array(getattr(small, name))
        changed[-1, 0] += 1e-12
        assert graphs.digest(dataclasses.replace(small, **{name: changed})) != graphs.digest(small)
