"""Nothing waits for the device inside an epoch or an evaluation, and a step has few operations.

A tensor of the meta device has no values: whatever reads one, or copies it to the host, raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from small_sources import features_of, pixels
from torch import Tensor

from tlsearch.core.types import TrialConfig, WeightsSource
from tlsearch.model import StagedModel, build_model, fold_batchnorm, resolve_weights
from tlsearch.model._private import DispatchMode
from tlsearch.space.bn_policies import BN_POLICIES
from tlsearch.train import PixelSource, Runtime, Source, Trainer, feature_drift, probe_features
from tlsearch.train.loop.evaluation import Reading, queue_logits

Build = Callable[..., StagedModel]
META = Runtime(device=torch.device("meta"))
CPU = Runtime(device=torch.device("cpu"))


def config(depth: int, policy: str = "train", **values: Any) -> TrialConfig:
    rates = {"head_lr": 1e-2, "backbone_lr": 1e-3 if depth else None, "batch_size": 8}
    return TrialConfig(backbone="tiny", unfreeze_depth=depth, bn_policy=policy, **(rates | values))


def opened(tiny_model: Build, kind: str, depth: int, **values: Any) -> tuple[Trainer, Source]:
    """A trainer on the meta device and its source, whose rows are on the host."""
    model, settings = tiny_model(dropout=0.3), config(depth, **values)
    source = pixels(26) if kind == "pixels" else features_of(model, pixels(26), depth)
    model.to("meta")
    model.freeze(depth, settings.bn_policy)
    return Trainer(model, META, settings, depth=depth, num_classes=3, max_epochs=3), source


def run(job: Trainer, source: Source, epoch: int = 1, after_step: Callable[..., object] | None = None) -> None:
    """An epoch and the evaluation after it."""
    totals = job.queue_epoch(source, seed=0, epoch=epoch, after_step=after_step)
    assert totals.is_meta and totals.shape == (2,)
    with job.average.applied() if job.average else nullcontext():
        logits = queue_logits(job.model, source, META, depth=job.depth, batch_size=8)
    assert logits.is_meta and logits.shape == (26, 3)


@pytest.mark.parametrize("policy", BN_POLICIES)
@pytest.mark.parametrize(("kind", "depth"), [("features", 0), ("features", 2), ("pixels", 0), ("pixels", 5)])
def test_an_epoch_waits_for_nothing_under_each_policy(tiny_model: Build, policy: str, kind: str, depth: int) -> None:
    run(*opened(tiny_model, kind, depth, policy=policy, ema=0.9))


@pytest.mark.parametrize(
    "values",
    [
        {"mixup": 0.4},
        {"cutmix": 1.0},
        {"grad_clip": 0.5, "label_smoothing": 0.1, "class_balance": "weighted_loss"},
        {"optimizer": "sgd", "class_balance": "sampler", "lr_schedule": "one_cycle"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_an_epoch_waits_for_nothing_in_every_setting(tiny_model: Build, values: dict[str, Any]) -> None:
    job, source = opened(tiny_model, "pixels", 2, **values)
    run(job, source)
    job.micro_batch = 3  # accumulates
    run(job, source, epoch=2)
    if "mixup" not in values and "cutmix" not in values:
        run(*opened(tiny_model, "features", 0, **values))


def test_an_epoch_waits_for_nothing_while_stages_join_and_images_are_cropped(tiny_model: Build) -> None:
    job, source = opened(tiny_model, "pixels", 0, ema=0.9)
    assert isinstance(source, PixelSource)
    for epoch in (1, 2, 3):
        run(job, source, epoch)
        if epoch < 3:
            job.unfreeze(epoch, epoch=epoch + 1)


def test_the_looks_within_an_epoch_wait_for_nothing(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.train.loop.trainer._CHECK_EVERY", 1)
    job, source = opened(tiny_model, "pixels", 2)
    before = probe_features(job.model, source, META, depth=2)
    job.model.train()
    looks: list[Reading] = []

    def look(step: int, num_steps: int, loss: Tensor) -> None:
        looks.append(Reading(torch.stack([loss, feature_drift(before, before)])))
        assert not looks[-1].arrived

    run(job, source, after_step=look)
    assert len(looks) == 4
    assert Reading(torch.tensor([1.5])).arrived and Reading(torch.tensor([1.5])).values() == [1.5]


@pytest.mark.parametrize(
    "read", [Tensor.item, Tensor.cpu, Tensor.nonzero, bool], ids=["item", "cpu", "nonzero", "bool"]
)
def test_one_read_put_back_would_be_noticed(tiny_model: Build, read: Callable[[Tensor], object]) -> None:
    job, source = opened(tiny_model, "pixels", 2)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
        run(job, source, after_step=lambda step, num_steps, loss: read(loss))


# --- how many operations a step has ---------------------------------------------------------------


class Operations(DispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is dispatched."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += not str(func).startswith("profiler")
        return func(*args, **(kwargs or {}))


def per_step(run_epoch: Callable[[int], object]) -> float:
    """Operations of a step: the difference of epochs of four and of two."""
    totals = []
    for steps in (2, 4):
        run_epoch(steps)  # makes the optimiser's state
        with Operations() as operations:
            run_epoch(steps)
        totals.append(operations.counts.total())
    return (totals[1] - totals[0]) / 2


def resnet(depth: int, policy: str, *, folded: bool) -> StagedModel:
    weights = resolve_weights("resnet18", WeightsSource(kind="none"))
    model = build_model("resnet18", num_classes=3, weights=weights, image_size=32, seed=0)
    if folded:
        fold_batchnorm(model)
    model.freeze(depth, policy)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def source_of(model: StagedModel, depth: int, steps: int) -> Source:
    """Rows as a trial reads them: cached features where a prefix is frozen, else pixels."""
    source = pixels(4 * steps)
    return source if depth == 5 else features_of(model, source, depth)


def ours(depth: int, policy: str, **values: Any) -> float:
    model = resnet(depth, policy, folded=True)
    job = Trainer(model, CPU, config(depth, policy, batch_size=4, **values), depth=depth, num_classes=3, max_epochs=1)
    return per_step(lambda steps: job.train_epoch(source_of(model, depth, steps), seed=0, epoch=1))


def bare(depth: int, policy: str) -> float:
    """The textbook's loop over the same rows, without figures."""
    model = resnet(depth, policy, folded=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    mean = torch.full((1, 3, 1, 1), 0.5)

    def run_epoch(steps: int) -> None:
        source = source_of(model, depth, steps)
        assert isinstance(source.rows, Tensor)
        model.train()
        for index in torch.randperm(4 * steps).split(4):  # type: ignore[no-untyped-call]
            rows = source.rows[index]
            if isinstance(source, PixelSource):
                rows = rows.float().div_(255).sub_(mean).div_(mean).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            logits = model.forward_suffix(rows, depth)
            torch.nn.functional.cross_entropy(logits, source.labels[index]).backward()
            optimizer.step()

    return per_step(run_epoch)


def test_a_step_of_a_head_has_at_most_12_operations() -> None:
    assert ours(0, "frozen") <= 12
    assert ours(0, "frozen", head_dropout=0.3) <= 12


@pytest.mark.parametrize("policy", ["frozen", "train"])
@pytest.mark.parametrize("depth", [2, 5])
def test_a_step_has_at_most_a_tenth_more_operations_than_a_bare_loop(depth: int, policy: str) -> None:
    assert ours(depth, policy) <= 1.1 * bare(depth, policy)
