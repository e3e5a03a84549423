"""Logs of simulated robots, shared by the tests of teams."""

from __future__ import annotations

from pathlib import Path

import pytest
from carmen_logs import write_log


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three drives of one robot."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    return [str(write_log(folder / f"day_{i}.clf", laps=1.0 + 0.25 * i, seed=i, begin=1e3 + 1e4 * i)) for i in range(3)]
