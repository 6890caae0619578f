"""Measures what the trials of a search cost here: each backbone at each depth, the images, what is cached already."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from tlsearch.core.types import CacheSpec, TransformSpec, TrialConfig
from tlsearch.data import ImageIndex, augment, normalise
from tlsearch.data.images.pixel_budget import num_decoders
from tlsearch.data.packed.streamed import decode_square
from tlsearch.forecast.device_times import BackboneTimes, Stopwatch, measure_backbone, slowdown
from tlsearch.forecast.trial_costs import Images, Node, TrialCosts
from tlsearch.model import MAX_DEPTH
from tlsearch.node_cache.locked_files import cache_directory
from tlsearch.node_cache.store import entries
from tlsearch.search.plan import SearchPlan
from tlsearch.space import Space
from tlsearch.space.bn_policies import BN_POLICIES, bn_policy
from tlsearch.train import MAX_LOGITS, Runtime, open_runtime

_NUM_DECODED = 32
_THREADS_LOSE = 1.2  # what threads that decode together lose to each other
_NUM_PREPARED = 32
_FEATURES_FRACTION = 0.25  # of the free disk, where cache.features_gb is auto
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
        cache_bytes: Of packed images and of cached features, all that the search may store.
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
    transforms: Mapping[str, TransformSpec],
    *,
    slots: int,
    keep_best: int,
    step: Step = lambda text: None,
) -> Measured:
    """Times a search's work on this machine, and writes nothing.

    Args:
        plan: The search; its ``setup.device`` and threads are those of a trial.
        transforms: By backbone the evaluation transform at the search's image size.
        slots: Trials at a time.
        keep_best: Models that stay.
        step: Hears what is timed now.
    """
    setup = plan.setup
    threads = torch.get_num_threads()
    runtime = open_runtime(setup.device, setup.precision, setup.num_threads)
    base_bytes = psutil.Process().memory_info().rss + _RAY_BYTES
    try:
        backbones = {}
        for name, transform in transforms.items():
            step(f"timing {name}")
            configs = trial_configs(plan, name)
            backbones[name] = measure_backbone(
                configs,
                moving=_moving(plan.space, configs[max(configs)]),
                image_size=transform.crop_size,
                num_classes=len(index.classes),
                num_train=len(index.splits["train"]),
                runtime=runtime,
            )
        step("timing the images")
        largest = max(transforms.values(), key=lambda one: one.crop_size)
        images = _measure_images(index, largest, runtime)
        heaviest = max(backbones, key=lambda name: backbones[name].passed_s(MAX_DEPTH, 0))
        slower = slowdown(heaviest, image_size=transforms[heaviest].crop_size, slots=slots, runtime=runtime)
    finally:
        torch.set_num_threads(threads)
    costs = TrialCosts(
        images=images,
        backbones=backbones,
        sides={name: (one.crop_size, max(one.resize_size, one.crop_size)) for name, one in transforms.items()},
        setup=setup,
        room_bytes=_room_bytes(setup.cache),
        slowdown=slower,
        device_type=runtime.device.type,
    )
    return Measured(
        costs=costs,
        stored=stored_entries(setup.cache, index, costs),
        trial_bytes={
            name: base_bytes + _trial_bytes(one, trial_configs(plan, name)) for name, one in backbones.items()
        },
        image_bytes=_image_bytes(costs, plan.space),
        feature_bytes=_feature_bytes(costs, plan),
        checkpoint_bytes=_checkpoint_bytes(backbones, slots, keep_best) + _logits_bytes(plan, index),
    )


def trial_configs(plan: SearchPlan, backbone: str) -> dict[int, TrialConfig]:
    """One trial of a backbone at each depth that trains in the search, in the phases of gradual unfreezing too.

    Batch norm stands still in them where the space lets it.
    """
    found: dict[int, TrialConfig] = {}
    for config in _examples(plan, backbone):
        found.setdefault(config.unfreeze_depth, _still(plan.space, config))
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


def _policies(space: Space, *, moves: bool) -> list[str]:
    domain = space.dimensions["bn_policy"].domain
    return [one.name for one in BN_POLICIES.values() if one.moves == moves and domain.contains(one.name)]


def _still(space: Space, config: TrialConfig) -> TrialConfig:
    still = _policies(space, moves=False)
    known = config.bn_policy is not None and config.unfreeze_depth > 0 and bn_policy(config.bn_policy).moves
    return replace(config, bn_policy=still[0]) if known and still else config


def _moving(space: Space, config: TrialConfig) -> TrialConfig | None:
    moving = _policies(space, moves=True)
    known = config.bn_policy is not None and config.unfreeze_depth > 0 and not bn_policy(config.bn_policy).moves
    return replace(config, bn_policy=moving[0]) if known and moving else None


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
    wide = torch.zeros(_NUM_PREPARED, 3, side, side, dtype=torch.uint8, device=runtime.device)
    wide = wide.contiguous(memory_format=torch.channels_last)
    narrow = wide[..., : transform.crop_size, : transform.crop_size].contiguous(memory_format=torch.channels_last)
    prepare_s = {"none": watch.seconds(lambda: normalise(narrow, transform)) / _NUM_PREPARED}
    for kind in ("light", "strong"):

        def prepare(kind: str = kind) -> None:
            normalise(augment(wide, kind, transform.crop_size, rng, mean=transform.mean), transform)

        prepare_s[kind] = watch.seconds(prepare) / _NUM_PREPARED
    return Images(num_train=len(train), num_val=len(index.splits["val"]), decode_s=decode_s, prepare_s=prepare_s)


def stored_entries(cache: CacheSpec, index: ImageIndex, costs: TrialCosts) -> Node:
    """What the node's caches hold of these images and backbones; nothing is opened but the entries' descriptions."""
    root = cache_directory(cache, write=False)
    node = Node()
    for store, read in (("images", _image_key), ("features", _feature_key), ("solutions", _solution_key)):
        for entry in entries(root / store) if (root / store).is_dir() else ():
            with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # damaged, or earlier
                key = read(entry.key(), index.digest, costs)
                if key is not None:
                    node.stored[key] = 0.0
    return node


def _image_key(key: Mapping[str, Any], digest: str, costs: TrialCosts) -> tuple[object, ...] | None:
    return ("images", key["split"], key["side"]) if key["digest"] == digest else None


def _feature_key(key: Mapping[str, Any], digest: str, costs: TrialCosts) -> tuple[object, ...] | None:
    """Entries of recalibrated statistics look like others and count as those of pretrained ones."""
    name = key["backbone"]
    known = key["data_digest"] == digest and name in costs.sides
    if not known or key["transform"]["crop_size"] != costs.sides[name][0]:
        return None
    if key["precision"] != costs.setup.cache.feature_precision:
        return None
    view = (key["augmentation"], key["view"]) if key["view"] else None
    return "features", name, False, key["depth"], key["split"], view


def _solution_key(key: Mapping[str, Any], digest: str, costs: TrialCosts) -> tuple[object, ...] | None:
    found = _feature_key({**key["of"], "precision": costs.setup.cache.feature_precision}, digest, costs)
    if found is None:
        return None
    name = key["of"]["backbone"]
    return ("probe", name, False) if key["kind"] == "linear_probe" else ("statistics", name)


def _room_bytes(cache: CacheSpec) -> float:
    if cache.features_gb is not None:
        return cache.features_gb * 1e9
    folder = cache_directory(cache, write=False)
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return _FEATURES_FRACTION * shutil.disk_usage(Path(there)).free


def _trial_bytes(times: BackboneTimes, configs: Mapping[int, TrialConfig]) -> int:
    """Weights, twice (the process holds them for the next trial), gradients, moments, one batch's activations."""
    return 2 * times.state_bytes + max(
        _STATES * times.trained_bytes[depth] + config.batch_size * times.activation_bytes[depth]
        for depth, config in configs.items()
    )


