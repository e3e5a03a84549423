"""A recorded run, scored against relations between its poses that were verified by hand."""

from __future__ import annotations

import importlib.util
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dsg_ros import config, poses
from dsg_ros.interface import RunResult
from dsg_ros.io.logs import frames, open_log
from dsg_ros.pipeline import Slam

SCANS = 1500


@pytest.fixture(scope="module")
def relations_error(shared: Path) -> ModuleType:
    """The scoring program beside the recordings (Kuemmerle et al., 2009)."""
    path = shared / "tools" / "relations_error.py"
    if not path.is_file():
        pytest.skip(f"the scoring program is not on this machine ({path})")
    spec = importlib.util.spec_from_file_location("relations_error", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recording(shared: Path, name: str) -> Path:
    path = shared / "data" / "relations_benchmark" / name
    if not path.is_file():
        pytest.skip(f"the recording is not on this machine ({path})")
    return path


@pytest.fixture(scope="module")
def intel(shared: Path) -> RunResult:
    """The first minutes of the Intel Research Lab."""
    settings = config.Slam()
    slam = Slam(settings)
    for frame in islice(frames(open_log(recording(shared, "intel.clf.bz2")), settings.input), SCANS):
        slam.process(frame)
    return slam.finish()


def scored(trajectory: np.ndarray, run: RunResult, relations: Path, scorer: ModuleType) -> dict[str, float]:
    """Mean errors over the relations between stamps of the run."""
    order = np.argsort(run.stamps, kind="stable")
    yaw = np.unwrap(poses.yaw(trajectory)[order])
    rows = np.column_stack([run.stamps[order] / 1e9, trajectory[order, :2], yaw])
    return scorer.score(rows, np.loadtxt(relations, usecols=range(8)))


def test_intel_agrees_with_the_verified_relations(intel: RunResult, shared: Path, relations_error: ModuleType) -> None:
    relations = recording(shared, "intel.relations")
    assert len(intel.stamps) == SCANS
    found = scored(intel.trajectory, intel, relations, relations_error)
    assert found["relations"] > 50
    assert found["trans_mean_m"] < 0.03
    assert found["rot_mean_deg"] < 0.4
    # These relations are short; it is in heading that the odometry alone is far from that.
    assert scored(intel.odometry, intel, relations, relations_error)["rot_mean_deg"] > 3 * found["rot_mean_deg"]
    assert scored(intel.live, intel, relations, relations_error)["trans_mean_m"] < 0.03


def test_intel_reveals_its_odometry(intel: RunResult) -> None:
    """Over the whole run, its wheels miss a steady 0.057 rad of turn per metre driven."""
    found = {parameter.name: parameter for parameter in intel.parameters}
    turn = found["odometry.turn_per_metre"]
    assert turn.status == "learned"
    assert abs(turn.value - 0.0574) < 0.01
    assert turn.sigma < 0.005
