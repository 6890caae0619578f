"""Files that are not weights, and weights under other names: what they are is decided by their content."""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import fill_cheaply
from safetensors.torch import save
from torch import Tensor, nn

from tlsearch.core.errors import WeightsError
from tlsearch.core.types import WeightsSource
from tlsearch.model import release_weights, resolve_weights
from tlsearch.model.libraries.fast_init import empty_original
from tlsearch.model.weights.file_kinds import page_hint
from tlsearch.model.weights.state_files import read_state

NAME = "shufflenet_v2_x0_5"


@pytest.fixture(autouse=True)
def _nothing_held() -> None:
    release_weights()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    model = empty_original(NAME, None, 224)
    fill_cheaply(model)
    return model.state_dict()


def _torch(content: Any, *, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def _zip(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _tar(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _script() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('pwned').touch()",))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 14212972\n"
TENSORS = {"a": torch.zeros(100)}
CASES: dict[str, tuple[bytes, str]] = {
    "lfs": (LFS, r"is a Git LFS pointer, not the file of 14,212,972 bytes.*`git lfs pull`"),
    "html": (
        b"<!DOCTYPE html>\n<html><title>Virus scan warning</title></html>\n",
        "is a web page .'Virus scan warning'., not a weights file",
    ),
    "html after blanks": (b"\xef\xbb\xbf\n  <HTML lang=en>", "is a web page, not a weights file"),
    "empty": (b"", "is empty"),
    "s3": (
        b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>',
        "is an XML document, not a weights file: AccessDenied: Access Denied",
    ),
    "json": (json.dumps({"error": "Repository not found"}).encode(), "is a JSON document.*: Repository not found"),
    "gzip": (gzip.compress(b"weights"), "is a gzip archive: unpack it"),
    "bzip2": (b"BZh91AY&SY", "is a bzip2 archive"),
    "xz": (b"\xfd7zXZ\x00\x00", "is an xz archive"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", "is a zstd archive"),
    "tar": (_tar("model/weights.pth", b"x" * 600), "is a tar archive that begins with 'model/weights.pth'"),
    "zip": (_zip(**{"model/weights.pth": b"x"}), "is a zip archive that begins with 'model/weights.pth'"),
    "cut zip": (_torch(TENSORS)[:-200], "is cut short or damaged.*get it again"),
    "no zip": (b"PK\x03\x04 not a zip", "is cut short or damaged"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\x00", "is an HDF5 file, as Keras writes"),
    "keras": (_zip(**{"config.json": b"{}", "model.weights.h5": b""}), "is a Keras model"),
    "npy": (b"\x93NUMPY\x01\x00", r"is a numpy array \(.npy\)"),
    "npz": (_npz(), "is a numpy archive"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0:", "is an ONNX model"),
    "tflite": (b"\x1c\x00\x00\x00TFL3\x00", "is a TensorFlow Lite model"),
    "picture": (b"\x89PNG\r\n\x1a\n", "is a PNG image"),
    "script": (_script(), r"is a TorchScript archive.*torch.jit.load\(FILE\).state_dict\(\)"),
    "text": (b"just some words\n", "is not a known kind of weights file: it begins with 'just some words"),
    "bytes": (b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09", "it begins with the bytes 00 01 02"),
    "cut safetensors": (save(TENSORS)[:-100], "is a safetensors file that is cut short or damaged"),
    "model": (
        _torch(nn.Linear(2, 2)),
        r"is a whole pickled model.*\(it holds torch.nn.modules.linear.Linear\).*state_dict\(\)",
    ),
    "old model": (_torch(nn.Linear(2, 2), old=True), r"is a whole pickled model.*torch.nn.modules.linear.Linear"),
    "settings": (
        _torch({"state_dict": TENSORS, "hyper_parameters": argparse.Namespace(lr=1)}),
        r"more than tensors \(it holds argparse.Namespace\).*\['state_dict'\]",
    ),
    "old settings": (
        _torch({"state_dict": TENSORS, "args": argparse.Namespace(lr=1)}, old=True),
        r"more than tensors \(it holds argparse.Namespace\)",
    ),
    "a number": (_torch({"state_dict": TENSORS, "best": np.float64(0.5)}), "numpy._core.multiarray.scalar"),
    "code": (pickle.dumps({"w": _Code()}, protocol=4), r"it holds builtins.exec\); loading one may run code"),
    "old code": (pickle.dumps({"w": _Code()}, protocol=2), r"it holds __builtin__.exec\); loading one may run code"),
    "cut pickle": (_torch(TENSORS, old=True)[:60], "is cut short or damaged"),
    "a list": (_torch([1, 2]), "holds no state dict"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_message_says_what_the_file_is(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = CASES[case]
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"w{suffix}"
        path.write_bytes(content)
        with pytest.raises(
            WeightsError, match=f"w{suffix} {'' if message.startswith('is') else '.*'}{message}"
        ) as told:
            resolve_weights(NAME, WeightsSource(kind="file", path=str(path)))
        assert "\n" not in str(told.value) and "\x1b" not in str(told.value)
    assert not (tmp_path / "pwned").exists()


def test_a_folder_names_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "model.safetensors").touch()
    with pytest.raises(WeightsError, match=r"repo is a folder; name the file in it: model.safetensors"):
        resolve_weights(NAME, WeightsSource(kind="file", path=str(tmp_path / "repo")))


@pytest.mark.parametrize("name", ["w.SAFETENSORS", "w.bin", "w.pt", "w.pth", "w.safetensors", "w.ckpt"])
@pytest.mark.parametrize("form", ["safetensors", "torch", "old"])
def test_the_suffix_decides_nothing(name: str, form: str, tmp_path: Path, state: dict[str, Tensor]) -> None:
    content = save(state) if form == "safetensors" else _torch({"state_dict": state}, old=form == "old")
    (tmp_path / name).write_bytes(content)
    found = resolve_weights(NAME, WeightsSource(kind="file", path=str(tmp_path / name))).state
    assert found is not None and torch.equal(found["conv5.0.weight"], state["conv5.0.weight"])


def test_a_lightning_checkpoint_of_plain_values_loads(tmp_path: Path, state: dict[str, Tensor]) -> None:
    content = {
        "epoch": 3,
        "hyper_parameters": collections.OrderedDict(lr=0.1, name="x"),
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    }
    (tmp_path / "last.ckpt").write_bytes(_torch(content))
    found = resolve_weights(NAME, WeightsSource(kind="file", path=str(tmp_path / "last.ckpt"))).state
    assert found is not None and torch.equal(found["conv5.0.weight"], state["conv5.0.weight"])


def test_pages_about_a_file() -> None:
    assert "/resolve/ for /blob/" in page_hint("https://huggingface.co/a/b/blob/main/model.safetensors")
    assert "/raw/ for /blob/" in page_hint("https://github.com/a/b/blob/main/w.pth")
    assert page_hint("https://huggingface.co/a/b/resolve/main/model.safetensors") == ""


@pytest.mark.timeout(30)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_of_weights_without_end_is_not_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(WeightsError, match="cannot be read: it has 1,099,511,627,776 bytes, more than"):
        read_state(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(WeightsError, match="cannot be read: it is a named pipe, not a file"):
        read_state(path)
