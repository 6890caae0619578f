"""Weights at an address: fetched once, whole and checked, or a fault that names the ways out."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import fill_cheaply
from torch import Tensor
from web_site import Site

from tlsearch.core.errors import WeightsError
from tlsearch.core.types import WeightsSource
from tlsearch.data.fetch.connection import Limits
from tlsearch.data.fetch.fetcher import look
from tlsearch.model import release_weights, resolve_weights
from tlsearch.model.libraries.fast_init import empty_original
from tlsearch.model.weights.url import fetch

TENSORS = b"\x02\0\0\0\0\0\0\0{}" + b"x" * 99_990  # begins as a file of safetensors does


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    model = empty_original("shufflenet_v2_x0_5", None, 224)
    fill_cheaply(model)
    return model.state_dict()


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _cached(tmp_path: Path) -> list[str]:
    return sorted(p.name.partition("-")[2] for p in (tmp_path / "cache" / "weights").iterdir() if p.suffix != ".lock")


def test_a_file_is_fetched_once_and_loaded(site: Site, tmp_path: Path, state: dict[str, Tensor]) -> None:
    site.files["/some/weights.pth?signature=abc"] = _saved({"model": state})
    source = WeightsSource(kind="url", url=f"{site.address}/some/weights.pth?signature=abc")
    weights = resolve_weights("shufflenet_v2_x0_5", source)
    assert weights.state is not None and torch.equal(weights.state["conv5.0.weight"], state["conv5.0.weight"])
    assert weights.id == f"url:{site.address}/some/weights.pth", "what may be secret is not shown"
    release_weights()
    assert resolve_weights("shufflenet_v2_x0_5", source).digest == weights.digest
    assert len(site.asked) == 1
    assert _cached(tmp_path) == ["weights.pth"]


def test_what_does_not_fit_names_the_address(site: Site) -> None:
    site.files["/w.pth"] = _saved({"a": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"url:http://127.0.0.1:\d+/w.pth does not fit resnet18; 100 missing"):
        resolve_weights("resnet18", WeightsSource(kind="url", url=f"{site.address}/w.pth"))


@pytest.mark.parametrize("faults", [["cut"], [500, 503], ["cut", 429]])
def test_a_bad_connection_is_tried_again(site: Site, tmp_path: Path, faults: list[str | int]) -> None:
    site.files["/w.safetensors"] = TENSORS
    site.faults = list(faults)
    assert fetch(f"{site.address}/w.safetensors", "resnet18").read_bytes() == TENSORS
    assert len(site.asked) == len(faults) + 1
    assert _cached(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize(
    ("faults", "asked", "reason"),
    [
        ([500] * 9, 3, "HTTP Error 500"),
        (["cut"] * 9, 3, "the connection ended after 50000 of 100000 bytes"),
        ([404], 1, "HTTP Error 404"),
        ([403], 1, "HTTP Error 403"),
    ],
)
def test_what_cannot_be_had_names_the_ways_out(
    site: Site, tmp_path: Path, faults: list[str | int], asked: int, reason: str
) -> None:
    site.files["/w.pth"] = TENSORS
    site.faults = list(faults)
    with pytest.raises(WeightsError) as caught:
        fetch(f"{site.address}/w.pth", "resnet18")
    for text in (reason, "/w.pth of resnet18 could not be loaded", "resnet18: ./file.pth", "resnet18: none"):
        assert text in str(caught.value)
    assert len(site.asked) == asked
    assert _cached(tmp_path) == [], "nothing half-written is left"


def test_without_a_network_the_ways_out_are_named() -> None:
    with pytest.raises(WeightsError, match=r"no-such-host.invalid/w.pth of resnet18 could not be loaded: .*Ways out"):
        fetch("https://no-such-host.invalid/w.pth", "resnet18")


def test_a_look_fetches_nothing_and_a_silent_host_is_asked_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["/w.pth"] = b"x"
    assert look(f"{site.address}/w.pth", {"Authorization": "secret"}) is None
    assert "404" in str(look(f"{site.address}/absent.pth"))
    site.faults = [302]
    assert look(f"{site.address}/elsewhere.pth") is None, "a redirection is not followed"
    assert site.asked == ["/w.pth", "/absent.pth", "/elsewhere.pth"]
    first = look("http://no-such-host.invalid/a")
    monkeypatch.setattr("urllib.request.OpenerDirector", None)  # would fail if it were called
    assert first is not None and look("http://no-such-host.invalid/b") is first
    release_weights()
    with pytest.raises(TypeError):
        look("http://no-such-host.invalid/c")


def test_hashes_are_checked(site: Site, tmp_path: Path) -> None:
    content = TENSORS
    digest = hashlib.sha256(content).hexdigest()
    wrong = "a" + digest[1:] if digest[0] != "a" else "b" + digest[1:]
    names = ["/w-20240131.pth", f"/w-{digest[:8]}.pth", f"/w-{wrong[:8]}.pth", "/w.pth"]
    site.files = dict.fromkeys(names, content)
    assert any(letter in digest[:8] for letter in "abcdef")
    for good in ("/w-20240131.pth", f"/w-{digest[:8]}.pth", f"/w.pth#sha256={digest}"):
        assert fetch(site.address + good, "resnet18").read_bytes() == content
    kept = _cached(tmp_path)
    for bad in (f"/w-{wrong[:8]}.pth", f"/w.pth#sha256={wrong}"):
        with pytest.raises(WeightsError, match=f"should have the sha256 {wrong[:8]}.*, but has {digest}"):
            fetch(site.address + bad, "resnet18")
    assert _cached(tmp_path) == kept


def test_too_large_and_empty_files_are_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files = {"/large.pth": TENSORS, "/empty.pth": b""}
    monkeypatch.setattr("tlsearch.model.weights.url.WEIGHTS", Limits(max_bytes=4000, total_s=60))
    with pytest.raises(WeightsError, match="too much for such a file"):
        fetch(f"{site.address}/large.pth", "resnet18")
    with pytest.raises(WeightsError, match="is an empty file"):
        fetch(f"{site.address}/empty.pth", "resnet18")
    assert _cached(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/w.pth", "begins with https:// or s3://, not 'ftp://host/w.pth'"),
        ("https://host/", "names a file, and 'https://host/' names none"),
        ("https://me:secret@host/w.pth", "'https://host/w.pth' of weights must not carry a user and a password"),
        ("https://[host/w.pth", "cannot be read"),
        ("https://host:port/w.pth", "cannot be read"),
    ],
)
def test_addresses_that_are_none(url: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        fetch(url, "resnet18")
    assert "secret" not in str(caught.value)


# --- s3 -----------------------------------------------------------------------------------


class Bucket:
    """What pyarrow's file systems offer, as far as it is used."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def from_uri(self, uri: str) -> tuple[Bucket, str]:
        return self, uri.removeprefix("s3://").partition("?")[0]

    def open_input_stream(self, path: str) -> io.BytesIO:
        if path not in self.files:
            raise FileNotFoundError(2, f"no object {path}")
        return io.BytesIO(self.files[path])

    def get_file_info(self, path: str) -> Any:
        return type("Info", (), {"size": len(self.files[path])})


