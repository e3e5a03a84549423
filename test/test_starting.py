"""A cold start: what a process beside it compiles is fetched."""

from __future__ import annotations

import logging

import pytest

from dsg_ros import config, starting
from dsg_ros.aside import Aside
from dsg_ros.core import native
from dsg_ros.learning.calibration import Calibration
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.starting import GRAPH, GRID, LEARNING, MAPPING, SEARCH, WINDOW

SETTINGS = config.Slam()


@pytest.mark.parametrize("ends", [False, True])
def test_a_cold_start_has_a_process_beside_it(
    ends: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is as good without it: one that is ended from outside costs time alone."""
    asked = []

    class Helper(Aside):
        def __next__(self) -> object:
            asked.append(self._target)
            if ends:
                self.kill()
            return super().__next__()

    monkeypatch.setattr(native, "cold", lambda: True)
    monkeypatch.setattr(starting, "spare_core", lambda: True)
    monkeypatch.setattr(starting, "Aside", Helper)
    mapper = LocalMapper(SETTINGS.registration, SETTINGS.input, planar=True)
    with caplog.at_level(logging.INFO, "dsg_ros"):
        starting.compile_all(SETTINGS, mapper, Calibration(SETTINGS), planar=True)
    assert asked == 3 * ["dsg_ros.starting:compile_beside"]
    told = [r.getMessage().split(", ")[-1] for r in caplog.records if " of 6: " in r.getMessage()]
    ordered = (MAPPING, GRID, LEARNING, WINDOW, SEARCH, GRAPH)
    assert told == [f"{number} of 6: {name}" for number, name in enumerate(ordered, 1)]
