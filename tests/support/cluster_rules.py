"""What every file of cluster/ must keep; each rule gives its faults as text, none where all is well."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
DANGEROUS_PORTS = (8265, 10001, 6379)

_SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)")
# names that hold such a word and are no secret: where one is, how one is used, or a reference to one
_REFERENCE_NAME = re.compile(
    r"(?i)(_file|_path|_mode|path|mode|name|names|ref|secrets|automountserviceaccounttoken|httptokens|ssh_private_key)$"
)
_URL_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@${]+@", re.IGNORECASE)
_ASSIGNED = re.compile(r"\b([A-Z][A-Z0-9_]*)=([^\s\"'$]+)")
_TOKEN_LIKE = re.compile(r"\b(AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|[0-9a-f]{40,})\b|BEGIN [A-Z ]*PRIVATE KEY")
_RAY_TAG = re.compile(r"(?:rayproject/ray|tlsearch):(\S+)")


def pinned_ray() -> str:
    """The Ray of clusters: the one exact pin in pyproject.toml's extra ``cluster``."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (pin,) = [re.fullmatch(r"ray\[[\w,]+\]==([\d.]+)", one) for one in extras["cluster"] if one.startswith("ray")]
    assert pin is not None, "the extra cluster pins ray exactly"
    return pin[1]


def yaml_files() -> list[Path]:
    """Every YAML file of cluster/."""
    return sorted(CLUSTER.rglob("*.yaml"))


def all_files() -> list[Path]:
    """Every file of cluster/ that is in the repository, as far as git's ignore rules here say."""
    return sorted(p for p in CLUSTER.rglob("*") if p.is_file() and "secrets" not in p.relative_to(CLUSTER).parts)


def documents(text: str) -> list[Any]:
    """The documents of a YAML text."""
    return [one for one in yaml.safe_load_all(text) if one is not None]


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every scalar with its path; of a list of {name, value} the name stands in the path."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            named = (str(tree["name"]),) if key == "value" and "name" in tree else (str(key),)
            yield from leaves(value, (*path, *named))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from leaves(value, (*path, f"[{number}]"))
    else:
        yield path, tree


def literal_secrets(text: str) -> list[str]:
    """Values that look like secrets written out: in trees by their key, in any text by their shape."""
    faults = [f"a password in a URL: {found[0]}" for found in _URL_PASSWORD.finditer(text)]
    faults += [f"looks like a secret: {found[0]}" for found in _TOKEN_LIKE.finditer(text)]
    for name, value in _ASSIGNED.findall(text):
        if _SECRET_NAME.search(name) and not _REFERENCE_NAME.search(name) and not value.startswith(("/", "(")):
            faults.append(f"a secret is given a value: {name}={value}")
    return faults


def literal_secrets_in_tree(tree: Any) -> list[str]:
    """Keys named like a secret whose value is written out instead of referred to."""
    faults = []
    for path, value in leaves(tree):
        key = next((part for part in reversed(path) if not part.startswith("[")), "")
        if not isinstance(value, str) or not value or "secretKeyRef" in path or "secrets" in path:
            continue
        if _SECRET_NAME.search(key) and not _REFERENCE_NAME.search(key) and not value.startswith(("${", "/run/")):
            faults.append(f"{'.'.join(path)} holds a secret written out")
    return faults


def wrong_ray_tags(text: str, pinned: str) -> list[str]:
    """Image tags, versions and assertions that name another Ray than the pinned one."""
    faults = []
    for found in _RAY_TAG.finditer(text):
        tag = found[1]
        named = re.match(r"(?:ray)?(\$\{RAY_VERSION\}|[\d.]+)", tag)
        if named is None or named[1] not in (pinned, "${RAY_VERSION}"):
            faults.append(f"the image tag {found[0]} must be of Ray {pinned}")
    for pattern in (r"rayVersion:\s*[\"']?([\w.]+)", r"RAY_VERSION=([\w.]+)", r"ray\.__version__ == \"([\d.]+)\""):
        faults += [f"{m[0]} must name Ray {pinned}" for m in re.finditer(pattern, text) if m[1] != pinned]
    return faults


