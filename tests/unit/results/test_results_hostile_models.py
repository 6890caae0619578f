"""A stranger's model folder: whatever its files say, it gives finite scores or an error that names the file."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tlsearch.core.errors import DataError, StorageError, TlsearchError
from tlsearch.results import load_model, predict
from tlsearch.results.inference.checkpoint_uri import checkpoint_folder

if TYPE_CHECKING:
    from conftest import Trained

SEED = 18
MORE_BYTES = 1_500_000_000  # that a case may take beyond what the process has with the true model
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture
def model(trained: Trained, tmp_path: Path) -> Path:
    shutil.copytree(trained.folder / "best", tmp_path / "model")
    return tmp_path / "model"


def test_a_mutated_checkpoint_works_or_is_refused_by_name(model: Path) -> None:
    _read_all(model, 20)


@pytest.mark.slow
def test_mutated_checkpoints_take_a_bounded_memory(model: Path) -> None:
    """In a process of its own, with a limit of its data."""
    count = 2000
    done = subprocess.run(
        [sys.executable, __file__, str(model), str(count)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"{count} checkpoints" in done.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"transform": {"crop_size": 30_000}, "image_size": 30_000}, "image_size: must be at most 4096"),
        ({"transform": {"resize_size": 40_000, "crop_mode": "squash"}}, "resize_size: must be at most 8192"),
        ({"transform": {"std": [0.0, 1.0, 1.0]}}, r"std\[0\]: must be at least 1e-06"),
        ({"transform": {"mean": [0.0, 1.0]}}, "transform.mean and transform.std have a number for each channel"),
        ({"transform": {"mean": [], "std": []}}, "transform.mean"),
        ({"transform": {"mean": [0.0] * 999, "std": [1.0] * 999}}, "transform.mean"),
        ({"transform": {"bits": 4}}, "transform.bits"),
        ({"transform": {"crop_size": 64}}, "must agree"),
        ({"classes": ["circle", "circle", "stripe"]}, "'circle' stands twice"),
        ({"classes": ["", "square", "stripe"]}, r"classes\[0\]: must be a text of 1 to 1000"),
        ({"classes": [f"c{n}" for n in range(1000)]}, r"head.classifier.* must be F32 of shape \[1000"),
        ({"classes": [f"c{n}" for n in range(200_000)]}, "classes: .*100000"),
        ({"backbone": "vit_h_14", "image_size": 32}, "vit_h_14 takes images of multiples of 14 px"),
        ({"backbone": "resnet50"}, "must fit the backbone"),
        ({"backbone": "no_such_net"}, "unknown backbone"),
        ({"temperature": 1e-300}, "temperature: must be at least"),
        ({"epoch": True}, "epoch: must be a whole number"),
        ({"new_key": 1}, "new_key: is a key that this version does not know"),
        ({"max_pixels": 10**30}, "max_pixels: must be at most"),
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_made(
    model: Path, change: dict[str, Any], says: str
) -> None:
    content = json.loads((model / "checkpoint.json").read_text())
    if "classes" in change:
        change = {**change, "class_to_idx": {name: place for place, name in enumerate(change["classes"])}}
    transform = {**content["transform"], **change.pop("transform", {})}
    (model / "checkpoint.json").write_text(json.dumps({**content, **change, "transform": transform}))
    with pytest.raises(StorageError, match=says) as refused:
        load_model(model)
    assert str(model / "checkpoint.json") in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "not nested this deep"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"value": NaN}', "must be finite, not NaN"),
        ('{"value": -Infinity}', "must be finite, not -Infinity"),
        (f'{{"value": {"9" * 5000}}}', "must be JSON"),
        ("\xff\xfe", "must be JSON"),
        ("[]", "must be a JSON object"),
        (f'"{"x" * 17_000_000}"', "more than the 16,000,000 that are read"),
    ],
)
def test_json_that_is_no_checkpoint_is_refused(model: Path, text: str, says: str) -> None:
    (model / "checkpoint.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StorageError, match=says) as refused:
        load_model(model)
    assert str(model / "checkpoint.json") in str(refused.value)


def _nan(state: dict[str, torch.Tensor]) -> None:
    state["head.classifier.bias"][1] = math.nan


def _infinite(state: dict[str, torch.Tensor]) -> None:
    state["head.classifier.weight"][0, 0] = math.inf


def _overflowing(state: dict[str, torch.Tensor]) -> None:
    for name, tensor in state.items():
        if name.endswith("weight"):
            tensor.fill_(1e30)


def _negative_variance(state: dict[str, torch.Tensor]) -> None:
    next(tensor for name, tensor in state.items() if name.endswith("running_var")).fill_(-1.0)


def _other_kind(state: dict[str, torch.Tensor]) -> None:
    state["head.classifier.weight"] = state["head.classifier.weight"].half()


def _one_more(state: dict[str, torch.Tensor]) -> None:
    state["extra"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_nan, "must be finite; head.classifier.bias is not"),
        (_infinite, "must be finite"),
        (_overflowing, "scores of a model must be finite"),
        (_negative_variance, "scores of a model must be finite"),
        (_other_kind, "must be F32 of shape .*, and is F16"),
        (_one_more, "extra must be absent"),
    ],
)
def test_weights_that_give_no_finite_scores_are_an_error(
    model: Path, change: Callable[[dict[str, torch.Tensor]], None], says: str
) -> None:
    content = json.loads((model / "checkpoint.json").read_text())
    files = [content[key] for key in ("weights_file", "frozen_file") if content[key]]
    for key, name in zip(("weights", "frozen"), files, strict=True):
        state = {
            tensor: value.clone() for tensor, value in load_file(model / name).items()
        }  # not the file's own memory
        if change is not _one_more or key == "weights":
            try:
                change(state)
            except (KeyError, StopIteration):
                continue
        save_file(state, model / name)
        content[f"{key}_sha256"] = hashlib.sha256((model / name).read_bytes()).hexdigest()
    (model / "checkpoint.json").write_text(json.dumps(content))
    with pytest.raises(StorageError, match=says) as refused:
        predict(load_model(model), [IMAGE])
    assert str(model) in str(refused.value)


def test_a_safetensors_header_that_lies_is_refused(model: Path) -> None:
    content = json.loads((model / "checkpoint.json").read_text())
    path = model / content["weights_file"]
    for data in (
        (2**40).to_bytes(8, "little") + b"{",
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}',
        b"",
        b"\x05",
    ):
        path.write_bytes(data)
        content["weights_sha256"] = hashlib.sha256(data).hexdigest()
        (model / "checkpoint.json").write_text(json.dumps(content))
        with pytest.raises(StorageError, match=r"must be \.safetensors"):
            load_model(model)


# --- the process that reads mutated files -----------------------------------------------------------------------------

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 5, 6, 31, 32, 33, 224, 4096, 4097, 30_000, 10**6, 10**9, 2**63, 10**400),
    *(0.0, -0.0, 0.5, -1.5, 1e-7, 1e-45, 1e-300, 1e38, 1e300, "", "a", "x" * 2000, "../x", "/dev/zero", "\0", "\ud800"),
    *("resnet18", "mobilenet_v3_small", "vit_h_14", "regnet_y_128gf", "timm/eva_giant_patch14_560", "timm/x", "a@b"),
    *(
        [],
        [0],
        [1.0] * 3,
        [1.0] * 4,
        ["a"] * 3,
        ["a", "b", "c"],
        [[[]]],
        {},
        {"a": 0},
        {"a": {"b": {}}},
        "squash",
        "center",
    ),
]
RAW = ["NaN", "-Infinity", "1e999", "[" * 50_000, '{"a":' * 3000, '"\\ud800"', "9" * 5000, '{"a":1,"a":1}', "\x00", ""]


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        found += _places(value, (*path, key)) if isinstance(value, dict | list) else [(*path, key)]
    return found


def _mutated(original: str, rng: random.Random) -> bytes:
    content = json.loads(original)
    mark = "a mark that stands nowhere else"
    raw = None
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        path = rng.choice(_places(content))
        node = content
        try:
            for part in path[:-1]:
                node = node[part]
            match rng.randrange(6):
                case 0:
                    del node[path[-1]]
                case 1 if isinstance(node, dict):
                    node[rng.choice(["", "new", "classes", path[-1] + "_"])] = rng.choice(ODD)
                case 2:
                    node[path[-1]], raw = mark, rng.choice(RAW)
                case _:
                    node[path[-1]] = rng.choice(ODD)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    if rng.random() < 0.3 and isinstance(content.get("classes"), list):  # the two agree: what follows is judged
        content["class_to_idx"] = {str(name): place for place, name in enumerate(content["classes"])}
    if rng.random() < 0.3 and isinstance(content.get("transform"), dict):
        content["image_size"] = content["transform"].get("crop_size")
    data = json.dumps(content).replace(f'"{mark}"', raw if raw is not None else mark).encode()
    if rng.random() < 0.1:
        at = rng.randrange(len(data))
        data = data[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(0, 9))) + data[at + rng.randint(0, 9) :]
    return data


def _limit_memory(folder: Path) -> None:
    import resource

    torch.set_num_threads(1)
    predict(load_model(folder), [IMAGE])
    now = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line).split()[1])
    limit = now * 1024 + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _read_all(folder: Path, count: int) -> None:
    original = (folder / "checkpoint.json").read_text()
    worked = 0
    for number in range(count):
        data = _mutated(original, random.Random(f"{SEED} {number}"))
        (folder / "checkpoint.json").write_bytes(data)
        try:
            (answer,) = predict(load_model(checkpoint_folder(folder)), [IMAGE])
            assert all(math.isfinite(score.score) for score in answer.top), f"case {number} of seed {SEED}: {answer}"
            worked += 1
        except TlsearchError as error:
            refused = isinstance(error, DataError) and "too many pixels" in str(error)  # a max_pixels that may be
            assert str(folder) in str(error) or refused, f"case {number} of seed {SEED}: {error}"
            assert len(str(error)) < 3000, f"case {number} of seed {SEED}: {str(error)[:3000]}"
        except BaseException:
            print(f"case {number} of seed {SEED}: {data[:3000]!r}", flush=True)
            raise
    print(f"{count} checkpoints, {worked} worked", flush=True)


if __name__ == "__main__":
    _limit_memory(Path(sys.argv[1]))
    _read_all(Path(sys.argv[1]), int(sys.argv[2]))