def test_s3_goes_through_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.fs")
    monkeypatch.setattr("pyarrow.fs.FileSystem", Bucket({"bucket/a/w.pth": TENSORS}))
    assert fetch("s3://bucket/a/w.pth?region=eu-north-1", "resnet18").read_bytes() == TENSORS
    with pytest.raises(WeightsError, match=r"s3://bucket/b.pth of resnet18 could not be loaded: .*no object"):
        fetch("s3://bucket/b.pth", "resnet18")
    assert _cached(tmp_path) == ["w.pth"]


def test_s3_without_pyarrow_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(WeightsError, match="needs the package pyarrow.*pip install pyarrow"):
        fetch("s3://bucket/w.pth", "resnet18")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page .'Sign in'."),
        (b"<Error><Code>AccessDenied</Code></Error>", "is an XML document, not a weights file: AccessDenied"),
        (b'{"message": "Not Found"}', "is a JSON document, not a weights file: Not Found"),
    ],
)
def test_what_a_host_sends_in_place_of_a_file_is_named_and_not_kept(
    site: Site, tmp_path: Path, content: bytes, message: str
) -> None:
    site.files["/a/blob/main/w.pth"] = content
    for _ in range(2):
        with pytest.raises(
            WeightsError, match=rf"^http://127.0.0.1:\d+/a/blob/main/w.pth {message}.*put /raw/ for /blob/"
        ):
            resolve_weights("resnet18", WeightsSource(kind="url", url=f"{site.address}/a/blob/main/w.pth"))
    assert _cached(tmp_path) == [] and len(site.asked) == 2
