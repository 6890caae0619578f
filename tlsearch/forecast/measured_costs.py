"""Measures what the trials of a search cost here: each backbone at each depth, the images, what is cached already."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import psutil
import torch

from tlsearch.core.types import ModelSpec, TransformSpec, TrialConfig
from tlsearch.data import ImageIndex, augment, normalise
from tlsearch.data.images.pixel_budget import num_decoders
from tlsearch.data.packed.streamed import decode_square
from tlsearch.forecast.backbone_times import BackboneTimes, times_between
from tlsearch.forecast.device_times import Stopwatch, measure_backbone, slowdown
from tlsearch.forecast.stored_entries import room_bytes, stored_entries
from tlsearch.forecast.trial_costs import Images, Node, TrialCosts
from tlsearch.model import MAX_DEPTH
from tlsearch.search.plan import SearchPlan
from tlsearch.space import Space
from tlsearch.space.bn_policies import BN_POLICIES, bn_policy
from tlsearch.train import MAX_LOGITS, Runtime, open_runtime

_NUM_DECODED = 32
_THREADS_LOSE = 1.2  # what threads that decode together lose to each other
_NUM_PREPARED = 32
_RAY_BYTES = 150_000_000  # that Ray adds to a worker
_START_IMPORTS = 33.0  # what a search's start and end take, in imports of Ray: 31 to 35 on two cores
_STATES = 3  # a trained parameter's gradient and two moments of AdamW

Step = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The costs of a search's trials, and what its node holds already.

    Attributes:
        stored: Entries of the node's caches that the search will read.
        trial_bytes: Memory of the largest trial, by backbone.
        image_bytes: Of packed images, all that the search may store.
        feature_bytes: Of cached features, likewise.
        checkpoint_bytes: Models and validation logits that are kept and checkpoints of running trials, at most.
    """

    costs: TrialCosts
    stored: Node
    trial_bytes: Mapping[str, int]
    image_bytes: int
    feature_bytes: int
    checkpoint_bytes: int


def measure(
    plan: SearchPlan,
    index: ImageIndex,
    transforms: Mapping[ModelSpec, TransformSpec],
    *,
    slots: int,
    num_kept: int,
    step: Step = lambda text: None,
) -> Measured:
    """Times a search's work on this machine, and writes nothing.

    Args:
        plan: The search; its ``setup.device`` and threads are those of a trial.
        transforms: The evaluation transform of each model that trials may have.
        slots: Trials at a time.
        num_kept: Models that stay at the end.
        step: Hears what is timed now.
    """
    setup = plan.setup
    threads = torch.get_num_threads()
    runtime = open_runtime(setup.device, setup.precision, setup.num_threads)
    base_bytes = psutil.Process().memory_info().rss + _RAY_BYTES
    try:
        configs = {name: trial_configs(plan, name) for name in dict.fromkeys(spec.backbone for spec in transforms)}
        models = dict[ModelSpec, BackboneTimes]()
        for name, examples in configs.items():
            step(f"timing {name}")
            sides = {spec: one.crop_size for spec, one in transforms.items() if spec.backbone == name}
            models |= _time_models(plan, examples, sides, index, runtime)
        step("timing the images")
        largest = max(transforms.values(), key=lambda one: one.crop_size)
        images = _measure_images(index, largest, runtime)
        heaviest = max(models, key=lambda spec: models[spec].passed_s(MAX_DEPTH, 0))
        slower = slowdown(heaviest.backbone, image_size=transforms[heaviest].crop_size, slots=slots, runtime=runtime)
    finally:
        torch.set_num_threads(threads)
    costs = TrialCosts(
        images=images,
        models=models,
        sides={spec: (one.crop_size, max(one.resize_size, one.crop_size)) for spec, one in transforms.items()},
        setup=setup,
        num_classes=len(index.classes),
        room_bytes=room_bytes(setup.cache),
        slowdown=slower,
        device_type=runtime.device.type,
    )
    return Measured(
        costs=costs,
        stored=stored_entries(setup.cache, index, costs),
        trial_bytes={
            name: base_bytes + max(_trial_bytes(one, examples) for spec, one in models.items() if spec.backbone == name)
            for name, examples in configs.items()
        },
        image_bytes=_image_bytes(costs, plan),
        feature_bytes=_feature_bytes(costs, configs, plan.search.trials),
        checkpoint_bytes=_checkpoint_bytes({spec.backbone: one for spec, one in models.items()}, slots, num_kept)
        + _logits_bytes(plan, index),
    )


