"""The training and evaluation of one epoch over rows in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlsearch.errors import Diverged, Infeasible
from tlsearch.features import PASS_BATCH_SIZE
from tlsearch.model import StagedModel
from tlsearch.train.linear import linear_head
from tlsearch.train.metrics import classification_metrics
from tlsearch.train.runtime import (
    Runtime,
    derive_seed,
    is_out_of_memory,
    out_of_memory_is_infeasible,
    release_memory,
)
from tlsearch.train.source import Source, epoch_order, load_batch, split_order

EVAL_BATCH_SIZE = PASS_BATCH_SIZE  # one size for both: stored features then equal a direct pass to the bit
_CHECK_EVERY = 256  # steps between looks at the loss: each waits for the device


@dataclass(frozen=True, kw_only=True)
class TrainFigures:
    """Means over the images of one training epoch, measured while the model changes."""

    loss: float
    accuracy: float


class Trainer:
    """Trains a staged model at a fixed unfreeze depth; shrinks its micro-batch when memory runs out.

    Attributes:
        micro_batch: Rows of one forward pass, or None for whole batches. The effective batch stays
            the configured one: gradients of the micro-batches add up. Batch norm in train mode then
            sees the statistics of the micro-batch.
        scaler: Loss scaling; active in fp16 only.
    """

    def __init__(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, runtime: Runtime, *, depth: int, batch_size: int
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.runtime = runtime
        self.depth = depth
        self.batch_size = batch_size
        self.micro_batch: int | None = None
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")

    def train_epoch(self, source: Source, *, seed: int, epoch: int) -> TrainFigures:
        """Trains over all rows once, in an order that (seed, epoch) gives.

        The process's random state is left as it was.

        Raises:
            Diverged: The loss is not finite.
            Infeasible: Out of memory with nothing left to halve.
        """
        batches = split_order(epoch_order(len(source), seed, epoch), self.batch_size)
        device = self.runtime.device
        augment_rng = torch.Generator().manual_seed(derive_seed(seed, epoch, "augmentation"))
        self.model.train()
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(derive_seed(seed, epoch, "model"))
            totals = self._run(source, batches, augment_rng)
        loss, hits = totals.tolist()
        _check_finite(loss, "training")
        return TrainFigures(loss=loss / len(source), accuracy=hits / len(source))

    def _run(self, source: Source, batches: Sequence[Tensor], augment_rng: torch.Generator) -> Tensor:
        """All steps of an epoch; returns float64 (2,): the sums of loss and of hits."""
        totals = torch.zeros(2, dtype=torch.float64, device=self.runtime.device)
        linear = linear_head(self.model, source, self.runtime) if self.depth == 0 else None
        if linear is not None:
            linear.run(self.optimizer, source, batches, totals)
            return totals
        for step, index in enumerate(batches, 1):
            rows, labels = load_batch(source, index, self.runtime, augment_rng)
            self._step(source.kind == "pixels", rows, labels, totals)
            if step % _CHECK_EVERY == 0:
                _check_finite(float(totals[0]), "training")
        return totals

    def _step(self, from_pixels: bool, rows: Tensor, labels: Tensor, totals: Tensor) -> None:
        while True:
            try:
                figures = self._accumulate(from_pixels, rows, labels)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error)
            # Outside of the handler: the traceback no longer holds the failed pass's activations.
            self._halve(len(labels), message)
        with out_of_memory_is_infeasible("the optimiser's state"):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        totals += figures

    def _accumulate(self, from_pixels: bool, rows: Tensor, labels: Tensor) -> Tensor:
        """Forward and backward of one batch; returns float64 (2,): the sums of loss and of hits."""
        self.optimizer.zero_grad(set_to_none=True)
        num_rows = len(labels)
        num_parts = 1 if self.micro_batch is None else math.ceil(num_rows / self.micro_batch)
        figures = torch.zeros(2, dtype=torch.float64, device=labels.device)
        for part_rows, part_labels in zip(rows.tensor_split(num_parts), labels.tensor_split(num_parts), strict=True):
            with self.runtime.autocast():
                logits = forward(self.model, part_rows, depth=self.depth, from_pixels=from_pixels)
            loss = F.cross_entropy(logits.float(), part_labels, reduction="sum")
            torch.autograd.backward(self.scaler.scale(loss / num_rows))
            figures[0] += loss.detach()
            figures[1] += (logits.detach().argmax(1) == part_labels).sum()
        return figures

    def _halve(self, num_rows: int, message: str) -> None:
        current = min(self.micro_batch or num_rows, num_rows)
        smallest = 2 if trains_batch_norm(self.model) else 1
        self.optimizer.zero_grad(set_to_none=True)
        release_memory(self.runtime)
        if current // 2 < smallest:
            raise Infeasible(f"out of memory with a micro-batch of {current}, the smallest that can train: {message}")
        self.micro_batch = current // 2


def forward(model: StagedModel, rows: Tensor, *, depth: int, from_pixels: bool) -> Tensor:
    """Logits (B, C) of pixels (the whole model) or of features (behind the boundary of ``depth``)."""
    if from_pixels:
        with torch.no_grad():  # the prefix is frozen: no graph, no stored activations
            rows = model.forward_prefix(rows, depth)
    return model.forward_suffix(rows, depth)


def trains_batch_norm(model: nn.Module) -> bool:
    """Whether any batch norm layer is in train mode, and so needs two rows or more."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules())


def predict_logits(
    model: StagedModel, source: Source, runtime: Runtime, *, depth: int, batch_size: int = EVAL_BATCH_SIZE
) -> Tensor:
    """Logits float32 (N, C) on the CPU, in the source's order, the model in eval mode.

    Raises:
        Infeasible: Out of memory with a single image.
    """
    model.eval()
    parts: list[Tensor] = []
    start = 0
    while start < len(source):
        try:
            with torch.inference_mode(), runtime.autocast():
                rows, _ = load_batch(source, slice(start, start + batch_size), runtime)
                parts.append(forward(model, rows, depth=depth, from_pixels=source.kind == "pixels").float())
            start += batch_size
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        if batch_size == 1:
            raise Infeasible(f"out of memory while evaluating a single image: {message}")
        batch_size //= 2
        release_memory(runtime)
    return torch.cat(parts).cpu()


def evaluate(model: StagedModel, source: Source, runtime: Runtime, *, depth: int) -> dict[str, float]:
    """The validation metrics over all rows; see ``classification_metrics``.

    Raises:
        Diverged: The validation loss is not finite.
        Infeasible: Out of memory with a single image.
    """
    metrics = classification_metrics(predict_logits(model, source, runtime, depth=depth), source.labels)
    _check_finite(metrics["val_loss"], "validation")
    return metrics


def _check_finite(loss: float, which: str) -> None:
    if not math.isfinite(loss):
        raise Diverged(f"the {which} loss must be finite; it is {loss}")
