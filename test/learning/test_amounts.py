"""Amounts of change as people write them."""

import math

import numpy as np
import pytest

from dsg_ros.core.theta import Theta
from dsg_ros.errors import UserError
from dsg_ros.learning.amounts import NATURAL, changed, full_name, parse_change, value_of
from dsg_ros.learning.parameters import LEAVES, PLACES, spec_of
from dsg_ros.learning.sensitivity import NOISE

NAMES = tuple(PLACES)
OF_GRAPHS = tuple(name for name in NAMES if PLACES[name][0] in (*LEAVES, *NOISE))


@pytest.mark.parametrize(
    ("name", "value", "text", "amount"),
    [
        ("odometry.scale", 0.96, "1 %", 0.0096),
        ("odometry.scale", 0.96, "-1%", -0.0096),
        ("odometry.scale", 0.96, "+0.01", 0.01),
        ("odometry.lateral_slip", 0.0, "1 %", 0.01),
        ("odometry.lever.x", 0.2, "5 mm", 0.005),
        ("odometry.lever.x", 0.2, " -.5cm ", -0.005),
        ("odometry.lever.x", 0.2, "10 %", 0.02),
        ("odometry.turn_per_metre", 0.0, "0.1 deg/m", 0.1 * math.pi / 180),
        ("odometry.bias.rz", 0.0, "1e-3", 0.001),
        ("noise.loop", 2.0, "1 %", 0.02),
    ],
)
def test_a_change_is_understood(name, value, text, amount):
    assert parse_change(text, spec_of(name), value) == pytest.approx(amount, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("odometry.scale", "", "expected a number"),
        ("odometry.scale", "a little", "expected a number"),
        ("odometry.scale", "nan", "expected a number"),
        ("odometry.scale", "0x1", "expected a number"),
        ("odometry.scale", "1 m", "expected a number and a unit, %"),
        ("odometry.lever.x", "1 deg", "%, m, cm, mm"),
        ("odometry.lever.x", "0", "changes nothing"),
        ("odometry.lever.x", "1e-320", "changes nothing"),
        ("odometry.turn_per_metre", "1 %", "it is 0 now"),
        ("odometry.scale", "0.6", r"1.6 is outside \[0.5, 1.5\]"),
        ("odometry.lever.x", "1e999", "outside"),
        ("noise.loop", "-1", "outside"),
    ],
)
def test_what_is_no_change_is_refused(name, text, why):
    spec = spec_of(name)
    with pytest.raises(UserError, match=why) as refused:
        parse_change(text, spec, spec.neutral)
    assert name in str(refused.value)


@pytest.mark.parametrize("name", OF_GRAPHS)
def test_every_parameter_has_a_natural_change_that_it_can_make(name):
    spec = spec_of(name)
    amount = parse_change(NATURAL[spec.unit], spec, spec.neutral)
    theta = changed(Theta.neutral(), name, spec.neutral + amount)
    assert value_of(theta, name) == pytest.approx(spec.neutral + amount, rel=1e-12)
    others = [value_of(theta, other) - spec_of(other).neutral for other in NAMES if other != name]
    assert not np.any(others)


def test_names_may_be_cut_short_where_that_is_clear():
    assert full_name("scale", NAMES) == "odometry.scale"
    assert full_name(" lever.x", NAMES) == "odometry.lever.x"
    assert full_name("noise.loop", NAMES) == "noise.loop"
    with pytest.raises(UserError, match=r"'x' may be any of odometry.lever.x, odometry.bias.x, extrinsic.x"):
        full_name("x", NAMES)
    for wrong in ("", "cale", "wheel"):
        with pytest.raises(UserError, match="; there are odometry"):
            full_name(wrong, NAMES)
