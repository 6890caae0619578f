"""Model checkpoints: what goes in comes out, and nothing half-written, changed or pickled is read."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tlsearch.config.checkpoint_meta import read_model_file
from tlsearch.core.errors import StorageError
from tlsearch.core.types import TransformSpec, TrialConfig
from tlsearch.model import StagedModel
from tlsearch.train import (
    ModelMeta,
    copy_calibrated,
    read_model_meta,
    read_model_state,
    save_model_checkpoint,
    write_frozen_part,
)
from tlsearch.train.checkpoint import model_checkpoints

Build = Callable[..., StagedModel]
META = ModelMeta(
    backbone="tiny",
    classes=("cat", "dog", "räksmörgås"),
    weights_id="file:tiny.pth",
    weights_digest="d" * 64,
    transform=TransformSpec(resize_size=36, crop_size=32, mean=(0.1, 0.2, 0.3)),
    image_size=32,
    config=TrialConfig(backbone="tiny", unfreeze_depth=2, backbone_lr=1e-4, bn_policy="train"),
    epoch=3,
    metric="val_accuracy",
    value=2 / 3,
    metrics={"val_accuracy": 2 / 3, "val_loss": 0.125},
)


def _state(directory: Path, model: StagedModel) -> dict[str, torch.Tensor]:
    return read_model_state(directory, read_model_file(directory), model)


def test_a_checkpoint_comes_back_whole(tiny_model: Build, tmp_path: Path) -> None:
    model = tiny_model(seed=4)
    save_model_checkpoint(tmp_path / "best", state=model.state_dict(), meta=META)
    assert read_model_meta(tmp_path / "best") == META
    other = tiny_model(seed=5)
    other.load_state_dict(_state(tmp_path / "best", other))
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    content = json.loads((tmp_path / "best/checkpoint.json").read_text())
    assert content["class_to_idx"] == {"cat": 0, "dog": 1, "räksmörgås": 2}
    assert content["format"] == 1


def test_the_frozen_part_is_written_once(tiny_model: Build, tmp_path: Path) -> None:
    model = tiny_model()
    model.freeze(1, "train")
    frozen = write_frozen_part(tmp_path, model.frozen_state())
    for epoch in (1, 2, 4):
        with torch.no_grad():
            model.head[1].weight.add_(1.0)
        save_model_checkpoint(tmp_path, state=model.state_dict(), meta=replace(META, epoch=epoch), frozen=frozen)
    names = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.iterdir())
    assert names == ["checkpoint.json", "frozen", "weights-4"]
    state = _state(tmp_path, model)
    assert read_model_meta(tmp_path).epoch == 4
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_death_before_the_commit_leaves_the_old_checkpoint(
    tiny_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(seed=1)
    save_model_checkpoint(tmp_path, state=model.state_dict(), meta=META)
    with monkeypatch.context() as patch:
        patch.setattr(model_checkpoints, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save_model_checkpoint(
                tmp_path, state=tiny_model(seed=2).state_dict(), meta=META
            )  # the same epoch, other weights
    state = _state(tmp_path, model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    save_model_checkpoint(tmp_path, state=model.state_dict(), meta=replace(META, epoch=5))
    assert len(list(tmp_path.iterdir())) == 2  # what the dead writer left is gone


def test_changed_or_missing_weights_are_refused(tiny_model: Build, tmp_path: Path) -> None:
    save_model_checkpoint(tmp_path, state=tiny_model().state_dict(), meta=META)
    weights = next(tmp_path.glob("weights-*"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(StorageError, match="sha256"):
        _state(tmp_path, tiny_model())
    weights.unlink()
    with pytest.raises(StorageError, match="must be there"):
        _state(tmp_path, tiny_model())


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_pickle_is_never_loaded(tiny_model: Build, tmp_path: Path, name: str) -> None:
    save_model_checkpoint(tmp_path, state=tiny_model().state_dict(), meta=META)
    (tmp_path / name).write_bytes(pickle.dumps(_Bomb()))
    content = json.loads((tmp_path / "checkpoint.json").read_text())
    content["weights_file"] = name
    content["weights_sha256"] = _sha256(tmp_path / name)
    (tmp_path / "checkpoint.json").write_text(json.dumps(content))
    with pytest.raises(StorageError, match=r"must be \.safetensors"):
        _state(tmp_path, tiny_model())


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 1"),
        ({"classes": ["dog", "cat", "räksmörgås"]}, "must agree"),
        ({"transform": None}, "transform: must be a mapping"),
        ({"config": {"backbone": "tiny", "no_such_key": 1}}, "no_such_key"),
    ],
)
def test_json_that_does_not_fit_is_refused(
    tiny_model: Build, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save_model_checkpoint(tmp_path, state=tiny_model().state_dict(), meta=META)
    content = json.loads((tmp_path / "checkpoint.json").read_text())
    (tmp_path / "checkpoint.json").write_text(json.dumps(content | change))
    with pytest.raises(StorageError, match=message):
        read_model_meta(tmp_path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="must be readable"):
        read_model_meta(tmp_path)
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(StorageError, match="must be JSON"):
        read_model_meta(tmp_path)


def test_a_metric_that_is_not_finite_is_not_written(tiny_model: Build, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        save_model_checkpoint(tmp_path, state=tiny_model().state_dict(), meta=replace(META, value=float("nan")))
    assert not (tmp_path / "checkpoint.json").exists()


def test_a_copy_carries_its_temperature(tiny_model: Build, tmp_path: Path) -> None:
    model = tiny_model()
    model.freeze(1, "train")
    frozen = write_frozen_part(tmp_path / "a", model.frozen_state())
    save_model_checkpoint(tmp_path / "a", state=model.state_dict(), meta=META, frozen=frozen)
    copy_calibrated(tmp_path / "a", tmp_path / "b", 1.75)
    state = _state(tmp_path / "b", model)
    assert read_model_meta(tmp_path / "b") == replace(META, temperature=1.75)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert read_model_meta(tmp_path / "a").temperature == 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, "1", float("inf")])
def test_a_temperature_is_above_zero(tiny_model: Build, tmp_path: Path, temperature: object) -> None:
    save_model_checkpoint(tmp_path, state=tiny_model().state_dict(), meta=META)
    _change(tmp_path, temperature=temperature)
    with pytest.raises(StorageError):
        read_model_meta(tmp_path)


def test_a_checkpoint_from_before_calibration_has_the_temperature_1(tiny_model: Build, tmp_path: Path) -> None:
    save_model_checkpoint(tmp_path, state=tiny_model().state_dict(), meta=META)
    content = json.loads((tmp_path / "checkpoint.json").read_text())
    del content["temperature"]
    (tmp_path / "checkpoint.json").write_text(json.dumps(content))
    assert read_model_meta(tmp_path) == META


@pytest.mark.parametrize("where", ["../outside", "/absolute", "sub/folder", "..", ""])
def test_a_checkpoint_that_points_out_of_its_folder_is_refused(tiny_model: Build, tmp_path: Path, where: str) -> None:
    """Even where the file it points at is whole, and has the right name and hash."""
    inside, outside = tmp_path / "best", tmp_path / "outside"
    for folder in (inside, outside):
        save_model_checkpoint(folder, state=tiny_model().state_dict(), meta=META)
    (weights,) = outside.glob("weights-*")
    path = {"../outside": f"../outside/{weights.name}", "/absolute": str(weights)}.get(where, where)
    _change(inside, weights_file=path)
    with pytest.raises(StorageError, match="never a path"):
        read_model_meta(inside)
    with pytest.raises(StorageError, match="never a path"):
        copy_calibrated(inside, tmp_path / "copy", 1.0)


def _change(directory: Path, **changes: object) -> None:
    path = directory / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
