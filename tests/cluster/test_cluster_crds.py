"""The KubeRay objects against the CRDs of KubeRay v1.7.0, strictly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cluster_rules as rules
import crd_schema
import pytest


@pytest.fixture(scope="module")
def schemas(schemas_path: Path) -> dict[str, crd_schema.Schema]:
    return {
        "RayJob": crd_schema.strict_schema(schemas_path / "ray.io_rayjobs.yaml"),
        "RayCluster": crd_schema.strict_schema(schemas_path / "ray.io_rayclusters.yaml"),
    }


def load(name: str) -> dict[str, Any]:
    (tree,) = rules.documents((rules.CLUSTER / f"kuberay/{name}.yaml").read_text())
    return tree


@pytest.mark.parametrize("name", ["rayjob", "raycluster"])
def test_the_objects_fit_their_crd(schemas: dict[str, crd_schema.Schema], name: str) -> None:
    tree = load(name)
    assert crd_schema.faults(schemas[tree["kind"]], tree) == []


def _drop_head(tree: dict[str, Any]) -> None:
    del tree["spec"]["rayClusterSpec"]["headGroupSpec"]


def _head_container(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]


PLANTED: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("misspelt", lambda t: t["spec"].update(shutdownAfterJobFinish=True), "shutdownAfterJobFinish"),
    ("mode", lambda t: t["spec"]["rayClusterSpec"]["authOptions"].update(mode="tokens"), "authOptions.mode"),
    ("no-head", _drop_head, "headGroupSpec"),
    ("type", lambda t: t["spec"].update(backoffLimit="3"), "backoffLimit"),
    ("deep", lambda t: _head_container(t).update(volumeMount=[]), "volumeMount"),
    ("parameter", lambda t: t["spec"]["rayClusterSpec"]["headGroupSpec"].update(rayStartParams={"a": 0}), "rayStartP"),
    ("group", lambda t: t["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("groupName"), "groupName"),
    ("autoscaler", lambda t: t["spec"]["rayClusterSpec"]["autoscalerOptions"].update(version="v3"), "version"),
]


@pytest.mark.parametrize(("change", "told"), [p[1:] for p in PLANTED], ids=[p[0] for p in PLANTED])
def test_a_planted_fault_is_found(
    schemas: dict[str, crd_schema.Schema], change: Callable[[dict[str, Any]], Any], told: str
) -> None:
    tree = load("rayjob")
    change(tree)
    found = crd_schema.faults(schemas["RayJob"], tree)
    assert any(told in one for one in found), found


def test_the_submission_mode_is_one_that_the_operator_knows() -> None:
    """The CRD takes any text here; the operator would refuse it only on the cluster."""
    assert load("rayjob")["spec"]["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")


def test_a_field_with_a_default_may_be_left_out() -> None:
    schema = crd_schema._strict(
        {
            "type": "object",
            "required": ["port", "protocol"],
            "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}},
        }
    )
    assert crd_schema.faults(schema, {"port": 1}) == []
    assert crd_schema.faults(schema, {"protocol": "TCP"}) != []
