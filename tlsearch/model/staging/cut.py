"""Cuts a library's model into stem, stage1..stage4 and head by its family's rule.

What a library writes as functions or bare parameters becomes a module here, so that it can belong to a stage.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tlsearch.core.errors import UserError
from tlsearch.model.staging.part import Part
from tlsearch.model.staging.staged import PART_NAMES, StagedModel
from tlsearch.model.staging.timm_modules import BeitTokens, Borrowed, MeanOfPatches, RotaryBlock
from tlsearch.model.staging.torchvision_rules import rule_of

_WORD = re.compile(
    r"(?P<operation>\+)?(?:(?P<wrapper>\w+):)?(?P<path>[\w.]+)(?:\[(?P<low>\d*)(?P<run>:?)(?P<high>\d*)\])?"
)


# The operations that libraries write as functions. DenseNet's last ReLU is in place there; in place it would
# overwrite what the stage before it handed over, so it is not in place here.
class SpatialMean(nn.Module):
    """(N, C, H, W) to (N, C), as MNASNet and ShuffleNetV2 pool."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean([2, 3])


class InputRescale(nn.Module):
    """From ImageNet's normalisation to the one that GoogLeNet and Inception were trained with.

    The same operations in the same order as torchvision's ``_transform_input``, to the bit.
    """

    def forward(self, images: Tensor) -> Tensor:
        red = torch.unsqueeze(images[:, 0], 1) * (0.229 / 0.5) + (0.485 - 0.5) / 0.5
        green = torch.unsqueeze(images[:, 1], 1) * (0.224 / 0.5) + (0.456 - 0.5) / 0.5
        blue = torch.unsqueeze(images[:, 2], 1) * (0.225 / 0.5) + (0.406 - 0.5) / 0.5
        return torch.cat((red, green, blue), 1)


class PatchTokens(nn.Module):
    """The beginning of torchvision's VisionTransformer: patches, class token, positions, dropout.

    (N, 3, S, S) to (N, 1 + (S / patch)^2, hidden). Holds the model's own parameters, not copies.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.image_size: int = model.image_size
        self.conv_proj: nn.Module = model.conv_proj
        self.class_token: nn.Parameter = model.class_token
        self.pos_embedding: nn.Parameter = model.encoder.pos_embedding
        self.dropout: nn.Module = model.encoder.dropout

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.image_size, self.image_size):
            size = tuple(images.shape[-2:])
            raise ValueError(f"this model was built for {self.image_size} px images and got {size}")
        tokens = self.conv_proj(images)
        tokens = tokens.reshape(tokens.shape[0], tokens.shape[1], -1).permute(0, 2, 1)
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), tokens], dim=1)
        dropped: Tensor = self.dropout(tokens + self.pos_embedding)
        return dropped


class FirstToken(nn.Module):
    """(N, tokens, hidden) to (N, hidden): the class token."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


_OPERATIONS: Mapping[str, Callable[[Any], nn.Module]] = {
    "beit_tokens": BeitTokens,
    "embed_positions": lambda model: Borrowed(model, "_pos_embed", "pos_drop", parameters=True),
    "first_token": lambda model: FirstToken(),
    "flatten": lambda model: nn.Flatten(1),
    "input_rescale": lambda model: InputRescale() if model.transform_input else nn.Identity(),
    "mean_of_patches": lambda model: MeanOfPatches(),
    "own_dropout": lambda model: nn.Dropout(model.drop_rate),
    "patch_tokens": PatchTokens,
    "pool": lambda model: nn.AdaptiveAvgPool2d(1),
    "pool_tokens": lambda model: Borrowed(model, "pool", "attn_pool"),
    "relu": lambda model: nn.ReLU(),
    "spatial_mean": lambda model: SpatialMean(),
}
_WRAPPERS: Mapping[str, Callable[[Any, nn.Module], nn.Module]] = {"rotary": RotaryBlock}


def stage_model(model: nn.Module, backbone: str, image_size: int) -> StagedModel:
    """The same model as stem, four stages and head, with its original classifier; modules are shared, not copied.

    Args:
        model: A model of torchvision or timm without auxiliary heads.
        backbone: Its name, for messages.
        image_size: Side of the input in pixels that it was built for.

    Raises:
        UserError: No rule cuts the model's class, or it does not fit this model.
    """
    line = rule_of(model)
    parts = [Part(_modules_of(model, words)) for words in line.split("|")]
    assert len(parts) == len(PART_NAMES), f"the rule of {backbone} has {len(parts)} parts: {line}"
    staged = StagedModel(parts, backbone=backbone, image_size=image_size)
    staged.train(model.training)
    _check_partition(model, staged)
    staged.set_origin(model)
    return staged


def _modules_of(model: nn.Module, words: str) -> OrderedDict[str, nn.Module]:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for word in words.split():
        for path, module in _children_of(model, word):
            name = path.rpartition(".")[2]
            if name in modules:  # a stage's `norm` before `head.norm`
                name = path.replace(".", "_")
            assert name not in modules, f"a staging rule names {path} twice: {words}"
            modules[name] = module
    return modules


def _children_of(model: nn.Module, word: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a word stands for, each with its path in the model."""
    match = _WORD.fullmatch(word)
    assert match is not None, f"not a word of a staging rule: {word!r}"
    path = match["path"]
    if match["operation"]:
        yield path, _OPERATIONS[path](model)
        return
    module = model.get_submodule(path)
    if match["low"] is None:
        yield path, module
        return
    children = list(module.children())
    low = int(match["low"] or 0)
    high = int(match["high"] or len(children)) if match["run"] else low + 1
    for index in range(low, high):
        child = children[index]
        yield f"{path}_{index}", _WRAPPERS[match["wrapper"]](model, child) if match["wrapper"] else child


def _check_partition(model: nn.Module, staged: StagedModel) -> None:
    """Every parameter and buffer of the model belongs to exactly one part, and no part is without parameters.

    A user meets it where a newer library has changed a model's structure.
    """
    original = sorted(id(tensor) for tensor in model.state_dict(keep_vars=True).values())
    ours = sorted(id(t) for part in staged.parts for t in part.state_dict(keep_vars=True).values())
    empty = [n for n, part in zip(PART_NAMES, staged.parts, strict=True) if not any(True for _ in part.parameters())]
    if original != ours or empty:
        what = f"leaves {', '.join(empty)} without parameters" if empty else "does not partition its parameters"
        raise UserError(f"the staging rule for the class {type(model).__name__} {what} in {staged.backbone}")
