"""Transitions of a lifecycle node whose failures are told."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import TypeVar

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

Node = TypeVar("Node", bound=LifecycleNode)
Transition = Callable[[Node, LifecycleState], TransitionCallbackReturn]


def told(transition: Transition[Node]) -> Transition[Node]:
    """A transition whose exceptions are logged: rclpy turns them into an ERROR result without a word."""

    @functools.wraps(transition)
    def run(self: Node, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception:  # noqa: BLE001 - whatever it was, the operator must learn of it
            self.get_logger().error(f"{transition.__name__} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return run
