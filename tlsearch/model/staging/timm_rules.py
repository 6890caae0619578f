"""How timm's families are cut; the language of the lines is that of `tlsearch.model.staging.torchvision_rules`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tlsearch.model.staging.staged import NUM_STAGES, group_by_stride, runs

_PLAIN_HEAD = "head.global_pool | head.drop head.fc head.flatten"
# timm's heads by class: what of it is pretrained or only pools, and what opens and is the classifier.
_HEADS: Mapping[str, str] = {
    "layers.classifier.ClassifierHead": _PLAIN_HEAD,
    "layers.classifier.NormMlpClassifierHead": (
        "head.global_pool head.norm head.flatten head.pre_logits | head.drop head.fc"
    ),
    "models.hgnet.ClassifierHead": "head.global_pool head.last_conv head.flatten | head.dropout head.fc",
}


def _efficientnet(head: str) -> Callable[[Any], str]:
    """timm says itself after which blocks the resolution falls, also where a blur pool holds the stride."""

    def rule(model: Any) -> str:
        strides: list[int] = []
        for feature in model.feature_info:
            strides += [feature["reduction"]] * (feature["stage"] - len(strides))
        strides += [strides[-1]] * (len(model.blocks) - len(strides))
        stem, *stages = runs("blocks", group_by_stride(strides))
        return f"conv_stem bn1 {stem} | {' | '.join(stages)} {head}"

    return rule


def _pyramid(stem: str, stages: str, tail: str = "") -> Callable[[Any], str]:
    """Stages in a row, something after them, and one of timm's heads; where they are not four, by stride."""

    def rule(model: Any) -> str:
        head = _HEADS.get(f"{type(model.head).__module__}.{type(model.head).__qualname__}".removeprefix("timm."))
        if head is None:
            raise ValueError(f"it has a head of the class {type(model.head).__name__}")
        starts, count = [0, 1, 2, 3], len(model.get_submodule(stages))
        if count != NUM_STAGES:
            known = {feature["module"]: feature["reduction"] for feature in model.feature_info}
            last = model.feature_info[-1]["reduction"]
            starts = group_by_stride([known.get(f"{stages}.{k}", last) for k in range(count)])
        first, *four = runs(stages, starts)
        return f"{stem} {first} | {' | '.join(four)} {tail} {head}"

    return rule


def _transformer(tokens: str, tail: str, wrapper: str = "") -> Callable[[Any], str]:
    """Equal blocks in four equal groups."""

    def rule(model: Any) -> str:
        count = len(model.blocks)
        if count < NUM_STAGES:
            raise ValueError(f"{count} blocks do not make {NUM_STAGES} stages")
        if not model.global_pool:
            raise ValueError("it does not pool its tokens, so it is not a classifier")
        rotary = wrapper if getattr(model, "rope", None) is not None else ""
        if rotary and model.rope_mixed:
            raise ValueError("its rotary positions are one parameter of all its blocks, so they belong to no stage")
        _, *stages = runs(f"{rotary}blocks", [count * k // NUM_STAGES for k in range(NUM_STAGES)])
        return f"patch_embed {tokens} | {' | '.join(stages)} norm {tail} fc_norm | head_drop head"

    return rule


def _beit(model: Any) -> str:
    if model.rel_pos_bias is not None or model.global_pool != "avg":
        raise ValueError("there is a rule for position biases of each block's own, and for pooling by the mean")
    return _transformer("+beit_tokens", "+mean_of_patches")(model)


def _densenet(model: Any) -> str:
    first = next(i for i, (name, _) in enumerate(model.features.named_children()) if name == "denseblock1")
    blocks = " | ".join(f"features.denseblock{k} features.transition{k}" for k in (1, 2, 3))
    tail = "features.denseblock4 features.norm5 global_pool"
    return f"features[:{first}] | {blocks} | {tail} | head_drop classifier"


def _vgg(model: Any) -> str:
    starts = [i + 1 for i, layer in enumerate(model.features) if type(layer).__name__ == "MaxPool2d"][:NUM_STAGES]
    return f"{' | '.join(runs('features', starts))} pre_logits {_PLAIN_HEAD}"


RULES: Mapping[str, str | Callable[[Any], str]] = {
    "beit.Beit": _beit,
    "byobnet.ByobNet": _pyramid("stem", "stages", "final_conv"),
    "convnext.ConvNeXt": _pyramid("stem", "stages", "norm_pre"),
    "cspnet.CspNet": _pyramid("stem", "stages"),
    "davit.DaVit": _pyramid("stem", "stages", "norm_pre"),
    "densenet.DenseNet": _densenet,
    "edgenext.EdgeNeXt": _pyramid("stem", "stages", "norm_pre"),
    "efficientnet.EfficientNet": _efficientnet("conv_head bn2 global_pool | +own_dropout classifier"),
    "eva.Eva": _transformer("+embed_positions norm_pre", "+pool_tokens", wrapper="rotary:"),
    "fastvit.FastVit": _pyramid("stem", "stages", "final_conv"),
    "focalnet.FocalNet": _pyramid("stem", "layers", "norm"),
    "hgnet.HighPerfGpuNet": _pyramid("stem", "stages"),
    "maxxvit.MaxxVit": _pyramid("stem", "stages", "norm"),
    "mobilenetv3.MobileNetV3": _efficientnet("global_pool conv_head norm_head act2 flatten | +own_dropout classifier"),
    "nextvit.NextViT": _pyramid("stem", "stages", "norm"),
    "nfnet.NormFreeNet": _pyramid("stem", "stages", "final_conv final_act"),
    "regnet.RegNet": f"stem | s1 | s2 | s3 | s4 final_conv {_PLAIN_HEAD}",
    "resnet.ResNet": "conv1 bn1 act1 maxpool | layer1 | layer2 | layer3 | layer4 global_pool | +own_dropout fc",
    "resnetv2.ResNetV2": _pyramid("stem", "stages", "norm"),
    "swin_transformer.SwinTransformer": _pyramid("patch_embed", "layers", "norm"),
    "swin_transformer_v2.SwinTransformerV2": _pyramid("patch_embed", "layers", "norm"),
    "tiny_vit.TinyVit": _pyramid("patch_embed", "stages"),
    "vgg.VGG": _vgg,
    "vision_transformer.VisionTransformer": _transformer("+embed_positions patch_drop norm_pre", "+pool_tokens"),
    "vovnet.VovNet": _pyramid("stem", "stages"),
}
