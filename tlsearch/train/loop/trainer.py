"""The training of one epoch over rows in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn

from tlsearch.core.errors import Infeasible, is_out_of_memory
from tlsearch.core.types import TrialConfig
from tlsearch.model import StagedModel
from tlsearch.model._private import AnyBatchNorm, allow_graphs
from tlsearch.train.cuda.graphs import Compute, Figures, StepGraphs, captures_steps
from tlsearch.train.device import Runtime, derive_seed, out_of_memory_is_infeasible, release_memory
from tlsearch.train.loop.batches import Source, epoch_order, load_batch, split_order
from tlsearch.train.loop.device_rows import release_copies
from tlsearch.train.loop.ema import WeightAverage
from tlsearch.train.loop.evaluation import Reading, check_finite
from tlsearch.train.loop.linear_head import linear_head
from tlsearch.train.loop.loss import Mixer, TrainingLoss, balanced_order, loss_of
from tlsearch.train.optim.optimizer import FusedStep, build_optimizer, extend_optimizer, set_rates
from tlsearch.train.optim.schedules import schedule_of

# A worker sees many backbones, depths and last batches, each a graph of its own: with torch's limit of 8 the ninth
# would run uncompiled for the rest of the search.
_MAX_GRAPHS = 512


@cache
def compiled_forward() -> Callable[..., Tensor]:
    """``StagedModel.logits_of``, compiled once for the process: a later trial of the same shape compiles nothing."""
    allow_graphs(_MAX_GRAPHS)
    return torch.compile(StagedModel.logits_of, dynamic=False)


_CHECK_EVERY = 256  # steps between looks at the loss

AfterStep = Callable[[int, int, Tensor], object]  # steps done, steps of the epoch, mean loss of this one


@dataclass(frozen=True, kw_only=True)
class TrainFigures:
    """Means over the rows of one training epoch, measured while the model changes.

    Attributes:
        loss: What was minimised: smoothing, class weights and mixed targets included.
        accuracy: Share of the rows whose most probable class is that of the (larger share of the) target; of a
            multi-label task share of the answers, one for each class of each row, that are right.
    """

    loss: float
    accuracy: float


class Trainer:
    """Trains a staged model as its config says; shrinks its micro-batch when memory runs out.

    Attributes:
        depth: The unfreeze depth that the model is frozen to now.
        micro_batch: Rows of one forward pass, or None for whole batches. The effective batch stays
            the configured one: gradients of the micro-batches add up. Batch norm in train mode then
            sees the statistics of the micro-batch.
        scaler: Loss scaling; active in fp16 only.
        average: The averaged weights; None where ``ema`` is off.

    Args:
        model: Frozen to ``depth``, on its device.
        num_classes: C, the classes of the data.
        max_epochs: Epochs of the whole trial, which schedules end with.
    """

    def __init__(
        self,
        model: StagedModel,
        runtime: Runtime,
        config: TrialConfig,
        *,
        depth: int,
        num_classes: int,
        max_epochs: int,
    ) -> None:
        self.model = model
        self.runtime = runtime
        self.depth = depth
        self.optimizer = build_optimizer(model, config)
        self.average = WeightAverage(model, config.ema) if config.ema > 0 else None
        self.micro_batch: int | None = None
        self._forward = compiled_forward() if runtime.compiled else StagedModel.logits_of
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")
        self._config = config
        self._num_classes = num_classes
        self._schedule = schedule_of(config, max_epochs)
        self._epoch = 1
        self._steps_per_epoch = 1
        self._captures = captures_steps(model, runtime)
        self._graphs: dict[bool, StepGraphs] = {}  # of this phase, by whether they begin at pixels

    def unfreeze(self, depth: int, *, epoch: int) -> None:
        """Lets more stages train, from ``epoch`` on; what trains already keeps its optimiser's state."""
        assert depth > self.depth, f"a model at depth {self.depth} is not unfrozen by depth {depth}"
        self.model.freeze(depth, self._config.bn_policy)
        self.depth = depth
        self._graphs.clear()
        extend_optimizer(self.optimizer, self.model, self._config, epoch=epoch)
        if self.average is not None:
            self.average.extend(self.model)

    def train_epoch(
        self, source: Source, *, seed: int, epoch: int, after_step: AfterStep | None = None
    ) -> TrainFigures:
        """Trains over all rows once (as often as the sampler says), in an order that (seed, epoch) gives.

        The process's random state is left as it was.

        Args:
            after_step: Called after every step of a backbone that trains; what it raises ends the epoch.

        Raises:
            Diverged: The loss is not finite.
            Infeasible: Out of memory with nothing left to halve.
        """
        loss, hits = self.queue_epoch(source, seed=seed, epoch=epoch, after_step=after_step).tolist()
        check_finite(loss, "training")
        return TrainFigures(loss=loss / len(source), accuracy=hits / len(source))

    def queue_epoch(self, source: Source, *, seed: int, epoch: int, after_step: AfterStep | None = None) -> Tensor:
        """As ``train_epoch``, without waiting for the device.

        Returns:
            float64 (2,) on the device: the sums of loss and hits over the rows.
        """
        batches = split_order(self._order(source, seed, epoch), self._config.batch_size)
        source.expect(batches)
        device = self.runtime.device
        augment_rng = torch.Generator().manual_seed(derive_seed(seed, epoch, "augmentation"))
        self._epoch, self._steps_per_epoch = epoch, len(batches)
        self.model.train()
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(derive_seed(seed, epoch, "model"))
            return self._run(source, batches, augment_rng, self._mixer(seed, epoch), after_step)

    def _order(self, source: Source, seed: int, epoch: int) -> Tensor:
        if self._config.class_balance == "sampler":
            generator = torch.Generator().manual_seed(derive_seed(seed, epoch, "order"))
            return balanced_order(source.labels, generator)
        return epoch_order(len(source), seed, epoch)

    def _objective(self, source: Source) -> TrainingLoss:
        weights, loss = None, loss_of(source.labels)
        if self._config.class_balance == "weighted_loss":
            weights = loss.balanced(source.labels, self._num_classes).to(self.runtime.device)
        return loss(label_smoothing=self._config.label_smoothing, class_weights=weights)

    def _mixer(self, seed: int, epoch: int) -> Mixer | None:
        mixup, cutmix = self._config.mixup, self._config.cutmix
        if mixup == 0 and cutmix == 0:
            return None
        return Mixer(mixup=mixup, cutmix=cutmix, num_classes=self._num_classes, seed=seed, epoch=epoch)

    def _run(
        self,
        source: Source,
        batches: Sequence[Tensor],
        augment_rng: torch.Generator,
        mixer: Mixer | None,
        after_step: AfterStep | None,
    ) -> Tensor:
        """All steps of an epoch; returns float64 (2,): the sums of loss and of hits."""
        objective = self._objective(source)
        linear = linear_head(self.model, source, self.runtime, objective) if self.depth == 0 else None
        fused = FusedStep(self.optimizer)
        if linear is not None:
            return linear.run_epoch(batches, partial(self._take_step, apply=fused))
        scaler = self.scaler if self.scaler.is_enabled() else None
        apply = fused if scaler is None else partial(scaler.step, self.optimizer)
        compute = self._step_of(source.kind == "pixels", objective)
        figures: list[Figures] = []
        reading: Reading | None = None
        for step, index in enumerate(batches):
            rows, targets = load_batch(source, index, self.runtime, augment_rng)
            if mixer is not None:
                assert source.kind == "pixels", "features of mixed images are not mixed features"
                rows, targets = mixer.mix(rows, targets)
            loss, hits = self._gradients(compute, rows, targets)
            figures.append((loss, hits))
            if (step + 1) % _CHECK_EVERY == 0:
                reading = Reading(loss)
            if reading is not None and reading.arrived:
                check_finite(reading.values()[0], "training")
                reading = None
            self._take_step(step, apply=apply, scaler=scaler)
            if after_step is not None:
                after_step(step + 1, len(batches), loss / len(targets))
        return torch.stack([torch.stack(column).double().sum() for column in zip(*figures, strict=True)])

    def _set_rates(self, step: int) -> None:
        """Sets the rates at the first step, and at the others where they move within this epoch."""
        joins = self._epoch > 1 and any(group["joined"] == self._epoch for group in self.optimizer.param_groups)
        if step == 0 or self._schedule.moves or joins:
            set_rates(
                self.optimizer, self._schedule, epoch=self._epoch, step=step, steps_per_epoch=self._steps_per_epoch
            )

    def _take_step(self, step: int, *, apply: Callable[[], object], scaler: torch.amp.GradScaler | None = None) -> None:
        """Moves the weights, by ``apply``, at this step's rates and by gradients that are there.

        Args:
            scaler: What the gradients are scaled by.
        """
        self._set_rates(step)
        if self._config.grad_clip is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            held = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(held, self._config.grad_clip)
        with out_of_memory_is_infeasible("the optimiser's state"):
            apply()
        if scaler is not None:
            scaler.update()
        if self.average is not None:
            self.average.update((self._epoch - 1) * self._steps_per_epoch + step)

    def _step_of(self, from_pixels: bool, objective: TrainingLoss) -> Compute:
        """Forward and backward of a batch of this epoch: captured where that pays, with the phase's first objective."""
        compute = partial(self._accumulate, from_pixels, objective)
        if not self._captures or self.micro_batch is not None:
            return compute
        parameters = list(self.model.trainable_parameters().values())
        return self._graphs.setdefault(from_pixels, StepGraphs(compute, parameters))

    def _gradients(self, compute: Compute, rows: Tensor, targets: Tensor) -> Figures:
        """The gradients of one batch; shrinks the micro-batch until they fit. Returns the sums of loss and hits."""
        while True:
            try:
                return compute(rows, targets)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error)
            # Outside of the handler: the traceback no longer holds the failed pass's activations.
            if not release_copies():  # splits that lie on the device go first
                self._halve(len(targets), message)

    def _accumulate(self, from_pixels: bool, objective: TrainingLoss, rows: Tensor, targets: Tensor) -> Figures:
        """Forward and backward of one batch; returns the sums of loss and of hits, on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        num_rows = len(targets)
        num_parts = 1 if self.micro_batch is None else math.ceil(num_rows / self.micro_batch)
        figures: list[Figures] = []
        for part_rows, part_targets in _in_parts(rows, targets, num_parts):
            with self.runtime.autocast():
                logits = self._forward(self.model, part_rows, self.depth, from_pixels=from_pixels)
            loss = objective.total(logits.float(), part_targets)
            torch.autograd.backward(self.scaler.scale(loss / num_rows))
            figures.append((loss.detach(), objective.hits(logits.detach(), part_targets)))
        if num_parts == 1:
            return figures[0]
        losses, hits = (torch.stack(column) for column in zip(*figures, strict=True))
        return losses.double().sum(), hits.sum()

    def _halve(self, num_rows: int, message: str) -> None:
        current = min(self.micro_batch or num_rows, num_rows)
        smallest = 2 if trains_batch_norm(self.model) else 1
        self.optimizer.zero_grad(set_to_none=True)
        for graphs in self._graphs.values():
            graphs.stop()
        release_memory(self.runtime)
        if current // 2 < smallest:
            raise Infeasible(f"out of memory with a micro-batch of {current}, the smallest that can train: {message}")
        self.micro_batch = current // 2


def _in_parts(rows: Tensor, targets: Tensor, num_parts: int) -> Iterable[tuple[Tensor, Tensor]]:
    if num_parts == 1:
        return ((rows, targets),)
    return zip(rows.tensor_split(num_parts), targets.tensor_split(num_parts), strict=True)


def trains_batch_norm(model: nn.Module) -> bool:
    """Whether any batch norm layer is in train mode, and so needs two rows or more."""
    return any(isinstance(m, AnyBatchNorm) and m.training for m in model.modules())
