"""Quality of service of every topic of the node, as the standard parameters ``qos_overrides`` have it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, qos_policy_name_from_kind
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
MOMENT = 0.5  # s
_CHOICES = {
    "reliability": ("reliable", "best_effort", "system_default"),
    "durability": ("volatile", "transient_local", "system_default"),
    "history": ("keep_last", "system_default"),  # no queue of the node's is without a bound
}
_LEVELS = {"reliability": ("best_effort", "reliable"), "durability": ("volatile", "transient_local")}
"""From what asks for, or offers, least."""

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


def later(node: Node, act: Callable[[], None]) -> None:
    """Have the executor ``act`` in a moment: an event may come before the graph knows the other side."""

    def once() -> None:
        node.destroy_timer(timer)
        act()

    timer = node.create_timer(MOMENT, once, clock=Clock(clock_type=ClockType.STEADY_TIME))


def incompatible(node: Node, topic: str, ours: QoSProfile, kind: QoSPolicyKind, subscribed: bool) -> str:
    """What an event of incompatible quality of service means: both sides' settings of the policy, and what to set.

    ``ours`` is the profile of this node's subscription of ``topic``, if it is ``subscribed`` to, else of its publisher.
    """
    policy, entity = qos_policy_name_from_kind(kind).lower(), "subscription" if subscribed else "publisher"
    mine, levels = _value(ours, policy), _LEVELS.get(policy, ())
    we, they, other = ("asks for", "offers", "publisher") if subscribed else ("offers", "asks for", "subscription")
    infos = node.get_publishers_info_by_topic(topic) if subscribed else node.get_subscriptions_info_by_topic(topic)
    found = {(f"{i.node_namespace.rstrip('/')}/{i.node_name}", _value(i.qos_profile, policy)) for i in infos}
    clashing = sorted(f"{name} {they} {value}" for name, value in found if _clash(levels, mine, value, subscribed))
    who = ", ".join(clashing) or f"a {other} {they} something else"
    said = f"{topic}: incompatible {policy}: this node {we} {mine}, {who}; nothing goes from one to the other. "
    if not levels:
        return f"{said}Change the {other}"
    setting, change = f"{PREFIX}{topic}.{entity}.{policy}", "offer" if subscribed else "ask for"
    return f"{said}Set {setting} to {levels[0 if subscribed else -1]}, or have the {other} {change} {mine}"


def _value(profile: QoSProfile, policy: str) -> str:
    value = getattr(profile, policy, "unknown")
    return str(getattr(value, "name", value)).lower()


def _clash(levels: Sequence[str], mine: str, theirs: str, subscribed: bool) -> bool:
    """Whether what is asked for is more than what is offered."""
    if mine not in levels or theirs not in levels:
        return False
    asked, offered = (mine, theirs) if subscribed else (theirs, mine)
    return levels.index(asked) > levels.index(offered)


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
