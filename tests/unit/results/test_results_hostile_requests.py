"""The served model under hostile requests: each is answered 200 or 400, within 1.5 GB of memory."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from tlsearch.results import SERVED_CODE
from tlsearch.results.inference.served_requests import checked_request
from tlsearch.tracking.registry.logged_models import write_model

if TYPE_CHECKING:
    from conftest import Trained

SEED = 18
MEMORY_BYTES = 1_500_000_000
JSON = "application/json"
# glibc: large blocks go back to the system as they are freed, as docs/production.md advises where memory is bounded.
HEAP = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1000000"}


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    model: Any = SimpleNamespace(artifact_location="file:///nowhere", model_id="m-1")
    write_model(folder, model, run_id="r", checkpoint=trained.folder / "best", served_code=SERVED_CODE)
    return folder


@pytest.mark.parametrize("count", [4, pytest.param(1000, marks=pytest.mark.slow)])
def test_hostile_requests_are_answered_within_a_limit_of_memory(folder: Path, count: int, tmp_path: Path) -> None:
    """In a server's process of its own; the limit is one of its data, which counts all that it allocates."""
    command = [sys.executable, __file__, str(folder), str(count)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **HEAP}, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"{count} requests" in done.stdout


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (JSON, '{"inputs": []}', "inputs must hold at least one image"),
        (JSON, '{"dataframe_split": {"data": []}}', "must hold at least one image"),
        ("text/csv", f"{'A' * 92}\n{'A' * 92}\n", "the first line of text/csv is the name of the column"),
    ],
)
def test_no_image_and_no_header_are_said(kind: str, body: str, words: str) -> None:
    with pytest.raises(MlflowException, match=words):
        checked_request(body, kind)


