"""The tutorial learning in a process of its own, for the simulator node: one message an outer step.

Nothing at the top of this module imports JAX: the node shares the message type.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from dsg_ros.worker.channel import Channel


@dataclass(frozen=True)
class TutorialStep:
    """The estimate before outer step ``number``: ``poses`` (6, 7) and ``voxels`` (6, 3) in the map, and its loss."""

    number: int
    loss: float
    poses: NDArray[np.float64]
    voxels: NDArray[np.float64]


def steps(outer_steps: int) -> Iterator[TutorialStep]:
    """Learn as the tutorial does: gradient descent inside and outside."""
    from dsg_ros.experiments import hero

    for number, progress in enumerate(
        hero.learn(hero.build_hybrid_graph(), "gradient_descent", "gradient_descent", outer_steps)
    ):
        state = progress.state
        yield TutorialStep(number, progress.loss, np.array(state.poses), np.array(state.voxels))


def main(descriptor: int, outer_steps: int) -> None:
    """Send every step over the socket with this file descriptor; the reader sets the pace."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(Connection(descriptor))
    try:
        for step in steps(outer_steps):
            channel.send(step)
    except (BrokenPipeError, ConnectionResetError):
        raise SystemExit(0) from None  # nobody watches any more
