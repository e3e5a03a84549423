"""A node that is to start from a file that is damaged, of another version or edited by hand says why it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dds import Graph, NodeProgram, wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from dsg_ros.interface import Parameter
from dsg_ros.io.checkpoint import MANIFEST
from dsg_ros.io.learned import write_learned
from dsg_ros.io.map_folder import CHECKPOINT
from dsg_ros.processes import free_domain

NODE = ["-m", "dsg_ros", "node"]


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph(free_domain())
    yield graph
    graph.close()


def not_configured(graph: Graph, folder: Path, words: str, **parameters: object) -> None:
    with NodeProgram(NODE, folder / "out", graph.context.get_domain_id(), autostart="false", **parameters) as node:
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        assert not graph.call("/hero/change_state", ChangeState, request).success
        wait_until(lambda: words in node.text, "the reason", details=lambda: node.text)
        assert "Traceback" not in node.text
        assert node.interrupt() == 0


def test_learned_parameters_of_another_version(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "learned.yaml").write_text("format_version: 99\nparameters: []\n")
    not_configured(graph, tmp_path, "format version 99", **{"learning.start": tmp_path / "learned.yaml"})


def test_learned_parameters_edited_beyond_their_bounds(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "learned.yaml"
    write_learned(path, [Parameter("odometry.scale", 1e9, 0.01, "ratio", "learned")], {})
    domain = graph.context.get_domain_id()
    with NodeProgram(NODE, tmp_path / "out", domain, **{"learning.start": path}) as node:
        node.wait(lambda s: s["state"] == "failed", "a node that gives up")
        assert "odometry.scale = 1000000000.0 ratio is outside" in node.text
        assert node.interrupt() == 0


@pytest.mark.parametrize(
    "manifest",
    ['{"format": "dsg_ros checkpoint", "format_version": 99}', '{"format": "dsg_ros', "[]", "\ufffd", '{"format": 7}'],
)
def test_checkpoints_of_another_version_or_edited(graph: Graph, tmp_path: Path, manifest: str) -> None:
    folder = tmp_path / "map"
    (folder / CHECKPOINT).mkdir(parents=True)
    (folder / CHECKPOINT / MANIFEST).write_text(manifest)
    not_configured(graph, tmp_path, "not configured: ", map_folder=folder, resume="true")
