"""Parameters are what dsg_ros/config says, and the defaults file is theirs."""

from pathlib import Path

import pytest
import yaml

from dsg_ros import config as cfg
from dsg_ros import parameter_file
from dsg_ros.ros import parameters

FILE = Path(__file__).parents[2] / "config" / "hero.yaml"


def test_the_defaults_file_is_current():
    assert FILE.read_text() == parameters.defaults_file(), (
        "dsg_ros/config changed: python -m dsg_ros.ros.parameters > config/hero.yaml"
    )


def test_the_defaults_file_holds_every_parameter_with_its_default():
    changed = cfg.replace(cfg.Node(), {"tf_rate": 3.0, "qos.odom.depth": 7})
    assert parameter_file.apply_file(changed, FILE) == cfg.Node()
    content = yaml.safe_load(FILE.read_text())
    assert list(content) == ["/**"]


@pytest.mark.parametrize("setting", list(cfg.settings(cfg.Node())), ids=lambda s: s.name)
def test_descriptors_say_what_config_says(setting):
    told = parameters.descriptor(setting)
    assert setting.doc
    assert setting.doc in told.description
    assert told.read_only == (setting.name not in parameters.CHANGEABLE)
    ranges = [*told.floating_point_range, *told.integer_range]
    if setting.range:
        assert (ranges[0].from_value, ranges[0].to_value) == (setting.range.low, setting.range.high)
        assert setting.range.unit in told.description
    else:
        assert not ranges
    assert all(choice in told.additional_constraints for choice in setting.choices)


def test_changeable_parameters_exist():
    assert {s.name for s in cfg.settings(cfg.Node())} >= parameters.CHANGEABLE


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (1.0, "1.0"), (1e-5, "1.0e-05"), (2e20, "2.0e+20"), (0.1 + 0.2, None)]
)
def test_floats_are_read_back_as_floats(value, text):
    scalar = parameters._scalar(value)
    assert text is None or scalar == text
    assert yaml.safe_load(scalar) == value
