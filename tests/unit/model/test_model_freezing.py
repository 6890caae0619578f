"""Frozen stays bit-identical, trainable changes, the optimizer holds exactly what trains."""

from __future__ import annotations

import copy
from collections.abc import Callable

import model_cases as cases
import pytest
import torch
from torch import nn

from tlsearch.model import MAX_DEPTH, PART_NAMES, Part, StagedModel, batchnorm_layers, parameter_groups
from tlsearch.model.libraries.libraries import create_original
from tlsearch.space.bn_policies import BN_POLICIES, bn_policy

MODELS: dict[str, Callable[[], StagedModel]] = {
    "shufflenet": cases.tiny_shufflenet,
    "mobilenet": cases.tiny_mobilenet,
    "convnext": cases.tiny_convnext,
    "vit": cases.tiny_vit,
}
POLICIES = tuple(BN_POLICIES)


def _train(model: StagedModel, *, steps: int = 3) -> torch.optim.Optimizer:
    """A few real optimizer steps, with the ``train()`` call that every loop makes."""
    groups = parameter_groups(model, head_lr=1e-2, backbone_lr=1e-2, weight_decay=1e-2)
    optimizer = torch.optim.AdamW(groups)
    batch, labels = cases.images(6, model.image_size), torch.tensor([0, 1, 2, 0, 1, 2])
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch), labels).backward()
        optimizer.step()
        model.eval()
    return optimizer


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def _changed(model: StagedModel, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("depth", range(MAX_DEPTH + 1))
@pytest.mark.parametrize(
    ("kind", "policy"),
    [(kind, policy) for kind in ("shufflenet", "mobilenet") for policy in POLICIES]
    + [("convnext", None), ("vit", None)],  # backbones without batch norm have no policy
)
def test_exactly_what_is_trainable_changes(kind: str, policy: str | None, depth: int) -> None:
    model = MODELS[kind]()
    model.freeze(depth, policy)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen = set(model.frozen_state())
    trainable = set(model.trainable_parameters())
    optimizer = _train(model)

    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.trainable_parameters().values()}
    changed = _changed(model, before)
    assert not changed & frozen, "frozen tensors moved"
    assert trainable <= changed, "trainable tensors stood still"
    assert frozen | changed == set(before), "a tensor is neither frozen nor moving"

    thawed = PART_NAMES[MAX_DEPTH - depth :]
    assert {name.partition(".")[0] for name in trainable} == set(thawed)
    batchnorm = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    thawed_layers = {name for name in batchnorm if name.startswith(thawed)}
    row = bn_policy(policy)
    statistics = {name.rpartition(".")[0] for name in changed if _is_statistic(name)}
    assert statistics == (batchnorm if row.moves_in_frozen else thawed_layers if row.moves_in_trainable else set())
    affine = {name.rpartition(".")[0] for name in changed if not _is_statistic(name)} & batchnorm
    assert affine == (thawed_layers if row.affine_trains else set())


@pytest.mark.parametrize("policy", POLICIES)
def test_timms_fused_batchnorm_is_batchnorm(policy: str) -> None:
    pytest.importorskip("timm")
    model = cases.tiny_timm()
    model.freeze(2, policy)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen, trainable = set(model.frozen_state()), set(model.trainable_parameters())
    _train(model, steps=2)
    changed = _changed(model, before)
    assert not changed & frozen
    assert trainable <= changed
    assert any(_is_statistic(name) for name in changed) == (BN_POLICIES[policy].moves)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("eva02_tiny_patch14_224", 28),
        ("vit_tiny_patch16_224", 32),
        ("test_vit3", 32),  # register tokens, pooled by attention
        ("convnext_atto", 64),
        ("regnetx_002", 64),
        ("resnet10t", 64),
    ],
)
def test_exactly_what_is_trainable_changes_in_timms_models(name: str, size: int) -> None:
    pytest.importorskip("timm")
    original = create_original(f"timm/{name}", None, size, random_init=False)
    model = cases.staged_with_new_head(original, f"timm/{name}", size)
    for depth in (5, 2):
        model.freeze(depth, "train")
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        frozen, trainable = set(model.frozen_state()), set(model.trainable_parameters())
        _train(model, steps=2)
        changed = _changed(model, before)
        assert not changed & frozen
        assert trainable <= changed
        assert frozen | changed == set(before)


def test_a_copy_of_a_model_shares_nothing_with_it() -> None:
    """Averaged weights are a copy; modules that borrow the library's methods must be copied whole."""
    pytest.importorskip("timm")
    for name, size in (("eva02_tiny_patch14_224", 28), ("test_vit3", 32)):
        model = cases.staged_with_new_head(create_original(f"timm/{name}", None, size, random_init=False), name, size)
        twin = copy.deepcopy(model).eval()
        batch = cases.images(2, size)
        with torch.no_grad():
            expected = model.eval()(batch)
            for parameter in model.parameters():
                parameter.zero_()
            assert torch.equal(twin(batch), expected)
            assert not torch.equal(model(batch), expected)


