"""Logits and metrics of a split, the model in eval mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tlsearch.core.errors import Diverged, Infeasible, is_out_of_memory
from tlsearch.core.label_tasks import task_of
from tlsearch.features import PASS_BATCH_SIZE, pass_batch_size
from tlsearch.model import StagedModel
from tlsearch.train.checkpoint.model_checkpoints import half_logits
from tlsearch.train.device import Runtime, release_memory
from tlsearch.train.loop.batches import Source, load_batch
from tlsearch.train.loop.device_rows import release_copies

EVAL_BATCH_SIZE = PASS_BATCH_SIZE  # one size for both: stored features then equal a direct pass to the bit


def predict_logits(model: StagedModel, source: Source, runtime: Runtime, *, depth: int) -> Tensor:
    """Logits float32 (N, C) on the CPU, in the source's order, the model in eval mode.

    Raises:
        Infeasible: Out of memory with a single image.
    """
    return queue_logits(model, source, runtime, depth=depth).cpu()


def queue_logits(
    model: StagedModel, source: Source, runtime: Runtime, *, depth: int, batch_size: int | None = None
) -> Tensor:
    """As ``predict_logits``, left on the device: nothing waits for them."""
    if model.training:  # the walk over a backbone takes longer than a head on features
        model.eval()
    compute = partial(model.logits_of, depth=depth, from_pixels=source.kind == "pixels")
    return torch.cat([part.float() for part in in_batches(source, runtime, compute, batch_size=batch_size)])


def in_batches(
    source: Source, runtime: Runtime, compute: Callable[[Tensor], Tensor], *, batch_size: int | None = None
) -> Iterator[Tensor]:
    """What a function makes of a source's rows, batch by batch in their order, on the device.

    Args:
        batch_size: None is that of the device's passes. Halved where memory runs out.

    Raises:
        Infeasible: Out of memory with a single image.
    """
    batch_size = batch_size or pass_batch_size(runtime.device.type)
    start = 0
    while start < len(source):
        try:
            with torch.inference_mode(), runtime.autocast():
                rows, _ = load_batch(source, slice(start, start + batch_size), runtime)
                computed = compute(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        else:
            start += batch_size
            yield computed
            continue
        if release_copies():  # splits that lie on the device go first
            continue
        if batch_size == 1:
            raise Infeasible(f"out of memory while evaluating a single image: {message}")
        batch_size //= 2
        release_memory(runtime)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One pass over a split.

    Attributes:
        metrics: All of the task that the number of classes allows.
        confusion: As of ``Task.confusion``, int64.
        logits: As they are kept: float16 (N, C); None where they are too many.
        thresholds: As of ``Task.thresholds``, for these images.
    """

    metrics: dict[str, float]
    confusion: Tensor
    logits: Tensor | None = None
    thresholds: tuple[float, ...] = ()


def evaluate(model: StagedModel, source: Source, runtime: Runtime, *, depth: int) -> Evaluation:
    """Metrics, confusion matrix and thresholds over all rows.

    Raises:
        Diverged: The validation loss is not finite.
        Infeasible: Out of memory with a single image.
    """
    logits = predict_logits(model, source, runtime, depth=depth)
    scores, labels = logits.float().numpy(), source.labels.numpy()
    task = task_of(labels)
    metrics = task.values(scores, labels)
    check_finite(metrics["val_loss"], "validation")
    confusion = task.confusion(scores, labels)
    return Evaluation(
        metrics=metrics,
        confusion=torch.from_numpy(confusion),
        logits=half_logits(logits),
        thresholds=task.thresholds(scores, labels),
    )


class Reading:
    """Figures on their way from the device, to be read once they have arrived: no step waits for them.

    On the CPU they are there at once. From a GPU they are copied to pinned memory behind the work that is queued.
    """

    def __init__(self, figures: Tensor) -> None:
        self._figures, self._event = figures, None
        if figures.is_cuda:  # held by tests/unit/train/test_train_graphs.py
            pinned = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            self._figures = pinned.copy_(figures, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    @property
    def arrived(self) -> bool:
        """Whether ``values`` would not wait."""
        return self._figures.device.type == "cpu" and (self._event is None or bool(self._event.query()))  # type: ignore[no-untyped-call]

    def values(self) -> list[float]:
        """The figures; waits where they have not arrived."""
        if self._event is not None:
            self._event.synchronize()
        return [float(one) for one in self._figures.flatten().tolist()]


def check_finite(loss: float, which: str) -> None:
    """Raises Diverged where a loss is not finite."""
    if not math.isfinite(loss):
        raise Diverged(f"the {which} loss must be finite; it is {loss}")
