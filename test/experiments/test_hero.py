"""The tutorial's numbers."""

import json

import numpy as np
import pytest

from dsg_ros.commands import hero as command
from dsg_ros.core.theta import Theta
from dsg_ros.errors import UserError
from dsg_ros.experiments import hero


def summary(capsys, **options):
    assert command.main(command.Options(json=True, **options)) == 0
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_tutorial_settings(capsys):
    result = summary(capsys)
    assert result["losses"][0] == pytest.approx(0.01313, abs=1e-5)
    assert result["final_loss"] == pytest.approx(0.001714, rel=0.01)
    assert len(result["losses"]) == 30
    assert result["x5"] == pytest.approx(5, abs=1e-3)
    assert np.shape(result["voxels"]) == (6, 3)
    assert np.shape(result["theta"]["odom"]) == (5, 6)
    assert np.all(np.diff(result["losses"]) < 0)


def test_product_settings_reach_the_supervised_state(capsys):
    result = summary(capsys, inner="levenberg_marquardt", outer="gauss_newton", steps=30)
    assert result["final_loss"] < 1e-10
    assert result["x5"] == pytest.approx(5, abs=1e-5)
    np.testing.assert_allclose(np.array(result["voxels"])[:, :2], [[i, 0] for i in range(6)], atol=1e-5)


@pytest.mark.parametrize(
    ("inner", "outer"), [("gradient_descent", "adam"), ("levenberg_marquardt", "gradient_descent")]
)
def test_other_combinations_learn(capsys, inner, outer):
    result = summary(capsys, inner=inner, outer=outer, steps=20)
    assert result["final_loss"] < 0.6 * result["losses"][0]


def test_param_residual_sees_theta():
    graph = hero.build_hybrid_graph()
    residual = hero.build_param_residual(graph.world)
    problem = graph.world.snapshot()
    cost = 0.5 * np.sum(np.square(residual(problem.state, graph.theta)))
    assert cost == pytest.approx(float(problem.cost(graph.theta, problem.state)), rel=1e-12)
    other = Theta.neutral(5, 6)
    assert 0.5 * np.sum(np.square(residual(problem.state, other))) > cost


def test_supervised_loss_is_the_first_of_the_run():
    graph = hero.build_hybrid_graph()
    loss = hero.supervised_loss(graph.theta, hero.snapshot(graph), hero.INNER["gradient_descent"])
    assert float(loss) == pytest.approx(0.013138, abs=1e-5)


def test_senseless_steps_are_refused():
    with pytest.raises(UserError, match="--steps 0"):
        command.main(command.Options(steps=0))
