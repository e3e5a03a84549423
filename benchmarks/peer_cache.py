"""What a slow peer took, kept on disk: its figures change only with its version and the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import cores, machine, version
from dsg_ros.errors import UserError
from dsg_ros.io import atomic


class PeerCache:
    """Results by name, for this GTSAM on this machine with this many cores; ``fresh`` measures all of them anew."""

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

    def get(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The kept result, or ``measure``'s, which is then kept."""
        key = self._prefix + name
        if key not in self._stored or (self._fresh and key not in self._measured):
            self._stored[key] = measure()
            self._measured.add(key)
            atomic.write_bytes(self._path, json.dumps(self._stored).encode())
        found: dict[str, Any] = self._stored[key]
        return found
