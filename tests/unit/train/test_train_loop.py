"""The epoch loop: determinism, memory, divergence, and plain linear algebra for the head."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_sources import features_of, pixels
from torch import Tensor, nn

from tlsearch.core.errors import Diverged, Infeasible
from tlsearch.core.types import TrialConfig
from tlsearch.model import StagedModel
from tlsearch.train import Source, Trainer, evaluate, learning_rates, open_runtime, predict_logits
from tlsearch.train.loop import linear_head as linear_module
from tlsearch.train.loop import trainer as loop_module
from tlsearch.train.loop.batches import epoch_order, split_order
from tlsearch.train.loop.device_rows import gather
from tlsearch.train.loop.linear_head import linear_head
from tlsearch.train.loop.loss import CrossEntropy

Build = Callable[..., StagedModel]
RUNTIME = open_runtime("cpu")


def trainer(
    model: StagedModel, depth: int, policy: str = "frozen", batch_size: int = 8, lr: float = 1e-2, **config: Any
) -> Trainer:
    model.freeze(depth, policy)
    values = {"head_lr": lr, "backbone_lr": lr if depth else None, "batch_size": batch_size, **config}
    trial = TrialConfig(backbone="tiny", unfreeze_depth=depth, bn_policy=policy, **values)
    return Trainer(model, RUNTIME, trial, depth=depth, num_classes=3, max_epochs=2)


def train(job: Trainer, source: Source, epochs: int = 2) -> list[float]:
    return [job.train_epoch(source, seed=3, epoch=epoch).loss for epoch in range(1, epochs + 1)]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_order_is_a_permutation_that_seed_and_epoch_give() -> None:
    order = epoch_order(50, 7, 2)
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, epoch_order(50, 7, 2))
    assert not torch.equal(order, epoch_order(50, 7, 3))
    assert not torch.equal(order, epoch_order(50, 8, 2))


@pytest.mark.parametrize(("num", "sizes"), [(16, [8, 8]), (17, [8, 9]), (18, [8, 8, 2]), (1, [1]), (5, [5])])
def test_no_batch_of_one_is_left(num: int, sizes: list[int]) -> None:
    batches = split_order(torch.arange(num), 8)
    assert [len(batch) for batch in batches] == sizes
    assert torch.equal(torch.cat(batches), torch.arange(num))


def test_gather_copies_and_keeps_channels_last() -> None:
    rows = torch.arange(6 * 2 * 2 * 3, dtype=torch.float32).reshape(6, 2, 2, 3).permute(0, 3, 1, 2)
    for index in (torch.tensor([4, 1, 0]), slice(1, 4)):
        taken = gather(rows, index)
        assert torch.equal(taken, rows[index])
        assert taken.is_contiguous(memory_format=torch.channels_last)
        taken.zero_()
    assert rows[1].any() and rows[4].any()


@pytest.mark.parametrize("depth", range(6))
@pytest.mark.parametrize("policy", ["frozen", "train"])
def test_trainable_tensors_change_and_frozen_ones_stand_still(tiny_model: Build, depth: int, policy: str) -> None:
    model = tiny_model(dropout=0.2)
    job = trainer(model, depth, policy)
    before, frozen = state(model), set(model.frozen_state())
    # 33 images: with batches of 8 the last one has a single image.
    train(job, pixels(33))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(before) - frozen
    held = {id(p) for group in job.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.trainable_parameters().values()}


def test_the_last_batch_of_one_image_does_not_stop_batch_norm(tiny_model: Build) -> None:
    # Stage 4's maps are one pixel, where batch norm in train mode refuses a single image.
    assert train(trainer(tiny_model(), 5, "train"), pixels(9))


def test_an_epoch_repeats_itself_and_leaves_the_global_generator_alone(tiny_model: Build) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    losses = []
    for _ in range(2):
        model = tiny_model(dropout=0.5)
        torch.manual_seed(11)
        losses.append(train(trainer(model, 2, "train"), pixels()))
        assert torch.equal(torch.rand(3), expected)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("depth", range(5))
@pytest.mark.parametrize("policy", ["frozen", "train"])
def test_features_give_the_same_as_pixels(tiny_model: Build, depth: int, policy: str) -> None:
    val = pixels(20, seed=9)
    curves, metrics = [], []
    for stored in (False, True):
        model = tiny_model(dropout=0.3)
        job = trainer(model, depth, policy)
        read = (lambda s: features_of(model, s, depth)) if stored else (lambda s: s)  # noqa: B023
        curves.append(train(job, read(pixels(30))))
        metrics.append(evaluate(model, read(val), RUNTIME, depth=depth).metrics)
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_linear_algebra_equals_autograd(tiny_model: Build, dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for plain in (True, False):
        model = tiny_model(dropout=dropout)
        job = trainer(model, 0)
        source = features_of(model, pixels(30), 0)
        assert linear_head(model, source, RUNTIME, CrossEntropy()) is not None
        if not plain:
            monkeypatch.setattr(loop_module, "linear_head", lambda *_: None)
        figures = [job.train_epoch(source, seed=3, epoch=epoch) for epoch in (1, 2)]
        ends.append((figures, model.head[1].weight.detach().clone()))
    (by_hand, weight), (by_autograd, expected) = ends
    assert [f.loss for f in by_hand] == pytest.approx([f.loss for f in by_autograd], abs=1e-6)
    assert [f.accuracy for f in by_hand] == [f.accuracy for f in by_autograd]
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("stored", [False, True])
def test_certain_targets_train_as_the_labels_do_and_others_differ(tiny_model: Build, depth: int, stored: bool) -> None:
    ends = []
    for share in (None, 1.0, 0.6):
        model = tiny_model(dropout=0.2)
        job = trainer(model, depth, label_smoothing=0.1)
        source = features_of(model, pixels(30), depth) if stored else pixels(30)
        if share is not None:
            hard = torch.nn.functional.one_hot(source.labels, 3).float()
            source = replace(source, targets=share * hard + (1 - share) / 3)
        figures = [job.train_epoch(source, seed=3, epoch=epoch) for epoch in (1, 2)]
        ends.append(([f.loss for f in figures], [f.accuracy for f in figures]))
    labels, certain, unsure = ends
    assert certain[0] == pytest.approx(labels[0], abs=1e-5)
    assert certain[1] == labels[1]
    assert unsure[0] != pytest.approx(labels[0], abs=1e-4)


def test_figures_of_many_blocks_are_those_of_one(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for rows in (2048, 16):
        monkeypatch.setattr(linear_module, "_BLOCK_ROWS", rows)
        model = tiny_model(dropout=0.2)
        job = trainer(model, 0)
        figures = [job.train_epoch(features_of(model, pixels(75), 0), seed=3, epoch=epoch) for epoch in (1, 2)]
        ends.append((figures, model.head[1].weight.detach().clone()))
    (one, weight), (many, same) = ends
    assert torch.equal(weight, same)
    assert [f.loss for f in one] == pytest.approx([f.loss for f in many], rel=1e-6)
    assert [f.accuracy for f in one] == [f.accuracy for f in many]


def test_heads_that_are_more_than_a_linear_layer_take_the_general_path(tiny_model: Build) -> None:
    model = tiny_model()
    source = features_of(model, pixels(), 0)
    model.head.append(nn.Tanh())
    assert linear_head(model, source, RUNTIME, CrossEntropy()) is None


class _SmallMemory(nn.Module):
    """Runs out of memory for more rows than it has room for."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.refused = 0

    def forward(self, rows: Tensor) -> Tensor:
        if len(rows) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return rows


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_effective_one(tiny_model: Build) -> None:
    ends = []
    for room in (100, 3):
        model = tiny_model(batch_norm=False)
        model.stage3.append(_SmallMemory(room))
        job = trainer(model, 5)
        ends.append((train(job, pixels(26)), state(model)))
        assert job.micro_batch == (None if room == 100 else 2)
        assert evaluate(model, pixels(70), RUNTIME, depth=5)
    assert model.stage3[-1].refused == 2 + 5  # 8 -> 4 -> 2 once in training, 64 -> 2 in evaluating
    assert ends[0][0] == pytest.approx(ends[1][0], abs=1e-5)
    for name, tensor in ends[0][1].items():
        torch.testing.assert_close(ends[1][1][name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("policy", "smallest"), [("frozen", 1), ("train", 2)])
def test_nothing_left_to_halve_is_infeasible(tiny_model: Build, policy: str, smallest: int) -> None:
    model = tiny_model()
    model.stage3.append(_SmallMemory(0))
    job = trainer(model, 5, policy)
    with pytest.raises(Infeasible, match=f"micro-batch of {smallest}"):
        train(job, pixels())
    with pytest.raises(Infeasible, match="single image"):
        predict_logits(model, pixels(), RUNTIME, depth=5)


def test_other_errors_pass_through(tiny_model: Build) -> None:
    model = tiny_model()
    model.stage3.append(nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(trainer(model, 5), pixels())


@pytest.mark.parametrize("kind", ["pixels", "features"])
def test_a_loss_that_is_not_finite_is_divergence(tiny_model: Build, kind: str) -> None:
    model = tiny_model()
    job = trainer(model, 0)
    source = pixels() if kind == "pixels" else features_of(model, pixels(), 0)
    with torch.no_grad():
        model.head[1].weight.fill_(float("inf"))
    with pytest.raises(Diverged, match="training loss must be finite"):
        train(job, source)
    with pytest.raises(Diverged, match="validation loss must be finite"):
        evaluate(model, source, RUNTIME, depth=0)


def test_training_learns(tiny_model: Build) -> None:
    source = pixels(60)
    source.rows[torch.arange(60), source.labels] |= 128  # the class brightens its own channel
    losses = train(trainer(tiny_model(), 5, "train"), source, epochs=8)
    assert losses[-1] < 0.5 * losses[0]


VARIANTS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "smoothing": {"label_smoothing": 0.1},
    "weighted": {"class_balance": "weighted_loss"},
    "weighted and smoothed": {"class_balance": "weighted_loss", "label_smoothing": 0.2},
    "sampler": {"class_balance": "sampler"},
    "cosine": {"lr_schedule": "cosine", "warmup_epochs": 1},
    "clipped": {"grad_clip": 0.05},
    "averaged": {"ema": 0.9},
}


def uneven(num: int = 40) -> Source:
    return replace(pixels(num), labels=(torch.arange(num) % 8 // 5).sort().values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_linear_algebra_equals_autograd_in_every_variant(
    tiny_model: Build, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for settings in (VARIANTS[variant], VARIANTS[variant], {}):
        model = tiny_model(dropout=0.3)
        job = trainer(model, 0, **settings)
        source = features_of(model, uneven(), 0)
        with monkeypatch.context() as patch:
            if len(ends) == 1:
                patch.setattr(loop_module, "linear_head", lambda *_: None)
            losses = train(job, source)
        with job.average.applied() if job.average else nullcontext():
            ends.append((losses, model.head[1].weight.detach().clone()))
    by_hand, by_autograd, plain = ends
    assert by_hand[0] == pytest.approx(by_autograd[0], abs=1e-5)
    torch.testing.assert_close(by_hand[1], by_autograd[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(by_hand[1], plain[1], rtol=1e-4, atol=1e-5), "the setting has no effect"


@pytest.mark.parametrize(
    "settings", [*VARIANTS.values(), {"mixup": 0.4}, {"cutmix": 1.0}], ids=[*VARIANTS, "mixup", "cutmix"]
)
def test_every_setting_trains_deep_repeats_itself_and_has_an_effect(
    tiny_model: Build, settings: dict[str, Any]
) -> None:
    ends = []
    for given in (settings, settings, {}):
        model = tiny_model()
        job = trainer(model, 2, "train", **given)
        train(job, uneven())
        with job.average.applied() if job.average else nullcontext():
            ends.append(state(model))
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert not torch.equal(ends[0]["stage4.0.weight"], ends[2]["stage4.0.weight"])


def test_gradients_are_clipped_to_their_norm(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    job = trainer(tiny_model(), 5, "train", optimizer="sgd", grad_clip=0.01)
    monkeypatch.setattr(
        job.optimizer, "step", lambda: norms.append(float(torch.cat([p.grad.flatten() for p in held]).norm()))
    )
    held = list(job.model.trainable_parameters().values())
    train(job, pixels(), epochs=1)
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)


def test_micro_batches_of_mixed_images_give_the_same(tiny_model: Build) -> None:
    ends = []
    for micro_batch in (None, 3):
        model = tiny_model(batch_norm=False)
        job = trainer(model, 5, mixup=0.5, class_balance="weighted_loss", grad_clip=0.5)
        job.micro_batch = micro_batch
        ends.append((train(job, uneven()), state(model)))
    assert ends[0][0] == pytest.approx(ends[1][0], abs=1e-5)
    for name, tensor in ends[0][1].items():
        torch.testing.assert_close(ends[1][1][name], tensor, rtol=1e-3, atol=1e-4)


def test_mixing_features_is_refused(tiny_model: Build) -> None:
    model = tiny_model()
    with pytest.raises(AssertionError, match="not mixed features"):
        train(trainer(model, 1, mixup=0.2), features_of(model, pixels(), 1))


def test_a_stage_that_joins_leaves_the_other_states_alone(tiny_model: Build) -> None:
    """A trainer that unfreezes goes on as one whose other groups never noticed."""
    model = tiny_model()
    job = trainer(model, 0, "train", ema=0.9)
    job.train_epoch(pixels(), seed=3, epoch=1)
    held = {id(p): {k: v.clone() for k, v in s.items()} for p, s in job.optimizer.state.items()}
    before = state(model)
    job.unfreeze(2, epoch=2)
    for parameter, values in job.optimizer.state.items():
        assert all(torch.equal(value, held[id(parameter)][key]) for key, value in values.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    job.train_epoch(pixels(), seed=3, epoch=2)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(before) - set(model.frozen_state())
    steps = {int(s["step"]) for s in job.optimizer.state.values()}
    assert steps == {3, 6}, "the head goes on counting, the stages begin"
    assert set(learning_rates(job.optimizer)) == {"head", "stage4", "stage3"}
