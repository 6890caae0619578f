"""Stem + stages + head is the original model, and every parameter has one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
import torch
import torchvision.models as tv
from _pytest.mark import ParameterSet
from model_cases import FAMILY_MEMBERS, TIMM_MEMBERS, TIMM_SIZES, filled_original, images, meta_staged, smallest_size
from torch import nn

from tlsearch.core.errors import UserError
from tlsearch.model import MAX_DEPTH, PART_NAMES, StagedModel
from tlsearch.model.build import replace_head
from tlsearch.model.libraries.fast_init import meta_original
from tlsearch.model.libraries.libraries import torchvision_names, torchvision_weights
from tlsearch.model.staging.cut import stage_model
from tlsearch.model.staging.staged import group_by_stride
from tlsearch.space import BackboneFacts, backbone_facts
from tlsearch.space.libraries.backbones import backbone_names, timm_families


def _assert_same_output(name: str, size: int) -> None:
    original = filled_original(name, size)
    staged = stage_model(original, name, size)
    batch = images(2, size)
    with torch.inference_mode():
        expected = original(batch.clone())
        assert expected.isfinite().all()
        assert not torch.equal(expected[0], expected[1]), "the outputs say nothing about the inputs"
        assert torch.equal(staged(batch.clone()), expected)
        for depth in range(MAX_DEPTH + 1):
            features = staged.forward_prefix(batch.clone(), depth)
            kept = features.clone()
            assert torch.equal(staged.forward_suffix(features, depth), expected)
            assert torch.equal(features, kept), f"the parts after the boundary of depth {depth} write into it"
        replace_head(staged, num_classes=7, seed=0)
        assert staged(batch).shape == (2, 7)


# Small ones of different kinds; all others run in the slow set.
QUICK = "densenet121 efficientnet_b0 mobilenet_v3_small regnet_x_400mf resnet18 squeezenet1_1 swin_t".split()
QUICK_TIMM = "convnext_atto deit_tiny_patch16_224 eva02_tiny_patch14_224 mobilenetv2_050 tinynet_e".split()


def _cases(names: Iterable[str], quick: Sequence[str]) -> list[ParameterSet]:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", _cases(torchvision_names(), QUICK))
def test_staged_output_is_the_originals(name: str) -> None:
    _assert_same_output(name, smallest_size(name))


@pytest.mark.parametrize("name", _cases(TIMM_SIZES, QUICK_TIMM))
def test_staged_output_is_the_originals_for_timm(name: str) -> None:
    pytest.importorskip("timm")
    _assert_same_output(f"timm/{name}", TIMM_SIZES[name])


def test_there_are_80_models() -> None:
    assert len(torchvision_names()) == 80


@pytest.mark.slow
@pytest.mark.parametrize("family", timm_families())
def test_staged_output_is_the_originals_for_every_smaller_one_of_timm(family: str) -> None:
    """All of the table with up to 30 million parameters; but for mixtures of experts, which no cheap filling suits."""
    pytest.importorskip("timm")
    for name in backbone_names():
        facts = backbone_facts(name)
        assert facts is not None
        if not facts.is_timm or facts.family != family or "_cc_" in name:
            continue
        size = _small_input(facts)
        original = meta_original(name, None, size)
        if size <= 256 and sum(parameter.numel() for parameter in original.parameters()) <= 30e6:
            try:
                _assert_same_output(name, size)
            except AssertionError as error:
                raise AssertionError(name) from error


def _small_input(facts: BackboneFacts) -> int:
    if facts.size_multiple in (0, 1, 4):
        return 64 if facts.size_multiple else facts.image_size
    return max(facts.min_size, 2 * facts.size_multiple)


def _assert_partition(staged: StagedModel, num_parameters: int) -> None:
    """Each parameter is in one part, none is without; the head has the right shape; depths are nested."""
    seen = [id(parameter) for part in staged.parts for parameter in part.parameters()]
    assert len(seen) == len(set(seen))
    counts = [sum(p.numel() for p in part.parameters()) for part in staged.parts]
    assert all(counts)
    assert sum(counts) == num_parameters

    replace_head(staged, num_classes=10, seed=0)
    assert [parameter.shape[0] for parameter in staged.head.parameters()] in ([10, 10], [10])
    assert not any(m.inplace for m in staged.head.modules() if isinstance(m, nn.Dropout))
    before: set[str] = set()
    for depth in range(MAX_DEPTH + 1):
        staged.freeze(depth, "train")
        names = set(staged.trainable_parameters())
        assert names > before
        assert {name.partition(".")[0] for name in names} == set(PART_NAMES[MAX_DEPTH - depth :])
        before = names
    assert before == {name for name, _ in staged.named_parameters()}


@pytest.mark.parametrize("name", _cases(torchvision_names(), FAMILY_MEMBERS))
def test_parts_partition_the_parameters_and_depths_are_nested(name: str) -> None:
    """Counted on the meta device against the number that torchvision publishes."""
    published = torchvision_weights(name, None).meta["num_params"]
    if name == "inception_v3":  # its number counts the auxiliary head
        with torch.device("meta"):
            auxiliary = tv.inception_v3(weights=None, init_weights=False).AuxLogits
        published -= sum(p.numel() for p in auxiliary.parameters())
    _assert_partition(meta_staged(name), published)


@pytest.mark.parametrize("name", TIMM_SIZES)
def test_parts_of_timms_models_partition_the_parameters(name: str) -> None:
    pytest.importorskip("timm")
    original = meta_original(f"timm/{name}", None, TIMM_SIZES[name])
    num_parameters = sum(parameter.numel() for parameter in original.parameters())
    _assert_partition(stage_model(original, f"timm/{name}", TIMM_SIZES[name]), num_parameters)


def test_enough_of_timm_is_tested() -> None:
    assert len(TIMM_SIZES) >= 25 and len(TIMM_MEMBERS) >= 10 and {*QUICK_TIMM} <= {*TIMM_SIZES}


@pytest.mark.parametrize(
    ("name", "first_modules"),
    [
        ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("regnet_y_400mf", ["stem", "block1", "block2", "block3", "block4", "fc"]),
        ("mobilenet_v2", ["features_0", "features_2", "features_4", "features_7", "features_14", "classifier_0"]),
        ("mobilenet_v3_small", ["features_0", "features_1", "features_2", "features_4", "features_9", "classifier_2"]),
        ("mobilenet_v3_large", ["features_0", "features_2", "features_4", "features_7", "features_13", "classifier_2"]),
        ("efficientnet_b0", ["features_0", "features_2", "features_3", "features_4", "features_6", "classifier_0"]),
        ("efficientnet_v2_m", ["features_0", "features_2", "features_3", "features_4", "features_6", "classifier_0"]),
        ("mnasnet1_0", ["layers_0", "layers_8", "layers_9", "layers_10", "layers_12", "classifier_0"]),
        ("vgg11", ["features_0", "features_3", "features_6", "features_11", "features_16", "classifier_5"]),
        ("squeezenet1_0", ["features_0", "features_3", "features_6", "features_8", "features_10", "classifier_0"]),
        ("squeezenet1_1", ["features_0", "features_3", "features_6", "features_9", "features_11", "classifier_0"]),
        ("shufflenet_v2_x1_0", ["conv1", "stage2", "stage3_0", "stage3_4", "stage4", "fc"]),
        ("vit_l_16", ["patch_tokens", "layers_0", "layers_6", "layers_12", "layers_18", "head"]),
        ("swin_v2_t", ["features_0", "features_1", "features_2", "features_4", "features_6", "head"]),
        ("timm/resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4", "own_dropout"]),
        ("timm/regnety_002", ["stem", "s1", "s2", "s3", "s4", "drop"]),
        ("timm/convnext_atto", ["stem", "stages_0", "stages_1", "stages_2", "stages_3", "drop"]),
        ("timm/gernet_s", ["stem", "stages_0", "stages_1", "stages_2", "stages_3", "drop"]),
        ("timm/darknet17", ["stem", "stages_1", "stages_2", "stages_3", "stages_4", "drop"]),
        ("timm/vit_tiny_patch16_224", ["patch_embed", "blocks_0", "blocks_3", "blocks_6", "blocks_9", "head_drop"]),
        ("timm/eva02_tiny_patch14_224", ["patch_embed", "blocks_0", "blocks_3", "blocks_6", "blocks_9", "head_drop"]),
        ("timm/swinv2_tiny_window8_256", ["patch_embed", "layers_0", "layers_1", "layers_2", "layers_3", "drop"]),
        ("timm/densenet121", ["features_0", "denseblock1", "denseblock2", "denseblock3", "denseblock4", "head_drop"]),
    ],
)
def test_parts_begin_where_the_pyramid_says(name: str, first_modules: list[str]) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    assert [next(iter(part.named_children()))[0] for part in meta_staged(name).parts] == first_modules


def test_groups_of_one_stride_are_halved() -> None:
    assert group_by_stride([2, 2, 4, 8, 8, 16, 32]) == [2, 3, 5, 6]
    assert group_by_stride([2, 4, 8, 8, 8, 8, 16]) == [1, 2, 4, 6]
    assert group_by_stride([4, 4, 4, 4]) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="do not make 4 stages"):
        group_by_stride([2, 4, 8, 16])


def test_modules_of_one_name_in_a_part_are_both_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("stem", "norm", "one", "two", "three", "fc")})
    model["tail"] = nn.ModuleDict({"norm": nn.Linear(4, 4)})
    line = "stem | one | two | three | norm tail.norm | fc"
    monkeypatch.setattr("tlsearch.model.staging.cut.rule_of", lambda model: line)
    staged = stage_model(model, "made_up", 32)
    assert [name for name, _ in staged.stage4.named_children()] == ["norm", "tail_norm"]
    monkeypatch.setattr("tlsearch.model.staging.cut.rule_of", lambda model: line + " fc")
    with pytest.raises(AssertionError, match="names fc twice"):
        stage_model(model, "made_up", 32)


def test_auxiliary_heads_are_gone_and_inputs_are_rescaled() -> None:
    for name in ("googlenet", "inception_v3"):
        original = meta_original(name, None, 299)
        assert original.transform_input
        assert not any(key.lower().startswith("aux") for key in original.state_dict())


def test_a_model_without_a_rule_is_a_users_error() -> None:
    with pytest.raises(UserError, match="class Linear have no staging rule"):
        stage_model(nn.Linear(3, 3), "linear", 224)
