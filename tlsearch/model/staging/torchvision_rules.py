"""How each family is cut into stem, four stages and head: one rule per model class.

A rule is a line of six parts between bars, in the order of the forward pass. A word is an attribute of the library's
model (``layer1``, ``features.conv0``), a child or a run of children of a sequential one (``features[3]``,
``features[3:6]``), or an operation that the library writes as a function (``+flatten``). Where the line depends on the
variant, the rule is a function that writes the line from the model's own structure. Classes are named by their path,
so that no library is imported for its rules. ``rotary:blocks[0:3]`` puts each block into a module of its own that
gives it what it needs beside its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from tlsearch.core.errors import UserError
from tlsearch.model.staging.staged import NUM_STAGES, group_by_stride, runs
from tlsearch.model.staging.timm_rules import RULES as TIMM_RULES

Rule = str | Callable[[Any], str]


def rule_of(model: nn.Module) -> str:
    """The line that cuts this model.

    Raises:
        UserError: No rule fits the model's class, or the rule does not fit this variant of it.
    """
    cls = type(model)
    # Of the very class: a subclass has tensors, or a forward pass, that its base's rule knows nothing of.
    rule = _RULES.get(f"{cls.__module__}.{cls.__qualname__}")
    if rule is None:
        classes = sorted({name.rpartition(".")[2] for name in TIMM_RULES})
        raise UserError(
            f"models of the class {cls.__name__} have no staging rule; of timm's classes these have one:"
            f" {', '.join(classes)}"
        )
    try:
        return rule if isinstance(rule, str) else rule(model)
    except ValueError as error:
        raise UserError(f"no staging rule fits this variant of the class {cls.__name__}: {error}") from error


def _by_stride(path: str, tail: str, head: str) -> Callable[[Any], str]:
    """A rule for one long sequential of inverted residuals, where only one convolution of a block has a stride."""

    def rule(model: Any) -> str:
        strides, stride = [], 1
        for child in model.get_submodule(path):
            stride *= math.prod(m.stride[0] for m in child.modules() if isinstance(m, nn.Conv2d))
            strides.append(stride)
        return f"{' | '.join(runs(path, group_by_stride(strides)))} {tail} | {head}"

    return rule


def _vgg(model: Any) -> str:
    """Five blocks, each closed by its pool; the pretrained fully connected layers close stage4."""
    starts = [i + 1 for i, layer in enumerate(model.features) if isinstance(layer, nn.MaxPool2d)][:NUM_STAGES]
    return f"{' | '.join(runs('features', starts))} avgpool +flatten classifier[:5] | classifier[5:]"


def _squeezenet(model: Any) -> str:
    starts = [3, 6, 9, 11] if isinstance(model.features[5], nn.MaxPool2d) else [3, 6, 8, 10]
    return f"{' | '.join(runs('features', starts))} | classifier[:] +flatten"


def _shufflenet(model: Any) -> str:
    half = len(model.stage3) // 2
    return f"conv1 maxpool | stage2 | stage3[:{half}] | stage3[{half}:] | stage4 conv5 +spatial_mean | fc"


def _vision_transformer(model: Any) -> str:
    count = len(model.encoder.layers)
    _, *stages = runs("encoder.layers", [count * k // NUM_STAGES for k in range(NUM_STAGES)])
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

_RULES: dict[str, Rule] = {f"torchvision.models.{name}": rule for name, rule in _TORCHVISION.items()} | {
    f"timm.models.{name}": rule for name, rule in TIMM_RULES.items()
}
