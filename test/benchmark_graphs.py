"""Graphs of the literature, for tests of the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks import graphs
from dsg_ros.errors import UserError
from dsg_ros.io.posegraph import PoseGraph


def named(name: str) -> PoseGraph:
    """A graph of the literature; the test is skipped where its file is absent."""
    try:
        return graphs.load(name)
    except UserError as error:
        pytest.skip(str(error))