def _png(width: int, height: int, *, kind: int = 2) -> bytes:
    """A black PNG of any size in few bytes, and as quickly; ``kind`` is PNG's: 0 grey, 2 RGB, 6 RGBA."""
    row = b"\0" * (1 + width * {0: 1, 2: 3, 6: 4}[kind])
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, kind, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _small(kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(file, kind)
    return _text(file.getvalue())


def _body(content: object) -> bytes:
    return json.dumps(content).encode()


def _huge(width: int, height: int, copies: int, kind: int = 2) -> bytes:
    return _body({"inputs": [_text(_png(width, height, kind=kind))] * copies})


def _parquet(rng: random.Random) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pa.BufferOutputStream()
    table = pa.table({"0": pa.array(["A" * 100_000] * rng.randint(10, 2000)).dictionary_encode()})
    pq.write_table(table, file, compression="zstd")
    return bytes(file.getvalue())


def _scrambled(rng: random.Random) -> bytes:
    body = bytearray(_body({"inputs": [_small(rng.choice(["PNG", "JPEG", "GIF"])) for _ in range(3)]}))
    for _ in range(rng.randint(1, 20)):
        at = rng.randrange(len(body))
        match rng.randrange(3):
            case 0:
                body[at] = rng.randrange(256)
            case 1:
                del body[at : at + rng.randint(1, 30)]
            case _:
                body[at:at] = rng.choice([b"[", b"{", b'"', b"\\u0000", b"1e999", b"NaN", b"null", b"\xff", b","])
    return bytes(body)


# Each makes a body and its content type; ``times`` says how often it is drawn among the others.
ATTACKS: list[tuple[int, str, Callable[[random.Random], bytes]]] = [
    (8, JSON, lambda r: b"[" * r.choice([900, 1100, 100_000, 3_000_000])),
    (8, JSON, lambda r: b'{"inputs":' * r.choice([90, 2000, 100_000]) + b"1"),
    (8, JSON, lambda r: b'{"inputs":' + b"[" * (n := r.choice([1, 2, 33, 65, 900])) + b'"QQ=="' + b"]" * n + b"}"),
    (4, JSON, lambda r: b'{"inputs":[' + b"[]," * r.choice([10, 10_000, 5_000_000]) + b"[]]}"),
    (4, JSON, lambda r: b'{"inputs":[' + b"{}," * r.choice([10, 10_000, 5_000_000]) + b"{}]}"),
    (4, JSON, lambda r: b'{"inputs":[' + b'"",' * r.choice([10, 10_000, 5_000_000]) + b'""]}'),
    (4, JSON, lambda r: b'{"inputs":' + b"9" * r.choice([100, 5000, 10_000_000]) + b"}"),
    (2, JSON, lambda r: _body({"inputs": ["A" * r.choice([10_000, 10_000_000]), *[""] * 250]})),
    (2, JSON, lambda r: _body({"inputs": ["A" * r.choice([30_000_000, 40_000_000])]})),
    (2, JSON, lambda r: _huge(9400, 9400, r.choice([1, 12]))),
    (2, JSON, lambda r: _huge(6000, 6000, r.choice([1, 3]), r.choice([0, 2, 6]))),
    (2, JSON, lambda r: _huge(4000, 4000, r.choice([1, 40]), 6)),
    (4, JSON, lambda r: _huge(*r.choice([(9000, 1), (1, 9000), (20_000, 2), (49_000, 1000)]), 1)),
    (8, JSON, lambda r: _body({"inputs": [_text(_png(30, 30)[: r.randint(0, 60)])]})),
    (8, JSON, lambda r: _body({r.choice(["inputs", "instances", "dataframe_split", "x"]): _value(r)})),
    (8, JSON, lambda r: _body({"dataframe_split": {"data": _value(r), "columns": _value(r)}})),
    (8, JSON, lambda r: _body({"dataframe_records": [_value(r), {"a": _small()}]})),
    (6, JSON, lambda r: _body({"inputs": [_small()] * r.choice([1, 3, 256, 257, 3000])})),
    (20, JSON, _scrambled),
    (4, "text/csv", lambda r: b"0\n" + b"," * r.choice([10, 10_000_000])),
    (4, "text/csv", lambda r: b"0\n" + b"a\n" * r.choice([10, 10_000_000])),
    (4, "text/csv", lambda r: b"0\n" + _small().encode() + b'\n"' + bytes(r.randrange(256) for _ in range(50))),
    (4, "application/vnd.apache.parquet", _parquet),
    (4, "", lambda r: _scrambled(r)),
    (4, "application/json; charset=utf-16", lambda r: _scrambled(r)),
    (4, "image/png", lambda r: _png(20, 20)),
]


def _value(rng: random.Random, depth: int = 0) -> Any:
    kinds = [None, True, 10**400, -0.5, "", "/etc/passwd", "http://169.254.169.254/", _small(), "\ud800", "QUJD"]
    if depth < 3 and rng.random() < 0.5:
        return [_value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    if depth < 3 and rng.random() < 0.2:
        return {str(rng.choice(kinds)): _value(rng, depth + 1) for _ in range(rng.randint(0, 3))}
    return rng.choice(kinds)


def _requests(count: int) -> list[tuple[str, Callable[[random.Random], bytes]]]:
    """Each attack once, as far as they go, then as often as it is drawn."""
    rng = random.Random(SEED)
    kinds = [(kind, make) for _, kind, make in ATTACKS]
    drawn = rng.choices(kinds, [times for times, _, _ in ATTACKS], k=count)
    return [*rng.sample(kinds, len(kinds)), *drawn][:count]


def _memory(name: str) -> int:
    """A line of the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def _serve(folder: str, count: int) -> None:
    """The server's own application, as uvicorn runs it, without a socket."""
    import resource

    import mlflow.pyfunc.scoring_server as server
    import torch
    from starlette.testclient import TestClient

    torch.set_num_threads(2)
    client = TestClient(server.init(server.load_model_with_mlflow_config(folder)), raise_server_exceptions=False)
    assert client.post("/invocations", json={"inputs": [_small()]}).status_code == 200
    # More is mapped at rest than is in use: stacks and arenas. Requests may take what is left of the 1.5 GB.
    rest, in_use = (_memory(name) for name in ("VmData", "VmRSS"))
    limit = rest + MEMORY_BYTES - in_use
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for number, (kind, make) in enumerate(_requests(count)):
        rng = random.Random(f"{SEED} {number}")
        body, headers = make(rng), {"content-type": kind} if kind else {}
        answer = client.post("/invocations", content=body, headers=headers)
        case = f"request {number} of seed {SEED}: {kind} {body[:100]!r} ({len(body)} bytes): {answer.text[:500]}"
        assert answer.status_code in (200, 400, 415), f"{answer.status_code}: {case}"
        assert len(answer.text) < 5000 or answer.status_code == 200, case
        assert "Traceback" not in answer.text and "unexpected error" not in answer.text, case
        del body
    answer = client.post("/invocations", json={"inputs": [_small()]})
    assert answer.status_code == 200, answer.text
    peak = _memory("VmHWM")  # this program's; `ru_maxrss` begins with that of the process that has started it
    assert peak < MEMORY_BYTES, f"a peak of {peak / 1e9:.2f} GB"
    print(f"{count} requests, {in_use / 1e9:.2f} GB at rest, at most {peak / 1e9:.2f} GB", flush=True)
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
