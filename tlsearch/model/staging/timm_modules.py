"""What timm's models do outside of their submodules, as modules that can belong to a stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, tuple, type(None))


class Borrowed(nn.Module):
    """One method of a library's model as a module: the library's own code on the library's own tensors.

    To the method it looks like the model: the same plain settings, the submodules that it is given and None for all
    others, and the model's bare parameters where asked for. Nothing is copied, and the model itself is not held.
    """

    def __init__(self, model: Any, method: str, *modules: str, parameters: bool = False) -> None:
        super().__init__()
        for name, value in vars(model).items():
            if not name.startswith("_") and isinstance(value, _PLAIN):
                setattr(self, name, value)
        for name, module in model.named_children():
            self.register_module(name, module if name in modules else None)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter if parameters else None)
        self._method = getattr(type(model), method)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor | tuple[Tensor, None] = self._method(self, features)
        # EVA's method also hands on the rotary positions, which every one of its blocks has here: None.
        return result[0] if isinstance(result, tuple) else result


class RotaryBlock(nn.Module):
    """A transformer block together with the rotary positions that EVA hands to all of its blocks.

    The positions are a function of the image size alone. They are those of evaluation also in training: none of the
    random shifts that a few models were pretrained with, since parts would have to agree on them.
    """

    positions: Tensor

    def __init__(self, model: Any, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        was_training = model.rope.training
        model.rope.eval()
        shape = {} if hasattr(model.rope, "feat_shape") else {"shape": model.patch_embed.grid_size}
        self.register_buffer("positions", model.rope.get_embed(**shape), persistent=False)
        model.rope.train(was_training)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.block(tokens, rope=self.positions)
        return result


class BeitTokens(nn.Module):
    """What BEiT does between its patches and its blocks: class token, absolute positions where it has them, dropout."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.cls_token: nn.Parameter = model.cls_token
        self.pos_embed: nn.Parameter | None = model.pos_embed
        self.pos_drop: nn.Module = model.pos_drop

    def forward(self, patches: Tensor) -> Tensor:
        tokens = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        dropped: Tensor = self.pos_drop(tokens)
        return dropped


class MeanOfPatches(nn.Module):
    """(N, 1 + patches, hidden) to (N, hidden): the mean without the class token."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:].mean(dim=1)
