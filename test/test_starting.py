"""A cold start: what a process beside it compiles is fetched, and scans are mapped before all of it is there."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dsg_ros import config, starting
from dsg_ros.aside import Aside
from dsg_ros.core import native
from dsg_ros.learning.calibration import Calibration
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.starting import GRAPH, GRID, LEARNING, MAPPING, SEARCH, WINDOW

SETTINGS = config.Slam()


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had been compiled, with a core to spare."""
    monkeypatch.setattr(native, "cold", lambda: True)
    monkeypatch.setattr(starting, "spare_core", lambda: True)
    monkeypatch.setattr(starting, "_compiled_for", set())


def compile_all(early: bool) -> starting.Beside | None:
    mapper = LocalMapper(SETTINGS.registration, SETTINGS.input, planar=True)
    return starting.compile_all(SETTINGS, mapper, Calibration(SETTINGS), planar=True, early=early)


@pytest.mark.usefixtures("cold")
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

    monkeypatch.setattr(starting, "Aside", Helper)
    with caplog.at_level(logging.INFO, "dsg_ros"):
        assert compile_all(early=False) is None
        assert compile_all(early=False) is None, "the second time all is there"
    assert set(asked) == {"dsg_ros.starting:compile_beside"}
    told = [r.getMessage().split(": ")[1] for r in caplog.records if " of 6: " in r.getMessage()]
    assert told[:6] == [MAPPING, GRID, LEARNING, WINDOW, SEARCH, GRAPH]
    assert told[6:] == [MAPPING, WINDOW, SEARCH, GRID, GRAPH, LEARNING]
    assert caplog.text.count("everything is compiled") == 2


@pytest.mark.usefixtures("cold")
def test_scans_can_be_mapped_before_everything_is_compiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow = threading.Event()

    class Slow(Aside):
        def __next__(self) -> object:
            name = super().__next__()
            if name == GRAPH:
                slow.wait(60.0)
            return name

    monkeypatch.setattr(starting, "Aside", Slow)
    with caplog.at_level(logging.INFO, "dsg_ros"):
        beside = compile_all(early=True)
        assert beside is not None
        beside.fetch()
        assert beside.left == [GRAPH, LEARNING]
        assert f"still compiled beside them: {GRAPH}, {LEARNING}" in caplog.text
        slow.set()
        beside.fetch(GRAPH)
        assert GRAPH not in beside.left
        beside.fetch(LEARNING)
    assert beside.left == []


DRIVE = """
import sys, threading
sys.path.insert(0, sys.argv[1])
import numpy as np
import worlds
from dsg_ros import config, starting
from dsg_ros.core import native
from dsg_ros.core.compilation import CompileCounter, enable_cache
from dsg_ros.pipeline import Slam

allowed = threading.Event()

class Slow(starting.Aside):
    def __next__(self):
        name = super().__next__()
        if name == starting.GRAPH:
            allowed.wait(100.0)
        return name

enable_cache()
native.cold = starting.spare_core = lambda: True
starting.Aside = Slow
truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1.25))
frames = list(worlds.frames(worlds.block(), truth, worlds.biased(truth, scale=1.03, turn_per_metre=0.02)))
half = len(frames) // 2
learning = sys.argv[2] == "learning"
settings = config.replace(config.Slam(), {"learning.enabled": learning, "loops.solve_after": 3})

def results(begin):
    slam = Slam(settings)
    begin(slam)
    with CompileCounter() as counter:
        for frame in frames[:half]:
            slam.process(frame)
            slam.take_over()
    print(slam.preparing, counter.count, slam.result().counts["keyframes"])
    allowed.set()
    for frame in frames[half:]:
        slam.process(frame)
    result = slam.finish()
    print(slam.preparing, int(result.metrics["compilations_after_warm_up"]), result.counts["graph_solves"])
    return result

early = results(lambda slam: slam.get_going(True))
warm = results(lambda slam: slam.warm_up(True))
print(np.array_equal(early.trajectory, warm.trajectory), bool(early.learning), bool(warm.learning))
"""


@pytest.mark.parametrize("learning", [False, True])
def test_a_map_that_was_begun_early_is_the_same(learning: bool) -> None:
    """Nothing compiles in the first half of the drive, where a fetch counts too, though the graph's solvers and
    learning are withheld; then loops are closed and, later than it would be, it learns.
    """
    word = "learning" if learning else "still"
    command = [sys.executable, "-c", DRIVE, str(Path(__file__).parent), word]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    early, ended, warm, ended_too, same = (line.split() for line in done.stdout.splitlines())
    assert early[:2] == ["True", "0"]
    assert warm[:2] == ["False", "0"]
    assert int(early[2]) > 2 * SETTINGS.learning.every_keyframes
    for preparing, compilations, solves in (ended, ended_too):
        assert (preparing, compilations) == ("False", "0")
        assert int(solves) > 0
    assert same[1:] == [str(learning)] * 2
    if not learning:  # what is learned later is used later
        assert same[0] == "True"
