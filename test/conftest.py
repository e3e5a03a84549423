"""Shared by all tests: where things are, and settings that must hold before JAX or rclpy are imported."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Tests measure correctness: the same devices everywhere, and no example refused for the time a busy machine takes.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiled quickly rather than well: most of the time goes into programs that run once, on a few numbers.  Older
# versions may not know these options, and end the process.
if tuple(map(int, version("jaxlib").split(".")[:2])) >= (0, 10):
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
# Nothing that a test publishes may leave this machine, or be heard from another.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
settings.register_profile("dsg_ros", deadline=None)
settings.load_profile("dsg_ros")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded runs beside the project; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"recorded runs are not on this machine ({folder})")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=100, help="mutated messages for each topic, of each way to send them")
    parser.addoption("--kills", type=int, default=2, help="how often a mapping node is killed and goes on")
