"""Nothing in here needs more than the wheels, and nothing leaves this machine."""

from __future__ import annotations

import warnings

# The wheels' type support pulls in a parser that imports what Python 3.11 deprecates: not ours to be told about.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import rosidl_generator_py  # noqa: F401

from collections.abc import Iterator
from pathlib import Path

import pytest
from dds import Graph, NodeProgram

from dsg_ros.processes import free_domain


@pytest.fixture(scope="session")
def fake_node() -> list[str]:
    """The program of a node with the small pipeline."""
    return [str(Path(__file__).parent / "fake_node.py")]


@pytest.fixture(scope="module")
def domain() -> int:
    """A ROS domain nobody else on this machine uses."""
    return free_domain()


@pytest.fixture(scope="module")
def graph(domain) -> Iterator[Graph]:
    """This process's ear and mouth on the domain."""
    graph = Graph(domain)
    yield graph
    graph.close()


@pytest.fixture(scope="module")
def node(domain, fake_node, tmp_path_factory) -> Iterator[NodeProgram]:
    """A node with the small pipeline, active, fed by the test."""
    folder = tmp_path_factory.mktemp("node") / "out"
    with NodeProgram(
        fake_node, folder, domain, **{"qos.odom.reliability": "reliable", "qos.points.reliability": "reliable"}
    ) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        yield node
