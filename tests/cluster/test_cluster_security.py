"""The security pages: each rule names a test that exists, or the reason why there is none."""

from __future__ import annotations

import ast
import ipaddress
import re
from functools import lru_cache
from pathlib import Path

import cluster_rules as rules
import pytest

ROOT = rules.CLUSTER.parent
PAGES = ("cluster/SECURITY.md", "docs/threat_model.md")
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@lru_cache
def _functions(path: Path) -> frozenset[str]:
    return frozenset(one.name for one in ast.walk(ast.parse(path.read_text())) if isinstance(one, ast.FunctionDef))


def statements(text: str) -> list[str]:
    """The numbered rules and the points of a page, each with what is indented below it."""
    return re.findall(r"^(?:\d+\.|-) \*\*.+?(?=^(?:\d+\.|-) \*\*|^#|\Z)", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_each_statement_names_a_test_that_exists_or_a_reason(page: str) -> None:
    text = (ROOT / page).read_text()
    found = statements(text)
    assert len(found) >= 10
    unheld = [one.splitlines()[0] for one in found if not _NAMED.search(one) and "(Reason: " not in one]
    assert unheld == []
    missing = [f"{file}::{name}" for file, name in _NAMED.findall(text) if name not in _functions(ROOT / file)]
    assert missing == []


def test_the_metadata_address_is_closed() -> None:
    policies = rules.documents((rules.CLUSTER / "kuberay/network-policy.yaml").read_text())
    open_to_all = [
        block
        for policy in policies
        for rule in policy["spec"].get("egress", [])
        for one in rule.get("to", [])
        if (block := one.get("ipBlock")) and block["cidr"] == "0.0.0.0/0"
    ]
    address = ipaddress.ip_address("169.254.169.254")
    assert open_to_all
    for block in open_to_all:
        assert any(address in ipaddress.ip_network(one) for one in block.get("except", []))
    (aws,) = rules.documents((rules.CLUSTER / "vm/aws.yaml").read_text())
    for name, node in aws["available_node_types"].items():
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}, name
