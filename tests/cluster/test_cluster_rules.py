"""Rules over all files of cluster/: no secret, token mode, one Ray, no dangerous port; each rule bites."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cluster_rules as rules
import pytest
import yaml

FILES = rules.yaml_files()


def faults_of(text: str) -> list[str]:
    """All rules on the text of one YAML file."""
    faults = rules.literal_secrets(text) + rules.wrong_ray_tags(text, rules.pinned_ray())
    faults += rules.open_dashboards(text) + rules.without_token_mode(text)
    for tree in rules.documents(text):
        faults += rules.literal_secrets_in_tree(tree) + rules.published_ports(tree) + rules.floating_images(tree)
    return faults


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(rules.CLUSTER)))
def test_every_yaml_file_keeps_the_rules(path: Path) -> None:
    assert faults_of(path.read_text()) == []


@pytest.mark.parametrize("path", rules.all_files(), ids=lambda path: str(path.relative_to(rules.CLUSTER)))
def test_no_file_holds_a_secret_or_another_ray(path: Path) -> None:
    text = path.read_text()
    assert rules.literal_secrets(text) + rules.wrong_ray_tags(text, rules.pinned_ray()) == []


def swap(old: str, new: str, count: int = 1) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text, f"{old!r} is no longer in the file: renew this fault"
        return text.replace(old, new, count)

    return change


PLANTED = [
    # a secret written out
    ("docker/compose.yaml", swap("RAY_AUTH_TOKEN_PATH: /run/secrets/ray_token", "RAY_AUTH_TOKEN: hunter2"), "secret"),
    ("docker/compose.yaml", swap("postgresql+psycopg2://mlflow@", "postgresql://mlflow:pw@"), "password in a URL"),
    (
        "docker/compose.yaml",
        swap("POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password", "POSTGRES_PASSWORD: x"),
        "secret written out",
    ),
    (
        "kuberay/rayjob.yaml",
        swap("name: MLFLOW_TRACKING_USERNAME, value", "name: MLFLOW_TRACKING_PASSWORD, value"),
        "secret",
    ),
    (
        "kuberay/mlflow.yaml",
        swap(
            "name: PGPASSWORD\n              "
            "valueFrom: {secretKeyRef: {name: tlsearch-secrets, key: postgres-password}}",
            "name: PGPASSWORD\n              value: x",
        ),
        "secret",
    ),
    ("vm/aws.yaml", swap("setup_commands: []", "setup_commands: [export RAY_AUTH_TOKEN=abc]"), "given a value"),
    ("runtime-env.yaml", swap("PYTHONUNBUFFERED:", "AWS_SECRET_ACCESS_KEY:"), "secret"),
    ("vm/gcp.yaml", swap("PROJECT_ID", "AKIAABCDEFGHIJKLMNOP"), "looks like a secret"),
    # authentication off or not said
    ("docker/compose.yaml", swap("RAY_AUTH_MODE: token", "RAY_AUTH_MODE: disabled"), "without RAY_AUTH_MODE"),
    ("docker/compose.yaml", swap("    environment: *ray-environment\n", ""), "service worker"),
    ("kuberay/raycluster.yaml", swap("mode: token", "mode: disabled"), "authOptions"),
    ("kuberay/rayjob.yaml", swap("      secretName: tlsearch-ray-token # key auth_token\n", ""), "authOptions"),
    ("kuberay/rayjob.yaml", swap("- {name: RAY_AUTH_MODE, value: token}", ""), "ray-head"),
    ("vm/aws.yaml", swap("    - --env RAY_AUTH_MODE=token\n", ""), "head_start_ray_commands"),
    ("vm/onprem.yaml", swap("RAY_AUTH_MODE=token", "", 2), "worker_start_ray_commands"),
    # another Ray, or one that moves
    ("kuberay/rayjob.yaml", swap("ray2.60.0-gpu", "ray2.49.0-gpu"), "image tag"),
    ("kuberay/rayjob.yaml", swap("rayVersion: 2.60.0", "rayVersion: 2.54.0"), "rayVersion"),
    ("docker/compose.yaml", swap("tlsearch:ray2.60.0-", "tlsearch:latest-"), "image tag"),
    ("docker/compose.yaml", swap("postgres:17.6", "postgres:latest"), "tag that stays"),
    ("vm/onprem.yaml", swap("2.60.0", "2.52.0"), "ray.__version__"),
    # a port for everybody
    ("docker/compose.yaml", swap("127.0.0.1:${MLFLOW_PORT:-5000}:5000", "5000:5000"), "every network"),
    ("docker/compose.yaml", swap("127.0.0.1:${MLFLOW_PORT:-5000}:5000", "127.0.0.1:8265:8265"), "port of Ray"),
    ("docker/compose.yaml", swap("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"), "Jobs API"),
    ("kuberay/raycluster.yaml", swap("serviceType: ClusterIP", "serviceType: LoadBalancer"), "outside"),
    ("kuberay/mlflow.yaml", swap("type: ClusterIP", "type: NodePort"), "outside"),
    ("kuberay/mlflow.yaml", swap("containerPort: 5000", "containerPort: 5000, hostPort: 5000"), "port of the node"),
    ("vm/aws.yaml", swap("--dashboard-host=127.0.0.1", "--dashboard-host 0.0.0.0"), "Jobs API"),
]


@pytest.mark.parametrize(("name", "change", "told"), PLANTED, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(PLANTED)])
def test_each_rule_bites(name: str, change: Callable[[str], str], told: str) -> None:
    faults = faults_of(change((rules.CLUSTER / name).read_text()))
    assert any(told in fault for fault in faults), faults


def test_both_kuberay_files_describe_the_same_pods() -> None:
    """The job's cluster and the lasting one differ in what a job brings, and in nothing else."""
    (job,) = rules.documents((rules.CLUSTER / "kuberay/rayjob.yaml").read_text())
    (lasting,) = rules.documents((rules.CLUSTER / "kuberay/raycluster.yaml").read_text())
    ours = job["spec"]["rayClusterSpec"]
    head = ours["headGroupSpec"]["template"]["spec"]
    head["volumes"] = [one for one in head["volumes"] if one["name"] != "space"]
    mounts = head["containers"][0]["volumeMounts"]
    head["containers"][0]["volumeMounts"] = [one for one in mounts if one["name"] != "space"]
    assert ours == lasting["spec"]


