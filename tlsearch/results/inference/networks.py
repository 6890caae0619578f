"""The networks of a classifier: one of a plain model, several of an ensemble, which share what they have in common.

B images of a batch, M networks, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tlsearch.config.ensemble_meta import EnsembleMeta
from tlsearch.core.types import TransformSpec
from tlsearch.model import PART_NAMES, StagedModel
from tlsearch.train import LOSSES, ModelMeta
from tlsearch.trial import load_trained


@dataclass(frozen=True, kw_only=True)
class Network:
    """One trained network with its part in the average.

    Attributes:
        weight: Of its probabilities in the mean, above 0; all weights sum to 1.
        temperature: What its logits are divided by before they are averaged.
    """

    model: StagedModel
    meta: ModelMeta
    weight: float = 1.0
    temperature: float = 1.0


def load_networks(folder: Path, ensemble: EnsembleMeta | None) -> tuple[Network, ...]:
    """The networks of a model's folder, in eval mode on the CPU.

    Parts of one backbone with the same bits, as a frozen prefix has, are one part in memory: it is computed once.

    Args:
        ensemble: What ensemble.json says; None for a plain checkpoint.

    Raises:
        StorageError: As of ``load_trained``.
    """
    if ensemble is None:
        model, meta = load_trained(folder)
        return (Network(model=model, meta=meta),)
    total = sum(member.count for member in ensemble.members)
    networks: list[Network] = []
    for member in ensemble.members:
        model, meta = load_trained(folder, member.checkpoint)
        network = Network(model=model, meta=meta, weight=member.count / total, temperature=member.temperature)
        _share_prefix(network, networks)
        networks.append(network)
    return tuple(networks)


def _share_prefix(network: Network, earlier: Sequence[Network]) -> None:
    """Replaces a network's first parts by those of the earlier network that has the most of them in common."""
    common = [_common_parts(network, other) for other in earlier]
    most = max(common, default=0)
    if most:
        nearest = earlier[common.index(most)]
        for name in PART_NAMES[:most]:
            setattr(network.model, name, getattr(nearest.model, name))


def _common_parts(one: Network, other: Network) -> int:
    """How many parts from the first on have the same bits, the same input and the same kind of output."""
    if (one.meta.backbone, one.meta.transform) != (other.meta.backbone, other.meta.transform):
        return 0
    for place, (ours, theirs) in enumerate(zip(one.model.parts, other.model.parts, strict=True)):
        left, right = ours.state_dict(), theirs.state_dict()
        if getattr(ours, "kind", None) != getattr(theirs, "kind", None):
            return place
        if left.keys() != right.keys() or not all(torch.equal(left[name], right[name]) for name in left):
            return place
    return len(PART_NAMES)


def transforms_of(networks: Sequence[Network]) -> tuple[TransformSpec, ...]:
    """The distinct preprocessings: each makes one input of the networks."""
    return tuple(dict.fromkeys(network.meta.transform for network in networks))


def network_logits(networks: Sequence[Network], pixels: Tensor) -> Tensor:
    """The logits of networks with one preprocessing: float (B, M, C).

    Args:
        pixels: Normalised, float (B, 3, S, S).
    """
    found: dict[int, Tensor] = {}

    def walk(members: Sequence[int], position: int, features: Tensor) -> None:
        if position == len(PART_NAMES):
            found.update(dict.fromkeys(members, features))
            return
        groups: dict[int, list[int]] = {}
        for member in members:
            groups.setdefault(id(networks[member].model.parts[position]), []).append(member)
        for group in groups.values():
            walk(group, position + 1, networks[group[0]].model.parts[position](features))

    walk(range(len(networks)), 0, pixels)
    return torch.stack([found[member] for member in range(len(networks))], dim=1)


def average_logits(networks: Sequence[Network], logits: Tensor) -> Tensor:
    """The scores of the whole model before its temperature, (B, C).

    Of one network its logits; of several the logarithms of the weighted mean of their probabilities, or, of a
    multi-label model, its log odds.

    Args:
        logits: (B, M, C), in the order of the networks.
    """
    if len(networks) == 1:
        return logits[:, 0]
    temperatures = logits.new_tensor([network.temperature for network in networks])
    weights = logits.new_tensor([math.log(network.weight) for network in networks])
    return LOSSES[networks[0].meta.task].average(logits / temperatures[:, None], weights[:, None])


def split_logits(networks: Sequence[Network], inputs: Sequence[Tensor]) -> Tensor:
    """The logits of all networks, (B, M, C), from one input for each distinct preprocessing."""
    found: list[Tensor | None] = [None] * len(networks)
    for transform, pixels in zip(transforms_of(networks), inputs, strict=True):
        members = [place for place, network in enumerate(networks) if network.meta.transform == transform]
        logits = network_logits([networks[place] for place in members], pixels)
        for column, place in enumerate(members):
            found[place] = logits[:, column]
    return torch.stack([one for one in found if one is not None], dim=1)


class AveragedNetworks(nn.Module):
    """A classifier as one module: a normalised input for each distinct preprocessing to scores (B, C)."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.models = nn.ModuleList(network.model for network in networks)  # registers the tensors
        self._networks = tuple(networks)
        self._transforms = transforms_of(networks)

    def forward(self, *inputs: Tensor) -> Tensor:
        """One input for each of ``transforms_of``, in its order."""
        return average_logits(self._networks, split_logits(self._networks, inputs))