def _time_models(
    plan: SearchPlan,
    configs: Mapping[int, TrialConfig],
    sides: Mapping[ModelSpec, int],
    index: ImageIndex,
    runtime: Runtime,
) -> dict[ModelSpec, BackboneTimes]:
    """The times of one backbone at each of its image sizes: timed at the smallest and the largest one.

    Args:
        configs: Of ``trial_configs``.
        sides: Of the images, in pixels.
    """

    def timed(side: int) -> BackboneTimes:
        return measure_backbone(
            configs,
            moving=_other_policy(plan.space, configs[max(configs)], moves=True),
            image_size=side,
            channels=index.pixels.channels,
            num_classes=len(index.classes),
            num_train=len(index.splits["train"]),
            runtime=runtime,
        )

    low, high = min(sides.values()), max(sides.values())
    large = timed(high)
    small = large if low == high else timed(low)
    pixels = max(1, high**2 - low**2)
    return {spec: times_between(small, large, (side**2 - low**2) / pixels) for spec, side in sides.items()}


def trial_configs(plan: SearchPlan, backbone: str) -> dict[int, TrialConfig]:
    """One trial of a backbone at each depth that trains in the search, in the phases of gradual unfreezing too.

    Batch norm stands still in them where the space lets it.
    """
    found: dict[int, TrialConfig] = {}
    for config in _examples(plan, backbone):
        found.setdefault(config.unfreeze_depth, _other_policy(plan.space, config, moves=False) or config)
    deepest = found[max(found)]
    progressive = plan.space.dimensions["unfreeze_schedule"].domain.contains("progressive")
    for depth in range(1, deepest.unfreeze_depth) if progressive else ():
        found.setdefault(depth, replace(deepest, unfreeze_depth=depth))
    head_only = replace(deepest, unfreeze_depth=0, backbone_lr=None, layer_decay=None, unfreeze_schedule=None)
    found.setdefault(0, head_only)
    return dict(sorted(found.items()))


def _examples(plan: SearchPlan, backbone: str) -> Iterator[TrialConfig]:
    space = plan.space
    if plan.search.listed:
        listed = (space.to_config(space.complete(entry)) for entry in plan.search.start_with)
        yield from (config for config in listed if config.backbone == backbone)
        return
    for depth in range(MAX_DEPTH + 1):
        with suppress(ValueError):  # outside the space
            yield space.to_config(space.complete({"backbone": backbone, "unfreeze_depth": depth}))


def _other_policy(space: Space, config: TrialConfig, *, moves: bool) -> TrialConfig | None:
    """The trial with batch norm moving, or standing still; None where it is so already or the space does not let it."""
    if config.bn_policy is None or config.unfreeze_depth == 0 or bn_policy(config.bn_policy).moves == moves:
        return None
    domain = space.dimensions["bn_policy"].domain
    allowed = (one.name for one in BN_POLICIES.values() if one.moves == moves and domain.contains(one.name))
    name = next(allowed, None)
    return None if name is None else replace(config, bn_policy=name)


