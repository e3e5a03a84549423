"""config/sros2_policy.xml and the graph of a running node, in the same words."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from dds import Graph, wait_until

POLICY = Path(__file__).parents[1] / "config" / "sros2_policy.xml"
Rights = dict[str, set[str]]
"""Full names by what is done with them: publish, subscribe (topics), reply, request (services)."""


def allowed() -> Rights:
    """What the policy lets the node `/hero` do; names are completed as sros2 does."""
    (profile,) = ElementTree.parse(POLICY).getroot().findall("enclaves/enclave[@path='/hero']/profiles/profile")
    namespace, node = profile.get("ns", "").rstrip("/"), profile.get("node", "")
    rights: Rights = defaultdict(set)
    for group in profile:
        for name in (entry.text or "" for entry in group):
            relative = f"{namespace}/{node}{name[1:]}" if name.startswith("~") else f"{namespace}/{name}"
            for right, verdict in group.attrib.items():
                assert verdict == "ALLOW"
                rights[right].add(name if name.startswith("/") else relative)
    return rights


def used(graph: Graph) -> Rights:
    """What the running node `/hero` has in the ROS graph."""
    questions = {
        "publish": graph.node.get_publisher_names_and_types_by_node,
        "subscribe": graph.node.get_subscriber_names_and_types_by_node,
        "reply": graph.node.get_service_names_and_types_by_node,
        "request": graph.node.get_client_names_and_types_by_node,
    }
    wait_until(lambda: ("hero", "/") in graph.node.get_node_names_and_namespaces(), "node /hero in the graph")
    found = {right: {name for name, _ in ask("hero", "/")} for right, ask in questions.items()}
    return {right: names for right, names in found.items() if names}
