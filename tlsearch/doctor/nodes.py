"""The doctor's look at every node of a cluster: one small task on each, no CPU and no GPU is held.

``look`` runs on a node and knows no Ray; ``compare`` judges what all nodes said.
"""

from __future__ import annotations

import platform
import shutil
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tlsearch.core.errors import StorageError
from tlsearch.core.text import last_line
from tlsearch.core.types import CacheSpec, Finding
from tlsearch.doctor.storage_marks import (
    data_problem,
    drop_mark,
    lock_findings,
    locked_mark,
    read_mark,
    sees_lock,
    write_mark,
)

COMPARED = ("python", "ray", "torch", "torchvision", "tlsearch")  # one trial goes on from node to node
_NODE_S = 120.0
_FAIL_GB, _WARN_GB = 1.0, 10.0


@dataclass(frozen=True, kw_only=True)
class NodeQuestion:
    """What each node is asked.

    Attributes:
        storage: The storage folder or URI; its mark is ``mark``, which the driver has locked.
        data_path: Of the images; None where the source has none.
        cache: Folder of the node's stores, as the node finds it if empty.
    """

    storage: str
    mark: str
    data_path: str | None = None
    cache: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What a node found; errors are empty where there is none, sizes are free gigabytes.

    Attributes:
        lock_seen: Whether the driver's lock in the storage holds here too.
    """

    node: str
    versions: Mapping[str, str] = field(default_factory=dict)
    storage_error: str = ""
    lock_seen: bool = True
    data_error: str = ""
    cache_path: str = ""
    cache_free_gb: float | None = None
    cpus: float = 0.0
    gpus: float = 0.0
    error: str = ""


def versions() -> dict[str, str]:
    """Versions of what must be the same everywhere; ``missing`` where a package is not there. Imports none of them."""
    found = {"python": platform.python_version()}
    for name in COMPARED[1:]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    from tlsearch.core import __version__  # a copy that was shipped is not an installed one

    return found | {"tlsearch": __version__}


def look(question: NodeQuestion, node: str = "") -> NodeReport:
    """Looks around on the node that this runs on."""
    node = node or socket.gethostname()
    storage_error = ""
    try:
        if read_mark(question.storage, question.mark) != question.mark:
            storage_error = "the mark that the driver wrote reads differently here"
        write_mark(question.storage, f"{question.mark}-{node}")
    except OSError as error:
        storage_error = f"{type(error).__name__}: {error}"
    data_error = data_problem(question.data_path)
    report = NodeReport(
        node=node,
        versions=versions(),
        storage_error=storage_error,
        lock_seen=bool(storage_error) or sees_lock(question.storage, question.mark),
        data_error=data_error,
    )
    try:
        cache_path, free = cache_room(question.cache)
    except (OSError, StorageError) as error:
        return replace(report, error=str(error))
    return replace(report, cache_path=cache_path, cache_free_gb=free)


def cache_room(directory: str = "") -> tuple[str, float]:
    """The folder of this machine's stores, and how many gigabytes are free there.

    Args:
        directory: As in ``CacheSpec``: empty for the default.

    Raises:
        StorageError: It cannot be made.
    """
    from tlsearch.node_cache.locked_files import cache_directory

    cache = cache_directory(CacheSpec(directory=directory))
    return str(cache), shutil.disk_usage(cache).free / 1e9


def ask_nodes(question: NodeQuestion) -> list[NodeReport]:
    """One report of each node that is alive; Ray must be connected.

    A node that does not answer in two minutes, or cannot, has a report with its ``error``.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    task: Any = ray.remote(num_cpus=0, max_retries=0)(look)
    pending: list[tuple[Mapping[str, Any], Any]] = []
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        pending.append((node, task.options(scheduling_strategy=where).remote(question, _name(node))))
    ray.wait([one for _, one in pending], num_returns=len(pending), timeout=_NODE_S)
    return [_report(node, reference) for node, reference in pending]


def _name(node: Mapping[str, Any]) -> str:
    """Name and number of a node: several may have one address, and one address several names."""
    return f"{node.get('NodeManagerHostname') or node['NodeManagerAddress']}-{node['NodeID'][:6]}"


def _report(node: Mapping[str, Any], reference: Any) -> NodeReport:
    import ray

    try:
        report: NodeReport = ray.get(reference, timeout=1.0)
    except Exception as error:  # of any kind: a missing package, a node that just died, no answer
        report = NodeReport(node=_name(node), error=last_line(error))
    resources = node["Resources"]
    return replace(report, cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0))


