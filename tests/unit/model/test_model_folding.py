"""Batch norm in eval mode is folded into convolutions; everything else is as without."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from model_cases import (
    filled_original,
    images,
    smallest_size,
    staged_with_new_head,
    tiny_mobilenet,
    tiny_shufflenet,
    tiny_timm,
    tiny_vit,
)
from torch import Tensor, nn
from torch.nn import functional

from tlsearch.model import Part, StagedModel, adapt_statistics, batchnorm_layers, fold_batchnorm
from tlsearch.model.batchnorm import folding

Make = Callable[[], StagedModel]
FAMILIES = [
    *"densenet121 efficientnet_b0 mnasnet0_5 resnet18".split(),
    *(pytest.param(name, marks=pytest.mark.slow) for name in "googlenet maxvit_t regnet_y_400mf vgg11_bn".split()),
]
NORMED: list[Make] = [tiny_shufflenet, tiny_mobilenet, tiny_timm]


def assert_alike(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(other.abs().max()))


def twins(make: Make, depth: int, policy: str) -> tuple[StagedModel, StagedModel]:
    """A folded model and its equal that is not."""
    plain = make()
    folded = copy.deepcopy(plain)
    assert fold_batchnorm(folded) > 0
    for model in (plain, folded):
        model.freeze(depth, policy)
        model.train()
    return folded, plain


def gradients(model: StagedModel, batch: Tensor, labels: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)  # of dropout
    functional.cross_entropy(model(batch), labels).backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_give_the_same_logits(name: str) -> None:
    size = smallest_size(name)
    model = staged_with_new_head(filled_original(name, size), name, size).eval()
    batch = images(2, size)
    with torch.inference_mode():
        before = model(batch)
        num_folded = fold_batchnorm(model)
        assert_alike(model(batch), before)
    assert num_folded > 0


@pytest.mark.parametrize("make", NORMED)
@pytest.mark.parametrize("depth", [1, 3, 5])
def test_a_convolution_under_a_frozen_batch_norm_has_the_same_gradients(make: Make, depth: int) -> None:
    folded, plain = twins(make, depth, "frozen")
    batch, labels = images(4, 64), torch.tensor([0, 1, 2, 0])
    ours, theirs = gradients(folded, batch, labels), gradients(plain, batch, labels)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-7)


@pytest.mark.parametrize("make", NORMED)
def test_batch_norm_in_train_mode_works_as_ever_to_the_bit(make: Make) -> None:
    folded, plain = twins(make, 5, "train")
    batch, labels = images(4, 64), torch.tensor([0, 1, 2, 0])
    ours, theirs = gradients(folded, batch, labels), gradients(plain, batch, labels)
    assert all(torch.equal(ours[name], gradient) for name, gradient in theirs.items())
    state = plain.state_dict()
    assert list(folded.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in folded.state_dict().items())


def move_statistics(model: StagedModel) -> None:
    model.train()
    with torch.no_grad():
        model(images(8, 32, seed=2))


def set_weights(model: StagedModel) -> None:
    with torch.no_grad():
        next(model.stem.parameters()).mul_(1.5)


@pytest.mark.parametrize(
    ("policy", "change"),
    [
        ("stats", move_statistics),
        ("adapt", lambda model: adapt_statistics(model, [images(8, 32, seed=2)])),
        ("frozen", set_weights),
    ],
    ids=["training moves statistics", "statistics are set", "weights are set"],
)
def test_evaluation_follows_what_changes(policy: str, change: Callable[[StagedModel], None]) -> None:
    batch, before = images(4, 32), []
    pair = twins(tiny_shufflenet, 0, policy)
    for model in pair:
        model.eval()
        with torch.inference_mode():
            before.append(model(batch))
        change(model)
        model.eval()
    with torch.inference_mode():
        folded, plain = (model(batch) for model in pair)
    assert_alike(folded, plain)
    assert (folded - before[0]).abs().max() > 1e-2 * before[0].abs().max(), "it did change"


def test_the_product_of_a_frozen_prefix_is_made_once() -> None:
    folded, _ = twins(tiny_shufflenet, 0, "frozen")
    convolution = next(layer for layer in folded.modules() if type(layer) is nn.Conv2d)
    used: list[Tensor] = []
    own = convolution._conv_forward

    def noted(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        used.append(weight)
        return own(rows, weight, bias)

    convolution.__dict__["_conv_forward"] = noted
    for seed in (1, 2):
        with torch.inference_mode():
            folded.forward_prefix(images(2, 32, seed=seed), 0)
    first, second = used
    assert first is second and first is not convolution.weight


def test_a_copy_has_its_own_batch_norm() -> None:
    folded, plain = twins(tiny_shufflenet, 0, "frozen")
    copied = copy.deepcopy(folded)
    with torch.no_grad():
        for layer in batchnorm_layers(folded):
            layer.running_mean.add_(1.0)
    batch = images(2, 32)
    with torch.inference_mode():
        assert_alike(copied.eval()(batch), plain.eval()(batch))


def test_a_model_without_batch_norm_is_left_alone() -> None:
    assert fold_batchnorm(tiny_vit()) == 0


class Twice(nn.Module):
    """The convolution's output goes on beside the batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, rows: Tensor) -> Tensor:
        rows = self.convolution(rows)
        return self.norm(rows) + rows


