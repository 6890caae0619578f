"""The doctor on a laptop."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tlsearch.config import ResourcesSpec
from tlsearch.core.errors import SpaceError
from tlsearch.core.types import Finding
from tlsearch.doctor import environment
from tlsearch.doctor.environment import Diagnosis, diagnose

TEXT = """
name: small
data: {source: folder, path: images}
weights: {resnet18: none}
space: {backbone: resnet18}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    path = tmp_path / "space.yaml"
    path.write_text(TEXT)
    return path


def by_name(seen: Diagnosis) -> dict[str, Finding]:
    return {finding.name: finding for finding in seen.findings}


def test_a_sound_laptop(space: Path) -> None:
    seen = diagnose(space)
    found = by_name(seen)
    assert seen.ok, seen
    assert list(found) == [
        "versions here",
        "devices",
        "memory",
        "cache",
        "catalogue",
        "storage",
        "data",
        "mlflow",
        "ray",
    ]
    assert "ray 2." in found["versions here"].text
    assert str(space.parent / "tlsearch_runs") in found["storage"].text
    assert list((space.parent / "tlsearch_runs").iterdir()) == []


def test_missing_data_is_a_finding_and_not_an_end(space: Path) -> None:
    (space.parent / "images").rmdir()
    seen = diagnose(space)
    assert not seen.ok
    assert by_name(seen)["data"].status == "fail" and "mlflow" in by_name(seen)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpaceError):
        diagnose(tmp_path / "gone.yaml")


def test_a_storage_without_room_and_one_on_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (full,) = environment.storage_findings(str(tmp_path), usage=lambda path: SimpleNamespace(free=2e8))
    assert full.status == "fail" and "0.20 GB free" in full.text
    monkeypatch.setattr(environment, "_file_system", lambda path: "nfs4")
    (network,) = environment.storage_findings(str(tmp_path))
    assert network.status == "warn" and "search.study" in network.advice


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_storage_that_cannot_be_written_as_a_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    (found,) = environment.storage_findings(str(tmp_path / "runs"))
    assert found.status == "fail"


def test_a_storage_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    (found,) = environment.storage_findings(str(tmp_path / "runs"))
    assert found.status == "fail" and "cannot be written" in found.text


def test_no_gpu_where_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_devices", list)
    file = SimpleNamespace(resources=ResourcesSpec(gpus_per_trial=1.0))
    (found,) = environment.device_findings(file, here=True)  # type: ignore[arg-type]
    assert found.status == "fail" and "asks for 1 GPUs" in found.text and "auto" in found.advice
    (found,) = environment.device_findings(file, here=False)  # type: ignore[arg-type]
    assert found.status == "ok"  # trials run elsewhere


def test_how_gpus_are_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "_devices", lambda: ["a GPU with 80 GB"])
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    (found,) = environment.sharing_findings(None, here=True)
    assert "(auto); without MPS they take turns" in found.text and "nvidia-cuda-mps-control" in found.advice
    (tmp_path / "control").touch()
    file = SimpleNamespace(resources=ResourcesSpec(gpus_per_trial=0.25))
    (found,) = environment.sharing_findings(file, here=True)  # type: ignore[arg-type]
    assert "a trial has 0.25 of a GPU; MPS runs" in found.text and not found.advice
    file = SimpleNamespace(resources=ResourcesSpec(gpus_per_trial=1))
    assert not environment.sharing_findings(file, here=True)  # type: ignore[arg-type]
    assert not environment.sharing_findings(None, here=False)


def test_an_old_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "versions", lambda: {"python": "3.11.7", "ray": "2.52.1", "torch": "2.14.1"})
    (found,) = environment.version_findings()
    assert found.status == "fail" and "CVE-2026-27482" in found.advice


def test_little_memory() -> None:
    assert environment.memory_finding(lambda: (1.0, 16.0)).status == "warn"
    assert environment.memory_finding(lambda: (9.0, 16.0)).status == "ok"
    free, total = environment.memory_gb()
    assert 0 < free <= total


def test_a_full_cache_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cache_room", lambda directory: ("/cache", 0.1))
    found = environment.cache_finding(None)
    assert found.status == "fail" and found.name == "cache"


def test_the_command(space: Path) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
    from tlsearch.cli.root import app

    done = CliRunner().invoke(app, ["doctor", str(space), "--json"])
    seen = json.loads(done.stdout)
    assert done.exit_code == 0 and seen["ok"] is True
    assert set(seen["findings"][0]) == {"name", "status", "text", "advice"}
    done = CliRunner().invoke(app, ["doctor", "--address", "127.0.0.1:9", "--json"])
    seen = json.loads(done.stdout)
    assert done.exit_code == 1 and seen["ok"] is False and seen["findings"][-1]["name"] == "ray"
