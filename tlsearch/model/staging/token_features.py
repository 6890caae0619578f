"""What a head sees of a transformer's tokens: the dimension ``features``.

Models with a class token hand it to their classifier. Linear probes of self-supervised transformers read more: the mean
of the patch tokens beside it (Oquab et al. 2023, DINOv2), or the class tokens of the last four blocks (Caron et al.
2021, DINO). Only the end of stage4 changes, so what is cached below it serves every kind, and no tensor is added or
renamed.

N images; T tokens, of which the first P do not stand for patches (class token, registers); F features.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from tlsearch.core.errors import UserError
from tlsearch.model.staging.part import Part
from tlsearch.model.staging.staged import StagedModel

_POOLS = ("pool_tokens", "first_token")  # the children that take the class token out, by the staging rules
_NUM_LAST = 4
_WIDENING = {"cls": 1, "mean": 1, "cls_mean": 2, "last4": _NUM_LAST}


class TokenPart(Part):
    """Blocks of a transformer, their norm, and what the head sees of the tokens: (N, T, F) to (N, widening * F)."""

    def __init__(self, modules: OrderedDict[str, nn.Module], *, kind: str, position: int, num_prefix: int) -> None:
        """Takes over the children of a stage.

        Args:
            kind: ``cls``, ``mean``, ``cls_mean`` or ``last4``.
            position: Of the child that took the class token out; the one before it is the norm.
            num_prefix: P.
        """
        super().__init__(modules)
        self.kind, self.widening = kind, _WIDENING[kind]
        self._position, self._num_prefix = position, num_prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """What the blocks make of the tokens of the stage before."""
        children = self.steps()
        norm, seen = children[self._position - 1], [tokens]
        for block in children[: self._position - 1]:
            seen.append(block(seen[-1]))
        if self.kind == "last4":
            rows = torch.cat([norm(one[:, :1])[:, 0] for one in seen[-_NUM_LAST:]], dim=1)
        else:
            normed = norm(seen[-1])
            parts = {"cls": normed[:, 0], "mean": normed[:, self._num_prefix :].mean(1)}
            rows = torch.cat([parts[name] for name in self.kind.split("_")], dim=1)
        for module in children[self._position + 1 :]:
            rows = module(rows)
        return rows


def takes_features(model: StagedModel) -> bool:
    """Whether the model's classifier sees a class token, with nothing behind it that knows the number of features."""
    return _pool_of(model) is not None


def take_features(model: StagedModel, kind: str) -> None:
    """Lets the head see something else of the last tokens; it is to be replaced afterwards, see ``Part.widening``.

    Args:
        kind: ``cls``, ``mean``, ``cls_mean`` or ``last4``.

    Raises:
        UserError: The model has no class token, or too few blocks in its last stage.
    """
    position = _pool_of(model)
    if position is None:
        raise UserError(
            f"features {kind} takes a transformer whose classifier reads its class token; {model.backbone} is none"
        )
    if kind == "last4" and position < _NUM_LAST:  # the input of the stage is the output of one more block
        raise UserError(f"features last4 takes three blocks in the last stage; {model.backbone} has {position - 1}")
    modules = OrderedDict(model.stage4.named_children())
    num_prefix = getattr(list(modules.values())[position], "num_prefix_tokens", 1)
    part = TokenPart(modules, kind=kind, position=position, num_prefix=num_prefix)
    model.stage4 = part.train(model.training)


def _pool_of(model: StagedModel) -> int | None:
    """The position among the children of stage4 of the one that takes the class token out; None without one."""
    names, children = zip(*model.stage4.named_children(), strict=True)
    position = next((place for place, name in enumerate(names) if name in _POOLS), None)
    if position is None or position == 0:
        return None
    pool = children[position]
    reads_class_token = getattr(pool, "global_pool", "token") == "token" and getattr(pool, "num_prefix_tokens", 1) > 0
    plain = all(isinstance(child, nn.Identity) for child in children[position + 1 :])
    return position if reads_class_token and plain else None
