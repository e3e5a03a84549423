"""The node's parameters, declared from `dsg_ros.config`, and the file of their defaults."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from dsg_ros import config as cfg
from dsg_ros.config import ConfigError, Setting

CHANGEABLE = frozenset(
    {
        "tf_rate",
        "transform_tolerance",
        "publish_odom_tf",
        "publish_extrinsic_tf",
        "map_rate",
        "voxel_colour",
        "grid_rate",
        "identity_extrinsic",
        "checkpoint_period",
        "learning.enabled",
        "output_folder",
    }
)
"""Parameters that take effect while the node runs; the others are read-only, and setting them says so."""

Config = TypeVar("Config")

_OF_RCLPY = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def declare(node: Node, defaults: Config) -> Config:
    """Declare every setting of ``defaults`` with its descriptor; the configuration with the overrides given at
    start-up.

    ``node`` was made with ``automatically_declare_parameters_from_overrides``, which is how rclpy tells what was given.
    Raises `ConfigError` naming every unknown parameter and every refused value.
    """
    overrides: dict[str, Any] = dict(node.get_parameters_by_prefix(""))
    given = {name: override.value for name, override in overrides.items() if not name.startswith(_OF_RCLPY)}
    config, problems = defaults, []
    for name, value in given.items():
        try:
            config = cfg.replace(config, {name: value})
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))
    for setting in cfg.settings(config):
        if setting.name in given:
            node.undeclare_parameter(setting.name)
        node.declare_parameter(setting.name, setting.value, descriptor(setting), ignore_override=True)
    return config


def change(config: cfg.Node, parameters: list[Parameter]) -> tuple[cfg.Node, SetParametersResult]:
    """``config`` with ``parameters`` set, or unchanged with the reason."""
    try:
        values = {p.name: p.value for p in parameters if not p.name.startswith(_OF_RCLPY)}
        changed = cfg.replace(config, values)
        if changed.localisation and changed.learning.enabled is not config.learning.enabled:
            why = "learning.enabled: the node localises in a finished map, where nothing is learned"
            return config, SetParametersResult(successful=False, reason=why)
        return changed, SetParametersResult(successful=True)
    except ConfigError as error:
        return config, SetParametersResult(successful=False, reason=str(error))


def descriptor(setting: Setting) -> ParameterDescriptor:
    """Documentation, range and unit of a setting, as ``ros2 param describe`` shows them."""
    result = ParameterDescriptor(description=_sentence(setting), read_only=setting.name not in CHANGEABLE)
    if setting.choices:
        result.additional_constraints = "one of " + ", ".join(setting.choices)
    if setting.range is not None and setting.type is float:
        result.floating_point_range = [FloatingPointRange(from_value=setting.range.low, to_value=setting.range.high)]
    elif setting.range is not None:
        limits = IntegerRange(from_value=int(setting.range.low), to_value=int(setting.range.high), step=1)
        result.integer_range = [limits]
    return result


def in_range(description: str, low: float, high: float) -> ParameterDescriptor:
    """A read-only number between ``low`` and ``high``."""
    limits = [FloatingPointRange(from_value=low, to_value=high)]
    return ParameterDescriptor(description=description, read_only=True, floating_point_range=limits)


def defaults_file() -> str:
    """config/hero.yaml: every parameter with its default, meaning, unit and range."""
    lines = [
        "# Every parameter of hero_node with its default.  Written from dsg_ros/config by",
        "#   python -m dsg_ros.ros.parameters > config/hero.yaml",
        "# The key /** gives the values to the node whatever its name and namespace.",
        "/**:",
        "  ros__parameters:",
    ]
    groups: list[str] = []
    for setting in cfg.settings(cfg.Node()):
        *path, leaf = setting.name.split(".")
        common = next((i for i, pair in enumerate(zip(groups, path, strict=False)) if pair[0] != pair[1]), len(groups))
        lines += [f"{'  ' * (2 + depth)}{path[depth]}:" for depth in range(common, len(path))]
        groups = path
        indent = "  " * (2 + len(path))
        lines += [f"{indent}# {_sentence(setting)}{_limits(setting)}", f"{indent}{leaf}: {_scalar(setting.value)}"]
    return "\n".join(lines) + "\n"


def _sentence(setting: Setting) -> str:
    unit = setting.range.unit if setting.range else ""
    return f"{setting.doc} [{unit}]" if unit else setting.doc


def _limits(setting: Setting) -> str:
    if setting.choices:
        return f" ({' or '.join(setting.choices)})"
    return f" ({setting.range.low:g} to {setting.range.high:g})" if setting.range else ""


def _scalar(value: Any) -> str:
    """A YAML 1.1 scalar; floats keep a point, without which rcl reads an integer."""
    if isinstance(value, float):
        text = f"{value:.17g}" if float(f"{value:.12g}") != value else f"{value:.12g}"
        mantissa, e, exponent = text.partition("e")
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"
    return json.dumps(value)


if __name__ == "__main__":
    print(defaults_file(), end="")
