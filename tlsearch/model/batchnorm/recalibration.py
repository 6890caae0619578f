"""Running statistics of batch norm: set once from the training images, and compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tlsearch.model._private import AnyBatchNorm
from tlsearch.model.staging.part import batchnorm_layers
from tlsearch.model.staging.staged import MAX_DEPTH, StagedModel


class _Moments:
    """Mean and variance over everything seen, merged batch by batch (Chan et al. 1983), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        """Adds inputs of a layer, (N, C, ...)."""
        flat = values.detach().double().transpose(0, 1).flatten(1)
        count = flat.shape[1]
        mean = flat.mean(1)
        delta = mean - self.mean
        total = self.count + count
        self.squares = self.squares + ((flat - mean[:, None]) ** 2).sum(1) + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total


@torch.no_grad()
def adapt_statistics(
    model: StagedModel, batches: Iterable[Tensor], *, depth: int = MAX_DEPTH, only: Collection[str] | None = None
) -> None:
    """Sets every running mean and variance of the backbone to those of the given images: bn_policy ``adapt``.

    One pass: each layer normalises by its batch while the moments of its inputs are pooled over all batches (PreciseBN
    of Wu and Johnson 2021, section 3), so the first layer's statistics are exact for any batches, and all layers' for a
    single one. The variance is the unbiased one, as torch keeps it. Dropout and stochastic depth are off. Call it
    before `StagedModel.freeze` with ``adapt``.

    Args:
        model: Changed in place; its mode and parameters are left as they are.
        batches: Normalised training images (N, 3, S, S), each once, on the model's device; the larger the better.
        depth: With another one than 5 ``batches`` are features at its boundary; layers before it stay as they are.
        only: Names of the layers to set; the others stay as they are. None is all of the backbone.

    Raises:
        ValueError: There are fewer than two images.
    """
    parts = model.parts[MAX_DEPTH - depth : -1]
    layers = [layer for part in parts for layer in batchnorm_layers(part) if layer.track_running_stats]
    if only is not None:
        chosen = {id(layer) for name, layer in model.named_modules() if name in only}
        layers = [layer for layer in layers if id(layer) in chosen]
    moments = {id(layer): _Moments() for layer in layers}

    def observe(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        moments[id(layer)].add(inputs[0])

    was_training = model.training
    handles = [layer.register_forward_pre_hook(observe) for layer in layers]
    try:
        model.eval()
        with normalising_by_batch(layers):
            for images in _without_lone_image(batches):
                model.forward_prefix(images, 0, behind=depth)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    for layer in layers:
        seen = moments[id(layer)]
        if seen.count == 0:
            raise ValueError("the statistics of batch norm need at least two images to adapt to")
        assert layer.running_mean is not None and layer.running_var is not None, "layers that track them have both"
        layer.running_mean.copy_(torch.as_tensor(seen.mean))
        layer.running_var.copy_(torch.as_tensor(seen.squares) / max(seen.count - 1, 1))


@contextmanager
def normalising_by_batch(layers: Sequence[AnyBatchNorm]) -> Iterator[None]:
    """Batch norm layers of a model in eval mode use each batch's own statistics, and keep theirs."""
    kept = [[buffer.clone() for buffer in layer.buffers()] for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, buffers in zip(layers, kept, strict=True):
            layer.training = False
            for buffer, value in zip(layer.buffers(), buffers, strict=True):
                buffer.copy_(value)


def _without_lone_image(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same images, a batch of one joined to the one before: it has no variance where a map is one pixel large."""
    held: Tensor | None = None
    for images in batches:
        if held is not None and len(images) == 1:
            held = torch.cat([held, images])
            continue
        if held is not None:
            yield held
        held = images
    if held is not None and len(held) > 1:
        yield held
