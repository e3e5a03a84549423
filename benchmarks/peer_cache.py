"""What a slow peer took, kept on disk: its figures change only with its version, the machine and the graph.

A machine is not as fast every day.  A peer that takes less than `SHORT` is therefore measured in the same run as ours;
of a longer one the file also says how long a fixed loop (`measuring.reference_loop`) took at that time.  The reader is
told that and what it takes now: if the two differ, so do the machines under the figures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import cores, machine, reference_loop, stopwatch, version
from dsg_ros.errors import UserError
from dsg_ros.io import atomic

SHORT = 20.0
"""A measurement shorter than this [s] is made in every run, for its times to be those of the same day."""
UNLIKE = 0.1
"""How far the reference loop's times may be apart, relative to the shorter, until a comparison is called disturbed."""


@dataclass(frozen=True)
class Kept:
    """A ``result``, the ``reference`` loop's milliseconds when it was measured, and ``now``, in this run."""

    result: dict[str, Any]
    reference: float
    now: float
    fresh: bool

    @property
    def note(self) -> str:
        """What to tell beside figures of another day; nothing of this run's."""
        if self.fresh:
            return ""
        apart = abs(self.reference - self.now) > UNLIKE * min(self.reference, self.now)
        disturbed = ": DISTURBED, run again with --fresh-peers" if apart else ""
        return f"kept; reference loop {self.reference:.1f} ms then, {self.now:.1f} ms now{disturbed}"

    def measured(self) -> dict[str, Any]:
        """For the JSON file: when the result was measured, by the reference loop."""
        return {"in_this_run": self.fresh, "reference_ms": self.reference, "reference_ms_now": self.now}


class PeerCache:
    """Results by name, for this GTSAM on this machine with this many cores; ``fresh`` measures all of them anew.

    Names hold a digest of the graph (`graphs.digest`): what was measured on another one is not taken for this one's.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self._path = path
        self._fresh = fresh
        self._prefix = f"gtsam {version('gtsam')} | {machine()} | {cores()} used | "
        self._stored: dict[str, Any] = {}
        if path.exists():
            try:
                self._stored = dict(json.loads(path.read_text()))
            except (ValueError, TypeError) as error:
                raise UserError(f"{path}: not what was written there ({error}); remove it") from error
        self._measured: set[str] = set()
        self._now: float | None = None

    def get(self, name: str, measure: Callable[[], dict[str, Any]], timed: bool = True) -> Kept:
        """The kept result, or ``measure``'s, which is then kept.

        ``timed`` says that the result holds times: it is kept from one run to the next only where it takes long.
        """
        key = self._prefix + name
        if key not in self._measured and (self._fresh or not self._may_stay(key, timed)):
            seconds, result = stopwatch(measure)
            self._stored[key] = {"result": result, "seconds": seconds, "reference_ms": self.reference()}
            self._measured.add(key)
            atomic.write_bytes(self._path, json.dumps(self._stored).encode())
        entry = self._stored[key]
        return Kept(entry["result"], entry["reference_ms"], self.reference(), key in self._measured)

    def reference(self) -> float:
        """What the reference loop takes in this run [ms]."""
        if self._now is None:
            self._now = 1e3 * reference_loop()
        return self._now

    def _may_stay(self, key: str, timed: bool) -> bool:
        entry = self._stored.get(key)
        # What does not say how long it took is measured again.
        return isinstance(entry, dict) and "seconds" in entry and not (timed and entry["seconds"] < SHORT)
