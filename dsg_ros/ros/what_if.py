"""``~/what_if``: a question of what a change of one parameter would do; ``~/what_if_result``: the worker's answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dsg_ros.effect import Effect
from dsg_ros.ros import convert
from dsg_ros.ros.inputs import Account, Refused
from dsg_ros.ros.output import Output, World
from dsg_ros.ros.qos import OVERRIDING

MOST_WAITING = 10
"""Questions that wait for the worker; it maps in between, so others are refused."""

MOST_CHARACTERS = 100
"""Of a parameter's name, and of a change."""


class WhatIfOutput(Output):
    """Answers in the order of the questions, latched: one status with the answer in words and its figures.

    A question that is refused gets a status of level ERROR with the reason.  While the node is not active nothing is
    answered.
    """

    topic, message = "~/what_if_result", DiagnosticArray
    qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

    def __init__(self, node: LifecycleNode, world: World) -> None:
        super().__init__(node, world)
        self._name = node.get_fully_qualified_name()
        self._waiting = 0
        self._lock = threading.Lock()
        self.account = Account("what_if", self._ask, world.say)
        self._questions = node.create_subscription(
            KeyValue, "~/what_if", self.account, MOST_WAITING, qos_overriding_options=OVERRIDING
        )

    def destroy(self) -> None:
        self._node.destroy_subscription(self._questions)
        super().destroy()

    def _ask(self, question: KeyValue) -> None:
        if not self._publisher.is_activated:
            raise Refused("not_active", "the node is not active")
        if max(len(question.key), len(question.value)) > MOST_CHARACTERS:
            short = KeyValue(key=question.key[:MOST_CHARACTERS], value=question.value[:MOST_CHARACTERS])
            self._refuse(short, f"the name or the change has over {MOST_CHARACTERS} characters")
            return
        with self._lock:
            busy = self._waiting >= MOST_WAITING
            self._waiting += not busy
        if busy:
            self._refuse(question, f"{MOST_WAITING} questions are waiting already; ask again later")
            return
        self._world.ask_what_if(question.key, question.value).add_done_callback(partial(self._answer, question))

    def _answer(self, question: KeyValue, done: Future[Effect]) -> None:
        """Called on the thread that reads from the worker."""
        with self._lock:
            self._waiting -= 1
        error = done.exception()
        if error is not None:
            self._refuse(question, str(error))
            return
        effect = done.result()
        try:
            self._tell(question, DiagnosticStatus.OK, effect.sentence, effect.figures())
        except Exception as fault:  # noqa: BLE001 - every question is answered, and the thread that reads lives on
            self._refuse(question, f"the answer cannot be told: {fault!r}")

    def _refuse(self, question: KeyValue, why: str) -> None:
        self._tell(question, DiagnosticStatus.ERROR, why, {})

    def _tell(self, question: KeyValue, level: bytes, text: str, figures: Mapping[str, Any]) -> None:
        values = {"asked_parameter": question.key, "asked_change": question.value}
        values |= {name: _text(value) for name, value in figures.items()}
        status = DiagnosticStatus(level=level, name=f"{self._name}: what_if", hardware_id=self._name, message=text)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        self._publisher.publish(DiagnosticArray(header=convert.header(self._world.now(), ""), status=[status]))


def _text(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)
