"""timm's models at other image sizes, and with other people's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_cases import fill_cheaply, images
from safetensors.torch import save_file
from torch import Tensor, nn

from tlsearch.core.errors import UserError, WeightsError
from tlsearch.core.types import ModelSpec, WeightsSource
from tlsearch.model import Weights, build_model, default_transform, describe_model, resolve_weights
from tlsearch.model.libraries.libraries import create_original
from tlsearch.model.staging.cut import stage_model
from tlsearch.model.weights.matching import layout_of

timm = pytest.importorskip("timm")

DINO = "timm/vit_small_patch14_reg4_dinov2"
CLIP = "timm/vit_xsmall_patch16_clip_224"


def _filled(name: str, size: int) -> nn.Module:
    model = create_original(name, None, size, random_init=False).eval()
    fill_cheaply(model)
    return model


def _weights(name: str, state: dict[str, Tensor]) -> Weights:
    backbone = {key: tensor for key, tensor in state.items() if key not in layout_of(name).head}
    return Weights(id="test", digest="d", state=backbone, transform=default_transform(name))


@pytest.mark.parametrize(
    ("name", "native", "size"),
    [
        ("timm/vit_tiny_patch16_224", 224, 96),
        ("timm/eva02_tiny_patch14_224", 224, 56),
        pytest.param("timm/vit_small_patch14_reg4_dinov2", 518, 28, marks=pytest.mark.slow),
        pytest.param("timm/vit_small_patch16_dinov3", 256, 64, marks=pytest.mark.slow),
        pytest.param("timm/swin_tiny_patch4_window7_224", 224, 64, marks=pytest.mark.slow),
        pytest.param("timm/swinv2_tiny_window8_256", 256, 128, marks=pytest.mark.slow),
    ],
)
def test_another_size_is_what_timm_makes_of_it(name: str, native: int, size: int) -> None:
    """Against timm's own way to load weights into a model of another size."""
    state = _filled(name, native).state_dict()
    theirs = timm.create_model(name.removeprefix("timm/"), img_size=size, num_classes=3).eval()
    converted = __import__(type(theirs).__module__, fromlist=["x"]).checkpoint_filter_fn(dict(state), theirs)
    own = theirs.state_dict()
    theirs.load_state_dict({k: t if t.shape == own[k].shape else own[k] for k, t in converted.items()}, strict=False)
    ours = build_model(name, num_classes=3, weights=_weights(name, state), image_size=size, seed=0).eval()
    batch = images(2, size)
    with torch.inference_mode():
        head = theirs.get_classifier()
        theirs.reset_classifier(0)
        assert torch.equal(ours.forward_prefix(batch, 0), theirs(batch))
        assert head is not None and ours(batch).shape == (2, 3)
    kept = ours.original_state()
    resampled = {key for key in kept if not torch.equal(kept[key], state[key])} if len(kept) else set()
    assert all("pos_embed" in key or "relative_position" in key for key in resampled), resampled


