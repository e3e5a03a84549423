"""What a change of a parameter does to a map: against solving again, and where the answer is plain."""

from __future__ import annotations

import numpy as np
import pytest
import worlds

from dsg_ros import config, poses
from dsg_ros.core.factors import PosePrior
from dsg_ros.core.theta import Theta
from dsg_ros.effect import degrees, metres
from dsg_ros.errors import UserError
from dsg_ros.interface import Parameter
from dsg_ros.learning.sensitivity import Sensitivity
from dsg_ros.mapping.back_end import BackEnd
from dsg_ros.mapping.closures import Closure

PLANE = (0, 1, 5)
ROUTE = [(0.0, 0.0), (12.0, 0.0), (12.0, 8.0), (3.0, 8.0), (3.0, 1.0)]
TOLD = (
    Parameter("odometry.scale", 1.0, 0.002, "ratio", "learned"),
    Parameter("odometry.lever.x", 0.0, 0.05, "m", "unobservable"),
)


def graph(route=ROUTE, *, scans=True, loop=True, axes=PLANE, doubtful=None):
    """Keyframes 0.4 m apart along ``route``; odometry that is a little off, scans and a closure that are nearly right.

    ``doubtful`` keyframes hang on odometry with a robust kernel that is wrong by a good deal.
    """
    rng = np.random.default_rng(3)
    truth = worlds.drive(route, step=0.4, turn=0.4)
    back_end = BackEnd(config.Slam(), axes=axes)
    noise = np.zeros((len(truth), 6))
    noise[:, [0, 1, 5]] = rng.normal(size=(len(truth), 3)) * [0.01, 0.01, 0.005]
    information = np.diag([1, 1, 0, 0, 0, 1]) * 1e4 if axes == PLANE else np.eye(6) * 1e4
    pose = truth[0]
    for key, here in enumerate(truth):
        back_end.add_keyframe(pose)
        if key:
            step = poses.between(truth[key - 1], here)
            measured = poses.compose(step, poses.exp(noise[key] * (20.0 if key == doubtful else 1.0)))
            relative = poses.compose(step, poses.exp(0.3 * noise[-key]))
            told = information if scans else np.zeros((6, 6))
            back_end.add_link(key, measured, 0.5, relative, told, doubtful=key == doubtful)
        if key + 1 < len(truth):
            pose = poses.compose(pose, poses.between(here, truth[key + 1]))
    if loop:
        newest = len(truth) - 1
        seen = poses.compose(poses.between(truth[5], truth[newest]), poses.exp(np.array([0.02, 0, 0, 0, 0, 0.003])))
        back_end.loops.add([Closure(5, newest, seen, information, 0.0)])
        back_end.solve_graph(Theta.neutral())  # from now on the closure is robust
    return Sensitivity(back_end.problem(), Theta.neutral(), TOLD)


@pytest.fixture(scope="module")
def mapped() -> Sensitivity:
    return graph(doubtful=9)


@pytest.mark.parametrize("sign", "+-")
@pytest.mark.parametrize("name", ["scale", "rotation_gain", "lateral_slip", "lever.x", "lever.y", "turn_per_metre"])
def test_one_percent_agrees_with_solving_again(mapped, name, sign):
    effect = mapped.effect(name, f"{sign}0.01", check=True)
    assert effect.last[0] > 1e-5
    assert effect.disagreement < 0.05
    for found in (effect.resolved, -effect.opposite):
        assert np.abs(found - effect.moved).max() < 0.05 * np.abs(effect.moved).max(), "at every keyframe"


@pytest.mark.parametrize("name", ["noise.registration", "noise.loop", "noise.odometry.translation"])
def test_noise_moves_a_map_whose_rows_disagree(mapped, name):
    effect = mapped.effect(name, check=True)
    assert effect.last[0] > 1e-6
    assert effect.disagreement < 0.05
    assert not effect.odometry.any()


