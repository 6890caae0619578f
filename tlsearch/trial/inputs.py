"""Where a trial's epochs read from: cached features where they are valid and pay, else pixels.

Work before the first epoch may take minutes; its progress is in a small file of the trial's folder.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tlsearch.core.errors import is_out_of_memory
from tlsearch.core.types import TransformSpec, TrialConfig, TrialSetup
from tlsearch.data import Drawn, ImageIndex, apply_drawn, augment, draw_view, normalise, open_pixels
from tlsearch.features import (
    PASS_BATCH_SIZE,
    Boundary,
    FeatureKey,
    Features,
    NotStored,
    find_features,
    library_versions,
    measure_boundary,
    open_features,
    view_of,
    why_not,
    why_not_worth,
)
from tlsearch.model import MAX_DEPTH, PART_NAMES, StagedModel
from tlsearch.train import Runtime, Source, load_batch
from tlsearch.trial.frozen_check import FrozenGuard

_boundaries: dict[tuple[str, int, int, str], Boundary] = {}  # by backbone, depth, image size, device type


DOING_FILE = "doing.json"
_INTERVAL_S = 1.0


class Doing:
    """Keeps a small file in the trial's folder up to date, at most once in a second; it is there while work is done.

    Args:
        directory: The trial's folder; None tells nobody.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._last = time.monotonic()  # short work is not worth a file
        self._told = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` images of some work, such as ``packing train images``."""
        now = time.monotonic()
        if self._directory is None or now - self._last < _INTERVAL_S:
            return
        self._last, self._told = now, True
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._directory / f"{DOING_FILE}.tmp"
        temporary.write_text(json.dumps({"what": what, "done": done, "total": total}), encoding="utf-8")
        os.replace(temporary, self._directory / DOING_FILE)

    def over(self) -> None:
        """Takes the file away."""
        if self._directory is not None and self._told:
            (self._directory / DOING_FILE).unlink(missing_ok=True)
            self._told = False


@dataclass(frozen=True, kw_only=True)
class SourceInputs:
    """All that the sources of one trial depend on.

    Attributes:
        depth: The unfreeze depth by now: where stored features begin.
        guard: Of what is frozen by now.
        epoch: That reads, from 1: it decides which fixed view of the training images, where there are such.
        doing: Hears of work that takes long.
    """

    config: TrialConfig
    setup: TrialSetup
    index: ImageIndex
    transform: TransformSpec
    weights_digest: str
    runtime: Runtime
    depth: int
    guard: FrozenGuard
    epoch: int = 1
    doing: Doing = field(default_factory=Doing)

    def view(self, split: str) -> int | None:
        """The fixed view that the epoch reads, from 1; None where the split has none."""
        if split != "train":
            return None
        return view_of(self.config, self.setup, epoch=self.epoch, depth=self.depth)

    def view_text(self, split: str) -> str:
        """The view in words; empty where the split has none."""
        view, num_views = self.view(split), self.setup.cache.views
        return "" if view is None else f"view {view} of {num_views} of augmentation {self.config.augmentation}"


def open_source(model: StagedModel, inputs: SourceInputs, split: str) -> Source:
    """Opens ``train`` or ``val`` for the epochs of a trial; with fixed views for those that read the same one.

    Args:
        model: Frozen to the depth, on its device; computes features that are not stored yet.

    Raises:
        DataError: Images cannot be read.
    """
    reason = why_not(inputs.config, inputs.setup, split, depth=inputs.depth)
    if reason is not None:
        return _pixels(inputs, split, reason)
    labels = _labels(inputs, split)
    stored = _stored(model, inputs, split, len(labels))
    if isinstance(stored, NotStored):
        return _pixels(inputs, split, stored.reason)
    how = "computed by this trial" if stored.built else "shared"
    reason = f"frozen below depth {inputs.depth}: {', '.join(filter(None, (inputs.view_text(split), how)))}"
    return Source(kind="features", reason=reason, rows=stored.rows, labels=labels)


def _stored(model: StagedModel, inputs: SourceInputs, split: str, num_rows: int) -> Features | NotStored:
    """The entry, computed where it pays and no one has yet."""
    key, cache = _key(inputs, split), inputs.setup.cache
    found = find_features(key, num_rows=num_rows, cache=cache)
    if found is not None:
        return found
    reason = _not_worth(model, inputs)
    if reason is not None:
        return NotStored(reason=reason)
    try:
        compute = partial(_pass_from_nearest, model, inputs, split, num_rows)
        num_alike = 1 if inputs.view(split) is None else min(cache.views, inputs.setup.max_epochs)
        return open_features(key, num_rows=num_rows, compute=compute, cache=cache, num_alike=num_alike)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return NotStored(reason=f"out of memory in a pass of {PASS_BATCH_SIZE} images")


def _pass_from_nearest(model: StagedModel, inputs: SourceInputs, split: str, num_rows: int) -> Iterator[Tensor]:
    """A pass that begins at the nearest boundary before this one that the search needs too, stored first.

    So no part of the prefix ever sees an image twice on a node, whichever depth comes first. Each boundary is
    opened while those behind it are locked, never the other way round: two processes cannot wait for each other.
    """
    if inputs.setup.cache.feature_precision == "full":  # rounding twice would not give what one pass gives
        for depth in sorted(depth for depth in inputs.setup.depths if inputs.depth < depth < MAX_DEPTH):
            stored = _stored(model, replace(inputs, depth=depth), split, num_rows)
            if isinstance(stored, Features):
                labels = _labels(inputs, split)
                return _pass(model, inputs, Source(kind="features", reason="", rows=stored.rows, labels=labels), depth)
    return prefix_pass(model, inputs, split)


def plain_pixels(inputs: SourceInputs, split: str) -> Source:
    """The images of a split as an evaluation sees them, the training images too."""
    return _pixels(inputs, split, "", augmented=False)


def _pixels(inputs: SourceInputs, split: str, reason: str, *, augmented: bool = True) -> Source:
    augmentation = inputs.config.augmentation if split == "train" and augmented else "none"
    pixels = open_pixels(
        inputs.index,
        split,
        inputs.transform,
        inputs.setup.cache,
        margin=augmentation != "none",
        progress=partial(inputs.doing, f"packing {split} images"),
    )
    drawn, view = None, inputs.view(split) if augmented else None
    if view is not None:
        reason = "; ".join(filter(None, (reason, inputs.view_text(split))))
        side, digest = pixels.images.shape[-1], inputs.index.digest
        drawn = draw_view(augmentation, view, data_digest=digest, num_images=len(pixels.labels), side=side)
    prepare = partial(_prepare, augmentation, inputs.transform)
    return Source(kind="pixels", reason=reason, rows=pixels.images, labels=pixels.labels, prepare=prepare, drawn=drawn)


def _prepare(
    augmentation: str, transform: TransformSpec, images: Tensor, chance: torch.Generator | Drawn | None
) -> Tensor:
    if isinstance(chance, Drawn):
        images = apply_drawn(images, chance, transform.crop_size, mean=transform.mean)
    elif augmentation != "none":
        assert chance is not None, "augmentation needs the epoch's generator"
        images = augment(images, augmentation, transform.crop_size, chance, mean=transform.mean)
    return normalise(images, transform)


def _not_worth(model: StagedModel, inputs: SourceInputs) -> str | None:
    depth = inputs.depth
    if depth == 0:
        return None  # pooled features are always the smaller side
    key = (inputs.config.backbone, depth, inputs.transform.crop_size, inputs.runtime.device.type)
    if key not in _boundaries:
        _boundaries[key] = measure_boundary(model, depth, inputs.transform.crop_size)
    return why_not_worth(_boundaries[key], inputs.runtime.device.type)


def _key(inputs: SourceInputs, split: str) -> FeatureKey:
    prefix = PART_NAMES[: len(PART_NAMES) - 1 - inputs.depth]
    key = key_of(inputs, split, depth=inputs.depth, state_digest=inputs.guard.of_parts(prefix))
    view = inputs.view(split)
    return key if view is None else replace(key, augmentation=inputs.config.augmentation, view=view)


def key_of(inputs: SourceInputs, split: str, *, depth: int, state_digest: str) -> FeatureKey:
    """The key of what a prefix, whose tensors have this digest, makes of a split's images without augmentation."""
    runtime = inputs.runtime
    return FeatureKey(
        backbone=inputs.config.backbone,
        weights_digest=inputs.weights_digest,
        state_digest=state_digest,
        depth=depth,
        transform=inputs.transform,
        data_digest=inputs.index.digest,
        split=split,
        compute=f"{runtime.device.type}/{runtime.precision}" + ("/folded" if runtime.folds_batchnorm else ""),
        precision=inputs.setup.cache.feature_precision,
        libraries=library_versions(inputs.config.backbone),
    )


def prefix_pass(model: StagedModel, inputs: SourceInputs, split: str) -> Iterator[Tensor]:
    """Activations of all images of a split, or of the epoch's view of them, in order.

    They are those that a direct evaluation would compute.
    """
    source = _pixels(inputs, split, "", augmented=inputs.view(split) is not None)
    return _pass(model, inputs, source, MAX_DEPTH)


def _pass(model: StagedModel, inputs: SourceInputs, source: Source, behind: int) -> Iterator[Tensor]:
    model.eval()
    for start in range(0, len(source), PASS_BATCH_SIZE):
        inputs.doing("storing features", start, len(source))
        with torch.inference_mode(), inputs.runtime.autocast():
            rows, _ = load_batch(source, slice(start, start + PASS_BATCH_SIZE), inputs.runtime)
            activations = model.forward_prefix(rows, inputs.depth, behind=behind)
        yield activations.float().cpu()


def _labels(inputs: SourceInputs, split: str) -> Tensor:
    return torch.tensor(inputs.index.splits[split].labels, dtype=torch.int64)