def floating_images(tree: Any) -> list[str]:
    """Images without a tag, or with one that moves."""
    faults = []
    for path, value in leaves(tree):
        if path and path[-1] in ("image", "head_image", "worker_image"):
            tag = str(value).rpartition("/")[2].partition(":")[2]
            if not tag or not re.search(r"\d", tag):
                faults.append(f"{'.'.join(path)}: {value} needs a tag that stays")
    return faults


def published_ports(tree: Any) -> list[str]:
    """Ports of a compose file or of Kubernetes objects that are open beyond their network."""
    faults = []
    for name, service in (tree.get("services") or {}).items() if isinstance(tree, dict) else ():
        if service.get("network_mode") == "host":
            faults.append(f"{name} is on the host's network")
        for port in service.get("ports", ()):
            text = str(port.get("published")) if isinstance(port, dict) else str(port)
            host = str(port.get("host_ip", "")) if isinstance(port, dict) else text
            if any(str(one) in text or str(one) == str(port) for one in DANGEROUS_PORTS):
                faults.append(f"{name} publishes a port of Ray: {port}")
            elif not host.startswith("127.0.0.1"):
                faults.append(f"{name} publishes {port} to every network")
    for path, value in leaves(tree):
        key = path[-1] if path else ""
        if key in ("type", "serviceType") and value in ("NodePort", "LoadBalancer"):
            faults.append(f"{'.'.join(path)}: {value} opens a service to the outside")
        if key == "hostPort" or (key == "hostNetwork" and value):
            faults.append(f"{'.'.join(path)} opens a port of the node")
        if key == "kind" and value == "Ingress":
            faults.append("an Ingress opens a service to the outside")
    return faults


def open_dashboards(text: str) -> list[str]:
    """``ray start`` commands whose dashboard, and so the Jobs API, listens on every network."""
    return [f"{m[0]} opens the Jobs API" for m in re.finditer(r"--dashboard-host[= ](?!127\.0\.0\.1)\S+", text)]


def without_token_mode(text: str) -> list[str]:
    """Places that start or are Ray nodes and do not set RAY_AUTH_MODE=token."""
    trees = documents(text)
    faults = []
    for tree in trees:
        if not isinstance(tree, dict):
            continue
        for name, service in (tree.get("services") or {}).items():
            if "ray start" in str(service.get("command", "")):
                mode = (service.get("environment") or {}).get("RAY_AUTH_MODE")
                faults += [] if mode == "token" else [f"service {name} starts Ray without RAY_AUTH_MODE=token"]
        for spec in _ray_clusters(tree):
            faults += _without_token_in_pods(spec)
        for key in ("head_start_ray_commands", "worker_start_ray_commands"):
            in_container = "--env RAY_AUTH_MODE=token" in (tree.get("docker") or {}).get("run_options", ())
            for command in tree.get(key, ()):
                if "ray start" in command and not in_container and "RAY_AUTH_MODE=token" not in command:
                    faults.append(f"{key} starts Ray without RAY_AUTH_MODE=token")
    return faults


def _ray_clusters(tree: dict[str, Any]) -> list[dict[str, Any]]:
    spec = tree.get("spec", {})
    return {"RayCluster": [spec], "RayJob": [spec.get("rayClusterSpec", {})]}.get(str(tree.get("kind")), [])


def _without_token_in_pods(spec: dict[str, Any]) -> list[str]:
    faults = []
    options = spec.get("authOptions", {})
    if options.get("mode") != "token" or not options.get("secretName"):
        faults.append("authOptions must have mode token and a secretName")
    for group in (spec["headGroupSpec"], *spec.get("workerGroupSpecs", ())):
        for container in group["template"]["spec"]["containers"]:
            environment = {one["name"]: one.get("value") for one in container.get("env", ())}
            if environment.get("RAY_AUTH_MODE") != "token":
                faults.append(f"container {container['name']} does not set RAY_AUTH_MODE=token")
    return faults
