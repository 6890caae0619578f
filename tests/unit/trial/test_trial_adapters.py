"""Trials whose stages are adapted: plain checkpoints, exact resumes, guarded base weights, cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tlsearch.core.errors import FrozenMoved
from tlsearch.core.types import ModelSpec, TrialAssignment, repeatable
from tlsearch.model import meta_model
from tlsearch.train import predict_logits
from tlsearch.trial import FineTuning, finetuning, inputs, load_trained

Assign = Callable[..., TrialAssignment]
pytest.importorskip("timm")
VIT = "timm/test_vit3"
METHODS = ("lora", "ssf", "bitfit", "norm")


@pytest.fixture(autouse=True)
def _cached_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "why_not_worth", lambda *_: None)  # of images so small no map is worth it


@pytest.fixture
def adapted(assign: Assign) -> Assign:
    """Assignments of a small vision transformer; by default two of its stages train by ``lora``."""

    def build(directory: str = "trial", *, adapt: str = "lora", depth: int = 2, **more: Any) -> TrialAssignment:
        rank = 4 if adapt == "lora" else None
        values = {"policy": None, "backbone": VIT, "backbone_lr": 3e-3, "lora_rank": rank, **more}
        return assign(directory, depth=depth, adapt=adapt, **values)

    return build


def finish(trial: FineTuning, max_epochs: int = 3) -> list[dict[str, float]]:
    while trial.epochs_done < max_epochs:
        trial.step()
    trial.close()
    return [{k: v for k, v in one.metrics.items() if repeatable(k)} for one in trial.reports]


def names_in(folder: Path, start: str) -> set[str]:
    (path,) = folder.glob(f"{start}-*.safetensors")
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("adapt", METHODS)
def test_the_checkpoint_is_a_plain_model(adapted: Assign, tmp_path: Path, adapt: str) -> None:
    """``load_trained`` builds the backbone and knows nothing of adapters; ``refit`` keeps the last epoch's model."""
    trial = FineTuning(adapted(adapt=adapt, setup={"refit": True}))
    trial.step()
    trial.step()
    parts = trial._parts
    logits = predict_logits(trial.model, parts.val, parts.runtime, depth=2)
    lasting = parts.lasting.keys()
    trial.close()
    model, meta = load_trained(tmp_path / "trial/best")
    assert meta.config.adapt == adapt and meta.epoch == 2
    assert torch.allclose(predict_logits(model, parts.val, parts.runtime, depth=2), logits, rtol=0, atol=1e-5)
    plain = set(meta_model(ModelSpec(backbone=VIT, num_classes=3, image_size=32)).state_dict())
    moving, frozen = (names_in(tmp_path / "trial/best", start) for start in ("weights", "frozen"))
    assert frozen == lasting and moving == plain - lasting and not moving & frozen
    assert any(name.startswith("stage4.") for name in moving)
    assert not any(name.startswith("stage2.") for name in moving)


