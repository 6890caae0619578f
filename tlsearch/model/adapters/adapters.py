"""Adapters: what a stage's layers compute with in place of weights that stand still, from few parameters that train.

An adapter is a function from a layer's weight and bias to others of the same shapes. The forward pass computes with
those, so that merging an adapter means keeping them, and nothing depends on how a library's module reads its weights:
attention often hands them to functions. The price is the gradient of each whole weight on the way back to the adapter.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tlsearch.model.adapters.targets import Layer

LORA_FACTOR = 2.0  # alpha / rank with alpha = 2 rank, as is usual (Biderman et al., arXiv 2405.09673)


class LowRank(nn.Module):
    """LoRA of a linear layer (Hu et al., arXiv 2106.09685): its weight plus 2 ``up`` ``down``.

    ``down`` (rank, in) starts uniform in +-1/sqrt(in), as in the authors' code, and ``up`` (out, rank) at zero, so that
    the layer is at first what it was. The rank is at most the smaller side of the weight.
    """

    def __init__(self, weight: Tensor, *, rank: int, seed: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        rank = min(rank, rows, columns)
        bound = 1 / math.sqrt(columns)
        down = torch.empty(rank, columns).uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The layer's weight and bias."""
        return torch.addmm(weight, self.up, self.down, alpha=LORA_FACTOR), bias


class ScaleShift(nn.Module):
    """SSF of a layer (Lian et al., arXiv 2210.08823): what it puts out times ``scale`` plus ``shift``, by channel.

    They start at 1 and 0. A layer without a bias has nowhere to keep a shift, so it has a scale alone.
    """

    def __init__(self, weight: Tensor, *, shifts: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(len(weight), device=weight.device))
        self.shift = nn.Parameter(torch.zeros(len(weight), device=weight.device)) if shifts else None

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The layer's weight and bias."""
        scaled = weight * self.scale.reshape(-1, *[1] * (weight.ndim - 1))
        if bias is None:
            return scaled, None
        assert self.shift is not None, "a layer with a bias has a shift"
        return scaled, bias * self.scale + self.shift


MakeAdapter = Callable[[Tensor, Layer, int], nn.Module]  # of a layer's weight, the layer and a seed


class PartAdapters(nn.ModuleDict):
    """The adapters of a stage by their layers' weights.

    Args:
        part: The stage.
        layers: Those that are adapted.
        make: Makes one.
        seed: Of all that is random in them.
    """

    def __init__(self, part: nn.Module, layers: Sequence[Layer], make: MakeAdapter, *, seed: str) -> None:
        super().__init__()
        self._layers = tuple(layers)
        for layer in layers:
            name = layer.names[0]
            self[_key(layer)] = make(part.get_parameter(name), layer, _derived(seed, name))

    def merged(self, part: nn.Module) -> dict[str, dict[str, Tensor]]:
        """The tensors that the stage's modules compute with: by module, then by their names within it."""
        found: dict[str, dict[str, Tensor]] = {}
        for layer in self._layers:
            weight, *biases = (part.get_parameter(name) for name in layer.names)
            # In float32 whatever a pass computes in, so that it rounds once, as with the merged weight.
            with torch.autocast(weight.device.type, enabled=False):
                weight, bias = self[_key(layer)](weight, biases[0] if biases else None)
            own = found.setdefault(layer.child, {})
            own[layer.weight] = weight
            if layer.bias is not None:
                own[layer.bias] = bias
        return found


def flat(merged: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What ``merged`` gives, by the names within the stage."""
    return {f"{child}.{name}": tensor for child, own in merged.items() for name, tensor in own.items()}


def _key(layer: Layer) -> str:
    return layer.names[0].removesuffix("weight").rstrip("._").replace(".", "/")  # a module's name has no dot


def _derived(seed: str, name: str) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
