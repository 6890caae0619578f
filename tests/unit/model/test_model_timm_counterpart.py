"""A trained model as timm's own: the same logits from timm's architecture, or an error that says why not."""

from __future__ import annotations

import pytest
import torch
from model_cases import TIMM_SIZES, fill_cheaply, images, smallest_size

from tlsearch.core.errors import UserError
from tlsearch.model import StagedModel, build_model, timm_counterpart
from tlsearch.model.weights import timm_counterpart as module

timm = pytest.importorskip("timm", reason="an optional extra")

slow = pytest.mark.slow


def _model(backbone: str, size: int, num_classes: int = 3) -> StagedModel:
    model = build_model(backbone, num_classes=num_classes, weights=None, image_size=size, seed=0).eval()
    fill_cheaply(model)
    return model


@pytest.mark.parametrize(
    "backbone",
    [
        "mobilenet_v2",
        "mobilenet_v3_small",
        "resnet18",
        pytest.param("convnext_tiny", marks=slow),
        pytest.param("densenet121", marks=slow),
        pytest.param("efficientnet_b0", marks=slow),
        pytest.param("mnasnet0_5", marks=slow),
        pytest.param("mobilenet_v3_large", marks=slow),
        pytest.param("resnet50", marks=slow),
        pytest.param("resnext50_32x4d", marks=slow),
        pytest.param("swin_t", marks=slow),
        pytest.param("vgg11_bn", marks=slow),
        pytest.param("vit_b_32", marks=slow),
    ],
)
def test_a_torchvision_backbone_is_one_of_timms(backbone: str) -> None:
    size = 224 if backbone.startswith("swin") else smallest_size(backbone)  # timm shrinks Swin's windows below that
    _assert_rebuilt(_model(backbone, size), images(5, size))


@pytest.mark.parametrize("name", ["tinynet_e", "vit_small_patch14_dinov2", pytest.param("resnetv2_18", marks=slow)])
def test_a_backbone_of_timm_is_its_own(name: str) -> None:
    """A transformer is built for the size again; resnetv2's classifier is a convolution there."""
    size = TIMM_SIZES[name]
    model = _model(f"timm/{name}", size)
    _assert_rebuilt(model, images(5, size))


def _assert_rebuilt(model: StagedModel, pixels: torch.Tensor) -> None:
    """What the record says builds the model in a process that knows nothing else."""
    found = timm_counterpart(model)
    rebuilt = timm.create_model(found.architecture, pretrained=False, num_classes=3, **found.options).eval()
    rebuilt.load_state_dict(found.model.state_dict())
    with torch.inference_mode():
        expected = model(pixels)
        assert float(expected.std()) > 1e-2
        assert torch.allclose(rebuilt(pixels), expected, atol=1e-4, rtol=1e-4)


def test_the_tag_of_a_version_is_kept_apart_from_the_architecture() -> None:
    found = timm_counterpart(_model("timm/vit_small_patch14_dinov2@lvd142m", 28))
    assert (found.architecture, found.tag) == ("vit_small_patch14_dinov2", "lvd142m")
    assert found.options["img_size"] == 28


@pytest.mark.parametrize(
    ("backbone", "says"),
    [
        ("squeezenet1_1", "timm has no model that is torchvision's squeezenet1_1"),
        ("shufflenet_v2_x0_5", "timm has no model that is torchvision's shufflenet_v2_x0_5"),
        ("swin_t", "the tensors of swin_t are not those of timm's"),
        ("inception_v3", "timm's inception_v3 must give the logits of inception_v3"),
    ],
)
def test_a_backbone_that_timm_lacks_is_refused(backbone: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        timm_counterpart(_model(backbone, max(64, smallest_size(backbone))))


def test_tensors_of_another_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COUNTERPARTS", {"resnet18": ("resnet34", {})})
    with pytest.raises(UserError, match="the tensors of resnet18 are not those of timm's resnet34"):
        timm_counterpart(_model("resnet18", 32))


def test_other_logits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network with the same tensors and another batch norm."""
    monkeypatch.setattr(module, "_COUNTERPARTS", {"mobilenet_v2": ("mobilenetv2_100", {"bn_eps": 0.5})})
    with pytest.raises(UserError, match="timm's mobilenetv2_100 must give the logits of mobilenet_v2"):
        timm_counterpart(_model("mobilenet_v2", 64))
