"""What tools/soak.py calls a failure."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def soak(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak", root / "tools" / "soak.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


def status(processed: int, reset: int) -> dict[str, Any]:
    return {
        "scans": {"processed": processed, "lost": 0, "dropped": {"reset": reset} if reset else {}},
        "worker": {"restarts": 0},
        "callbacks": {"p99_ms": 1.0},
    }


@pytest.mark.parametrize(
    ("resets", "sent", "memory", "tracebacks", "failed"),
    [
        ((0, 0, 0), 3000, 100, 0, False),
        ((9, 9, 9), 3000, 100, 0, False),
        ((0, 11, 0), 3000, 100, 0, True),
        ((0, 0, 0), 3001, 100, 0, True),
        ((0, 0, 0), 3000, 106, 0, True),
        ((0, 0, 0), 3000, 100, 1, True),
    ],
)
def test_what_fails(
    soak: ModuleType, resets: tuple[int, ...], sent: int, memory: int, tracebacks: int, failed: bool
) -> None:
    loops = [soak.Loop(size, 1000, 1000 - reset, reset) for size, reset in zip((90, 100, memory), resets, strict=True)]
    told = status(3000 - sum(resets), sum(resets))
    assert soak._judge(told, sent, loops, tracebacks) == int(failed)
