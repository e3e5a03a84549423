"""Quality of service of every topic of the node, as the standard parameters ``qos_overrides`` have it."""

from __future__ import annotations

import copy
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from dsg_ros.config import ConfigError
from dsg_ros.throttle import Say

PREFIX = "qos_overrides."
"""Of ``qos_overrides.TOPIC.publisher.POLICY`` and ``qos_overrides.TOPIC.subscription.POLICY``."""

OVERRIDING = QoSOverridingOptions(
    (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
)
"""What rclpy declares of each topic, read-only."""

DEEPEST = 10_000
_CHOICES = {
    "reliability": ("reliable", "best_effort", "system_default"),
    "durability": ("volatile", "transient_local", "system_default"),
    "history": ("keep_last", "system_default"),  # no queue of the node's is without a bound
}
_OF_RCLPY = ("/clock", "/parameter_events", "/rosout")
"""Topics that rclpy itself made before the node's constructor had its say."""


def own(profile: QoSProfile) -> QoSProfile:
    """A copy: rclpy writes the overrides into the profile that it is given."""
    return copy.copy(profile)


def take_overrides(node: Node) -> list[str]:
    """Names of the overrides given at start-up, checked, and left for rclpy to declare where they are used.

    Raises `ConfigError` naming all that no topic could have.
    """
    overrides: dict[str, Any] = dict(node.get_parameters_by_prefix(""))
    given = {
        name: parameter.value
        for name, parameter in overrides.items()
        if name.startswith(PREFIX) and not name.removeprefix(PREFIX).startswith(_OF_RCLPY)
    }
    if problems := [flaw for name, value in given.items() if (flaw := _flaw(name, value))]:
        raise ConfigError("; ".join(problems))
    for name in given:  # declared by whoever could have set them at any time, without effect
        node.undeclare_parameter(name)
    return list(given)


def complain(node: Node, given: list[str], say: Say) -> None:
    """Say which of the ``given`` overrides nothing of an active node uses."""
    for name in given:
        if not node.has_parameter(name):
            topic, entity, _ = name.removeprefix(PREFIX).rsplit(".", 2)
            why = f"the node has no {entity} of {topic!r} (names are whole, as remapped)"
            say("warning", f"{name} has no effect: {why}")


def _flaw(name: str, value: Any) -> str:
    parts = name.removeprefix(PREFIX).rsplit(".", 2)
    if len(parts) != 3 or parts[1] not in ("publisher", "subscription") or not parts[0].startswith("/"):
        return f"{name}: expected {PREFIX}/TOPIC.publisher.POLICY or {PREFIX}/TOPIC.subscription.POLICY"
    if parts[2] == "depth":
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= DEEPEST:
            return f"{name}: {value!r} is not a whole number from 1 to {DEEPEST}"
        return ""
    if parts[2] not in _CHOICES:
        return f"{name}: expected one of the policies depth, {', '.join(_CHOICES)}"
    if value not in _CHOICES[parts[2]]:
        return f"{name}: {value!r} is not one of {', '.join(_CHOICES[parts[2]])}"
    return ""
