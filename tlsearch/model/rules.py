"""How each family is cut into stem, four stages and head: one rule per model class.

A rule is a line of six parts between bars, in the order of the forward pass. A word is an attribute of the library's
model (``layer1``, ``features.conv0``), a child or a run of children of a sequential one (``features[3]``,
``features[3:6]``), or an operation that the library writes as a function (``+flatten``). Where the line depends on the
variant, the rule is a function that writes the line from the model's own structure. Classes are named by their path,
so that no library is imported for its rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from tlsearch.errors import UserError

Rule = str | Callable[[Any], str]

NUM_STAGES = 4


def rule_of(model: nn.Module) -> str:
    """The line that cuts this model.

    Raises:
        UserError: No rule fits the model's class.
    """
    for cls in type(model).__mro__:
        rule = _RULES.get(f"{cls.__module__}.{cls.__qualname__}")
        if rule is not None:
            return rule if isinstance(rule, str) else rule(model)
    raise UserError(f"there is no staging rule for models of the class {type(model).__name__}")


def group_by_stride(strides: Sequence[int]) -> list[int]:
    """Where to cut a row of blocks: the four stages begin at these indices.

    Args:
        strides: The output stride after each block, not decreasing.

    Returns:
        Four indices; blocks before the first belong to the stem (those at half of the input's size). With fewer
        strides than stages the longest group is halved; a group is never empty.

    Raises:
        ValueError: The row has more than four strides after the stem's, or too few blocks.
    """
    starts = [i for i, stride in enumerate(strides) if stride > 2 and (i == 0 or stride > strides[i - 1])]
    if not starts or len(starts) > NUM_STAGES or len(strides) - starts[0] < NUM_STAGES:
        raise ValueError(f"blocks of output strides {list(strides)} do not make {NUM_STAGES} stages")
    while len(starts) < NUM_STAGES:
        ends = [*starts[1:], len(strides)]
        longest = max(range(len(starts)), key=lambda k: ends[k] - starts[k])
        starts.insert(longest + 1, (starts[longest] + ends[longest] + 1) // 2)
    return starts


def _runs(path: str, starts: Sequence[int]) -> list[str]:
    """``features[2:4]`` and so on: five runs of children, cut at four indices."""
    bounds = ["", *map(str, starts), ""]
    return [f"{path}[{low}:{high}]" for low, high in zip(bounds, bounds[1:], strict=False)]


def _by_stride(path: str, tail: str, head: str) -> Callable[[Any], str]:
    """A rule for one long sequential of inverted residuals, where only one convolution of a block has a stride."""

    def rule(model: Any) -> str:
        strides, stride = [], 1
        for child in model.get_submodule(path):
            stride *= math.prod(m.stride[0] for m in child.modules() if isinstance(m, nn.Conv2d))
            strides.append(stride)
        return f"{' | '.join(_runs(path, group_by_stride(strides)))} {tail} | {head}"

    return rule


def _timm_efficientnet(head: str) -> Callable[[Any], str]:
    """timm says itself after which blocks the resolution falls, also where a blur pool holds the stride."""

    def rule(model: Any) -> str:
        strides: list[int] = []
        for feature in model.feature_info:
            strides += [feature["reduction"]] * (feature["stage"] - len(strides))
        strides += [strides[-1]] * (len(model.blocks) - len(strides))
        stem, *stages = _runs("blocks", group_by_stride(strides))
        return f"conv_stem bn1 {stem} | {' | '.join(stages)} {head}"

    return rule


def _vgg(model: Any) -> str:
    """Five blocks, each closed by its pool; the pretrained fully connected layers close stage4."""
    starts = [i + 1 for i, layer in enumerate(model.features) if isinstance(layer, nn.MaxPool2d)][:NUM_STAGES]
    return f"{' | '.join(_runs('features', starts))} avgpool +flatten classifier[:5] | classifier[5:]"


def _squeezenet(model: Any) -> str:
    starts = [3, 6, 9, 11] if isinstance(model.features[5], nn.MaxPool2d) else [3, 6, 8, 10]
    return f"{' | '.join(_runs('features', starts))} | classifier[:] +flatten"


def _shufflenet(model: Any) -> str:
    half = len(model.stage3) // 2
    return f"conv1 maxpool | stage2 | stage3[:{half}] | stage3[{half}:] | stage4 conv5 +spatial_mean | fc"


def _vision_transformer(model: Any) -> str:
    count = len(model.encoder.layers)
    _, *stages = _runs("encoder.layers", [count * k // NUM_STAGES for k in range(NUM_STAGES)])
    return f"+patch_tokens | {' | '.join(stages)} encoder.ln +first_token | heads.head"


_TORCHVISION: dict[str, Rule] = {
    "alexnet.AlexNet": (
        "features[:3] | features[3:6] | features[6:8] | features[8:10]"
        " | features[10:] avgpool +flatten classifier[:6] | classifier[6]"
    ),
    "convnext.ConvNeXt": (
        "features[0] | features[1] | features[2:4] | features[4:6] | features[6:] avgpool classifier[:2]"
        " | classifier[2]"
    ),
    "densenet.DenseNet": (
        "features[:4] | features.denseblock1 features.transition1 | features.denseblock2 features.transition2"
        " | features.denseblock3 features.transition3 | features.denseblock4 features.norm5 +relu +pool +flatten"
        " | classifier"
    ),
    "efficientnet.EfficientNet": _by_stride("features", "avgpool +flatten", "classifier[:]"),
    "googlenet.GoogLeNet": (
        "+input_rescale conv1 maxpool1 conv2 conv3 maxpool2 | inception3a inception3b maxpool3"
        " | inception4a inception4b inception4c | inception4d inception4e maxpool4"
        " | inception5a inception5b avgpool +flatten | dropout fc"
    ),
    "inception.Inception3": (
        "+input_rescale Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2"
        " | Mixed_5b Mixed_5c Mixed_5d | Mixed_6a Mixed_6b Mixed_6c | Mixed_6d Mixed_6e"
        " | Mixed_7a Mixed_7b Mixed_7c avgpool +flatten | dropout fc"
    ),
    "maxvit.MaxVit": "stem | blocks[0] | blocks[1] | blocks[2] | blocks[3] classifier[:5] | classifier[5]",
    "mnasnet.MNASNet": _by_stride("layers", "+spatial_mean", "classifier[:]"),
    "mobilenetv2.MobileNetV2": _by_stride("features", "+pool +flatten", "classifier[:]"),
    "mobilenetv3.MobileNetV3": _by_stride("features", "avgpool +flatten classifier[:2]", "classifier[2:]"),
    "regnet.RegNet": (
        "stem | trunk_output.block1 | trunk_output.block2 | trunk_output.block3"
        " | trunk_output.block4 avgpool +flatten | fc"
    ),
    "resnet.ResNet": "conv1 bn1 relu maxpool | layer1 | layer2 | layer3 | layer4 avgpool +flatten | fc",
    "shufflenetv2.ShuffleNetV2": _shufflenet,
    "squeezenet.SqueezeNet": _squeezenet,
    "swin_transformer.SwinTransformer": (
        "features[0] | features[1] | features[2:4] | features[4:6] | features[6:] norm permute avgpool flatten | head"
    ),
    "vgg.VGG": _vgg,
    "vision_transformer.VisionTransformer": _vision_transformer,
}

_TIMM: dict[str, Rule] = {
    "efficientnet.EfficientNet": _timm_efficientnet("conv_head bn2 global_pool | +own_dropout classifier"),
    "mobilenetv3.MobileNetV3": _timm_efficientnet(
        "global_pool conv_head norm_head act2 flatten | +own_dropout classifier"
    ),
}

_RULES: dict[str, Rule] = {f"torchvision.models.{name}": rule for name, rule in _TORCHVISION.items()} | {
    f"timm.models.{name}": rule for name, rule in _TIMM.items()
}
