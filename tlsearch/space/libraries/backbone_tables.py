"""The backbones of torchvision and timm that can be cut into stages.

torchvision's 80 classification models are rows here: family, batch norm, named weights with their crop in pixels, the
default weights first. vgg16's IMAGENET1K_FEATURES are left out, since their classifier layers are not trained. Checked
against torchvision 0.29 by a test.

timm's models are in a data file that is read on first use. Its first line is the version of timm that it was made
from. Then, below each of timm's modules in brackets, a line for each model: name, ``bn``, ``cls`` (its classifier
reads a class token) or ``-``, the crop of its default weights, the smallest image, what image sizes are multiples of
(0: its own size alone), and the tags of its weights, the default ones first, ``tag:crop`` where a tag has another
crop. Left out are models that no staging rule fits, and weights whose preprocessing is of another kind. A test
compares the file with timm as installed, and says how to write it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import PackageNotFoundError, version

_V1, _V2 = "IMAGENET1K_V1", "IMAGENET1K_V2"
_SWAG, _LINEAR = "IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1"

Row = tuple[str, bool, tuple[tuple[str, int], ...]]

TORCHVISION: Mapping[str, Row] = {
    "alexnet": ("alexnet", False, ((_V1, 224),)),
    "convnext_base": ("convnext", False, ((_V1, 224),)),
    "convnext_large": ("convnext", False, ((_V1, 224),)),
    "convnext_small": ("convnext", False, ((_V1, 224),)),
    "convnext_tiny": ("convnext", False, ((_V1, 224),)),
    "densenet121": ("densenet", True, ((_V1, 224),)),
    "densenet161": ("densenet", True, ((_V1, 224),)),
    "densenet169": ("densenet", True, ((_V1, 224),)),
    "densenet201": ("densenet", True, ((_V1, 224),)),
    "efficientnet_b0": ("efficientnet", True, ((_V1, 224),)),
    "efficientnet_b1": ("efficientnet", True, ((_V2, 240), (_V1, 240))),
    "efficientnet_b2": ("efficientnet", True, ((_V1, 288),)),
    "efficientnet_b3": ("efficientnet", True, ((_V1, 300),)),
    "efficientnet_b4": ("efficientnet", True, ((_V1, 380),)),
    "efficientnet_b5": ("efficientnet", True, ((_V1, 456),)),
    "efficientnet_b6": ("efficientnet", True, ((_V1, 528),)),
    "efficientnet_b7": ("efficientnet", True, ((_V1, 600),)),
    "efficientnet_v2_l": ("efficientnet_v2", True, ((_V1, 480),)),
    "efficientnet_v2_m": ("efficientnet_v2", True, ((_V1, 480),)),
    "efficientnet_v2_s": ("efficientnet_v2", True, ((_V1, 384),)),
    "googlenet": ("googlenet", True, ((_V1, 224),)),
    "inception_v3": ("inception", True, ((_V1, 299),)),
    "maxvit_t": ("maxvit", True, ((_V1, 224),)),
    "mnasnet0_5": ("mnasnet", True, ((_V1, 224),)),
    "mnasnet0_75": ("mnasnet", True, ((_V1, 224),)),
    "mnasnet1_0": ("mnasnet", True, ((_V1, 224),)),
    "mnasnet1_3": ("mnasnet", True, ((_V1, 224),)),
    "mobilenet_v2": ("mobilenet_v2", True, ((_V2, 224), (_V1, 224))),
    "mobilenet_v3_large": ("mobilenet_v3", True, ((_V2, 224), (_V1, 224))),
    "mobilenet_v3_small": ("mobilenet_v3", True, ((_V1, 224),)),
    "regnet_x_16gf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_x_1_6gf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_x_32gf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_x_3_2gf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_x_400mf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_x_800mf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_x_8gf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_y_128gf": ("regnet", True, ((_SWAG, 384), (_LINEAR, 224))),
    "regnet_y_16gf": ("regnet", True, ((_V2, 224), (_V1, 224), (_SWAG, 384), (_LINEAR, 224))),
    "regnet_y_1_6gf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_y_32gf": ("regnet", True, ((_V2, 224), (_V1, 224), (_SWAG, 384), (_LINEAR, 224))),
    "regnet_y_3_2gf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_y_400mf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_y_800mf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "regnet_y_8gf": ("regnet", True, ((_V2, 224), (_V1, 224))),
    "resnet101": ("resnet", True, ((_V2, 224), (_V1, 224))),
    "resnet152": ("resnet", True, ((_V2, 224), (_V1, 224))),
    "resnet18": ("resnet", True, ((_V1, 224),)),
    "resnet34": ("resnet", True, ((_V1, 224),)),
    "resnet50": ("resnet", True, ((_V2, 224), (_V1, 224))),
    "resnext101_32x8d": ("resnet", True, ((_V2, 224), (_V1, 224))),
    "resnext101_64x4d": ("resnet", True, ((_V1, 224),)),
    "resnext50_32x4d": ("resnet", True, ((_V2, 224), (_V1, 224))),
    "shufflenet_v2_x0_5": ("shufflenet_v2", True, ((_V1, 224),)),
    "shufflenet_v2_x1_0": ("shufflenet_v2", True, ((_V1, 224),)),
    "shufflenet_v2_x1_5": ("shufflenet_v2", True, ((_V1, 224),)),
    "shufflenet_v2_x2_0": ("shufflenet_v2", True, ((_V1, 224),)),
    "squeezenet1_0": ("squeezenet", False, ((_V1, 224),)),
    "squeezenet1_1": ("squeezenet", False, ((_V1, 224),)),
    "swin_b": ("swin", False, ((_V1, 224),)),
    "swin_s": ("swin", False, ((_V1, 224),)),
    "swin_t": ("swin", False, ((_V1, 224),)),
    "swin_v2_b": ("swin_v2", False, ((_V1, 256),)),
    "swin_v2_s": ("swin_v2", False, ((_V1, 256),)),
    "swin_v2_t": ("swin_v2", False, ((_V1, 256),)),
    "vgg11": ("vgg", False, ((_V1, 224),)),
    "vgg11_bn": ("vgg", True, ((_V1, 224),)),
    "vgg13": ("vgg", False, ((_V1, 224),)),
    "vgg13_bn": ("vgg", True, ((_V1, 224),)),
    "vgg16": ("vgg", False, ((_V1, 224),)),
    "vgg16_bn": ("vgg", True, ((_V1, 224),)),
    "vgg19": ("vgg", False, ((_V1, 224),)),
    "vgg19_bn": ("vgg", True, ((_V1, 224),)),
    "vit_b_16": ("vit", False, ((_V1, 224), (_SWAG, 384), (_LINEAR, 224))),
    "vit_b_32": ("vit", False, ((_V1, 224),)),
    "vit_h_14": ("vit", False, ((_SWAG, 518), (_LINEAR, 224))),
    "vit_l_16": ("vit", False, ((_V1, 224), (_SWAG, 512), (_LINEAR, 224))),
    "vit_l_32": ("vit", False, ((_V1, 224),)),
    "wide_resnet101_2": ("resnet", True, ((_V2, 224), (_V1, 224))),
    "wide_resnet50_2": ("resnet", True, ((_V2, 224), (_V1, 224))),
}


TIMM_MODELS_FILE = "timm_models.txt"


@dataclass(frozen=True, kw_only=True)
class TimmRow:
    """One line of the file.

    Attributes:
        name: timm's name.
        module: timm's module of the family, e.g. ``vision_transformer``.
        versions: Crop of each tag's weights in pixels, the default ones first.
    """

    name: str
    module: str
    has_batch_norm: bool
    has_class_token: bool
    image_size: int
    min_size: int
    size_multiple: int
    versions: Mapping[str, int]


def timm_rows() -> Iterator[TimmRow]:
    """The rows of the file, in its order."""
    module = ""
    for line in _lines()[1:]:
        if line.startswith("["):
            module = line.strip("[]")
            continue
        name, kinds, *numbers = line.split(" ")
        size, smallest, multiple = map(int, numbers[:3])
        tags = (one.partition(":") for one in numbers[3:])
        yield TimmRow(
            name=name,
            module=module,
            has_batch_norm="bn" in kinds.split(","),
            has_class_token="cls" in kinds.split(","),
            image_size=size,
            min_size=smallest,
            size_multiple=multiple,
            versions={tag: int(own or size) for tag, _, own in tags},
        )


def timm_is_newer() -> bool:
    """Whether the installed timm is newer than the file: it may then know tags that the file does not."""
    try:
        return _numbers(version("timm")) > _numbers(_lines()[0].split(" ")[1])
    except PackageNotFoundError:
        return False


def _lines() -> list[str]:
    return resources.files(__package__).joinpath(TIMM_MODELS_FILE).read_text(encoding="utf-8").splitlines()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
