"""config/sros2_policy.xml allows what the node does, and nothing else."""

from __future__ import annotations

from xml.etree import ElementTree

from dds import Graph, NodeProgram, wait_until
from security_policy import POLICY, allowed, used

from dsg_ros.processes import free_domain

LOCALISING = {"/initialpose"}
"""Only a node that localises listens to it: see test_localisation_node."""


PARAMETERS = {"use_sim_time": "true", "learning.teacher": "both"}
"""With which it listens to all the others."""


def test_the_node_does_what_its_policy_allows_and_nothing_else(tmp_path, fake_node):
    domain = free_domain()
    graph = Graph(domain)
    expected = allowed()
    expected["subscribe"] -= LOCALISING
    with NodeProgram(fake_node, tmp_path / "out", domain, **PARAMETERS) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        wait_until(lambda: used(graph) == expected, "graph as the policy has it", 30.0, lambda: difference(graph))
    graph.close()


def difference(graph: Graph) -> str:
    may, does = allowed(), used(graph)
    names = {right: sorted(may.get(right, set()) ^ does.get(right, set())) for right in {*may, *does}}
    return f"in one of policy and node alone: { {right: different for right, different in names.items() if different} }"


def test_the_policy_has_the_form_that_sros2_reads():
    """As its schema (sros2/policy/schemas/policy.xsd, 0.13) says; each name once."""
    policy = ElementTree.parse(POLICY).getroot()
    assert (policy.tag, policy.attrib) == ("policy", {"version": "0.2.0"})
    assert {element.tag for element in policy.findall("./*")} == {"enclaves"}
    (profile,) = policy.findall("enclaves/enclave/profiles/profile")
    assert profile.keys() == ["ns", "node"]
    rights = {"topics": {"publish", "subscribe"}, "services": {"reply", "request"}}
    for group in profile:
        assert set(group.keys()) <= rights[group.tag]
        names = [entry.text for entry in group]
        assert {entry.tag for entry in group} == {group.tag.removesuffix("s")}
        assert len(names) == len(set(names))
