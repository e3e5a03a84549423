"""Transitions of a lifecycle node: those that fail are told, those that are not possible refused."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import TypeVar

from lifecycle_msgs.srv import ChangeState
from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

Node = TypeVar("Node", bound=LifecycleNode)
Change = Callable[[ChangeState.Request, ChangeState.Response], ChangeState.Response]
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


def primary_state(node: LifecycleNode) -> str:
    """Its primary state: unconfigured, inactive, active or finalized; between them that of the transition."""
    return str(node._state_machine.current_state[1])


def guard(node: LifecycleNode) -> None:
    """Have `~/change_state` refuse what the state does not have: in rclpy, asking an active node to configure ends it
    with an exception out of its executor.
    """
    service = node._service_change_state
    change: Change = service.callback

    def guarded(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        before = primary_state(node)
        try:
            return change(request, response)
        except RCLError as error:
            possible = ", ".join(
                f"{label} ({number})" for number, label, *_ in node._state_machine.available_transitions
            )
            wish = f"{request.transition.label or 'transition'} ({request.transition.id})"
            node.get_logger().warning(f"{wish} refused while {before}: possible are {possible or 'none'} ({error})")
            response.success = False
            return response

    service.callback = guarded
