"""The optimiser over exactly the trainable parameters, and the rates of its groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from tlsearch.core.types import TrialConfig
from tlsearch.model import StagedModel, parameter_groups
from tlsearch.model._private import add_to_all, fused_adamw
from tlsearch.train.optim.schedules import Schedule, join_factor

SGD_MOMENTUM = 0.9
_FUSED_DEVICES = ("cpu", "cuda")  # fused AdamW is 8 to 10 times faster per step than the loop on the CPU


def build_optimizer(model: StagedModel, config: TrialConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum, over the head at head_lr and the backbone's trainable parts.

    The model must be frozen to its depth and on its device already. Where the backbone trains and
    ``backbone_lr`` is None, it trains at head_lr. Weight decay is decoupled in AdamW and an L2 penalty in SGD.
    """
    groups = _groups(model, config, epoch=1)
    fused = next(model.parameters()).device.type in _FUSED_DEVICES
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.head_lr, momentum=SGD_MOMENTUM, nesterov=True, fused=fused)
    else:
        assert config.optimizer == "adamw", f"no trial can take optimizer {config.optimizer}"
        optimizer = torch.optim.AdamW(groups, fused=fused)
    _check_held(optimizer, model)
    return optimizer


def extend_optimizer(optimizer: torch.optim.Optimizer, model: StagedModel, config: TrialConfig, *, epoch: int) -> None:
    """Adds the groups of parts that began to train; those already held keep their state.

    Args:
        model: Frozen to its new depth.
        epoch: The first epoch in which the new parts train: their short warmup counts from there.
    """
    names = {group["name"] for group in optimizer.param_groups}
    for group in _groups(model, config, epoch=epoch):
        if group["name"] not in names:
            optimizer.add_param_group(group)
    _check_held(optimizer, model)


def set_rates(
    optimizer: torch.optim.Optimizer, schedule: Schedule, *, epoch: int, step: int, steps_per_epoch: int
) -> None:
    """Sets each group's learning rate for one step; ``step`` counts from 0 in its epoch."""
    position = (epoch - 1) * steps_per_epoch + step
    factor = schedule.factor(position, steps_per_epoch)
    for group in optimizer.param_groups:
        joined = (group["joined"] - 1) * steps_per_epoch
        ramp = join_factor(position - joined, steps_per_epoch) if joined else 1.0
        group["lr"] = group["base_lr"] * factor * ramp


class FusedStep:
    """The optimiser's step without what ``Optimizer.step`` does around it, groups of equal settings in one kernel.

    A fused AdamW goes straight to the kernel that it would have called, with the same state and rates and with the
    gradients that are there. Any other optimiser always takes its own step. To be made again when a group joins.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._sets: list[_KernelSet] = []
        self._counts: list[Tensor] = []

    def __call__(self) -> None:
        """One step."""
        if not self._sets:
            self._sets = _kernel_sets(self._optimizer)
            self._counts = [count for one in self._sets for count in one.counts]
        if not self._sets:
            self._optimizer.step()
            return
        gradients = [[parameter.grad for parameter in one.parameters] for one in self._sets]
        if any(gradient is None for listed in gradients for gradient in listed):
            self._optimizer.step()  # skips those parameters
            return
        add_to_all(self._counts, 1)
        for one, listed in zip(self._sets, gradients, strict=True):
            group = one.group
            fused_adamw(
                one.parameters,
                cast(list[Tensor], listed),
                one.means,
                one.squares,
                [],
                one.counts,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )


@dataclass(kw_only=True)
class _KernelSet:
    """Parameters that step alike, with their state; ``group`` is one of theirs and has the rates."""

    group: dict[str, Any]
    parameters: list[Tensor] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)


def _kernel_sets(optimizer: torch.optim.Optimizer) -> list[_KernelSet]:
    """What the kernel works on; empty where it must not be called directly."""
    sets: dict[tuple[float, ...], _KernelSet] = {}
    for group in optimizer.param_groups:
        if not (isinstance(optimizer, torch.optim.AdamW) and group["fused"] and not group["amsgrad"]):
            return []
        if any(parameter.grad is None for parameter in group["params"]):
            return []
        key = (group["base_lr"], group["joined"], group["weight_decay"])
        one = sets.setdefault(key, _KernelSet(group=group))
        states = [_state_of(optimizer, parameter) for parameter in group["params"]]
        one.parameters += group["params"]
        one.means += [state["exp_avg"] for state in states]
        one.squares += [state["exp_avg_sq"] for state in states]
        one.counts += [state["step"] for state in states]
    return list(sets.values())


def _state_of(optimizer: torch.optim.AdamW, parameter: Tensor) -> dict[str, Tensor]:
    """The state of a parameter in a fused AdamW, made as its first step would make it."""
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    return state


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rates of the last step by part: head, stage4 and so on; parts that do not train are absent."""
    return {str(group["name"]).partition("/")[0]: float(group["lr"]) for group in optimizer.param_groups}


def _groups(model: StagedModel, config: TrialConfig, *, epoch: int) -> list[dict[str, object]]:
    backbone_lr = config.head_lr if config.backbone_lr is None else config.backbone_lr
    groups = parameter_groups(
        model,
        head_lr=config.head_lr,
        backbone_lr=backbone_lr,
        weight_decay=config.weight_decay,
        layer_decay=1.0 if config.layer_decay is None else config.layer_decay,
    )
    return [{**group, "base_lr": group["lr"], "joined": epoch} for group in groups]


def _check_held(optimizer: torch.optim.Optimizer, model: StagedModel) -> None:
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert set(held) == trainable and len(held) == len(trainable), (
        "the optimiser must hold the trainable parameters and no others, each once"
    )
    head = {id(parameter) for parameter in model.head.parameters()}
    assert head and head <= trainable, "the new head must train"