@pytest.mark.parametrize(
    ("adapt", "more"),
    [
        ("lora", {"unfreeze_schedule": "progressive", "ema": 0.9, "optimizer": "sgd"}),
        ("ssf", {"head_init": "probe", "grad_clip": 1.0}),
        pytest.param("bitfit", {}, marks=pytest.mark.slow),
        pytest.param("norm", {"ema": 0.9}, marks=pytest.mark.slow),
    ],
)
def test_going_on_repeats_the_curve_to_the_bit(
    adapted: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapt: str, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    expected = finish(FineTuning(adapted("straight", adapt=adapt, **more)))
    for done in range(2):
        interrupted = FineTuning(adapted("interrupted", adapt=adapt, **more))
        assert interrupted.epochs_done == done
        interrupted.step()
        del interrupted  # as a killed worker: never closed
    resumed = FineTuning(adapted("interrupted", adapt=adapt, **more))
    assert resumed.epochs_done == 2
    assert finish(resumed) == expected
    for start in ("weights", "frozen"):
        files = [next((tmp_path / one / "best").glob(f"{start}-*")) for one in ("straight", "interrupted")]
        assert files[0].name == files[1].name, "another sha256"


def test_a_running_checkpoint_holds_the_factors_alone(
    adapted: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    trial = FineTuning(adapted(depth=1))
    trial.step()
    names = {name for name in names_in(tmp_path / "trial/running", "state") if name.startswith("model/")}
    assert names and all(".adapters." in name or name.startswith("model/head.") for name in names)


def num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("adapt", METHODS)
def test_checkpoints_are_as_large_as_what_trains(
    adapted: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapt: str
) -> None:
    """The running one: what trains with AdamW's two moments. The best model's: that of bitfit and norm, whole stages
    where weights are merged. A fifth more and 16 KB are for names and reports; the whole model is not near it."""
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    trial = FineTuning(adapted(adapt=adapt, depth=1, setup={"refit": True}))  # the last epoch's model is kept
    trial.step()
    trained = num_bytes(trial.model.trainable_parameters().values())
    merged = trial.model.merged_state()
    stages = num_bytes(tensor for name, tensor in merged.items() if name.startswith(("stage4.", "head.")))
    running = sum(path.stat().st_size for path in (tmp_path / "trial/running").iterdir())
    (best,) = (path.stat().st_size for path in (tmp_path / "trial/best").glob("weights-*"))
    assert 3 * trained < running < 3.6 * trained + 16_000 < 0.3 * num_bytes(merged.values())
    kept = stages if adapt in ("lora", "ssf") else trained
    assert trained < best < 1.2 * kept + 16_000 < 0.5 * num_bytes(merged.values())


@pytest.mark.parametrize("adapt", METHODS)
def test_a_base_weight_that_moves_is_noticed(adapted: Assign, adapt: str) -> None:
    """Merged weights change; those that they are merged from may not, nor what no method trains."""
    trial = FineTuning(adapted(adapt=adapt, unfreeze_schedule="progressive"))
    finish_two = [trial.step() for _ in range(2)]
    assert finish_two[-1].metrics["trainable_stages"] == 1
    name = next(one for one in trial.model.frozen_state() if one.startswith("stage4.") and one.endswith("qkv.weight"))
    with torch.no_grad():
        trial.model.state_dict()[name][0, 0] += 1
    with pytest.raises(FrozenMoved, match=name.replace(".", r"\.")):
        trial.step()


@pytest.mark.parametrize("adapt", METHODS)
@pytest.mark.parametrize("schedule", ["at_once", "progressive"])
def test_cached_features_change_nothing(adapted: Assign, adapt: str, schedule: str) -> None:
    found: dict[bool, list[float]] = {}
    for stored in (True, False):
        trial = FineTuning(adapted(f"{stored}", adapt=adapt, stored=stored, unfreeze_schedule=schedule))
        curve = finish(trial)
        assert {one.source for one in trial.reports} == {"features" if stored else "pixels"}
        found[stored] = [one[name] for one in curve for name in ("train_loss", "val_loss")]
    assert found[True] == pytest.approx(found[False], abs=1e-5), "one is the other up to the rounding of a batch's size"
    assert max(found[False]) - min(found[False]) > 0.01, "nothing moves here, so that nothing is compared"


def test_seeds_differ_by_their_adapters_alone_and_methods_by_what_they_train(adapted: Assign) -> None:
    def moving(**more: Any) -> dict[str, Tensor]:
        trial = FineTuning(adapted(f"{more}", depth=1, **more))
        state = {name: tensor.clone() for name, tensor in trial.model.trainable_parameters().items()}
        trial.close()
        return state

    sizes = {adapt: sum(one.numel() for one in moving(adapt=adapt).values()) for adapt in ("none", *METHODS)}
    assert sizes["norm"] < sizes["bitfit"] < sizes["ssf"] < sizes["none"] and sizes["lora"] < sizes["none"]
    first, again, other = moving(seed=1), moving(seed=1), moving(seed=2)
    down = next(name for name in first if name.endswith(".down"))
    assert torch.equal(first[down], again[down]) and not torch.equal(first[down], other[down])
