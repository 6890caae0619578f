"""How long a backbone's passes and training steps take on this device, measured in seconds and without a file.

The models have the architecture and constants in place of weights: times do not depend on them. What is timed is the
code that trials run, on made-up rows in memory. Times are per image; C classes, N rows.
"""

from __future__ import annotations

import hashlib
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tlsearch.core.types import TrialConfig
from tlsearch.features import measure_boundary, pass_batch_size
from tlsearch.forecast.backbone_times import BackboneTimes
from tlsearch.model import MAX_DEPTH, Adaptation, StagedModel, build_model, fold_batchnorm
from tlsearch.train import FeatureSource, Runtime, Source, Trainer, affordable_rows

_ENOUGH_S = 0.2  # of one timing
_FEW_ROWS = 4
_HEAD_ROWS = 2048  # of the timing of heads alone: their steps take a tenth of a millisecond
_HASHED_BYTES = 1 << 23
_MOST_THREADS = 8


def measure_backbone(
    configs: Mapping[int, TrialConfig],
    *,
    moving: TrialConfig | None,
    image_size: int,
    channels: int = 3,
    num_classes: int,
    num_train: int,
    runtime: Runtime,
) -> BackboneTimes:
    """Measures one backbone.

    Args:
        configs: By unfreeze depth one of its trials; timed are these depths.
        moving: One of the deepest trials, with the batch norm policy that is not that of ``configs``; None where
            the space has one kind.
        image_size: Side in pixels.
        channels: Of the images.
    """
    watch = Stopwatch(runtime)
    began = watch.now()
    name = next(iter(configs.values())).backbone
    model = build_model(name, num_classes=num_classes, weights=None, image_size=image_size, channels=channels, seed=0)
    model.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if runtime.folds_batchnorm:
        fold_batchnorm(model)
    build_s = watch.now() - began
    forward_s, inputs = _time_parts(model, watch)
    train_s = {
        depth: _time_training(model, config, depth, inputs[depth], num_classes, num_train, watch)
        for depth, config in configs.items()
    }
    deepest = max(configs)
    factor = 1.0
    if moving is not None and deepest > 0:
        own = _time_training(model, moving, deepest, inputs[deepest], num_classes, num_train, watch)
        factor = own / train_s[deepest]
    model.adapt_by(None)  # a prefix has no adapters
    depths = {depth for depth in configs if depth < MAX_DEPTH} | {0}
    return BackboneTimes(
        build_s=build_s,
        forward_s=forward_s,
        train_s=train_s,
        moving_factor=factor,
        iteration_s=_time_iteration(inputs[0], num_classes, num_train, watch),
        digest_s=_time_hash() * sum(t.nbytes for t in model.merged_state().values()) / _HASHED_BYTES,
        boundaries={depth: measure_boundary(model, depth) for depth in depths},
        trained_bytes={depth: _trained_bytes(model, config, depth) for depth, config in configs.items()},
        state_bytes=sum(tensor.nbytes for tensor in model.merged_state().values()),
        activation_bytes={
            depth: _saved_bytes(model, config, depth, inputs[depth], runtime) for depth, config in configs.items()
        },
    )


class Stopwatch:
    """Times work on a device.

    On one CPU thread it counts the thread's own CPU time, which other programs on the machine do not lengthen.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        alone = runtime.device.type == "cpu" and torch.get_num_threads() == 1
        self.now = time.thread_time if alone else time.perf_counter

    def seconds(self, work: Callable[[], object]) -> float:
        """The median of three runs after one that is not counted; of long work the only one."""
        first = self._once(work)
        return first if first >= _ENOUGH_S else statistics.median(self._once(work) for _ in range(3))

    def per_row(self, work: Callable[[int], object], most: int) -> float:
        """Seconds of one row of ``most`` together, from what a few rows and some more take.

        A call has a part that does not grow with its rows, such as the optimiser's step.
        """
        few = min(_FEW_ROWS, most)
        work(few)  # the first call of a shape also prepares kernels
        few_s = self.seconds(lambda: work(few))
        more = min(most, max(2 * few, int(_ENOUGH_S * few / max(few_s, 1e-9))))
        if more <= few:
            return few_s / few
        work(more)
        more_s = self.seconds(lambda: work(more))
        row_s = max(0.0, more_s - few_s) / (more - few)
        return row_s + max(0.0, more_s - more * row_s) / most

    def _once(self, work: Callable[[], object]) -> float:
        self._wait()
        began = self.now()
        work()
        self._wait()
        return self.now() - began

    def _wait(self) -> None:
        if self.runtime.device.type == "cuda":
            torch.cuda.synchronize(self.runtime.device)


def _time_parts(model: StagedModel, watch: Stopwatch) -> tuple[tuple[float, ...], dict[int, Tensor]]:
    """Seconds of each of the six parts, and one image's activations before each: by depth, 5 the image itself."""
    runtime = watch.runtime
    model.eval()
    rows = model.blank_images(1, runtime.device)
    times, inputs = [], {}
    for position, part in enumerate(model.parts):
        inputs[MAX_DEPTH - position] = rows

        def passed(count: int, part: torch.nn.Module = part, one: Tensor = rows) -> Tensor:
            with torch.inference_mode(), runtime.autocast():
                return part(_repeated(one, count))  # type: ignore[no-any-return]

        times.append(watch.per_row(passed, pass_batch_size(runtime.device.type)))
        with torch.no_grad(), runtime.autocast():
            rows = part(rows).float()
    return tuple(times), inputs


