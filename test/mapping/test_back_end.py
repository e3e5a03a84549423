"""The factor graph of a run: solutions of the whole graph that are not to be taken over."""

from __future__ import annotations

import equinox as eqx
import numpy as np
import pytest

from dsg_ros import config, poses
from dsg_ros.core.linearisation import HostRows
from dsg_ros.core.native.window_rows import Rows
from dsg_ros.core.solution import Result
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.solvers.held_rows import HeldRows
from dsg_ros.core.solvers.sparse import SparseFactor
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.mapping.association import Observations
from dsg_ros.mapping.back_end import BackEnd

THETA = to_float64(Theta.neutral())
SOLVER = LevenbergMarquardt(SparseCholesky())
STEP = poses.from_planar(1.0, 0.0, 0.1)


@pytest.fixture
def chain() -> BackEnd:
    """Nine keyframes, a little beside where odometry and registration want them."""
    back_end = BackEnd(config.Slam(), axes=(0, 1, 5))
    pose = poses.IDENTITY
    for key in range(9):
        back_end.add_keyframe(pose)
        if key:
            back_end.add_link(key, STEP, 0.5, STEP, 1e4 * np.eye(6))
        pose = poses.compose(pose, poses.compose(STEP, poses.from_planar(0.01, 0.0, 0.0)))
    return back_end


def cut(back_end: BackEnd, link: int, sqrt_info: np.ndarray) -> None:
    """Leave ``sqrt_info`` of what ties two keyframes."""
    odometry, registration = back_end._links.values[link]
    back_end.world.set_rows([odometry], weight=0.0)
    back_end.world.set_rows([registration], sqrt_info=sqrt_info[None])


def test_a_healthy_graph_is_taken_over(chain: BackEnd, caplog: pytest.LogCaptureFixture) -> None:
    before = chain.trajectory
    chain.solve_graph(THETA)
    assert chain.counts["solves_refused"] == 0
    assert np.abs(chain.trajectory - before).max() > 0.05
    assert not caplog.records


def test_a_graph_that_leaves_keyframes_free_is_refused(chain: BackEnd, caplog: pytest.LogCaptureFixture) -> None:
    cut(chain, 1, np.diag([100.0, 100, 100, 100, 100, 0]))
    before, covariance = chain.trajectory, chain.covariance(poses.IDENTITY)
    chain.solve_graph(THETA)
    assert chain.counts == {"window_solves": 0, "graph_solves": 1, "solves_refused": 1}
    np.testing.assert_array_equal(chain.trajectory, before)
    np.testing.assert_array_equal(chain.covariance(poses.IDENTITY), covariance)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "the graph of 9 keyframes is left as it was: its rows do not determine "
        "pose 2, pose 3, pose 4, pose 5, pose 6 and 2 more"
    )


def test_a_graph_whose_factor_turns_out_singular_is_refused(chain: BackEnd, caplog: pytest.LogCaptureFixture) -> None:
    found = solve(chain.problem(), THETA, SOLVER)
    assert found.code is Result.CONVERGED
    cut(chain, 1, np.diag([100.0, 100, 100, 100, 100, 0]))
    before, covariance = chain.trajectory, chain.covariance(poses.IDENTITY)
    rows = HostRows(chain.problem(), THETA)
    factor = SparseFactor(SparseCholesky(), rows, rows.linearise(found.state)[1], np.zeros(len(rows.free)))
    chain._adopt_graph(eqx.tree_at(lambda solution: solution.factorisation, found, factor))
    assert chain.counts["solves_refused"] == 1
    np.testing.assert_array_equal(chain.trajectory, before)
    np.testing.assert_array_equal(chain.covariance(poses.IDENTITY), covariance)
    assert "they do not determine variable" in caplog.text


def test_a_graph_beyond_all_numbers_is_refused(chain: BackEnd, caplog: pytest.LogCaptureFixture) -> None:
    cut(chain, 1, 1e200 * np.eye(6))
    before = chain.trajectory
    with np.errstate(over="ignore", invalid="ignore"):
        chain.solve_graph(THETA)
    assert chain.counts["solves_refused"] == 1
    np.testing.assert_array_equal(chain.trajectory, before)
    assert "no step lowers its cost, or it is not finite" in caplog.text
    # It can be mended, and is taken over then.
    cut(chain, 1, 100 * np.eye(6))
    chain.solve_graph(THETA)
    assert chain.counts["solves_refused"] == 1
    assert np.abs(chain.trajectory - before).max() > 0.05


def windows_of(back_end: BackEnd, theta: Theta) -> list[np.ndarray]:
    """Poses and voxels after each of a few windows, one a keyframe, as a run has them."""
    rng, corners = np.random.default_rng(4), np.random.default_rng(5).uniform(-4.0, 8.0, (60, 3))
    pose, numbers, out = poses.IDENTITY, np.full(len(corners), -1), []
    for key in range(14):
        back_end.add_keyframe(poses.compose(pose, poses.from_planar(0.01 * key, 0.0, 0.0)))
        if key:
            back_end.add_link(key, STEP, 0.5, STEP, 1e4 * np.eye(6))
        chosen = np.flatnonzero(rng.random(len(corners)) < (0.4 if key != 11 else 0.0))
        new = numbers[chosen] < 0
        numbers[chosen[new]] = numbers.max() + 1 + np.arange(np.count_nonzero(new))
        seen = poses.transform(poses.inverse(pose), corners[chosen]) + 0.02 * rng.normal(size=(len(chosen), 3))
        root = np.broadcast_to(20.0 * np.eye(3), (len(chosen), 3, 3))
        counts = np.ones(len(chosen), np.int64)
        back_end.sightings.add(key, Observations(numbers[chosen], seen, root, counts, new, corners[chosen]))
        back_end.start_window(theta if key < 12 else theta.replace(extrinsic=0.01 * np.ones(6)))
        back_end.settle_window()
        out += [back_end.world.poses, back_end.world.voxels]
        pose = poses.compose(pose, STEP)
    return out


def test_rows_kept_from_window_to_window_are_as_good_as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = windows_of(BackEnd(config.Slam(), axes=(0, 1, 5)), THETA)

    def anew(self: HeldRows, theta: Theta, variables: None = None) -> Rows:
        self.theta = None
        return at(self, theta)

    at = HeldRows.at
    monkeypatch.setattr(HeldRows, "at", anew)
    for one, other in zip(kept, windows_of(BackEnd(config.Slam(), axes=(0, 1, 5)), THETA), strict=True):
        np.testing.assert_array_equal(one, other)