class Again(Twice):
    """The pair is used twice."""

    def forward(self, rows: Tensor) -> Tensor:
        for _ in range(2):
            rows = self.norm(self.convolution(rows))[:, :3]
        return torch.cat([rows, rows[:, :1]], dim=1)


def small(name: str, *parts: nn.Module) -> StagedModel:
    """A model whose first parts are given, with batch norms as they are made: they do nothing in eval mode."""
    body = [*parts, *(nn.Identity() for _ in range(5 - len(parts)))]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return StagedModel([Part(one) for one in (*body, head)], backbone=name, image_size=16)


UNSOUND: dict[str, Make] = {
    "the output goes elsewhere too": lambda: small("elsewhere", Twice()),
    "a pair that is used twice": lambda: small("again", Again()),
    "a boundary lies between": lambda: small("between", nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "an activation works in place between": lambda: small(
        "activated", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4))
    ),
}


@pytest.mark.parametrize("make", UNSOUND.values(), ids=UNSOUND)
def test_what_cannot_be_folded_is_not(make: Make) -> None:
    model = make().eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert fold_batchnorm(model) == 0
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any("forward" in vars(layer) for layer in model.modules())


def test_looking_for_pairs_leaves_no_trace_and_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "_known", {})
    model, passes = tiny_shufflenet(), []
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for one in (model, tiny_shufflenet()):
        one.register_forward_hook(lambda *_: passes.append(1))
        assert fold_batchnorm(one) == 56
    assert len(passes) == 2, "the second model's are known"
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("make", NORMED)
def test_in_bf16_a_fold_is_off_by_no_more_than_twice_what_bf16_is(make: Make) -> None:
    folded, plain = twins(make, 0, "frozen")
    batch = images(4, 64)
    with torch.no_grad():
        exact = plain.eval().forward_prefix(batch, 0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded, ours = (model.eval().forward_prefix(batch, 0) for model in (plain, folded))
    assert (ours - exact).abs().mean() < 2 * (rounded - exact).abs().mean()


@pytest.mark.parametrize("make", NORMED)
def test_what_an_evaluation_keeps_serves_training(make: Make) -> None:
    """What is kept in inference mode must not end in a graph of autograd."""
    folded, plain = twins(make, 3, "frozen")
    batch, labels = images(4, 64), torch.tensor([0, 1, 2, 0])
    for model in (folded, plain):
        with torch.inference_mode():
            model.eval()(batch)
        model.train()
    ours, theirs = gradients(folded, batch, labels), gradients(plain, batch, labels)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-7)
