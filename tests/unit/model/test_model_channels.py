"""Stems that were pretrained on RGB, for images of other channels."""

from __future__ import annotations

import pytest
import torch
from model_cases import filled_original, images
from torch import Tensor, nn

from tlsearch.core.errors import UserError
from tlsearch.core.types import ModelSpec
from tlsearch.model import StagedModel, Weights, build_model, default_transform, describe_model, meta_model
from tlsearch.model.staging.stem_channels import adapt_stem, adapted_weights
from tlsearch.model.weights.matching import layout_of

CNNS = ("mobilenet_v2", "resnet18", "googlenet", "densenet121", "squeezenet1_1", "shufflenet_v2_x0_5", "convnext_tiny")
TRANSFORMERS = ("vit_b_32", "swin_t")
TIMM = ("timm/tf_efficientnet_lite0", "timm/vit_tiny_patch16_224")
STANDARDISED = "timm/resnetv2_50x1_bit"  # its weights are standardised in each pass, so that a sum is another one


def build(name: str, channels: int, size: int = 64) -> StagedModel:
    state = {k: t for k, t in filled_original(name, size).state_dict().items() if k not in layout_of(name).head}
    weights = Weights(id="test", digest="d", state=state, transform=default_transform(name))
    model = build_model(name, num_classes=4, weights=weights, image_size=size, channels=channels, seed=0)
    return model.eval()


@pytest.mark.parametrize("name", [one for one in (*CNNS, *TRANSFORMERS, *TIMM) if one != "googlenet"])
def test_grey_is_answered_as_its_rgb(name: str) -> None:
    """The summed stem on one channel is the RGB stem on it repeated; GoogLeNet rescales RGB by constants first."""
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    grey = images(2, 64)[:, :1]
    rgb, one = build(name, 3), build(name, 1)
    with torch.inference_mode():
        want, got = rgb.stem(grey.repeat(1, 3, 1, 1)), one.stem(grey)
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()
        assert (one(grey) - rgb(grey.repeat(1, 3, 1, 1))).abs().max() <= 1e-4 * rgb(grey.repeat(1, 3, 1, 1)).abs().max()


@pytest.mark.parametrize("name", [*CNNS, *TRANSFORMERS, *TIMM, STANDARDISED])
def test_any_channels_train(name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    model = build(name, 5).train()
    model.freeze(5, "train")
    batch = torch.randn(2, 5, 64, 64, generator=torch.Generator().manual_seed(0))
    model(batch).sum().backward()
    stem = next(one for one in model.stem.modules() if isinstance(one, nn.Conv2d))
    assert stem.weight.shape[1] == 5 and stem.weight.grad is not None and float(stem.weight.grad.abs().sum()) > 0
    assert model.channels == 5 and model.blank_images(2).shape == (2, 5, 64, 64)


def test_the_rule_is_timms() -> None:
    timm = pytest.importorskip("timm")
    weights = torch.randn(8, 3, 3, 3)
    for channels in (1, 2, 4, 5, 13):
        assert torch.equal(adapted_weights(weights, channels), timm.models.adapt_input_conv(channels, weights.clone()))


def test_three_channels_change_nothing() -> None:
    plain, asked = build("mobilenet_v2", 3), build("mobilenet_v2", 3)
    adapt_stem(asked, 3)
    ours, theirs = plain.state_dict(), asked.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_random_backbone_gets_a_random_convolution() -> None:
    weights = Weights(id="none", digest="none", state=None, transform=default_transform("mobilenet_v2"))

    def stem(seed: int) -> Tensor:
        model = build_model("mobilenet_v2", num_classes=2, weights=weights, image_size=32, channels=6, seed=seed)
        return next(one for one in model.stem.modules() if isinstance(one, nn.Conv2d)).weight

    assert torch.equal(stem(1), stem(1)) and not torch.equal(stem(1), stem(2))
    assert not torch.equal(stem(1)[:, 0], stem(1)[:, 3])  # not RGB repeated


def test_a_description_counts_the_channels() -> None:
    rgb, five = (describe_model(ModelSpec(backbone="resnet18", num_classes=3, channels=n)) for n in (3, 5))
    assert five.parameters - rgb.parameters == 2 * 64 * 7 * 7
    assert five.trainable_parameters[4] == rgb.trainable_parameters[4]


def test_a_stem_without_a_convolution_over_rgb_is_refused() -> None:
    model = meta_model(ModelSpec(backbone="mobilenet_v2", num_classes=2, image_size=32))
    model.stem = type(model.stem)(nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(UserError, match="mobilenet_v2 takes RGB images alone"):
        adapt_stem(model, 4)
