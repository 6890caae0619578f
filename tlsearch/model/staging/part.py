"""A part of a backbone, which knows whether it is frozen and what trains of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.func import functional_call

from tlsearch.model._private import AnyBatchNorm
from tlsearch.model.adapters.adaptation import Adaptation
from tlsearch.model.adapters.adapters import PartAdapters
from tlsearch.space.bn_policies import BN_POLICIES, BNPolicy

Step = Callable[[Tensor], Tensor]


def batchnorm_layers(module: nn.Module) -> Iterator[AnyBatchNorm]:
    """Every batch-norm layer: BatchNorm1d/2d/3d, SyncBatchNorm and timm's fused BatchNormAct2d share one base."""
    return (layer for layer in module.modules() if isinstance(layer, AnyBatchNorm))


class Part(nn.Sequential):
    """One of the six parts. While it is frozen it stays in eval mode, also after a call of ``train()``.

    Eval mode is what keeps dropout, stochastic depth and running statistics still; ``requires_grad`` alone does not.

    Attributes:
        frozen: Whether the part's parameters stand still.
        policy: What its batch-norm layers do.
        widening: How many times as many features it gives as the library's model.
        adapters: What train in place of the part's own parameters; None where those train.
    """

    widening: int = 1
    frozen: bool = False
    policy: BNPolicy = BN_POLICIES["train"]
    adapters: PartAdapters | None

    def __init__(self, *modules: Any) -> None:
        super().__init__(*modules)
        self.adapters = None

    def forward(self, features: Tensor) -> Tensor:
        """The modules one after the other."""
        for step in self.steps():
            features = step(features)
        return features

    def steps(self) -> list[Step]:
        """The modules in their order, each with the weights that the adapters make of its own."""
        if self.adapters is None:
            return list(self)
        merged = self.adapters.merged(self)
        children = [(name, child) for name, child in self.named_children() if child is not self.adapters]
        return [partial(_called, child, merged.get(name, {})) for name, child in children]

    @property
    def statistics_move(self) -> bool:
        """Whether training batches move the running statistics of this part's batch-norm layers."""
        return self.policy.statistics_move(frozen=self.frozen)

    def train(self, mode: bool = True) -> Part:
        """Sets the mode of the modules, except that what is frozen stays in eval mode."""
        super().train(mode and not self.frozen)
        for layer in batchnorm_layers(self):
            layer.training = mode and self.statistics_move
        return self

    def moving(self, frozen: bool, policy: BNPolicy, adaptation: Adaptation | None) -> set[str]:
        """The part's own tensors that training changes, merged where adapters train, by their names within it."""
        if frozen and not policy.statistics_move(frozen=True):
            return set()
        layers = [(name, layer) for name, layer in self.named_modules() if isinstance(layer, AnyBatchNorm)]
        found = set[str]()
        if not frozen and adaptation is not None:
            found.update(adaptation.changed(self))
        elif not frozen:
            found.update(name for name, _ in self.named_parameters())
            if not policy.affine_trains:
                found -= {f"{name}.{key}" for name, layer in layers for key, _ in layer.named_parameters(recurse=False)}
        if policy.statistics_move(frozen=frozen):
            found |= {f"{name}.{key}" for name, layer in layers for key, _ in layer.named_buffers(recurse=False)}
        return found

    def set_frozen(self, frozen: bool, policy: BNPolicy, adaptation: Adaptation | None = None) -> None:
        """Freezes or frees the part; the caller sets the mode afterwards.

        Args:
            adaptation: What trains of it, where that is not all; its adapters, if it has such, are there.
        """
        self.frozen = frozen
        self.policy = policy
        self.requires_grad_(False)
        if not frozen and self.adapters is not None:
            self.adapters.requires_grad_(True)
        elif not frozen:
            moving = self.moving(frozen, policy, adaptation)
            for name, parameter in self.named_parameters():
                if name in moving:
                    parameter.requires_grad_(True)
        for parameter in self.parameters():
            if not parameter.requires_grad:
                parameter.grad = None


def _called(module: nn.Module, tensors: Mapping[str, Tensor], features: Tensor) -> Tensor:
    return cast(Tensor, functional_call(module, dict(tensors), (features,), tie_weights=False))
