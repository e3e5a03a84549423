"""Settings from a ROS 2 parameter file (``/**: ros__parameters: ...``) and from ``name=value`` on a command line.

One file serves the node and the offline run: the names are those of `dsg_ros.config`, nested or dotted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dsg_ros import config as configuration
from dsg_ros.errors import UserError

Config = TypeVar("Config")

OF_ROS = frozenset({"use_sim_time"})
"""Parameters every ROS node has; they mean nothing to an offline run."""


def apply_file(config: Config, path: Path) -> Config:
    """``config`` with the values of the parameter file at ``path``; `UserError` names the file and what is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: expected a mapping of node names to ros__parameters, as in config/hero.yaml")
    for node, section in content.items():
        if not isinstance(section, dict) or not isinstance(section.get("ros__parameters"), dict):
            raise UserError(f"{path}: {node!r} has no mapping ros__parameters, as config/hero.yaml has under /**")
        values = {name: value for name, value in _flatten(section["ros__parameters"]) if name not in OF_ROS}
        config = _replace(config, values, str(path))
    return config


def apply_assignments(config: Config, assignments: Iterable[str], option: str = "--set") -> Config:
    """``config`` with each ``name=value`` applied, the value read as YAML; `UserError` on what cannot be, under the
    name of the command's ``option``.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"{option} {assignment}: expected name=value, such as keyframes.distance=0.3")
        try:
            values[name.strip()] = yaml.safe_load(text) if text.strip() else ""
        except yaml.YAMLError as error:
            raise UserError(f"{option} {assignment}: the value is not readable: {error}") from error
    return _replace(config, values, option)


def _replace(config: Config, values: dict[str, Any], origin: str) -> Config:
    try:
        replaced: Config = configuration.replace(config, values)
    except configuration.ConfigError as error:
        raise UserError(f"{origin}: {error}") from error
    return replaced


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