def test_the_network_policies_select_pods_that_exist() -> None:
    labels: list[dict[str, str]] = []
    policies = []
    for name in ("rayjob", "mlflow", "network-policy"):
        for tree in rules.documents((rules.CLUSTER / f"kuberay/{name}.yaml").read_text()):
            policies += [tree] if tree["kind"] == "NetworkPolicy" else []
            labels += [t["metadata"]["labels"] for t in _templates(tree)]
    selectors = [s for p in policies for s in _selectors(p["spec"])]
    assert len(selectors) > 8
    for selector in selectors:
        assert any(selector.items() <= one.items() for one in labels), f"no pod has {selector}"
    (deny,) = [p for p in policies if p["metadata"]["name"] == "deny-all"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def _templates(tree: object) -> list[dict[str, dict[str, dict[str, str]]]]:
    if isinstance(tree, dict):
        here = [tree["template"]] if "labels" in tree.get("template", {}).get("metadata", {}) else []
        return here + [one for value in tree.values() for one in _templates(value)]
    return [one for value in tree for one in _templates(value)] if isinstance(tree, list) else []


def _selectors(tree: object) -> list[dict[str, str]]:
    if isinstance(tree, dict):
        here = [tree["podSelector"]["matchLabels"]] if tree.get("podSelector") else []
        return here + [one for value in tree.values() for one in _selectors(value)]
    return [one for value in tree for one in _selectors(value)] if isinstance(tree, list) else []


def test_every_variable_is_in_the_example_and_no_secret_has_a_value() -> None:
    example = (rules.CLUSTER / "env.example").read_text()
    values = dict(re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", example, re.MULTILINE))
    compose = (rules.CLUSTER / "docker/compose.yaml").read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", compose))
    for path in rules.CLUSTER.glob("slurm/*.sbatch"):
        used |= set(re.findall(r"\$\{(TLSEARCH_[A-Z_]+)", path.read_text()))
    for line in compose.splitlines():
        used |= set(re.findall(r"^\s+((?:AWS|MLFLOW|PG|RAY|TLSEARCH)[A-Z0-9_]*?)(?:_FILE)?:", line))
    assert used <= values.keys(), f"env.example lacks {sorted(used - values.keys())}"
    named = re.compile(r"PASSWORD|TOKEN$|SECRET|ACCESS_KEY")
    assert {name: value for name, value in values.items() if named.search(name) and value} == {}


def test_the_compose_secrets_are_those_that_the_script_makes() -> None:
    compose = yaml.safe_load((rules.CLUSTER / "docker/compose.yaml").read_text())
    script = (rules.CLUSTER / "docker/make-secrets.sh").read_text()
    (listed,) = re.findall(r"for name in (.+); do", script)
    assert set(listed.split()) == set(compose["secrets"])
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    for name, service in compose["services"].items():
        files = {str(v) for v in (service.get("environment") or {}).values() if str(v).startswith("/run/secrets/")}
        assert {f"/run/secrets/{one}" for one in service.get("secrets", ())} >= files, name
