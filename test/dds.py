"""Helpers for tests over real DDS: processes under test, and a listener in this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

PATIENCE = 150.0
"""Longest wait [s] for anything: a busy machine compiles slowly."""


def wait_until(
    condition: Callable[[], Any], what: str, timeout: float = PATIENCE, details: Callable[[], str] = str
) -> Any:
    """The first truthy value of ``condition``; a failed test with ``details`` when there is none in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {timeout:.0f} s\n{details()}")


class Program:
    """A Python program with its output in a file, ended at the latest with the test."""

    def __init__(
        self, arguments: list[str], output: Path, domain: int, environment: Mapping[str, str] = os.environ
    ) -> None:
        self.output = output
        path = os.pathsep.join(p for p in sys.path if p)
        variables = {**environment, "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": path}
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def interrupt(self, number: int = signal.SIGINT, timeout: float = PATIENCE) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


class NodeProgram(Program):
    """A hero_node that keeps status.json in ``folder``."""

    def __init__(self, program: list[str], folder: Path, domain: int, **parameters: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        given = {"output_folder": folder, **parameters}
        words = [word for name, value in given.items() for word in ("-p", f"{name}:={value}")]
        super().__init__([*program, "--ros-args", *words], folder.parent / f"{folder.name}.log", domain)

    def status(self) -> dict[str, Any]:
        """What it last wrote about itself."""
        try:
            return json.loads((self.folder / "status.json").read_text())
        except FileNotFoundError:
            return {}

    def wait(self, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """The first status that fulfils ``condition``."""

        def look() -> dict[str, Any] | None:
            assert self.process.poll() is None, f"the node ended with {self.process.poll()}\n{self.text}"
            status = self.status()
            return status if status and condition(status) else None

        return wait_until(look, what, details=lambda: f"{json.dumps(self.status(), indent=1)}\n{self.text[-6000:]}")

    def served(self, service: str, calls: int = 1) -> str:
        """What came of the newest of ``calls`` of a service that the worker was asked for, once it has ended."""

        def ended(status: dict[str, Any]) -> bool:
            told = status["services"].get(service, {"done": 0, "failed": 0})
            return told["done"] + told["failed"] >= calls

        return str(self.wait(ended, f"the end of {service}")["services"][service]["latest"])


class Graph:
    """This process's node on a domain: records what it hears, publishes what the test says."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("witness", context=self.context)
        self.heard: defaultdict[str, list[tuple[float, Any]]] = defaultdict(list)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def listen(self, topic: str, message: type, qos: Any) -> None:
        """Record messages with the wall time they came at."""
        heard = self.heard[topic]
        self.node.create_subscription(message, topic, lambda m: heard.append((time.monotonic(), m)), qos)

    def messages(self, topic: str) -> list[Any]:
        """What came on ``topic`` so far."""
        return [message for _, message in list(self.heard[topic])]

    def call(self, service: str, kind: type, request: Any) -> Any:
        """The answer of a service."""
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(60.0), service
        future = client.call_async(request)
        wait_until(future.done, f"answer of {service}")
        return future.result()

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return