def node_findings(
    storage: str,
    *,
    data_path: str | None = None,
    cache: str = "",
    gpus_per_trial: float | None = None,
    study: str = "auto",
    ask: Any = ask_nodes,
) -> list[Finding]:
    """Asks every node and compares; Ray must be connected.

    Args:
        storage: As the search would use it; a mark is written into it and removed again.
        gpus_per_trial: What one trial asks for; None: whatever there is.
        study: As in ``search.study``; a file of its own needs locks that hold between machines.
        ask: Gives the nodes' reports; see ``ask_nodes``.
    """
    mark = f".tlsearch-doctor-{uuid.uuid4().hex}"
    try:
        write_mark(storage, mark)
    except OSError as error:
        text = f"{storage} cannot be written from here: {error}"
        return [Finding(name="storage", status="fail", text=text)]
    reports: list[NodeReport] = []
    try:
        with locked_mark(storage, mark) as locked:
            reports = ask(NodeQuestion(storage=storage, mark=mark, data_path=data_path, cache=cache))
        in_file = study == "auto" or study.startswith("sqlite")
        locks = lock_findings(storage, [one.node for one in reports if not (locked and one.lock_seen)], in_file)
        return locks + compare(reports, storage=storage, mark=mark, gpus_per_trial=gpus_per_trial)
    finally:
        for name in (mark, *(f"{mark}-{report.node}" for report in reports)):
            drop_mark(storage, name)


def compare(
    reports: Sequence[NodeReport],
    *,
    storage: str,
    mark: str,
    gpus_per_trial: float | None = None,
    here: Mapping[str, str] | None = None,
) -> list[Finding]:
    """What the nodes' reports mean; ``here`` are the driver's versions."""
    findings = [
        Finding(name=f"node {r.node}", status="fail", text=f"cannot run a trial: {r.error}", advice=_why(r.error))
        for r in reports
        if r.error
    ]
    sound = [report for report in reports if not report.error]
    findings += _versions(sound, here or versions())
    findings += _storage(sound, storage, mark)
    findings += [
        Finding(
            name=f"data on {report.node}",
            status="fail",
            text=report.data_error,
            advice="every node reads the images: at the same path, by a mount or a copy, or from a bucket, whose "
            "endpoint and credentials each node has in its environment",
        )
        for report in sound
        if report.data_error
    ]
    rooms = [(f"disk of {r.node}", r.cache_path, r.cache_free_gb) for r in sound]
    findings += [one for name, path, free in rooms if free is not None and (one := low_disk(name, path, free))]
    findings += _gpus(sound, gpus_per_trial)
    return findings


def low_disk(name: str, path: str, free_gb: float) -> Finding | None:
    """Too little room for a machine's stores; None where there is enough."""
    if free_gb >= _WARN_GB:
        return None
    return Finding(
        name=name,
        status="fail" if free_gb < _FAIL_GB else "warn",
        text=f"{free_gb:.1f} GB are free at {path}, where packed images and features go",
        advice="free some room, or name another disk with TLSEARCH_CACHE_DIR",
    )


def _why(error: str) -> str:
    if "No module named" in error:
        return "every node needs tlsearch and what it imports: use one image or environment for all nodes"
    return ""


def _versions(reports: Sequence[NodeReport], here: Mapping[str, str]) -> list[Finding]:
    findings = []
    for name in COMPARED:
        others = {r.node: r.versions.get(name, "missing") for r in reports}
        wrong = {node: found for node, found in others.items() if found != here[name]}
        if wrong:
            text = ", ".join(f"{node} has {found}" for node, found in sorted(wrong.items()))
            findings.append(
                Finding(
                    name=f"version of {name}",
                    status="fail",
                    text=f"the driver has {here[name]}; {text}",
                    advice="driver and all nodes need the same: use one image or environment for all of them",
                )
            )
    if reports and not findings:
        text = ", ".join(f"{name} {here[name]}" for name in COMPARED)
        findings.append(Finding(name="versions", status="ok", text=f"{text} on all {len(reports)} nodes"))
    return findings


def _storage(reports: Sequence[NodeReport], storage: str, mark: str) -> list[Finding]:
    findings = []
    advice = "storage must be one place that every node reads and writes: a shared mount or a bucket"
    for report in reports:
        problem = report.storage_error
        if not problem:
            try:
                read_mark(storage, f"{mark}-{report.node}")
            except OSError:
                problem = "what this node writes is not seen by the driver"
        if problem:
            text = f"{storage} is not shared with {report.node}: {problem}"
            findings.append(Finding(name=f"storage on {report.node}", status="fail", text=text, advice=advice))
    if reports and not findings:
        text = f"{storage} is written and read by all {len(reports)} nodes"
        findings.append(Finding(name="storage on nodes", status="ok", text=text))
    return findings


def _gpus(reports: Sequence[NodeReport], asked: float | None) -> list[Finding]:
    best = max((report.gpus for report in reports), default=0.0)
    total = sum(report.gpus for report in reports)
    text = f"{len(reports)} nodes with {sum(r.cpus for r in reports):g} CPUs and {total:g} GPUs"
    if asked and best < asked:
        return [
            Finding(
                name="devices of the cluster",
                status="fail",
                text=f"a trial asks for {asked:g} GPUs (resources.gpus_per_trial); the largest node has {best:g}",
                advice="a cluster that grows from none to none may still get such nodes; else write fewer, or auto",
            )
        ]
    return [Finding(name="devices of the cluster", status="ok", text=text)]
