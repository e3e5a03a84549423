from pathlib import Path

import pytest

from dsg_ros import config
from dsg_ros.errors import UserError
from dsg_ros.log_settings import LIDAR3D
from dsg_ros.parameter_file import apply_assignments, apply_file


def write(tmp_path, text):
    path = tmp_path / "hero.yaml"
    path.write_text(text)
    return path


def test_nested_and_dotted_names_mean_the_same(tmp_path):
    nested = "/**:\n  ros__parameters:\n    keyframes:\n      distance: 0.4\n    qos: {scan: {reliability: reliable}}\n"
    dotted = "hero:\n  ros__parameters:\n    keyframes.distance: 0.4\n    qos.scan.reliability: reliable\n"
    expected = config.replace(config.Node(), {"keyframes.distance": 0.4, "qos.scan.reliability": "reliable"})
    for text in (nested, dotted):
        assert apply_file(config.Node(), write(tmp_path, text)) == expected


def test_parameters_every_node_has_are_passed_over(tmp_path):
    assert apply_file(config.Node(), write(tmp_path, "/**: {ros__parameters: {use_sim_time: true}}")) == config.Node()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping"),
        ("- 1", "expected a mapping"),
        ("/**: {keyframes: 1}", "no mapping ros__parameters"),
        ("/**: [", "is not YAML"),
        (
            "/**: {ros__parameters: {keyframes: {distanse: 0.4}}}",
            "unknown parameter 'keyframes.distanse'.*keyframes.distance",
        ),
        ("/**: {ros__parameters: {keyframes: {distance: -1.0}}}", "keyframes.distance: -1.0 is outside"),
        ("/**: {ros__parameters: {keyframes: {distance: far}}}", "keyframes.distance: expected float, got 'far'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        apply_file(config.Node(), path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.yaml: No such file"):
        apply_file(config.Node(), tmp_path / "absent.yaml")


def test_assignments():
    changed = apply_assignments(
        config.Slam(), ["keyframes.distance=0.3", "learning.enabled=false", "input.max_range=20"]
    )
    assert (changed.keyframes.distance, changed.learning.enabled, changed.input.max_range) == (0.3, False, 20.0)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("keyframes.distance", "expected name=value"),
        ("keyframes.distance=", "expected float, got ''"),
        ("keyframes.distance=[", "not readable"),
        ("distance=1", "unknown parameter 'distance'"),
    ],
)
def test_an_assignment_that_cannot_be_used_is_told(assignment, message):
    with pytest.raises(UserError, match=f"--set.*{message}"):
        apply_assignments(config.Slam(), [assignment])


def test_the_file_for_3d_lidars_says_what_runs_of_clouds_begin_with():
    found = apply_file(config.Node(), Path(__file__).parents[2] / "config" / "lidar3d.yaml")
    assert found == config.replace(config.Node(), dict(LIDAR3D))
    assert found != config.Node()
