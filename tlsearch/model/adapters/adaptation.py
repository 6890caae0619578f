"""What trains of a model's trainable stages: by ``adapt``, their biases, their norms, or adapters of their layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from tlsearch.core.types import TrialConfig
from tlsearch.model.adapters.adapters import LowRank, PartAdapters, ScaleShift
from tlsearch.model.adapters.targets import Layer, bias_parameters, linear_layers, norm_parameters, scaled_layers
from tlsearch.space.adapt_methods import PLAIN


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """One trial's way to adapt the stages that train. The head trains whole, and frozen stages are left alone.

    Scale and shift of batch norm train where the method says so, whatever ``bn_policy`` says; what the running
    statistics do is for ``bn_policy`` alone to say.

    Attributes:
        method: A name of ``tlsearch.space.adapt_methods``, but not ``none``.
        rank: Of low-rank updates.
        seed: Of what is random in adapters; a layer's are the same whenever its stage joins.
    """

    method: str
    rank: int | None = None
    seed: int = 0

    @classmethod
    def of(cls, config: TrialConfig, *, seed: int) -> Adaptation | None:
        """That of a trial; None where its trainable stages train whole."""
        if config.adapt == PLAIN.name:
            return None
        return cls(method=config.adapt, rank=config.lora_rank, seed=seed)

    def changed(self, part: nn.Module) -> frozenset[str]:
        """The stage's own parameters that come out changed, merged where adapters train, by their names within it."""
        if self.method in _PARAMETERS:
            return _PARAMETERS[self.method](part)
        return frozenset(name for layer in _ADAPTERS[self.method].layers(part) for name in layer.names)

    def adapters_of(self, part: nn.Module, name: str) -> PartAdapters | None:
        """New adapters for a stage of this name; None where the method trains the stage's own parameters."""
        if self.method in _PARAMETERS:
            return None
        row = _ADAPTERS[self.method]
        return PartAdapters(part, row.layers(part), partial(row.make, self), seed=f"{self.seed}/{name}")


@dataclass(frozen=True, kw_only=True)
class _Adapters:
    """A method that trains adapters: of which layers of a stage, and how one is made from a weight and a seed."""

    layers: Callable[[nn.Module], list[Layer]]
    make: Callable[[Adaptation, Tensor, Layer, int], nn.Module]


def _low_rank(adaptation: Adaptation, weight: Tensor, layer: Layer, seed: int) -> nn.Module:
    assert adaptation.rank is not None, "low-rank updates have a rank"
    return LowRank(weight, rank=adaptation.rank, seed=seed)


def _scale_shift(adaptation: Adaptation, weight: Tensor, layer: Layer, seed: int) -> nn.Module:
    return ScaleShift(weight, shifts=layer.bias is not None)


_ADAPTERS: Mapping[str, _Adapters] = {
    "lora": _Adapters(layers=linear_layers, make=_low_rank),
    "ssf": _Adapters(layers=scaled_layers, make=_scale_shift),
}

# Methods that train parameters of the model itself: their names within a stage.
_PARAMETERS: Mapping[str, Callable[[nn.Module], frozenset[str]]] = {"bitfit": bias_parameters, "norm": norm_parameters}
