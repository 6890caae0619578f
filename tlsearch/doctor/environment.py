"""Looks at everything a search needs before it starts: this machine, its storage, MLflow, and the cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tlsearch.config import SpaceFile, missing_driver, parse_space_file
from tlsearch.core.errors import ClusterError, SpaceError, StorageError, TlsearchError, TrackingError
from tlsearch.core.files import folder_bytes
from tlsearch.core.trusted_hosts import trust
from tlsearch.core.types import Finding
from tlsearch.core.user_folders import state_directory
from tlsearch.doctor.nodes import cache_room, low_disk, node_findings, versions
from tlsearch.doctor.ray_cluster import ray_findings
from tlsearch.doctor.storage_marks import data_problem, drop_mark, read_mark, write_mark
from tlsearch.search.cluster.connect import connected
from tlsearch.tracking.reach import refusal, tracking_finding

logger = logging.getLogger(__name__)

_LEAST_RAY = (2, 54)
_LOW_MEMORY_GB = 2.0
_NETWORK_FILES = ("nfs", "cifs", "smb", "fuse.sshfs", "lustre", "beegfs", "gpfs", "ceph")


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All findings in the order they were looked at."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing would stop a search."""
        return all(finding.status != "fail" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """{ok, findings: [{name, status, text, advice}]}."""
        return {"ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}


def diagnose(
    path: Path | None, *, overrides: Sequence[str] = (), data_path: Path | None = None, address: str = "local"
) -> Diagnosis:
    """Looks at this machine and, with an ``address``, at the cluster and each of its nodes.

    Args:
        path: A space file; without one only what is the same for every search is looked at.

    Raises:
        SpaceError: The file cannot be read as one; that its places are missing is a finding.
    """
    file = None
    if path is not None:
        file, problems = parse_space_file(path, overrides, data_path)
        if file is None:
            raise SpaceError(problems)
    cluster = address != "local"
    findings = [
        *version_findings(),
        *device_findings(file, here=not cluster),
        *sharing_findings(file, here=not cluster),
        memory_finding(),
        cache_finding(file),
        state_finding(),
    ]
    if file is not None:
        trust(file.tracking.uri, file.search.study)
        findings += [*storage_findings(file.storage), *_data(file), tracking_finding(file.tracking.uri, file.name)]
        findings += study_findings(file)
    findings += ray_findings(address)
    joined = all(finding.status != "fail" for finding in findings if finding.name.startswith("ray"))
    if cluster and "://" not in address and joined and file is not None:
        findings += _nodes(address, file)
    return Diagnosis(findings=tuple(findings))


def preflight(file: SpaceFile, address: str) -> list[Finding]:
    """What ``run`` on a cluster looks at before any GPU is held: MLflow, and every node; only what is amiss."""
    findings = [tracking_finding(file.tracking.uri, file.name), *_nodes(address, file)]
    return [finding for finding in findings if finding.status != "ok"]


def require_places(file: SpaceFile, address: str) -> None:
    """Ends a start that could not finish before anything is made, and before any GPU is held.

    Raises:
        TrackingError: The search cannot be recorded where it should be.
        StorageError: The driver of the study's database is not installed.
        ClusterError: Everything that would stop the search on a cluster, each with what to do about it.
    """
    for one in study_findings(file):
        if one.status == "fail":
            raise StorageError(f"{one.text}; {one.advice}")
    if address == "local":
        refused = refusal(file.tracking.uri, file.name)
        if refused is not None:
            raise TrackingError(f"MLflow cannot be used: {refused.text}" + f"; {refused.advice}" * bool(refused.advice))
        return
    findings = preflight(file, address)
    for one in findings:
        if one.status == "warn":
            logger.warning("%s: %s; %s", one.name, one.text, one.advice)
    problems = [
        f"{one.name}: {one.text}" + f"\n  -> {one.advice}" * bool(one.advice)
        for one in findings
        if one.status == "fail"
    ]
    if problems:
        raise ClusterError("the search cannot run on this cluster:\n" + "\n".join(problems))


def version_findings() -> list[Finding]:
    """What is installed here, and what must not be used."""
    found = versions()
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    numbers = tuple(int(part) for part in found["ray"].split(".")[:2] if part.isdigit())
    if numbers < _LEAST_RAY:
        wanted = ".".join(map(str, _LEAST_RAY))
        advice = (
            f"Ray before {wanted} can be taken over from a web page (CVE-2025-62593, CVE-2026-27482): install newer"
        )
        return [Finding(name="versions here", status="fail", text=text, advice=advice)]
    missing = [name for name, number in found.items() if number == "missing"]
    advice = f"install {', '.join(missing)}" if missing else ""
    return [Finding(name="versions here", status="fail" if missing else "ok", text=text, advice=advice)]


def device_findings(file: SpaceFile | None, *, here: bool) -> list[Finding]:
    """This machine's devices; ``here`` says that trials run on them."""
    devices = _devices()
    asked = file.resources.gpus_per_trial if file is not None else None
    cpus = os.cpu_count() or 1
    text = f"{cpus} CPUs, " + (", ".join(devices) if devices else "no GPU that torch can use")
    if here and asked and len(devices) < asked:
        advice = "write resources.gpus_per_trial: auto, or check the driver and torch's CUDA build (torch.version.cuda)"
        text = f"a trial asks for {asked:g} GPUs (resources.gpus_per_trial); this machine has {len(devices)}"
        return [Finding(name="devices", status="fail", text=text, advice=advice)]
    return [Finding(name="devices", status="ok", text=text)]


def sharing_findings(file: SpaceFile | None, *, here: bool) -> list[Finding]:
    """How trials share this machine's GPUs; ``here`` says that trials run on them."""
    asked = file.resources.gpus_per_trial if file is not None else None
    if not here or asked in (0.0, 1.0) or not _devices():
        return []
    text = (
        f"a trial has {asked:g} of a GPU" if asked else "trials share a GPU once some have shown that they fit (auto)"
    )
    # Every CUDA process uses the daemon that it finds there.
    if (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists():
        return [Finding(name="GPU sharing", status="ok", text=f"{text}; MPS runs their kernels side by side")]
    advice = "for small trials start MPS before Ray: nvidia-cuda-mps-control -d (cluster/README.md)"
    return [Finding(name="GPU sharing", status="ok", text=f"{text}; without MPS they take turns", advice=advice)]


def _devices() -> list[str]:
    """Name and memory of each GPU that torch can use."""
    import torch

    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [f"{one.name} with {one.total_memory / 1e9:.0f} GB" for one in properties]


def memory_finding(read: Callable[[], tuple[float, float]] | None = None) -> Finding:
    """Memory of this machine; ``read`` gives free and all of it in GB."""
    free, total = (read or memory_gb)()
    text = f"{free:.1f} of {total:.1f} GB of memory are free"
    if free < _LOW_MEMORY_GB:
        advice = "a trial needs one or two GB for torch, and its images; end other programs or use fewer CPUs"
        return Finding(name="memory", status="warn", text=text, advice=advice)
    return Finding(name="memory", status="ok", text=text)


def memory_gb() -> tuple[float, float]:
    """Free and all memory in GB; of a container what it may use."""
    machine = psutil.virtual_memory()
    free, total = machine.available, machine.total
    with contextlib.suppress(OSError, ValueError):  # no limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8"))
        free, total = min(free, limit - used), min(total, limit)
    return free / 1e9, total / 1e9


def cache_finding(file: SpaceFile | None) -> Finding:
    """The folder of this machine's stores, its room, and what is in it."""
    try:
        path, free = cache_room(file.cache.directory if file is not None else "")
    except (OSError, StorageError) as error:
        return Finding(name="cache", status="fail", text=str(error))
    used = folder_bytes(Path(path)) / 1e9
    text = f"{path} holds {used:.2f} GB; {free:.0f} GB are free"
    return low_disk("cache", path, free) or Finding(name="cache", status="ok", text=text)


def state_finding() -> Finding:
    """The folder of the catalogue of searches."""
    try:
        return Finding(name="catalogue", status="ok", text=f"{state_directory(write=True)} can be written")
    except StorageError as error:
        return Finding(name="catalogue", status="fail", text=str(error))


def storage_findings(storage: str, *, usage: Callable[[str], Any] = shutil.disk_usage) -> list[Finding]:
    """Whether the storage can be written, read and emptied from here, and has room."""
    mark = f".tlsearch-doctor-{os.getpid()}"
    try:
        write_mark(storage, mark)
        read_mark(storage, mark)
    except OSError as error:
        text = f"{storage} cannot be written: {error}"
        return [Finding(name="storage", status="fail", text=text, advice="name another folder as `storage`")]
    finally:
        drop_mark(storage, mark)
    if "://" in storage:
        return [Finding(name="storage", status="ok", text=f"{storage} can be written")]
    free = usage(storage).free / 1e9
    kind = _file_system(Path(storage))
    text = f"{storage} can be written; {free:.0f} GB are free"
    if free < 1:
        text = f"{storage} has {free:.2f} GB free"
        return [Finding(name="storage", status="fail", text=text, advice="a checkpoint of a trial needs more room")]
    if kind.startswith(_NETWORK_FILES):
        advice = "keep the study in a database there (search.study), and MLflow's SQLite file elsewhere"
        return [
            Finding(name="storage", status="warn", text=f"{text}; it is a network file system ({kind})", advice=advice)
        ]
    return [Finding(name="storage", status="ok", text=text)]


def study_findings(file: SpaceFile) -> list[Finding]:
    """Whether the driver of the study's database is installed here."""
    if wrong := missing_driver(file.search.study, "the study"):
        return [Finding(name="study", status="fail", text=wrong[0], advice=wrong[1])]
    return []


def _file_system(path: Path) -> str:
    """The kind of the file system that holds a folder; empty where it is not known."""
    mounts = psutil.disk_partitions(all=True)
    return max(
        ((len(one.mountpoint), one.fstype) for one in mounts if path.is_relative_to(one.mountpoint)), default=(0, "")
    )[1]


def _data(file: SpaceFile) -> list[Finding]:
    path = file.data.path
    if path is None:
        return [Finding(name="data", status="ok", text=f"source {file.data.source}; `tlsearch check` looks into it")]
    problem = data_problem(path)
    if problem:
        return [Finding(name="data", status="fail", text=problem, advice="see data.path")]
    return [Finding(name="data", status="ok", text=f"{path} is there; `tlsearch check` looks into it")]


def _nodes(address: str, file: SpaceFile) -> list[Finding]:
    try:
        with connected(address):
            return node_findings(
                file.storage,
                data_path=file.data.path,
                cache=file.cache.directory,
                gpus_per_trial=file.resources.gpus_per_trial,
                study=file.search.study,
            )
    except TlsearchError as error:
        return [Finding(name="ray nodes", status="fail", text=str(error))]
