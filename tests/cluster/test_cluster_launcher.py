"""The launcher files against Ray's own validator; no cloud is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cluster_rules as rules
import pytest
import yaml

NAMES = ["aws", "gcp", "onprem"]


def validate(tree: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config  # private: the pin of Ray holds it

    prepared: dict[str, Any] = prepare_config(tree)
    validate_config(prepared)
    return prepared


def load(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((rules.CLUSTER / f"vm/{name}.yaml").read_text())
    return tree


@pytest.mark.parametrize("name", NAMES)
def test_ray_accepts_the_file(name: str) -> None:
    prepared = validate(load(name))
    head = prepared["available_node_types"][prepared["head_node_type"]]
    if name == "onprem":
        return
    assert head["resources"]["CPU"] == 0  # no trial on the head
    assert prepared["provider"]["cache_stopped_nodes"] is False


PLANTED: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("unknown key", lambda t: t.update(idle_timeout=5)),
    ("no resources", lambda t: t["available_node_types"]["gpu_spot"].pop("resources")),
    ("unknown head", lambda t: t.update(head_node_type="haed")),
    ("unknown provider", lambda t: t["provider"].update(type="amazon")),
    ("commands no list", lambda t: t.update(setup_commands="pip install x")),
    ("blog post of old", lambda t: t.update(autoscaling_mode="default")),
    ("image without container", lambda t: t["docker"].pop("container_name")),
]


@pytest.mark.parametrize("change", [p[1] for p in PLANTED], ids=[p[0] for p in PLANTED])
def test_a_planted_fault_is_found(change: Callable[[dict[str, Any]], Any]) -> None:
    tree = load("aws")
    change(tree)
    with pytest.raises(Exception):  # noqa: B017  Ray raises what it likes: KeyError, ValueError, ValidationError ...
        validate(tree)


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_spot_and_size_stand_where_the_cloud_reads_them(name: str) -> None:
    """Ray does not look into node_config, so that a typo there would be a costly on-demand node."""
    node = load(name)["available_node_types"]["gpu_spot"]["node_config"]
    if name == "aws":
        assert node["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert set(node) <= {
            "InstanceType",
            "ImageId",
            "InstanceMarketOptions",
            "BlockDeviceMappings",
            "MetadataOptions",
        }
    else:
        assert {"preemptible": True} in node["scheduling"]
        assert set(node) <= {"machineType", "scheduling", "disks"}
