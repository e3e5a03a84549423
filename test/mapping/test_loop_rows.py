"""Closures in the graph: those that the others deny are withdrawn, and count for nothing from there on."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors import Loop
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.mapping.back_end import BackEnd
from dsg_ros.mapping.closures import Closure
from dsg_ros.mapping.loop_candidates import BRIDGE, Ways

THETA = to_float64(Theta.neutral())
AROUND = 24
"""Keyframes of one lap of a circle, a metre apart."""
STEP = poses.from_planar(1.0, 0.0, 2 * np.pi / AROUND)
SURE = np.diag(np.repeat([0.02, 0.005], 3) ** -2.0)


@pytest.fixture
def laps() -> tuple[BackEnd, NDArray[np.float64]]:
    """Two laps by an odometry that turns too little, and where they truly were."""
    back_end = BackEnd(config.Slam(), axes=(0, 1, 5))
    told = poses.compose(STEP, poses.from_planar(0.0, 0.0, -0.004))
    pose = true = poses.IDENTITY
    truth = []
    for key in range(2 * AROUND):
        back_end.add_keyframe(pose)
        if key:
            back_end.add_link(key, told, 0.5, told, 1e4 * np.eye(6))
        truth.append(true)
        pose, true = poses.compose(pose, told), poses.compose(true, STEP)
    return back_end, np.array(truth)


def closure(truth: NDArray[np.float64], older: int, newer: int, off: float = 0.0) -> Closure:
    relative = poses.compose(poses.between(truth[older], truth[newer]), poses.from_planar(off, 0.0, 0.0))
    return Closure(older, newer, relative, SURE, jump=0.2)


def test_one_that_the_others_deny_is_withdrawn(
    laps: tuple[BackEnd, NDArray[np.float64]], caplog: pytest.LogCaptureFixture
) -> None:
    back_end, truth = laps
    true = [closure(truth, key, key + AROUND) for key in range(2, AROUND, 3)]
    false = Closure(5, 5 + AROUND + AROUND // 2, poses.IDENTITY, SURE, jump=0.2)  # the far side of the circle
    back_end.loops.add(true)
    back_end.solve_graph(THETA)
    right = back_end.trajectory
    back_end.loops.add([false])
    assert [5, 41] in back_end.loops.ends.tolist()
    with caplog.at_level(logging.INFO):
        back_end.solve_graph(THETA)
    assert "keyframes 5 and 41 is withdrawn" in caplog.text
    assert back_end.loops.counts["loops_withdrawn"] == 1
    assert_array_equal(back_end.loops.ends, [(c.older, c.newer) for c in true])
    assert back_end.world.count(Loop) == len(true)
    np.testing.assert_allclose(back_end.trajectory, right, atol=2e-3)
    # The place is looked for as far off as if it had never been closed.
    travel = np.arange(2.0 * AROUND)
    ways = Ways.over(travel[:42], back_end.loops.ends[back_end.loops.ends.max(axis=1) < 42])
    assert ways.distance[5] > 100 * BRIDGE


def test_true_ones_stay_and_one_that_is_found_again_comes_back(laps: tuple[BackEnd, NDArray[np.float64]]) -> None:
    back_end, truth = laps
    for key in range(2, AROUND, 3):
        back_end.loops.add([closure(truth, key, key + AROUND)])
        back_end.solve_graph(THETA)
    assert back_end.loops.counts["loops_withdrawn"] == 0
    back_end.loops.add([closure(truth, 4, 4 + AROUND, off=3.0)])
    back_end.solve_graph(THETA)
    assert back_end.loops.counts["loops_withdrawn"] == 1
    back_end.loops.add([closure(truth, 4, 4 + AROUND)])
    back_end.solve_graph(THETA)
    assert back_end.loops.counts["loops_withdrawn"] == 1
    assert [4, 4 + AROUND] in back_end.loops.ends.tolist()


def test_one_that_was_withdrawn_is_not_asked_for_again(laps: tuple[BackEnd, NDArray[np.float64]]) -> None:
    back_end, truth = laps
    back_end.loops.add([closure(truth, key, key + AROUND) for key in range(2, AROUND, 3)])
    false = closure(truth, 4, 4 + AROUND, off=3.0)
    back_end.loops.add([false])
    back_end.solve_graph(THETA)
    # The next keyframe finds the same place.
    relative = poses.compose(poses.between(truth[5], truth[4]), false.relative)
    relative = poses.compose(relative, poses.between(truth[4 + AROUND], truth[5 + AROUND]))
    back_end.loops.add([Closure(5, 5 + AROUND, relative, SURE, jump=3.0)])
    assert back_end.loops.counts == {"loops_withdrawn": 1, "loops_refused_withdrawn": 1}
    assert not back_end.loops.fresh


def test_the_worst_goes_first(laps: tuple[BackEnd, NDArray[np.float64]]) -> None:
    back_end, truth = laps
    true = [closure(truth, key, key + AROUND) for key in (4, 8, 12, 16)]
    back_end.loops.add([*true, closure(truth, 9, 9 + AROUND, off=2.0), closure(truth, 14, 14 + AROUND, off=-4.0)])
    back_end.solve_graph(THETA)
    assert back_end.loops.counts["loops_withdrawn"] == 2
    assert_array_equal(back_end.loops.ends, [(c.older, c.newer) for c in true])


def test_sigmas_are_those_of_theta(laps: tuple[BackEnd, NDArray[np.float64]]) -> None:
    back_end, truth = laps
    back_end.loops.add([closure(truth, key, key + AROUND) for key in range(2, AROUND, 3)])
    back_end.loops.add([closure(truth, 4, 4 + AROUND, off=0.5)])
    back_end.solve_graph(THETA.replace(loop_noise=np.log(10.0)))
    assert back_end.loops.counts["loops_withdrawn"] == 0
    back_end.solve_graph(THETA)
    assert back_end.loops.counts["loops_withdrawn"] == 1


def test_what_was_withdrawn_stays_so_in_a_state(laps: tuple[BackEnd, NDArray[np.float64]]) -> None:
    back_end, truth = laps
    back_end.loops.add([closure(truth, key, key + AROUND) for key in range(2, AROUND, 3)])
    back_end.solve_graph(THETA)
    back_end.loops.add([closure(truth, 4, 4 + AROUND, off=3.0)])
    back_end.solve_graph(THETA)
    back_end.loops.add([closure(truth, 9, 9 + AROUND)])
    again = BackEnd(config.Slam(), axes=(0, 1, 5))
    again.restore(back_end.state())
    assert again.loops.counts["loops_withdrawn"] == 1
    assert again.loops.fresh
    assert_array_equal(again.loops.ends, back_end.loops.ends)
    assert_array_equal(again.loops.solved, back_end.loops.solved)
    for each in (back_end, again):
        each.solve_graph(THETA)
    assert_array_equal(again.trajectory, back_end.trajectory)


@pytest.mark.parametrize("spoil", ["ends", "rows"])
def test_closures_of_another_graph_are_refused(laps: tuple[BackEnd, NDArray[np.float64]], spoil: str) -> None:
    back_end, truth = laps
    back_end.loops.add([closure(truth, key, key + AROUND) for key in (3, 6)])
    state = back_end.loops.state()
    state[spoil] = state[spoil][::-1].copy() if spoil == "ends" else state[spoil][:1]
    with pytest.raises(ValueError, match="closures of another graph"):
        back_end.loops.restore(state)