@pytest.mark.parametrize("guard", ["train()", "requires_grad"])
def test_without_the_guard_the_test_above_fails(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if guard == "train()":
        monkeypatch.setattr(Part, "train", nn.Sequential.train)
    else:
        monkeypatch.setattr(Part, "requires_grad_", lambda self, flag: self)
    model = cases.tiny_shufflenet()
    model.freeze(1, "frozen" if guard == "train()" else "train")
    frozen = {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if not name.startswith(("stage4", "head")) or (_is_statistic(name) and guard == "train()")
    }
    _train(model, steps=1)
    state = model.state_dict()
    assert any(not torch.equal(state[name], tensor) for name, tensor in frozen.items())


def test_dropout_and_stochastic_depth_of_frozen_stages_are_off() -> None:
    for make in (cases.tiny_vit, cases.tiny_convnext):
        model = make()
        batch = cases.images(4, model.image_size)
        model.freeze(0, None)
        model.train()
        assert torch.equal(model.forward_prefix(batch, 0), model.forward_prefix(batch, 0))
        model.freeze(5, None)
        model.train()
        assert not torch.equal(model.forward_prefix(batch, 0), model.forward_prefix(batch, 0))


def test_parts_hold_the_guard_themselves() -> None:
    model = cases.tiny_shufflenet()
    model.freeze(1, "frozen")
    for part in model.parts:
        part.train()
    assert not any(module.training for part in model.parts[:4] for module in part.modules())
    assert not any(layer.training for layer in batchnorm_layers(model))
    assert model.stage4.training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_freeze_keeps_the_mode_and_can_be_repeated() -> None:
    model = cases.tiny_shufflenet()
    model.eval()
    model.freeze(5, "train")
    assert not model.training
    model.train()
    model.freeze(0, "train")
    assert set(model.trainable_parameters()) == {"head.classifier.weight", "head.classifier.bias"}
    assert not any(layer.training for layer in batchnorm_layers(model))
    model.freeze(3, "train")
    assert set(PART_NAMES[2:]) == {name.partition(".")[0] for name in model.trainable_parameters()}


def test_frozen_state_is_live_and_complete() -> None:
    model = cases.tiny_shufflenet()
    model.freeze(5, "train")
    assert not model.frozen_state()
    model.freeze(0, "train")
    state = model.frozen_state()
    assert set(state) == {name for name in model.state_dict() if not name.startswith("head.")}
    with torch.no_grad():
        next(model.stem.parameters()).add_(1)
    assert torch.equal(next(iter(state.values())), next(model.stem.parameters()))


def test_wrong_depths_and_policies_are_refused() -> None:
    model = cases.tiny_vit()
    with pytest.raises(ValueError, match="unfreeze_depth is 0 to 5, not 6"):
        model.freeze(6, None)
    with pytest.raises(ValueError, match="bn_policy is one of frozen, train, adapt, stats, not 'thaw'"):
        model.freeze(1, "thaw")


def test_groups_hold_each_trainable_parameter_once() -> None:
    model = cases.tiny_vit()
    model.freeze(3, None)
    groups = parameter_groups(model, head_lr=0.1, backbone_lr=0.01, weight_decay=0.5, layer_decay=0.5)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.trainable_parameters().values()}
    assert {group["name"]: group["lr"] for group in groups} == pytest.approx(
        {
            name + suffix: lr
            for name, lr in {"head": 0.1, "stage4": 0.01, "stage3": 0.005, "stage2": 0.0025}.items()
            for suffix in ("", "/no_decay")
        }
    )
    assert all(group["weight_decay"] == (0 if "/no_decay" in group["name"] else 0.5) for group in groups)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_biases_and_norms_are_not_decayed(make: Callable[[], StagedModel]) -> None:
    model = make()
    model.freeze(5, "train")
    groups = parameter_groups(model, head_lr=1.0, backbone_lr=1.0, weight_decay=0.1)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    norms = (nn.BatchNorm2d, nn.LayerNorm)
    expected = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if not isinstance(module, norms) and not name.endswith("bias")
    }
    assert decayed == expected


def test_the_stem_decays_four_times_and_depth_0_needs_no_backbone_lr() -> None:
    model = cases.tiny_shufflenet()
    model.freeze(5, "train")
    groups = parameter_groups(model, head_lr=1.0, backbone_lr=1.0, weight_decay=0.0, layer_decay=0.5)
    assert {g["lr"] for g in groups if g["name"].startswith("stem")} == {0.5**4}
    with pytest.raises(ValueError, match="stage4 is trainable and has no backbone_lr"):
        parameter_groups(model, head_lr=1.0, backbone_lr=None, weight_decay=0.0)
    model.freeze(0, "train")
    groups = parameter_groups(model, head_lr=1.0, backbone_lr=None, weight_decay=0.0)
    assert [group["name"] for group in groups] == ["head", "head/no_decay"]
