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

from tlsearch.model import PART_NAMES, Part, StagedModel, adapt_statistics, batchnorm_layers, fold_batchnorm

Make = Callable[[], StagedModel]
FAMILIES = "densenet121 efficientnet_b0 googlenet mnasnet0_5 maxvit_t regnet_y_400mf resnet18 vgg11_bn".split()
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


def test_evaluation_follows_statistics_that_training_moved() -> None:
    folded, plain = twins(tiny_shufflenet, 0, "stats")
    batch = images(4, 32)
    for model in (folded, plain):
        model.eval()
        with torch.inference_mode():
            model(batch)
        model.train()
        with torch.no_grad():
            model(images(8, 32, seed=2))
        model.eval()
    with torch.inference_mode():
        assert_alike(folded(batch), plain(batch))


def test_evaluation_follows_tensors_that_were_set() -> None:
    folded, plain = twins(tiny_shufflenet, 0, "adapt")
    batch = images(4, 32)
    for model in (folded, plain):
        model.eval()
        with torch.inference_mode():
            model(batch)
        adapt_statistics(model, [images(8, 32, seed=2)])
    with torch.inference_mode():
        assert_alike(folded(batch), plain(batch))
    with torch.no_grad():
        for model in (folded, plain):
            next(model.stem.parameters()).mul_(1.5)
    with torch.inference_mode():
        assert_alike(folded(batch), plain(batch))


def test_the_product_of_a_frozen_prefix_is_made_once() -> None:
    folded, _ = twins(tiny_shufflenet, 0, "frozen")
    convolution = next(layer for layer in folded.modules() if type(layer) is nn.Conv2d)
    used: list[int] = []
    own = convolution._conv_forward
    convolution.__dict__["_conv_forward"] = lambda rows, weight, bias: (
        used.append(id(weight)),
        own(rows, weight, bias),
    )[1]
    for seed in (1, 2):
        with torch.inference_mode():
            folded.forward_prefix(images(2, 32, seed=seed), 0)
    assert len(used) == 2 and used[0] == used[1] != id(convolution.weight)


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


def small(*parts: nn.Module) -> StagedModel:
    """A model whose first parts are given."""
    body = [*parts, *(nn.Identity() for _ in range(5 - len(parts)))]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = StagedModel([Part(one) for one in (*body, head)], backbone="small", image_size=16)
    for layer in batchnorm_layers(model):
        layer.running_mean.uniform_(1.0, 2.0)
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: small(Twice()),
        lambda: small(Again()),
        lambda: small(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    ],
    ids=["the output goes elsewhere too", "a pair that is used twice", "a boundary lies between"],
)
def test_what_cannot_be_folded_is_not(make: Make) -> None:
    model = make().eval()
    assert len(model.parts) == len(PART_NAMES)
    batch = images(2, 16)
    with torch.inference_mode():
        before = model(batch)
        assert fold_batchnorm(model) == 0
        assert torch.equal(model(batch), before)
