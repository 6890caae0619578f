"""An exponential moving average of the weights: what is evaluated and kept where ``ema`` is above 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from tlsearch.model import StagedModel
from tlsearch.model._private import move_all_towards


def moving_state(model: StagedModel) -> dict[str, Tensor]:
    """The parameters and buffers that training moves under the model's last freeze, by name: live, not copies."""
    frozen = model.frozen_state().keys()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


class WeightAverage:
    """Averages what training moves, batch norm's running statistics included; counters are left out.

    The decay of the n-th update, from 0, is min(decay, (1 + n) / (10 + n)), so that the average of a short trial does
    not hang on to its first weights (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: StagedModel, decay: float) -> None:
        self._decay = decay
        self._live: dict[str, Tensor] = {}
        self.averages: dict[str, Tensor] = {}
        self.extend(model)

    def extend(self, model: StagedModel) -> None:
        """Takes up what the model moves by now; a tensor that is new starts from its present value."""
        for name, tensor in moving_state(model).items():
            if name not in self._live and tensor.is_floating_point():
                self._live[name] = tensor
                self.averages[name] = tensor.clone()

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Moves the averages a step towards the weights, after ``num_updates`` earlier ones."""
        decay = min(self._decay, (1 + num_updates) / (10 + num_updates))
        move_all_towards(list(self.averages.values()), list(self._live.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages while the block runs, and its own weights, to the bit, after it."""
        own = {name: tensor.clone() for name, tensor in self._live.items()}
        self._put(self.averages)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor]) -> None:
        """Continues from stored averages; all names must be there."""
        for name, tensor in self.averages.items():
            tensor.copy_(averages[name])

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, live in self._live.items():
            live.copy_(tensors[name])
