"""The parameters of a stage that adapting it changes, by their names within the stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from tlsearch.model._private import AnyRunningNorm

_LINEAR = (nn.Linear, nn.MultiheadAttention)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer whose weight and bias are adapted together.

    Attributes:
        child: The stage's module that holds it.
        weight: Name of the weight within that module.
        bias: Name of the bias; None where the layer has none, or where it is left as it is.
    """

    child: str
    weight: str
    bias: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Its parameters, by their names within the stage."""
        return tuple(f"{self.child}.{name}" for name in (self.weight, self.bias) if name is not None)


def is_norm(module: nn.Module) -> bool:
    """Whether it normalises; timm's own layers derive from torch's, or say what they are in their name."""
    return isinstance(module, AnyRunningNorm | nn.LayerNorm | nn.GroupNorm) or any(
        "Norm" in cls.__name__ for cls in type(module).__mro__[:2]
    )


def linear_layers(part: nn.Module) -> list[Layer]:
    """The weights of all linear layers, that of torch's attention for queries, keys and values together included."""
    return [replace(one, bias=None) for module, one in _layers(part) if isinstance(module, _LINEAR)]


def scaled_layers(part: nn.Module) -> list[Layer]:
    """Linear, convolutional and normalisation layers with a scale, with their biases.

    Of convolutions only torch's own: those that standardise their weight would undo a scale of it.
    """
    return [
        one
        for module, one in _layers(part)
        if isinstance(module, _LINEAR) or type(module) is nn.Conv2d or is_norm(module)
    ]


def bias_parameters(part: nn.Module) -> frozenset[str]:
    """Biases: vectors of that name. A table of position biases of an attention is none."""
    return frozenset(
        name for name, one in part.named_parameters() if one.ndim == 1 and name.rpartition(".")[2].endswith("bias")
    )


def norm_parameters(part: nn.Module) -> frozenset[str]:
    """Scale and shift of all normalisation layers."""
    return frozenset(
        f"{name}.{key}"
        for name, module in part.named_modules()
        if is_norm(module)
        for key, _ in module.named_parameters(recurse=False)
    )


def _layers(part: nn.Module) -> Iterator[tuple[nn.Module, Layer]]:
    """All modules that hold a weight of their own."""
    for name, module in part.named_modules():
        own = dict(module.named_parameters(recurse=False))
        kind = "in_proj_" if "in_proj_weight" in own else ""
        if f"{kind}weight" not in own:
            continue
        child, _, inner = name.partition(".")
        prefix = f"{inner}.{kind}" if inner else kind
        bias = f"{prefix}bias" if f"{kind}bias" in own else None
        yield module, Layer(child=child, weight=f"{prefix}weight", bias=bias)