def test_positions_are_resampled_as_by_set_input_size() -> None:
    original = _filled("timm/vit_tiny_patch16_224", 224)
    weights = _weights("timm/vit_tiny_patch16_224", original.state_dict())
    ours = build_model("timm/vit_tiny_patch16_224", num_classes=3, weights=weights, image_size=160, seed=0)
    original.set_input_size((160, 160))
    assert torch.equal(ours.original_state()["pos_embed"], original.pos_embed)
    assert ours.original_state()["pos_embed"].shape == (1, 101, 192)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("timm/vit_small_patch14_dinov2", 96, "multiples of 14; 96 is not"),
        ("timm/swin_tiny_patch4_window7_224", 65, "multiples of 4; 65 is not"),
        ("timm/maxvit_rmlp_pico_rw_256", 224, "exactly 256 px, not of 224"),
        ("timm/resnet18@no_tag", 96, "has no weights 'no_tag'; it has a1_in1k"),
        ("timm/resnet18.no_tag", 96, "has no weights 'no_tag'; it has a1_in1k"),
        ("timm/xcit_nano_12_p8_224", 224, "class Xcit have no staging rule; .* ConvNeXt, .*, VGG"),
        ("timm/deit_tiny_distilled_patch16_224", 224, "VisionTransformerDistilled have no staging rule"),
        ("timm/resnet50_clip", 224, "no staging rule fits .* ByobNet: it has a head of the class AttentionPool2d"),
        ("timm/vit_small_patch16_rope_mixed_224", 224, "one parameter of all its blocks"),
        ("timm/vit_small_patch16_dinov3.lvd1689m", 100, "multiples of 16; 100 is not"),
    ],
)
def test_what_cannot_be_built_is_a_users_error(name: str, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(name, num_classes=2, weights=None, image_size=size, seed=0)


def test_a_rule_that_no_longer_fits_is_a_users_error() -> None:
    original = create_original("timm/resnet10t", None, 64, random_init=False)
    original.extra = nn.Linear(2, 2)
    with pytest.raises(UserError, match="class ResNet does not partition its parameters in timm/resnet10t"):
        stage_model(original, "timm/resnet10t", 64)


def test_positions_of_a_part_are_those_of_evaluation_in_training_too() -> None:
    model = build_model("timm/eva02_tiny_patch14_224", num_classes=2, weights=None, image_size=28, seed=0)
    model.freeze(3, None)
    model.train()
    batch = images(2, 28)
    assert torch.equal(model.forward_prefix(batch, 3), model.forward_prefix(batch, 3))


# --- other people's weights ---------------------------------------------------------------


def _saved(tmp_path: Path, state: dict[str, Tensor]) -> WeightsSource:
    path = tmp_path / "theirs.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return WeightsSource(kind="file", path=str(path))


def test_dinov2s_own_names_are_known(tmp_path: Path) -> None:
    state = _filled(DINO, 518).state_dict()
    for_class = torch.full((1, 1, 384), 0.5)
    theirs = {key: t for key, t in state.items() if not key.startswith("head.")}
    theirs["register_tokens"] = theirs.pop("reg_token")
    theirs["pos_embed"] = torch.cat([for_class, state["pos_embed"]], dim=1)
    theirs["mask_token"] = torch.zeros(1, 384)
    weights = resolve_weights(DINO, _saved(tmp_path, theirs))
    assert weights.state is not None and len(weights.state) == len(state) - 2
    assert torch.equal(weights.state["reg_token"], state["reg_token"])
    assert torch.equal(weights.state["pos_embed"], state["pos_embed"])
    assert torch.equal(weights.state["cls_token"], state["cls_token"] + for_class)


def test_clips_own_names_are_known(tmp_path: Path) -> None:
    state = _filled(CLIP, 224).state_dict()
    renames = [
        ("patch_embed.proj", "conv1"),
        ("blocks.", "transformer.resblocks."),
        ("norm_pre", "ln_pre"),
        (".norm1", ".ln_1"),
        (".norm2", ".ln_2"),
        ("qkv.", "in_proj_"),
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    ]
    theirs = {}
    for key, tensor in state.items():
        name = key
        for ours, clips in renames:
            name = name.replace(ours, clips)
        theirs[f"visual.{'ln_post' + name[4:] if name.startswith('norm.') else name}"] = tensor
    theirs["visual.class_embedding"] = theirs.pop("visual.cls_token")[0, 0].clone()
    theirs["visual.positional_embedding"] = theirs.pop("visual.pos_embed")[0].clone()
    theirs["visual.proj"] = theirs.pop("visual.head.weight").T.clone()
    theirs.pop("visual.head.bias")
    theirs["token_embedding.weight"] = torch.zeros(3, 3)
    weights = resolve_weights(CLIP, _saved(tmp_path, theirs))
    assert weights.state is not None and len(weights.state) == len(state) - 2
    assert all(torch.equal(weights.state[key], state[key]) for key in weights.state)


def test_positions_of_another_size_are_resampled(tmp_path: Path) -> None:
    name = "timm/vit_tiny_patch16_224"
    state = _filled(name, 96).state_dict()
    weights = resolve_weights(name, _saved(tmp_path, state))
    assert weights.state is not None and weights.state["pos_embed"].shape == (1, 197, 192)
    assert torch.equal(weights.state["blocks.3.attn.qkv.weight"], state["blocks.3.attn.qkv.weight"])


def test_what_timm_cannot_convert_is_listed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not fit timm/vit_tiny_patch16_224; 150 missing: .* and 140 more"):
        resolve_weights("timm/vit_tiny_patch16_224", _saved(tmp_path, {"a": torch.zeros(1)}))


def test_versions_are_described_in_both_ways() -> None:
    for name in ("timm/convnext_atto.d2_in1k", "timm/convnext_atto@d2_in1k"):
        described = describe_model(ModelSpec(backbone=name, num_classes=3))
        assert described.image_size == default_transform(name).crop_size == 224
