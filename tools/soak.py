"""Memory, missed scans and errors of the node while a recording is played to it again and again.

    python -m dsg_ros convert LOG BAG
    python tools/soak.py BAG [LOOPS [RATE]]

plays BAG in a loop, 10 times and 20 times faster than recorded unless told otherwise: the clock jumps back at each end,
and the node starts a new map (input.on_clock_jump: reset).  After each loop it prints what became of its scans and the
memory of the node and of its worker; at the end what became of all scans.  The exit code is 1 if memory grew by more
than 5 % after the second loop, a scan was missed (not processed, and not of a map that was reset before its turn came),
more than 1 % of a loop's scans were of such a map, or the log holds a traceback.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsg_ros.processes import Follower, Process, free_domain, isolated, node_arguments

START_UP, LOOP, DRAIN, ENDING = 900.0, 7200.0, 120.0, 120.0
"""Longest waits [s]."""
GROWTH = 0.05
"""Of the memory after the second loop, at most."""
RESET = 0.01
"""Of a loop's scans, those that still waited when their map was forgotten, at most."""
QUEUE = 1000
"""Scans that may wait while the worker builds the next map."""


@dataclass(frozen=True)
class Loop:
    """What a loop came to: ``memory`` [bytes] at most, and of its scans those received, processed and dropped."""

    memory: int
    received: int
    processed: int
    reset: int

    @property
    def forgotten(self) -> float:
        """Share of the scans that still waited when their map was."""
        return self.reset / max(1, self.received)


def main(bag: Path, loops: int, rate: float) -> int:
    """Play ``bag``; the exit code."""
    with tempfile.TemporaryDirectory(prefix="dsg_ros-soak-") as folder:
        return _soak(bag, loops, rate, Path(folder))


def _soak(bag: Path, loops: int, rate: float, folder: Path) -> int:
    environment = isolated(free_domain())
    parameters = {
        "use_sim_time": "true", "output_folder": str(folder), "queue": str(QUEUE), "input.on_clock_jump": "reset",
        "qos.odom.reliability": "reliable", "qos.scan.reliability": "reliable", "qos.scan.depth": "1000",
    }  # fmt: skip
    with Process("node", node_arguments(parameters), folder / "node.log", environment) as node:
        follower = Follower(node, folder / "status.json")
        follower.wait("be ready", START_UP, lambda status: status.get("state") in ("ready", "running"))
        played = ["play", str(bag), "--rate", str(rate), "--loop", "--json"]
        with Process("player", played, folder / "player.log", environment) as player:
            told: list[Loop] = []
            for number in range(1, loops + 1):
                told.append(_loop(follower, number, loops, told))
            player.interrupt()
            player.wait(ENDING)
            sent = player.last_json()["sent"]["/scan"]
        follower.wait("work off the scans", DRAIN, lambda status: status["scans"]["waiting"] == 0, fresh=True)
        status, text = follower.read(), node.output.read_text(errors="replace")
    return _judge(status, sent, told, text.count("Traceback"))


def _loop(follower: Follower, number: int, loops: int, before: Sequence[Loop]) -> Loop:
    """Loop ``number``, when the next one has begun; ``before`` are those that are over."""
    largest = 0

    def over(status: dict[str, Any]) -> bool:
        nonlocal largest
        largest = max(largest, sum(status["memory_bytes"].values()))
        return bool(status["clock_jumps"] >= number)

    follower.wait(f"hear loop {number} out", LOOP, over)
    status = follower.read()
    told = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in status["memory_bytes"].items())
    scans = status["scans"]
    loop = Loop(
        largest,
        scans["received"] - sum(each.received for each in before),
        scans["processed"] - sum(each.processed for each in before),
        scans["dropped"].get("reset", 0) - sum(each.reset for each in before),
    )
    print(
        f"loop {number:2d} of {loops}: {loop.received} scans, {loop.processed} processed, {loop.reset} forgotten; "
        f"at most {largest / 2**20:.0f} MiB; now {told}",
        flush=True,
    )
    return loop


def _judge(status: dict[str, Any], sent: int, loops: Sequence[Loop], tracebacks: int) -> int:
    scans, memory = status["scans"], [loop.memory for loop in loops]
    forgotten = max(loop.forgotten for loop in loops)
    missed = sent - scans["processed"] - scans["dropped"].get("reset", 0)
    growth = max(memory[2:], default=memory[-1]) / memory[min(1, len(memory) - 1)] - 1.0
    print(f"{sent} scans sent, {scans['processed']} processed, {scans['lost']} lost, dropped: {scans['dropped'] or 0}")
    print(f"{missed} missed; memory grew by {growth:.1%} after the second loop; {tracebacks} tracebacks")
    print(f"at most {forgotten:.1%} of a loop's scans still waited when their map was forgotten")
    print(f"worker: {status['worker']['restarts']} restarts; callbacks: p99 {status['callbacks']['p99_ms']} ms")
    return 1 if missed or growth > GROWTH or forgotten > RESET or tracebacks else 0


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    sys.exit(
        main(
            Path(sys.argv[1]),
            int(sys.argv[2]) if len(sys.argv) > 2 else 10,
            float(sys.argv[3]) if len(sys.argv) > 3 else 20.0,
        )
    )
