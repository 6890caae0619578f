"""What the doctor says of a cluster: from stand-in answers and reports, and once from a real Ray."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tlsearch.core.types import Finding
from tlsearch.doctor.nodes import COMPARED, NodeQuestion, NodeReport, compare, look, node_findings, versions
from tlsearch.doctor.ray_cluster import ray_findings
from tlsearch.doctor.storage_marks import drop_mark, locked_mark, read_mark, sees_lock, write_mark
from tlsearch.search.cluster.auth_probe import Answer


@pytest.fixture(autouse=True)
def _no_authentication(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def only(findings: list[Finding], name: str) -> Finding:
    (found,) = [one for one in findings if one.name == name]
    return found


# --- the head ----------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def answers(mine: Answer, anybodys: str = "refused") -> object:
    def probe(address: str, *, with_token: bool = True) -> Answer:
        return mine if with_token else Answer(kind=anybodys)  # type: ignore[arg-type]

    return probe


def test_a_wrong_token(listening: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    mine = Answer(kind="refused", text="InvalidAuthToken: Authentication token is missing or incorrect")
    (found,) = ray_findings(listening, probe=answers(mine))  # type: ignore[arg-type]
    assert found.status == "fail"
    assert "does not accept this token" in found.text and str(tmp_path / "token") in found.text
    assert "hunter2" not in found.text


def test_authentication_off_on_the_clusters_side(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hunter2")
    found = ray_findings(listening, probe=answers(Answer(kind="joined"), "joined"))  # type: ignore[arg-type]
    warned = only(found, "ray authentication")
    assert warned.status == "warn"
    assert "has authentication off, though this side has it on" in warned.text
    assert "RAY_AUTH_MODE=token" in warned.advice
    assert "hunter2" not in str(found)


def test_authentication_off_on_this_side(listening: str) -> None:
    mine = Answer(kind="refused", text="Note: RAY_AUTH_MODE is currently 'disabled'")
    (found,) = ray_findings(listening, probe=answers(mine))  # type: ignore[arg-type]
    assert found.status == "fail"
    assert "RAY_AUTH_MODE is not set, token from nowhere" in found.text and "RAY_AUTH_MODE=token" in found.text


def test_a_good_head(listening: str) -> None:
    (found,) = ray_findings(listening, probe=answers(Answer(kind="joined")))  # type: ignore[arg-type]
    assert found.status == "ok" and "can be joined" in found.text


def test_something_else_listens(listening: str) -> None:
    (found,) = ray_findings(listening, probe=answers(Answer(kind="silent", text="Timed out")))  # type: ignore[arg-type]
    assert found.status == "fail" and "6379" in found.advice


@pytest.mark.parametrize("address", ["127.0.0.1:9", "http://127.0.0.1:9", "head", "ftp://x"])
def test_nothing_there_is_told_in_seconds(address: str) -> None:
    (found,) = ray_findings(address, probe=answers(Answer(kind="joined")))  # type: ignore[arg-type]
    assert found.status == "fail" and found.text


class Open(http.server.BaseHTTPRequestHandler):
    code = 200

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [(200, "warn", "authentication off"), (401, "fail", "requires a token"), (404, "fail", "not a Ray dashboard")],
)
def test_the_jobs_api(code: int, status: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Open, "code", code)
    # Ray settles the mode once per process, and other tests in this one may have settled it
    monkeypatch.setattr("ray._private.authentication.authentication_utils.is_token_auth_enabled", lambda: False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Open)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = ray_findings(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    answer = only(found, "ray authentication")
    assert (answer.status, told in answer.text) == (status, True), answer


# --- its nodes ---------------------------------------------------------------------------

HERE = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.14.1", "torchvision": "0.29.1", "tlsearch": "0.1.0"}
MARK = "mark"


@pytest.fixture
def storage(tmp_path: Path) -> str:
    folder = str(tmp_path / "runs")
    for name in (MARK, f"{MARK}-a", f"{MARK}-b"):
        write_mark(folder, name)
    return folder


def report(node: str, **changes: object) -> NodeReport:
    good = NodeReport(node=node, versions=HERE, cache_path="/cache", cache_free_gb=100.0, cpus=8.0, gpus=1.0)
    return replace(good, **changes)  # type: ignore[arg-type]


def judge(storage: str, *reports: NodeReport, gpus: float | None = None) -> list[Finding]:
    return compare(reports, storage=storage, mark=MARK, gpus_per_trial=gpus, here=HERE)


def test_sound_nodes(storage: str) -> None:
    found = judge(storage, report("a"), report("b"), gpus=1.0)
    assert {one.status for one in found} == {"ok"}
    assert "all 2 nodes" in only(found, "versions").text
    assert "2 nodes with 16 CPUs and 2 GPUs" in only(found, "devices of the cluster").text


@pytest.mark.parametrize("name", COMPARED)
def test_another_version_on_one_node(storage: str, name: str) -> None:
    found = judge(storage, report("a"), report("b", versions=HERE | {name: "0.9"}))
    fault = only(found, f"version of {name}")
    assert fault.status == "fail"
    assert fault.text == f"the driver has {HERE[name]}; b has 0.9"
    assert "one image" in fault.advice


def test_a_storage_that_a_node_cannot_reach(storage: str) -> None:
    found = judge(storage, report("a"), report("b", storage_error="FileNotFoundError: mark"))
    fault = only(found, "storage on b")
    assert fault.status == "fail" and "not shared with b" in fault.text and "shared mount" in fault.advice


def test_a_folder_of_the_same_name_on_a_nodes_own_disk(storage: str) -> None:
    drop_mark(storage, f"{MARK}-b")  # b wrote without an error, elsewhere
    assert "not seen by the driver" in only(judge(storage, report("a"), report("b")), "storage on b").text


def test_locks_that_do_not_hold_between_machines(tmp_path: Path) -> None:
    """As on a network file system without them: only a study that is a file needs them."""

    def ask(question: NodeQuestion) -> list[NodeReport]:
        return [look(question, "a"), replace(look(question, "b"), lock_seen=False)]

    for study, status in (("auto", "fail"), ("sqlite:////shared/s.db", "fail"), ("postgresql://me@db/x", "warn")):
        fault = only(node_findings(str(tmp_path), study=study, ask=ask), "locks of the storage")
        assert fault.status == status and fault.text.endswith("do not hold between machines: b do not see ours")
        assert "search.study: postgresql://" in fault.advice


def test_a_lock_of_another_process_is_seen(tmp_path: Path) -> None:
    write_mark(str(tmp_path), "mark")
    assert not sees_lock(str(tmp_path), "mark")
    with locked_mark(str(tmp_path), "mark") as locked:
        assert locked and sees_lock(str(tmp_path), "mark")
    found = node_findings(str(tmp_path), ask=lambda question: [look(question, "a")])
    assert [one for one in found if one.name.startswith("locks")] == []


def test_data_missing_on_one_node(storage: str) -> None:
    found = judge(storage, report("a"), report("b", data_error="/data/flowers is not there or cannot be read"))
    fault = only(found, "data on b")
    assert fault.status == "fail" and "/data/flowers" in fault.text and "every node" in fault.advice


@pytest.mark.parametrize(("free", "status"), [(0.2, "fail"), (5.0, "warn")])
def test_a_full_disk(storage: str, free: float, status: str) -> None:
    fault = only(judge(storage, report("a", cache_free_gb=free)), "disk of a")
    assert fault.status == status
    assert f"{free:.1f} GB are free at /cache" in fault.text and "TLSEARCH_CACHE_DIR" in fault.advice


def test_no_gpu_where_one_is_asked_for(storage: str) -> None:
    fault = only(judge(storage, report("a", gpus=0.0), gpus=1.0), "devices of the cluster")
    assert fault.status == "fail"
    assert "asks for 1 GPUs (resources.gpus_per_trial); the largest node has 0" in fault.text


def test_a_node_without_tlsearch(storage: str) -> None:
    found = judge(storage, report("a"), NodeReport(node="b", error="No module named 'tlsearch'"))
    fault = only(found, "node b")
    assert fault.status == "fail" and "one image or environment" in fault.advice
    assert only(found, "versions").status == "ok"  # the others are judged all the same


def test_a_node_looks_around(tmp_path: Path) -> None:
    folder = str(tmp_path / "runs")
    write_mark(folder, MARK)
    seen = look(NodeQuestion(storage=folder, mark=MARK, data_path=str(tmp_path)), "a")
    assert (seen.storage_error, seen.data_error, seen.error) == ("", "", "")
    assert read_mark(folder, f"{MARK}-a") == f"{MARK}-a"
    assert seen.versions == versions() and seen.versions["ray"] != "missing"
    assert seen.cache_free_gb is not None and seen.cache_path.startswith(str(tmp_path))
    gone = look(NodeQuestion(storage=str(tmp_path / "other"), mark=MARK, data_path=str(tmp_path / "no")), "a")
    assert "FileNotFoundError" in gone.storage_error and "is not there" in gone.data_error


def test_marks_are_removed_and_an_unwritable_storage_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "runs"

    def ask(question: NodeQuestion) -> list[NodeReport]:
        return [replace(look(question, name), cpus=1.0) for name in ("a", "b")]

    found = node_findings(str(folder), ask=ask)
    assert {one.status for one in found if one.name.startswith("storage")} == {"ok"}
    assert list(folder.iterdir()) == []
    (tmp_path / "file").write_text("")
    (fault,) = node_findings(str(tmp_path / "file" / "runs"), ask=ask)
    assert fault.status == "fail" and "cannot be written from here" in fault.text


# --- a real Ray --------------------------------------------------------------------------

SCRIPT = """
import dataclasses, json, os, sys
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 32)
from tlsearch.search.cluster.connect import connected
from tlsearch.doctor.nodes import node_findings
from tlsearch.search.cluster.auth_probe import probe_head
with connected("local", num_cpus=1):
    import ray
    address = ray.get_runtime_context().gcs_address
    kinds = [probe_head(address).kind, probe_head(address, with_token=False).kind]
    os.environ["RAY_AUTH_TOKEN"] = "b" * 32
    kinds.append(probe_head(address).kind)
    os.environ["RAY_AUTH_TOKEN"] = "a" * 32
    found = node_findings(sys.argv[1], data_path=sys.argv[1], gpus_per_trial=1.0)
print(json.dumps({"kinds": kinds, "found": [dataclasses.asdict(one) for one in found]}))
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_real_head_and_its_node(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["kinds"] == ["joined", "refused", "refused"]
    by_name = {one["name"]: one["status"] for one in seen["found"]}
    assert by_name == {"versions": "ok", "storage on nodes": "ok", "devices of the cluster": "fail"}
