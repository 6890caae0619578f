"""What the libraries write as functions or bare parameters, as modules, so that it can belong to a stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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
