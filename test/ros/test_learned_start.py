"""A node that is to start from learned parameters says why it cannot."""

from __future__ import annotations

from pathlib import Path

from dds import Graph, NodeProgram, wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from dsg_ros.processes import free_domain

NODE = ["-m", "dsg_ros", "node"]


def test_a_node_whose_learned_parameters_cannot_be_read_does_not_configure(tmp_path: Path) -> None:
    domain = free_domain()
    graph = Graph(domain)
    (tmp_path / "learned.yaml").write_text("format_version: 99\nparameters: []\n")
    parameters = {"learning.start": tmp_path / "learned.yaml", "autostart": "false"}
    with NodeProgram(NODE, tmp_path / "out", domain, **parameters) as node:
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        assert not graph.call("/hero/change_state", ChangeState, request).success
        wait_until(lambda: "format version 99" in node.text, "the reason", details=lambda: node.text)