def test_in_space_it_holds_too():
    effect = graph(axes=tuple(range(6))).effect("bias.ry", "0.01", check=True)
    assert effect.last[1] > 0.1
    assert effect.disagreement < 0.05


def test_what_moves_nothing_agrees_with_itself():
    """A robot that stays level turns about z alone: it has no use for a lever along z."""
    effect = graph(axes=tuple(range(6))).effect("lever.z", "1 cm", check=True)
    assert effect.last[0] < 1e-9
    assert effect.disagreement < 0.05


def test_a_straight_drive_on_odometry_alone_is_as_long_as_the_scale_says():
    straight = graph([(0.0, 0.0), (10.0, 0.0)], scans=False, loop=False)
    effect = straight.effect("scale", "1 %")
    assert effect.odometry[-1] == pytest.approx(effect.moved[-1], abs=1e-5)
    assert effect.last[0] == pytest.approx(0.1, rel=0.02)
    assert effect.spread[0] == pytest.approx(0.2 * effect.last[0]), "a deviation of 0.2 %"
    assert effect.worst == len(effect.moved) - 1
    turned = straight.effect("turn_per_metre", "1 deg/m")
    assert turned.last[1] == pytest.approx(10.0, rel=0.02)
    assert degrees(turned.odometry[-1]) == pytest.approx(10.0, rel=0.02)
    # A lever shows in turning only, and this drive has next to none.
    assert straight.effect("lever.x", "1 cm").last[0] < 1e-3


def test_scans_hold_a_map_that_odometry_alone_would_lose(mapped):
    effect = mapped.effect("rotation_gain", "1 %")
    assert metres(effect.odometry[-1]) > 10 * effect.last[0]


def test_a_large_change_has_a_large_margin():
    turned = graph(scans=False, loop=False)
    small, large = (turned.effect("rotation_gain", change).margin[0] for change in ("0.01", "0.1"))
    assert large > 30 * small, "of second order"
    assert turned.effect("rotation_gain", "0.1").disagreement > 0.05


def test_every_parameter_that_moves_these_poses_is_told(mapped):
    assert mapped.calibration == (
        "odometry.scale", "odometry.rotation_gain", "odometry.turn_per_metre", "odometry.lateral_slip",
        "odometry.lever.x", "odometry.lever.y",
    )  # fmt: skip
    assert "odometry.lever.z" in graph(axes=tuple(range(6))).calibration
    for out_of_plane in ("odometry.lever.z", "odometry.bias.rx", "extrinsic.x", "noise.voxel"):
        with pytest.raises(UserError, match="is not one that moves the map; there are odometry"):
            mapped.effect(out_of_plane)
    first = mapped.effect("scale")
    assert (first.sigma, first.status, first.unit) == (0.002, "learned", "ratio")
    assert (mapped.effect("lateral_slip").sigma, mapped.effect("lateral_slip").status) == (None, "not learned")


def test_a_graph_that_cannot_be_asked_says_why():
    back_end = BackEnd(config.Slam(), axes=PLANE)
    with pytest.raises(UserError, match="0 keyframes: there is nothing"):
        Sensitivity(back_end.problem(), Theta.neutral(), ())
    back_end.add_keyframe(poses.IDENTITY)
    with pytest.raises(UserError, match="1 keyframe: there is nothing"):
        Sensitivity(back_end.problem(), Theta.neutral(), ())
    back_end.add_keyframe(poses.from_planar(1.0, 0.0, 0.0))
    back_end.add_link(1, poses.from_planar(1.0, 0.0, 0.0), 0.5, poses.from_planar(1.0, 0.0, 0.0), np.zeros((6, 6)))
    back_end.world.remove(back_end.world.rows(PosePrior)[0])  # the map may lie anywhere
    with pytest.raises(UserError, match="2 keyframes has no minimum with the parameters as they are: SINGULAR"):
        Sensitivity(back_end.problem(), Theta.neutral(), ())