def _measure_images(index: ImageIndex, transform: TransformSpec, runtime: Runtime) -> Images:
    """Decodes a few training images as packing does, and augments made-up ones."""
    train = index.splits["train"]
    rows = range(0, len(train), max(1, len(train) // _NUM_DECODED))
    began = time.thread_time()  # the rest of the machine may be busy now
    for row in rows:
        decode_square(index, train, row, transform)
    decode_s = _THREADS_LOSE * (time.thread_time() - began) / len(rows) / min(num_decoders(), os.cpu_count() or 1)
    watch, rng = Stopwatch(runtime), torch.Generator().manual_seed(0)
    side = max(transform.resize_size, transform.crop_size)
    dtype = torch.uint8 if transform.bits == 8 else torch.int16
    wide = torch.zeros(_NUM_PREPARED, transform.channels, side, side, dtype=dtype, device=runtime.device)
    wide = wide.contiguous(memory_format=torch.channels_last)
    narrow = wide[..., : transform.crop_size, : transform.crop_size].contiguous(memory_format=torch.channels_last)
    prepare_s = {"none": watch.seconds(lambda: normalise(narrow, transform)) / _NUM_PREPARED}
    for kind in ("light", "strong"):

        def prepare(kind: str = kind) -> None:
            normalise(augment(wide, kind, transform.crop_size, rng, mean=transform.mean), transform)

        prepare_s[kind] = watch.seconds(prepare) / _NUM_PREPARED
    return Images(num_train=len(train), num_val=len(index.splits["val"]), decode_s=decode_s, prepare_s=prepare_s)


def _trial_bytes(times: BackboneTimes, configs: Mapping[int, TrialConfig]) -> int:
    """Weights, twice (the process holds them for the next trial), gradients, moments, one batch's activations."""
    return 2 * times.state_bytes + max(
        _STATES * times.trained_bytes[depth] + config.batch_size * times.activation_bytes[depth]
        for depth, config in configs.items()
    )


def _image_bytes(costs: TrialCosts, plan: SearchPlan) -> int:
    """Of all sizes, or of the largest ones where there are more sizes than trials."""
    augmented = any(plan.space.dimensions["augmentation"].domain.contains(one) for one in ("light", "strong"))
    largest = sorted(set(costs.sides.values()), reverse=True)[: plan.search.trials]
    sides = {("train", pair[margin]) for pair in largest for margin in (False, True)[: 1 + augmented]}
    sides |= {("val", pair[0]) for pair in largest}
    pixels = plan.setup.data.pixel_format
    pixel_bytes = pixels.channels * pixels.bits // 8
    return sum(costs.images.count(split) * side * side * pixel_bytes for split, side in sides)


def _feature_bytes(costs: TrialCosts, configs: Mapping[str, Mapping[int, TrialConfig]], trials: int) -> int:
    """All entries of all boundaries that trials may read, without those of fixed views beyond the first.

    Args:
        configs: By backbone those of ``trial_configs``.
        trials: Of the search: where there are more models, the largest count.
    """
    totals = []
    for spec in costs.models:
        total = 0
        for depth, config in configs[spec.backbone].items():
            plain = replace(config, image_size=spec.image_size, augmentation="none", mixup=0.0, cutmix=0.0)
            total += sum(
                costs.entry_bytes(plain, depth, split)
                for split in ("train", "val")
                if depth < MAX_DEPTH and costs.cached(plain, split, depth)
            )
        totals.append(total)
    return sum(sorted(totals, reverse=True)[:trials])


def _checkpoint_bytes(backbones: Mapping[str, BackboneTimes], slots: int, num_kept: int) -> int:
    """What trials share; kept models, without that and, in MLflow, whole; checkpoints of the trials that run."""
    shared = sum(one.state_bytes - min(one.trained_bytes.values()) for one in backbones.values())
    state = max(one.state_bytes for one in backbones.values())
    trained = max(max(one.trained_bytes.values()) for one in backbones.values())
    return shared + num_kept * (trained + state) + slots * (1 + _STATES) * trained


def _logits_bytes(plan: SearchPlan, index: ImageIndex) -> int:
    """What all trials keep of the validation images: a float16 for each image and class, and the labels."""
    num_images = len(index.splits["val"])
    num_values = num_images * len(index.classes)
    return 0 if num_values > MAX_LOGITS else plan.search.trials * (2 * num_values + 4 * num_images)


def start_seconds() -> float:
    """Seconds of a search before its first trial begins and after its last one has ended, on this machine.

    Importing, starting Ray and its workers, writing the report: nearly all of it is Python that runs once, so it
    follows from the CPU seconds of an import in a process of its own. A loop of Python does not tell: on two machines
    where the loop took 33 and 25 ms, a search started within 18 and 40 s.
    """

    def import_s() -> float:
        process = subprocess.Popen([sys.executable, "-P", "-B", "-c", "import ray"])
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0  # reaped
        return used.ru_utime + used.ru_stime

    return _START_IMPORTS * min(import_s() for _ in range(2))