def _repeated(one: Tensor, count: int) -> Tensor:
    rows = one.repeat(count, *[1] * (one.dim() - 1))
    return rows.contiguous(memory_format=torch.channels_last) if rows.dim() == 4 else rows


def _time_training(
    model: StagedModel, config: TrialConfig, depth: int, one: Tensor, num_classes: int, num_train: int, watch: Stopwatch
) -> float:
    """Seconds of one image through the trainer, from rows at the boundary of ``depth``."""
    _freeze(model, config, depth)
    plain = replace(config, mixup=0.0, cutmix=0.0, unfreeze_schedule=None, class_balance="none")

    @cache
    def opened(count: int) -> tuple[Trainer, Source]:
        sized = replace(plain, batch_size=min(plain.batch_size, count))
        trainer = Trainer(model, watch.runtime, sized, depth=depth, num_classes=num_classes, max_epochs=1)
        labels = torch.arange(count) % num_classes
        return trainer, FeatureSource(reason="", rows=_repeated(one, count).cpu(), labels=labels)

    def train(count: int) -> None:
        trainer, source = opened(count)
        trainer.train_epoch(source, seed=0, epoch=1)

    return watch.per_row(train, min(num_train, _HEAD_ROWS) if depth == 0 else min(num_train, config.batch_size))


def _time_iteration(one: Tensor, num_classes: int, num_train: int, watch: Stopwatch) -> float:
    """Seconds of one evaluation of the probe's loss and gradient, on as many rows as the probe is fitted to."""
    features = one.flatten(1)
    taken = affordable_rows(num_train, features.shape[1], num_classes, features.device.type)
    count = num_train if taken is None else len(taken)
    rows = features.repeat(count, 1)
    labels = (torch.arange(count) % num_classes).to(rows.device)
    weight = torch.zeros(num_classes, rows.shape[1], device=rows.device, requires_grad=True)

    def iterate() -> None:
        with torch.enable_grad():
            torch.autograd.backward(F.cross_entropy(F.linear(rows, weight), labels))

    return watch.seconds(iterate)


def _time_hash() -> float:
    content = bytes(_HASHED_BYTES)
    began = time.thread_time()
    hashlib.sha256(content)
    return time.thread_time() - began


def _freeze(model: StagedModel, config: TrialConfig, depth: int) -> None:
    model.adapt_by(Adaptation.of(config, seed=0))
    model.freeze(depth, config.bn_policy)


def _trained_bytes(model: StagedModel, config: TrialConfig, depth: int) -> int:
    _freeze(model, config, depth)
    changing = model.changing_names(depth, config.bn_policy)
    return sum(tensor.nbytes for tensor in model.merged_state(changing).values())


def _saved_bytes(model: StagedModel, config: TrialConfig, depth: int, one: Tensor, runtime: Runtime) -> int:
    """Bytes that one image's forward pass keeps for the backward pass; each tensor counts once, parameters do not."""
    _freeze(model, config, depth)
    model.train()
    own = {parameter.data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            seen[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), runtime.autocast():
        loss = model.forward_suffix(_repeated(one, 2), depth).sum()
    del loss
    return sum(seen.values()) // 2


def slowdown(backbone: str, *, image_size: int, slots: int, runtime: Runtime) -> float:
    """By how much passes take longer where every slot of this machine does them at once: 1 is not at all.

    Cores share caches, memory and often their arithmetic. On a GPU the trials that share it take turns.
    """
    if slots <= 1 or runtime.device.type != "cpu":
        return 1.0
    model = build_model(backbone, num_classes=2, weights=None, image_size=image_size, seed=0).eval()
    model.to(memory_format=torch.channels_last)
    times: list[float] = []

    def work() -> None:
        rows = model.blank_images(_FEW_ROWS)
        with torch.inference_mode():
            model(rows)
            began = time.thread_time()
            while time.thread_time() - began < _ENOUGH_S:
                single = time.thread_time()
                model(rows)
                times.append(time.thread_time() - single)

    def median_of(num_threads: int) -> float:
        times.clear()
        threads = [threading.Thread(target=work) for _ in range(num_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statistics.median(times)

    alone = median_of(1)
    return max(1.0, median_of(min(slots, _MOST_THREADS)) / alone)
