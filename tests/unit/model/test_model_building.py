"""Building is quick, complete, and touches no global generator."""

from __future__ import annotations

import pytest
import torch
from model_cases import fill_cheaply, filled_original, images
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from tlsearch.core.errors import UserError
from tlsearch.core.types import ModelSpec
from tlsearch.model import Weights, build_model, default_transform, describe_model
from tlsearch.model.build import HeadDropout
from tlsearch.model.libraries.fast_init import empty_original
from tlsearch.model.weights.matching import layout_of


def _weights(name: str, state: dict[str, Tensor] | None) -> Weights:
    return Weights(id="test", digest="d", state=state, transform=default_transform(name))


def _backbone_state(name: str, size: int) -> dict[str, Tensor]:
    state = filled_original(name, size).state_dict()
    return {key: tensor for key, tensor in state.items() if key not in layout_of(name).head}


@pytest.fixture
def nan_memory() -> object:
    """Memory that is allocated and not filled holds NaN."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("nan_memory")
@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "loaded") for name in ("mobilenet_v2", "densenet121", "googlenet", "shufflenet_v2_x0_5", "swin_t")]
    + [("mobilenet_v2", "architecture"), ("swin_t", "architecture")],
)
def test_no_tensor_is_left_uninitialised(name: str, kind: str) -> None:
    assert torch.empty(3).isnan().all()
    state = _backbone_state(name, 64)
    weights = _weights(name, state) if kind == "loaded" else None
    model = build_model(name, num_classes=5, weights=weights, image_size=64, seed=0)
    assert all(t.isfinite().all() for t in [*model.state_dict().values(), *model.buffers()])
    if kind == "loaded":
        loaded = model.original_state()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_loading_gives_the_originals_features() -> None:
    original = filled_original("mobilenet_v2", 64)
    state = {k: t for k, t in original.state_dict().items() if not k.startswith("classifier")}
    model = build_model("mobilenet_v2", num_classes=5, weights=_weights("mobilenet_v2", state), image_size=64, seed=0)
    assert model.training
    model.eval()
    batch = images(2, 64)
    with torch.inference_mode():
        pooled = nn.functional.adaptive_avg_pool2d(original.features(batch), 1).flatten(1)
        assert torch.equal(model.forward_prefix(batch, 0), pooled)
    assert all(name.startswith(("stem.", "stage")) for name in model.origin.values())
    # The held weights are shared by all trials: training one model must not write into them.
    kept = {key: tensor.clone() for key, tensor in state.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(state[key], kept[key]) for key in state)


def test_the_head_depends_on_the_seed_alone() -> None:
    weights = _weights("mobilenet_v3_small", None)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = build_model("mobilenet_v3_small", num_classes=5, weights=weights, image_size=64, seed=1)
    b = build_model("mobilenet_v3_small", num_classes=5, weights=None, image_size=64, seed=1)
    c = build_model("mobilenet_v3_small", num_classes=5, weights=weights, image_size=64, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    head = a.head.classifier
    assert isinstance(head, nn.Linear)
    assert torch.equal(head.weight, b.head.classifier.weight)
    assert not torch.equal(head.weight, c.head.classifier.weight)
    assert head.weight.abs().max() <= head.in_features**-0.5
    assert head.weight.std().item() == pytest.approx((head.in_features**-0.5) / 3**0.5, rel=0.05)


def test_random_weights_are_really_random_and_follow_the_seed() -> None:
    weights = _weights("shufflenet_v2_x0_5", None)
    a, b, c = (
        build_model("shufflenet_v2_x0_5", num_classes=5, weights=weights, image_size=64, seed=s) for s in (1, 1, 2)
    )
    for x, y, z in zip(a.parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(x, y)
        if x.ndim > 1:
            assert x.std() > 0 and not torch.equal(x, z)
    assert a.weights_digest == b.weights_digest != c.weights_digest


def test_a_whole_state_loads_into_a_bare_architecture() -> None:
    source = build_model(
        "mobilenet_v3_small", num_classes=5, weights=_weights("mobilenet_v3_small", None), image_size=64, seed=3
    )
    fill_cheaply(source)
    target = build_model("mobilenet_v3_small", num_classes=5, weights=None, image_size=64, seed=0)
    target.load_state_dict(source.state_dict())
    batch = images(2, 64)
    assert torch.equal(source.eval()(batch), target.eval()(batch))


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("mobilenet_v2", ["HeadDropout", "Linear"]),
        ("efficientnet_b0", ["HeadDropout", "Linear"]),
        ("resnet18", ["Linear"]),
        ("maxvit_t", ["Linear"]),
        ("squeezenet1_1", ["HeadDropout", "AdaptiveAvgPool2d", "Flatten", "Linear"]),
    ],
)
def test_new_heads(name: str, modules: list[str]) -> None:
    size = 224 if name == "maxvit_t" else 64
    model = build_model(name, num_classes=5, weights=None, image_size=size, seed=0)
    assert [type(m).__name__ for m in model.head] == modules
    assert not any(m.inplace for m in model.head if isinstance(m, nn.Dropout))
    assert (model.head.classifier.bias is None) == (name == "maxvit_t")


def test_head_dropout_replaces_the_models_own_rate() -> None:
    for name, rate, expected in [("mobilenet_v2", None, 0.2), ("mobilenet_v2", 0.5, 0.5), ("resnet18", 0.3, 0.3)]:
        model = build_model(name, num_classes=5, weights=None, image_size=64, seed=0, head_dropout=rate)
        assert [m.p for m in model.head if isinstance(m, nn.Dropout)] == [expected]
    model = build_model("mobilenet_v2", num_classes=5, weights=None, image_size=64, seed=0, head_dropout=0.0)
    assert not any(isinstance(m, nn.Dropout) for m in model.head)


@pytest.mark.parametrize("rate", [0.001, 0.2, 0.95])
@pytest.mark.parametrize("shape", [(2000, 333), (7, 8, 100, 111)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_scales_the_rest(rate: float, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropout = HeadDropout(rate)
    rows = torch.full(shape, 3.0, dtype=dtype, requires_grad=True)
    dropped = dropout(rows)
    dropped.sum().backward()
    zeros = (dropped == 0).double()
    error = (rate * (1 - rate) / zeros.numel()) ** 0.5
    assert zeros.mean().item() == pytest.approx(rate, abs=4 * error + 1e-5)
    rest = dropped[dropped != 0].float()
    torch.testing.assert_close(
        rest, torch.full_like(rest, 3 / (1 - rate)), rtol=2e-2 if dtype.itemsize == 2 else 2e-4, atol=0
    )
    assert torch.equal(rows.grad == 0, dropped == 0) and dropped.dtype == dtype
    columns = zeros.flatten(1).mean(0)  # each of the four values of one random word drops alike
    for place in range(4):
        assert columns[place::4].mean().item() == pytest.approx(rate, abs=8 * error + 1e-5)


def test_dropouts_masks_are_fresh_and_of_the_global_generator() -> None:
    dropout, rows = HeadDropout(0.5), torch.ones(40, 30)
    torch.manual_seed(1)
    first, second = dropout(rows), dropout(rows)
    torch.manual_seed(1)
    assert torch.equal(dropout(rows), first) and not torch.equal(first, second)
    torch.manual_seed(1)
    strided = dropout(rows.view(2, 20, 5, 6).contiguous(memory_format=torch.channels_last))
    assert torch.equal(strided.reshape(40, 30), first)
    assert (first * second).count_nonzero().item() == pytest.approx(300, abs=60)
    assert torch.equal(dropout.eval()(rows), rows)
    assert dropout.train()(rows.to("meta")).is_meta


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "vit_b_32", "squeezenet1_0"])
def test_what_would_be_drawn_is_constant(name: str) -> None:
    """By ``nn.init``, too: whose functions no mode follows."""
    original = empty_original(name, None, 96)
    assert all(tensor.unique().numel() == 1 for tensor in original.parameters())


def test_positions_of_a_vision_transformer_are_interpolated() -> None:
    original = empty_original("vit_b_32", None, 96)
    state = original.state_dict()
    state["encoder.pos_embedding"] = torch.randn(1, 10, 768)
    state = {k: t for k, t in state.items() if not k.startswith("heads")}
    model = build_model("vit_b_32", num_classes=5, weights=_weights("vit_b_32", state), image_size=128, seed=0)
    expected = interpolate_embeddings(128, 32, dict(state))["encoder.pos_embedding"]
    assert expected.shape == (1, 17, 768)
    assert torch.equal(model.original_state()["encoder.pos_embedding"], expected)
    assert torch.equal(expected[:, 0], state["encoder.pos_embedding"][:, 0])
    assert state["encoder.pos_embedding"].shape == (1, 10, 768)
    assert model.eval()(images(1, 128)).shape == (1, 5)
    with pytest.raises(ValueError, match="built for 128 px images"):
        model(images(1, 96))


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        ("vit_b_16", 100, "multiples of 16; 100 is not"),
        ("maxvit_t", 96, "multiples of 224; 96 is not"),
        ("mobilnet_v2", 96, "unknown backbone 'mobilnet_v2'; did you mean 'mobilenet_v2'"),
        ("mobilenet_v2@IMAGENET1K_V9", 96, "it has IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_what_cannot_be_built_is_a_users_error(backbone: str, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        default_transform(backbone)
        build_model(backbone, num_classes=2, weights=None, image_size=size, seed=0)


def test_unknown_timm_models_are_named() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="did you mean 'timm/tf_efficientnet_lite0'"):
        build_model("timm/tf_eficientnet_lite0", num_classes=2, weights=None, image_size=64, seed=0)
    with pytest.raises(UserError, match="it has in1k"):
        build_model("timm/tf_efficientnet_lite0@in22k", num_classes=2, weights=None, image_size=64, seed=0)


def test_timm_missing_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'tlsearch\[timm\]'"):
        build_model("timm/tf_efficientnet_lite0", num_classes=2, weights=None, image_size=64, seed=0)


def test_description_counts_the_new_head_and_every_depth() -> None:
    description = describe_model(ModelSpec(backbone="mobilenet_v2", num_classes=10))
    assert description.image_size == 224
    assert [stage.name for stage in description.stages] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert sum(stage.batchnorm_layers for stage in description.stages) == 52
    head = description.stages[-1]
    assert (head.parameters, head.modules) == (12810, ("dropout", "classifier"))
    model = build_model("mobilenet_v2", num_classes=10, weights=None, image_size=64, seed=0)
    for depth, count in description.trainable_parameters.items():
        model.freeze(depth, "train")
        assert count == sum(p.numel() for p in model.trainable_parameters().values())
    assert sorted(description.trainable_parameters) == [0, 1, 2, 3, 4, 5]