def _image_bytes(costs: TrialCosts, space: Space) -> int:
    augmented = any(space.dimensions["augmentation"].domain.contains(one) for one in ("light", "strong"))
    sides = {("train", pair[margin]) for pair in costs.sides.values() for margin in (False, True)[: 1 + augmented]}
    sides |= {("val", pair[0]) for pair in costs.sides.values()}
    return sum(costs.images.count(split) * side * side * 3 for split, side in sides)


def _feature_bytes(costs: TrialCosts, plan: SearchPlan) -> int:
    """All entries of all boundaries that trials may read, without those of fixed views beyond the first."""
    total = 0
    for name in costs.backbones:
        for depth, config in trial_configs(plan, name).items():
            plain = replace(config, augmentation="none", mixup=0.0, cutmix=0.0)
            total += sum(
                costs.entry_bytes(name, depth, split)
                for split in ("train", "val")
                if depth < MAX_DEPTH and costs.cached(plain, split, depth)
            )
    return total


def _checkpoint_bytes(backbones: Mapping[str, BackboneTimes], slots: int, keep_best: int) -> int:
    """What trials share; kept models, without that and, in MLflow, whole; checkpoints of the trials that run."""
    shared = sum(one.state_bytes - min(one.trained_bytes.values()) for one in backbones.values())
    state = max(one.state_bytes for one in backbones.values())
    trained = max(max(one.trained_bytes.values()) for one in backbones.values())
    return shared + keep_best * (trained + state) + slots * (1 + _STATES) * trained


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
