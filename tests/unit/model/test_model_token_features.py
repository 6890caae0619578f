"""What a head sees of a transformer's tokens: against timm's own intermediate layers, with no tensor renamed."""

from __future__ import annotations

import pytest
import torch

from tlsearch.core.errors import UserError
from tlsearch.core.types import ModelSpec
from tlsearch.model import StagedModel, build_model, build_original, meta_model
from tlsearch.model.staging.token_features import take_features, takes_features

VIT, SIZE, CLASSES = "timm/vit_tiny_patch16_224", 32, 3


def build(features: str | None, backbone: str = VIT) -> StagedModel:
    """With the constants that stand for weights replaced by random numbers, the same ones for each kind."""
    model = build_model(backbone, num_classes=CLASSES, weights=None, image_size=SIZE, seed=0, features=features).eval()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("head."):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=rng))
    return model


def images() -> torch.Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def seen(model: StagedModel) -> torch.Tensor:
    return model.forward_prefix(images(), 0)


def test_the_class_token_is_what_the_model_has_by_itself() -> None:
    torch.testing.assert_close(seen(build("cls")), seen(build(None)), rtol=0, atol=0)


@torch.no_grad()
def test_each_kind_is_made_of_the_last_blocks_tokens() -> None:
    whole = build(None)
    tokens, outputs = whole.stem(images()), []
    for part in (whole.stage1, whole.stage2, whole.stage3, whole.stage4):
        for name, child in part.named_children():
            if name.startswith("blocks"):
                tokens = child(tokens)
                outputs.append(tokens)
    norm = whole.stage4.get_submodule("norm")
    last = norm(outputs[-1])
    wanted = {
        "mean": last[:, 1:].mean(1),
        "cls_mean": torch.cat([last[:, 0], last[:, 1:].mean(1)], 1),
        "last4": torch.cat([norm(one)[:, 0] for one in outputs[-4:]], 1),
    }
    assert len(outputs) == 12
    for kind, rows in wanted.items():
        model = build(kind)
        torch.testing.assert_close(seen(model), rows, rtol=1e-5, atol=1e-5)
        assert model(images()).shape == (2, CLASSES)
        assert model.backbone_state().keys() == whole.backbone_state().keys(), "no tensor is added or renamed"


def test_a_frozen_part_stays_frozen_and_a_trainable_one_trains() -> None:
    model = build("cls_mean").train()
    model.freeze(0, None)
    assert not any(parameter.requires_grad for parameter in model.stage4.parameters()) and not model.stage4.training
    model.freeze(1, None)
    model(images()).sum().backward()
    gradients = [parameter.grad for parameter in model.stage4.parameters()]
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize("backbone", ["resnet18", "swin_t"])
def test_a_model_without_a_class_token_is_refused(backbone: str) -> None:
    model = build_original(backbone, weights=None, image_size=224, seed=0)
    assert not takes_features(model)
    with pytest.raises(UserError, match=f"features mean takes a transformer .* {backbone} is none"):
        take_features(model, "mean")


def test_torchvisions_own_transformers_take_them() -> None:
    model = meta_model(ModelSpec(backbone="vit_b_32", num_classes=CLASSES, image_size=64, features="last4"))
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, CLASSES)
    assert model.get_submodule("head.classifier").weight.shape == (CLASSES, 4 * 768)
